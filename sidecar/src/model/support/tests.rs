use embark_crds::contract::{
    CategoricalInput, Channels, Endpoint, ImageDtype, ImageInput, Layout, Resize, SelfTest,
    SelfTestExpected, SelfTestInput, TensorDtype, TensorInput,
};

use super::*;
use crate::model::test_support::{TINY_TOKENIZER, builtin, text, tiny};

fn fields(contract: &Contract) -> Vec<String> {
    unsupported(contract, Offered::ALL).into_iter().map(|refusal| refusal.field).collect()
}

/// The fields refused after one change of the defaults.
fn after(change: impl FnOnce(&mut Contract)) -> Vec<String> {
    let mut contract = tiny();
    change(&mut contract);
    fields(&contract)
}

#[test]
fn defaults_are_supported() {
    assert_eq!(unsupported(&tiny(), Offered::ALL), []);
}

#[test]
fn other_inputs_are_refused_by_name() {
    let image = ImageInput {
        width: 1,
        height: 1,
        resize: Resize::Stretch,
        layout: Layout::Nhwc,
        channels: Channels::Rgb,
        dtype: ImageDtype::Uint8,
        mean: vec![],
        std: vec![],
        size_limit: 1,
        max_pixels: 1,
        urls: None,
    };
    let vocabulary = builtin("tokenizer.json", TINY_TOKENIZER);
    let inputs = [
        (Input::Image(image), "spec.input.image"),
        (Input::Categorical(CategoricalInput { vocabulary }), "spec.input.categorical"),
    ];
    for (input, field) in inputs {
        assert_eq!(after(|contract| contract.serving.input = input), [field]);
    }
}

#[test]
fn a_tensor_of_floats_is_supported_and_others_are_refused_by_name() {
    let refused = |dtype| {
        let mut contract = tiny();
        contract.serving.input = Input::Tensor(TensorInput { shape: vec![13], dtype });
        unsupported(&contract, Offered::ALL).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(refused(TensorDtype::Float32), [""; 0]);
    let others = [
        (TensorDtype::Float64, "Float64"),
        (TensorDtype::Int32, "Int32"),
        (TensorDtype::Int64, "Int64"),
        (TensorDtype::Uint8, "Uint8"),
        (TensorDtype::Int8, "Int8"),
        (TensorDtype::Bool, "Bool"),
    ];
    for (dtype, name) in others {
        let supported = "is not supported yet; supported: Float32";
        assert_eq!(refused(dtype), [format!("spec.input.tensor.dtype: {name} {supported}")]);
    }
}

#[test]
fn what_is_done_with_long_texts_is_refused_by_name() {
    for overlong in [Overlong::Reject, Overlong::Chunk] {
        let refused = after(|contract| text(&mut contract.serving).overlong = overlong);
        assert_eq!(refused, ["spec.input.text.overlong"]);
    }
}

#[test]
fn later_parts_of_the_cache_policy_are_refused_by_name() {
    let second = Duration::from_secs(1);
    assert_eq!(after(|c| c.policy.negative_ttl = second), ["spec.cache.negativeTTL"]);
}

#[test]
fn every_source_is_taken_with_credentials_and_certificates() {
    let (a, b, c) = ("a".to_owned(), "b".to_owned(), "c".to_owned());
    for location in [
        Location::Http { url: "https://models.example/model.onnx".to_owned() },
        Location::ObjectStore { url: "s3://bucket/model.onnx".to_owned() },
        Location::Oci { reference: a.clone(), title: b.clone() },
        Location::Hf { repository: a.clone(), revision: b.clone(), file: c },
        Location::Pvc { claim: a, path: b },
    ] {
        let refused = after(|contract| {
            contract.serving.model.location = location;
            contract.serving.model.has_secret = true;
            contract.serving.model.has_ca_bundle = true;
        });
        assert_eq!(refused, [""; 0]);
    }
}

#[test]
fn every_refusal_comes_at_once() {
    let mut contract = tiny();
    let input = || SelfTestInput::Text("a".to_owned());
    let expected = SelfTestExpected::SimilarTo(input());
    contract.serving.self_test = vec![SelfTest { input: input(), expected, min_cosine: 0.8 }];
    contract.policy.negative_ttl = Duration::from_secs(1);
    assert_eq!(fields(&contract), ["spec.selfTest", "spec.cache.negativeTTL"]);
    let sentences: Vec<String> =
        unsupported(&contract, Offered::ALL).iter().map(ToString::to_string).collect();
    assert_eq!(sentences[1], "spec.cache.negativeTTL: is not supported yet; supported: 0s");
}

#[test]
fn what_lets_callers_in_is_asked_for_by_the_model_and_offered_by_the_process() {
    let mut contract = tiny();
    contract.serving.endpoint = Some(Endpoint { tls: true, client_ca: true, token: true });
    assert_eq!(unsupported(&contract, Offered::ALL), []);
    let nothing = Offered { tls: false, client_ca: false, token: false };
    let sentences: Vec<String> =
        unsupported(&contract, nothing).iter().map(ToString::to_string).collect();
    let lacks = "is asked for, and the server has none; give it";
    assert_eq!(
        sentences,
        [
            format!("spec.endpoint.tls: {lacks} --tls-cert and --tls-key"),
            format!("spec.endpoint.tls.clientCARef: {lacks} --tls-client-ca"),
            format!("spec.endpoint.tokenSecretRef: {lacks} --token-file"),
        ]
    );
    contract.serving.endpoint = None;
    assert_eq!(unsupported(&contract, nothing), []);
}
