//! Models and vocabularies that must not be served, a row each: the one sentence with which the server ends names the field
//! and what is wrong, and the process has not grown by what a file claims to hold.

use std::{fs, path::Path};

use embark_sidecar::pb::client::{EmbedRequest, Item, Tensor, item::Input};
use embark_tests::{
    Manifest, Sidecar,
    manifest::sha256,
    onnx::{self, hostile},
    sidecar::{Ended, Options, difference},
};
use serde_json::{Value, json};

const SOURCE: &str = "spec.model.source: ";
const NAME: &str = "spec.model.output.name: ";
const VOCABULARY: &str = "spec.input.categorical.vocabulary: ";

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_model_is_refused_with_what_is_wrong() {
    let places = "256, but the longest row that the model can run has 40 tokens: ";
    let rows = [
        (hostile::external(), SOURCE, "tensor \"table\" keeps its data in another file"),
        (
            hostile::larger_than_its_data(),
            SOURCE,
            "is not as large as the data that the file holds",
        ),
        (hostile::filled(), SOURCE, "(ConstantOfShape) makes a tensor of more than"),
        (
            hostile::no_candidate(),
            SOURCE,
            "the model has no float output; its outputs: \"ids\" int64",
        ),
        (hostile::two_candidates(), NAME, "must name the output that is the embedding, one of: "),
        (
            hostile::two_candidates(),
            NAME,
            "\"vectors\" float [batch, sequence, 4], \"others\" float",
        ),
        (hostile::places(40), "spec.input.text.maxTokens: ", places),
        (
            hostile::not_finite(),
            SOURCE,
            "the model gives values that are not finite for a short text",
        ),
        (
            onnx::lookup(30_521, "Identity"),
            "spec.input.text.tokenizer: ",
            "its highest id is 30521, but the model's embedding table has 30521 rows",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (file, field, part) in rows {
        let sentence = refused(folder.path(), &of_texts(folder.path(), &file)).await;
        assert!(sentence.starts_with(field) && sentence.contains(part), "{part:?}: {sentence}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_beside_a_hostile_model_is_served() {
    let folder = tempfile::tempdir().unwrap();
    // As many places as the longest row has tokens, and the one output that is named.
    let places =
        of_texts(folder.path(), &hostile::places(40)).with("/spec/input/text/maxTokens", 40);
    let sidecar = Sidecar::serve(folder.path(), &places).await;
    let result = sidecar.embed(&[&"word ".repeat(100)]).await.remove(0);
    assert_eq!((result.tokens, result.truncated, result.vector.len()), (40, true, 4));
    sidecar.stop().await;
    let named = of_texts(folder.path(), &hostile::two_candidates())
        .with("/spec/model/output/name", "others");
    let sidecar = Sidecar::serve(folder.path(), &named).await;
    assert_eq!(sidecar.embed(&["a"]).await[0].vector.len(), 4);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_vocabulary_is_refused_by_its_line() {
    let long = [b"a\n".to_vec(), vec![b'x'; 1025]].concat();
    let rows: [(&[u8], &str); 11] = [
        (b"", "the file has no ids"),
        (b"\xef\xbb\xbf", "the file has no ids"),
        (b"\n", "line 1 is empty; each line has an id"),
        (b"a\n\nb\n", "line 2 is empty; each line has an id"),
        (b"a\r\n\r\nb", "line 2 is empty; each line has an id"),
        (b"a\nb\n\n", "line 3 is empty; each line has an id"),
        (b"a\nb\na\n", "line 3 has the id of line 1 again, \"a\""),
        (b"a\r\na\n", "line 2 has the id of line 1 again, \"a\""),
        (b"a\nb\xff\n", "line 2 is not UTF-8"),
        (b"\xff\xfea\0\n\0", "line 1 is not UTF-8"),
        (&long, "line 2 has 1025 bytes; at most 1024 are allowed"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (file, expected) in rows {
        let sentence = refused(folder.path(), &of_categories(folder.path(), file, 10)).await;
        assert_eq!(sentence, format!("{VOCABULARY}{expected}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vocabulary_that_does_not_fit_is_refused_by_its_field() {
    let folder = tempfile::tempdir().unwrap();
    let fits = of_categories(folder.path(), b"a\nb\nc\n", 4);
    let uri = "/spec/input/categorical/vocabulary/uri";
    let missing = folder.path().join("missing.txt");
    let large = of_categories(folder.path(), &vec![b'x'; (1 << 20) + 1], 4);
    let builtin = "builtin://tiny-static-minilm/vocabulary.txt";
    let other = "0".repeat(64);
    let rows: [(Manifest, &str, &str); 6] = [
        (
            of_categories(folder.path(), b"a\nb\nc\n", 3),
            VOCABULARY,
            "does not fit the model: it has 3 ids, which with the row of unknown ids are 4 rows, but the model's table has 3",
        ),
        (
            fits.clone().with("/spec/input/categorical/vocabulary/sha256", other.as_str()),
            "spec.input.categorical.vocabulary.sha256: ",
            "but the file's sha256 is ",
        ),
        (
            fits.clone().with(uri, format!("file://{}", missing.display())),
            "spec.input.categorical.vocabulary.uri: ",
            "does not exist",
        ),
        (
            large.with("/spec/model/sizeLimit", "1Mi"),
            "spec.input.categorical.vocabulary.uri: ",
            "the file is larger than 1048576 bytes",
        ),
        (
            fits.clone().with(uri, builtin),
            "spec.input.categorical.vocabulary.uri: ",
            "vocabulary.txt does not exist; built in: ",
        ),
        (
            fits.with("/spec/model/source", source(folder.path(), &onnx::mean_colour(8))),
            SOURCE,
            "the model must have one input, rows of its table, int32 or int64 [batch] or [batch, 1]; its inputs: \"pixels\"",
        ),
    ];
    for (manifest, field, part) in rows {
        let sentence = refused(folder.path(), &manifest).await;
        assert!(sentence.starts_with(field) && sentence.contains(part), "{part:?}: {sentence}");
    }
}

/// Of the length of a vector of zeros there is no other: it is answered as it is, as torch and Sentence Transformers do,
/// and no value of it becomes a NaN.
#[tokio::test(flavor = "multi_thread")]
async fn a_vector_of_zeros_stays_one_where_vectors_are_normalised() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    fs::write(&file, onnx::as_it_is(3)).unwrap();
    let manifest = Manifest::of_tensors("bad", &file, (&[3], 3));
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    for (input, output) in [([0.0, -0.0, 0.0], [0.0; 3]), ([0.0, 3.0, 4.0], [0.0, 0.6, 0.8])] {
        let reply = sidecar.call(tensor(&input)).await.unwrap();
        assert!(difference(&reply.results[0].vector, &output) < 1e-6, "{:?}", reply.results[0]);
    }
    sidecar.stop().await;
}

async fn refused(folder: &Path, manifest: &Manifest) -> String {
    let ended: Ended = Sidecar::fail(&Options::new(folder, manifest)).await;
    let sentences = ended.sentences();
    let [sentence] = sentences[..] else { panic!("not one sentence: {}", ended.log) };
    // What is seen before a model is loaded names the manifest's file, what is seen after it the model.
    let start = sentence.find("spec.").expect("it names a field");
    sentence[start..].to_owned()
}

fn source(folder: &Path, bytes: &[u8]) -> Value {
    let file = folder.join("model.onnx");
    fs::write(&file, bytes).unwrap();
    json!({"uri": format!("file://{}", file.display()), "sha256": sha256(&file)})
}

fn of_texts(folder: &Path, bytes: &[u8]) -> Manifest {
    Manifest::tiny("bad")
        .with("/spec/model/source", source(folder, bytes))
        .with("/spec/model/output/dimensions", 4)
        .with("/spec/input/text/pooling", "Mean")
}

fn of_categories(folder: &Path, vocabulary: &[u8], rows: usize) -> Manifest {
    let file = folder.join(format!("vocabulary-{rows}-{}.txt", vocabulary.len()));
    fs::write(&file, vocabulary).unwrap();
    Manifest::of_categories("bad", folder, (&file, rows))
}

fn tensor(values: &[f32]) -> EmbedRequest {
    let tensor = Tensor { float_values: values.to_vec(), ..Tensor::default() };
    let items = vec![Item { input: Some(Input::Tensor(tensor)) }];
    EmbedRequest { items, ..EmbedRequest::default() }
}
