use std::time::Duration;

use embark_crds::contract::{
    CategoricalInput, Endpoint, ImageUrls, Location, TensorDtype, TensorInput,
};

use super::*;
use crate::model::test_support::{TINY_TOKENIZER, builtin, images, text, tiny};

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
fn images_and_their_urls_are_supported() {
    let mut image = images(1, 1);
    let of = |image| after(|contract| contract.serving.input = Input::Image(image));
    assert_eq!(of(image.clone()), [""; 0]);
    let (allowed_hosts, allowed_cidrs) = (vec!["example.com".to_owned()], vec![]);
    image.urls = Some(ImageUrls { allowed_hosts, allowed_cidrs, timeout: Duration::from_secs(2) });
    assert_eq!(of(image), [""; 0]);
}

#[test]
fn categories_and_tensors_of_every_type_are_supported() {
    let vocabulary = builtin("tokenizer.json", TINY_TOKENIZER);
    let input = Input::Categorical(CategoricalInput { vocabulary });
    assert_eq!(after(|contract| contract.serving.input = input), [""; 0]);
    for dtype in [
        TensorDtype::Float32,
        TensorDtype::Float64,
        TensorDtype::Int32,
        TensorDtype::Int64,
        TensorDtype::Uint8,
        TensorDtype::Int8,
        TensorDtype::Bool,
    ] {
        let input = Input::Tensor(TensorInput { shape: vec![13], dtype });
        assert_eq!(after(|contract| contract.serving.input = input), [""; 0], "{dtype:?}");
    }
}

#[test]
fn long_texts_may_be_refused_or_read_in_windows() {
    for overlong in [Overlong::Reject, Overlong::Chunk] {
        let refused = after(|contract| text(&mut contract.serving).overlong = overlong);
        assert_eq!(refused, [""; 0]);
    }
}

#[test]
fn a_queue_that_has_no_room_for_the_windows_of_a_text_is_refused() {
    let sentences = |max_tokens, (max_items, max_cost)| {
        let mut contract = tiny();
        let input = text(&mut contract.serving);
        (input.overlong, input.max_tokens) = (Overlong::Chunk, max_tokens);
        contract.serving.batching.queue_max_items = max_items;
        contract.serving.batching.queue_max_tokens = max_cost;
        unsupported(&contract, Offered::ALL).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // A row of 256 tokens costs 384.
    assert_eq!(sentences(256, (128, 49_152)), [""; 0]);
    let needs = "with overlong: Chunk a text has up to 64 rows of 256 tokens, for which at least";
    assert_eq!(
        sentences(256, (127, 49_151)),
        [
            format!("spec.batching.queue.maxItems: 127; {needs} 128 is needed"),
            format!("spec.batching.queue.maxTokens: 49151; {needs} 49152 is needed"),
        ]
    );
}

#[test]
fn what_is_said_to_be_built_in_and_is_not_is_refused_of_every_artifact() {
    let mut contract = tiny();
    let vocabulary = builtin("vocabulary.txt", TINY_TOKENIZER);
    contract.serving.input = Input::Categorical(CategoricalInput { vocabulary });
    let missing = missing_builtins(&contract);
    let fields: Vec<&str> = missing.iter().map(|refusal| refusal.field.as_str()).collect();
    assert_eq!(fields, ["spec.input.categorical.vocabulary.uri"]);
}

#[test]
fn every_part_of_the_cache_policy_is_supported() {
    let second = Duration::from_secs(1);
    assert_eq!(after(|c| c.policy.negative_ttl = second), [""; 0]);
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
