//! The rules of inputs and self-tests.

use std::net::IpAddr;

use serde_json::Value;

use super::{Rule, above_zero, at_most, exactly_one, get, has, int, list, size, state, text};
use crate::contract;

/// The most elements of one tensor.
const MAX_ELEMENTS: f64 = 4_194_304.0;

pub(super) fn rules() -> Vec<Rule> {
    one_kind()
        .into_iter()
        .chain(text_rules())
        .chain(image_rules())
        .chain(tensor_rules())
        .chain(self_test_rules())
        .collect()
}

fn one_kind() -> [Rule; 1] {
    [state(
        ("spec.input", ""),
        "[has(self.text), has(self.image), has(self.tensor), has(self.categorical)].filter(x, x).size() == 1",
        "exactly one of text, image, tensor and categorical must be set",
        |input| exactly_one(input, &["text", "image", "tensor", "categorical"]),
    )]
}

fn text_rules() -> [Rule; 3] {
    [
        state(
            ("spec.input.text", "defaultPrompt"),
            "!has(self.defaultPrompt) || (has(self.prompts) && self.prompts.exists(p, p.name == self.defaultPrompt))",
            "must be the name of one of prompts",
            |input| {
                let name = text(input, "defaultPrompt")?;
                Some(list(input, "prompts").iter().any(|prompt| prompt["name"] == name))
            },
        ),
        size("spec.input.text.sizeLimit", "1", "16Mi"),
        state(
            ("spec", "batching.maxTokens"),
            "!has(self.input.text) || self.input.text.maxTokens + self.input.text.maxTokens * self.input.text.maxTokens / 512 <= self.batching.maxTokens",
            "must be at least the cost of one row of input.text.maxTokens tokens, which is maxTokens + maxTokens * maxTokens / 512",
            |spec| {
                let longest = u64::try_from(int(spec, "input.text.maxTokens")?).ok()?;
                let most = u64::try_from(int(spec, "batching.maxTokens")?).ok()?;
                // Anything longer is refused by the schema, and its square would not fit.
                (longest <= 1 << 20).then(|| contract::cost(1, longest) <= most)
            },
        ),
    ]
}

fn image_rules() -> Vec<Rule> {
    const COUNT: &str = "must hold 0, 1 or 3 numbers";
    let count = |at| {
        state((at, ""), "size(self) in [0, 1, 3]", COUNT, |numbers| {
            Some([0, 1, 3].contains(&numbers.as_array()?.len()))
        })
    };
    vec![
        count("spec.input.image.mean"),
        count("spec.input.image.std"),
        state(
            ("spec.input.image.std", ""),
            "self.all(x, x > 0.0)",
            "must hold numbers above 0",
            |numbers| Some(numbers.as_array()?.iter().all(|n| n.as_f64().is_none_or(|n| n > 0.0))),
        ),
        state(
            ("spec.input.image", ""),
            "self.dtype == 'Float32' || (size(self.mean) == 0 && size(self.std) == 0)",
            "mean and std go with dtype Float32 only",
            |image| {
                let unused = list(image, "mean").is_empty() && list(image, "std").is_empty();
                Some(text(image, "dtype")? == "Float32" || unused)
            },
        ),
        size("spec.input.image.sizeLimit", "1", "256Mi"),
        above_zero("spec.input.image.urls.timeout"),
        at_most("spec.input.image.urls.timeout", "60s"),
        state(
            ("spec.input.image.urls.allowedCIDRs[]", ""),
            "isCIDR(self)",
            "must be a range of addresses such as 10.0.0.0/8",
            |range| Some(is_cidr(range.as_str()?)),
        ),
    ]
}

fn tensor_rules() -> [Rule; 1] {
    let factors = (0..6)
        .map(|i| format!("(size(self) > {i} ? double(self[{i}]) : 1.0)"))
        .collect::<Vec<_>>()
        .join(" * ");
    [state(
        ("spec.input.tensor.shape", ""),
        format!("{factors} <= {MAX_ELEMENTS:.1}"),
        format!("must have at most {MAX_ELEMENTS} elements in all"),
        |shape| {
            let lengths = shape.as_array()?.iter().map(|n| n.as_f64().unwrap_or(1.0));
            Some(lengths.product::<f64>() <= MAX_ELEMENTS)
        },
    )]
}

fn self_test_rules() -> [Rule; 6] {
    const ONE: &str = "exactly one of text, category and tensor must be set";
    const ONE_CEL: &str =
        "[has(self.text), has(self.category), has(self.tensor)].filter(x, x).size() == 1";
    const KIND: &str = "each must be of the kind that spec.input takes: text, category or tensor";
    let one = |at| {
        state((at, ""), ONE_CEL, ONE, |input| exactly_one(input, &["text", "category", "tensor"]))
    };
    let kind = |field: &'static str| {
        let path = format!("t.{field}");
        let cel = format!(
            "!has(self.selfTest) || self.selfTest.all(t, !has({path}) || ((!has({path}.text) || has(self.input.text)) && (!has({path}.category) || has(self.input.categorical)) && (!has({path}.tensor) || has(self.input.tensor))))"
        );
        state(("spec", "selfTest"), cel, format!("{field}: {KIND}"), move |spec| {
            let tests = list(spec, "selfTest").iter().filter_map(|test| get(test, field));
            Some(tests.into_iter().all(|input| fits(spec, input)))
        })
    };
    [
        one("spec.selfTest[].input"),
        one("spec.selfTest[].similarTo"),
        state(
            ("spec.selfTest[]", ""),
            "has(self.vector) != has(self.similarTo)",
            "exactly one of vector and similarTo must be set",
            |test| exactly_one(test, &["vector", "similarTo"]),
        ),
        state(
            ("spec", "selfTest"),
            "!has(self.selfTest) || self.selfTest.all(t, !has(t.vector) || size(t.vector) == self.model.output.dimensions)",
            "each vector must hold as many numbers as the model has dimensions",
            |spec| {
                let dimensions = usize::try_from(int(spec, "model.output.dimensions")?).ok()?;
                let tests = list(spec, "selfTest").iter().filter(|test| has(test, "vector"));
                Some(tests.into_iter().all(|test| list(test, "vector").len() == dimensions))
            },
        ),
        kind("input"),
        kind("similarTo"),
    ]
}

fn fits(spec: &Value, input: &Value) -> bool {
    [("text", "input.text"), ("category", "input.categorical"), ("tensor", "input.tensor")]
        .iter()
        .all(|(own, models)| !has(input, own) || has(spec, models))
}

/// As the API server's CEL library has it: a prefix length without leading zero, and no IPv4 address inside IPv6.
fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let (Ok(address), Ok(length)) = (address.parse::<IpAddr>(), bits.parse::<u8>()) else {
        return false;
    };
    let plain = bits == length.to_string();
    match address {
        IpAddr::V4(_) => plain && length <= 32,
        IpAddr::V6(v6) => plain && length <= 128 && v6.to_ipv4_mapped().is_none(),
    }
}
