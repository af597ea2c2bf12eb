//! The rules of artifacts: what a URI of each scheme looks like, and what goes with it.

use regex::Regex;

use super::{Rule, has, state, text};

/// Where artifacts stand.
const ARTIFACTS: &[&str] =
    &["spec.model.source", "spec.input.text.tokenizer", "spec.input.categorical.vocabulary"];

/// The schemes that are known.
const SCHEMES: &str = "^(builtin|https?|s3|gs|az|oci|hf|pvc|file)://";

/// What a URI must look like, by its scheme: (scheme, whole URI, words).
const SHAPES: &[(&str, &str, &str)] = &[
    (
        "^builtin://",
        r"^builtin://[a-z0-9][-._a-z0-9]*/[A-Za-z0-9][-._A-Za-z0-9]*$",
        "must be builtin://model/file",
    ),
    (
        "^https?://",
        r"^https?://([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/[!$-~]+$",
        "must be http://host/path or https://host/path, without user name, fragment or white space",
    ),
    (
        "^(s3|gs|az)://",
        r"^(s3|gs|az)://[a-z0-9]([-._a-z0-9]*[a-z0-9])?/[!$->@-~]+$",
        "must be s3://bucket/key, gs://bucket/key or az://container/key, without query, fragment or white space",
    ),
    (
        "^oci://",
        r"^oci://[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([-._]+[a-z0-9]+)*)+@sha256:[0-9a-f]{64}$",
        "must be oci://registry/repository@sha256:digest; a tag alone is not enough, since it can move",
    ),
    (
        "^hf://",
        "^hf://[A-Za-z0-9][-._A-Za-z0-9]*/[A-Za-z0-9][-._A-Za-z0-9]*@[0-9a-f]{40}/[A-Za-z0-9][-._/A-Za-z0-9]*$",
        "must be hf://organisation/repository@commit/file, where commit is 40 hex digits; a branch is not enough, since it moves",
    ),
    ("^pvc://", "^pvc://[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[ -~]+$", "must be pvc://claim/path"),
    ("^file://", r"^file://[^\x00-\x1f\x7f]+$", "must be file://path"),
];

pub(super) fn rules() -> Vec<Rule> {
    ARTIFACTS
        .iter()
        .flat_map(|at| uri_rules(&format!("{at}.uri")).into_iter().chain(companions(at)))
        .collect()
}

fn uri_rules(at: &str) -> Vec<Rule> {
    let scheme = pattern(SCHEMES);
    let known = state(
        (at, ""),
        format!("self.matches(r'{SCHEMES}')"),
        "must begin with builtin://, http://, https://, s3://, gs://, az://, oci://, hf://, pvc:// or file://",
        move |node| Some(scheme.is_match(node.as_str()?)),
    );
    let parent = pattern(r"/\.\.(/|$)");
    let inside = state(
        (at, ""),
        r"self.startsWith('file://') || !self.matches(r'/\.\.(/|$)')",
        "must not hold .. as a part of its path",
        move |node| {
            let uri = node.as_str()?;
            Some(uri.starts_with("file://") || !parent.is_match(uri))
        },
    );
    let shapes = SHAPES.iter().map(|(scheme, whole, words)| {
        let cel = format!("!self.matches(r'{scheme}') || self.matches(r'{whole}')");
        let (scheme, whole) = (pattern(scheme), pattern(whole));
        state((at, ""), cel, *words, move |node| {
            let uri = node.as_str()?;
            Some(!scheme.is_match(uri) || whole.is_match(uri))
        })
    });
    [known, inside].into_iter().chain(shapes).collect()
}

fn companions(at: &str) -> [Rule; 4] {
    let remote = |field: &'static str, message: &'static str| {
        const LOCAL: &str = "^(builtin|pvc|file)://";
        let local = pattern(LOCAL);
        let cel = format!("!has(self.{field}) || !self.uri.matches(r'{LOCAL}')");
        state((at, field), cel, message, move |node| {
            Some(!has(node, field) || !local.is_match(text(node, "uri")?))
        })
    };
    [
        state(
            (at, "path"),
            "!self.uri.startsWith('oci://') || has(self.path)",
            "is needed with oci://: the title of the layer that holds the file",
            |node| Some(!text(node, "uri")?.starts_with("oci://") || has(node, "path")),
        ),
        state(
            (at, "path"),
            "!has(self.path) || self.uri.startsWith('oci://')",
            "goes with oci:// only",
            |node| Some(!has(node, "path") || text(node, "uri")?.starts_with("oci://")),
        ),
        remote("secretRef", "does not go with builtin://, pvc:// or file://"),
        remote("caBundleRef", "does not go with builtin://, pvc:// or file://"),
    ]
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a test compiles every pattern")
}
