use proptest::prelude::*;

use super::*;

const GOOD: &str = r#"
apiVersion: embark.dev/v1alpha1
kind: EmbeddingModel
metadata:
  name: tiny
  namespace: search
  labels: {team: search}
  annotations: {note: "a: b"}
spec:
  model:
    source: {uri: "builtin://tiny/model.onnx", sha256: "0000000000000000000000000000000000000000000000000000000000000000"}
    output: {dimensions: 4}
  input:
    text:
      tokenizer: {uri: "builtin://tiny/tokenizer.json", sha256: "0000000000000000000000000000000000000000000000000000000000000000"}
  cache: {epoch: 0}
"#;

fn told(text: &str) -> Vec<String> {
    read(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_manifest_is_read() {
    let manifests = read(GOOD).unwrap();
    assert_eq!(manifests.len(), 1);
    let metadata = &manifests[0].metadata;
    assert_eq!((metadata.name.as_str(), metadata.namespace.as_deref()), ("tiny", Some("search")));
    assert_eq!(metadata.labels["team"], "search");
    assert_eq!(metadata.annotations["note"], "a: b");
}

#[test]
fn json_is_read_as_well() {
    let value: Value = serde_saphyr::from_str(GOOD).unwrap();
    assert_eq!(read(&value.to_string()).unwrap(), read(GOOD).unwrap());
    assert_eq!(read(&format!("{value:#}")).unwrap(), read(GOOD).unwrap());
}

#[test]
fn several_documents_are_read_and_empty_ones_passed_over() {
    let text = format!("---\n---\n{GOOD}---\n# nothing\n---\n{GOOD}");
    assert_eq!(read(&text).unwrap().len(), 2);
    assert_eq!(read("").unwrap(), []);
    assert_eq!(read("# nothing\n---\n").unwrap(), []);
}

#[test]
fn what_the_api_server_adds_is_accepted() {
    let text = GOOD
        .replace("  name: tiny", "  name: tiny\n  uid: a\n  generation: 3\n  managedFields: []")
        + "status: {anything: 1}\n";
    assert_eq!(read(&text).unwrap(), read(GOOD).unwrap());
}

#[test]
fn another_kind_is_refused_in_a_sentence_of_its_own() {
    assert_eq!(
        told("apiVersion: v1\nkind: Service\nmetadata: {name: x}\n"),
        [
            r#"apiVersion: "v1" must be embark.dev/v1alpha1"#,
            r#"kind: "Service" must be EmbeddingModel"#
        ]
    );
    assert_eq!(told("just text"), [r#""just text" must be an EmbeddingModel"#]);
    assert_eq!(
        told("kind: EmbeddingModel"),
        ["apiVersion: is required, and must be embark.dev/v1alpha1"]
    );
}

#[test]
fn an_error_of_one_of_several_documents_says_which() {
    let text = format!("{GOOD}---\n{}", GOOD.replace("dimensions", "dimension"));
    assert_eq!(
        told(&text),
        [
            "document 2: spec.model.output.dimensions: is required",
            "document 2: spec.model.output.dimension: is not a known field; did you mean dimensions?"
        ]
    );
}

#[test]
fn a_file_that_is_not_yaml_is_told_with_its_line() {
    let error = &read("apiVersion: embark.dev/v1alpha1\nkind: [\n").unwrap_err()[0];
    assert!(error.line.is_some_and(|line| line >= 2), "{error:?}");
    assert!(error.to_string().contains("is not YAML that can be read"), "{error}");
}

#[test]
fn a_repeated_field_is_refused() {
    let text = GOOD.replace("cache: {epoch: 0}", "cache: {epoch: 0, epoch: 1}");
    assert!(told(&text)[0].contains("epoch"), "{:?}", told(&text));
}

#[test]
fn a_name_is_required_and_metadata_is_checked() {
    assert_eq!(told(&GOOD.replace("  name: tiny\n", "")), ["metadata.name: is required"]);
    assert_eq!(
        told(&GOOD.replace("  name: tiny\n", "  name: 5\n  label: {}\n")),
        [
            "metadata.label: is not a known field; did you mean labels?",
            "metadata.name: 5 must be text (put it in quotes)",
        ]
    );
}

#[test]
fn errors_of_structure_and_of_rules_are_told_together() {
    let text = GOOD
        .replace("dimensions: 4", "dimensions: 4, truncateDimensions: 5")
        .replace("name: tiny", "name: Tiny")
        .replace("epoch: 0", "epoch: x");
    let told = told(&text);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().any(|error| error.starts_with("spec.cache.epoch:")));
    assert!(told.iter().any(|error| error.starts_with("spec.model.output.truncateDimensions:")));
    assert!(told.iter().any(|error| error.starts_with("metadata.name:")));
}

#[test]
fn numbers_that_are_equal_make_equal_manifests() {
    let image = |mean: &str| {
        let text = GOOD.split("  input:").next().unwrap().to_owned();
        let input =
            format!("  input: {{image: {{width: 1, height: 1, dtype: Float32, mean: {mean}}}}}\n");
        read(&(text + &input)).unwrap()
    };
    assert_eq!(image("[1, 0, -1]"), image("[1.0, -0.0, -1e0]"));
    assert_eq!(
        read(&GOOD.replace("epoch: 0", "epoch: 2.0")).unwrap(),
        read(&GOOD.replace("epoch: 0", "epoch: 2")).unwrap()
    );
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    for number in [".nan", ".inf", "-.inf", "1e999"] {
        let text = GOOD.replace(
            "epoch: 0",
            &format!("defaultVector: {{type: Values, values: [{number}, 0, 0, 0]}}"),
        );
        assert!(read(&text).is_err(), "{number}");
    }
}

#[test]
fn a_file_that_is_too_large_is_not_parsed() {
    let text = format!("#{}\n{GOOD}", "x".repeat(MAX_BYTES));
    assert!(told(&text)[0].contains("at most 1048576 are read"));
}

#[test]
fn a_bomb_of_aliases_ends_early() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", "));
    }
    assert!(told(&text)[0].contains("is not YAML that can be read"));
}

#[test]
fn a_document_that_nests_too_deep_is_refused() {
    for depth in [100, 100_000] {
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&text).is_err());
        let text = "a:\n ".repeat(depth.min(1000));
        assert!(read(&text).is_err());
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn no_yaml_makes_it_panic(text in "([-:?\\[\\]{}&*!|>'\"%@`#, \n\ta-c0-9.~<]|--- |- |: |<<: |&a |\\*a ){0,80}") {
        let _ = read(&text);
    }

    #[test]
    fn no_damaged_manifest_makes_it_panic(
        at in 0_usize..GOOD.len(),
        length in 0_usize..40,
        with in "[-:\\[\\]{}&*!|>'\" \n\ta-c0-9.]{0,12}",
    ) {
        let mut bytes = GOOD.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, with.bytes());
        let _ = read(&String::from_utf8_lossy(&bytes));
    }
}
