//! EmbeddingModels for tests, as JSON, which is YAML too.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    onnx::{self, Poisonous},
    programs,
};

/// A text that holds this word makes the runtime of a [`Manifest::poisonous`] model panic.
pub const PANICS: &str = "panic";
/// A text that holds this word has no vector of numbers there.
pub const NOT_FINITE: &str = "infinity";

/// The vendored tiny model's digest.
pub const TINY_SHA256: &str = "e5e89d887c74dccfc8bd097e87879085dd8c120bdae86b3707fc69a4e3f4fe15";
/// Its tokenizer's digest.
pub const TOKENIZER_SHA256: &str =
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037";

/// The vendored tokenizer, from the repository's root.
const TOKENIZER: &str = "examples/models/tiny-static-minilm/tokenizer.json";
/// The vendored model of wines, from the repository's root.
const WINE: &str = "examples/models/wine-pca8/model.onnx";

/// A manifest that a test changes to its needs.
#[derive(Clone, Debug)]
pub struct Manifest(Value);

// === impl Manifest ===

impl Manifest {
    /// The vendored tiny text model under this name.
    pub fn tiny(name: &str) -> Self {
        Manifest(json!({
            "apiVersion": "embark.dev/v1alpha1",
            "kind": "EmbeddingModel",
            "metadata": {"name": name},
            "spec": {
                "model": {
                    "source": {"uri": "builtin://tiny-static-minilm/model.onnx", "sha256": TINY_SHA256},
                    "output": {"dimensions": 128},
                },
                "input": {"text": {
                    "tokenizer": {
                        "uri": "builtin://tiny-static-minilm/tokenizer.json",
                        "sha256": TOKENIZER_SHA256,
                    },
                }},
            },
        }))
    }

    /// A model of tensors of floats, from a file: a tensor's shape, and the values of a vector.
    pub fn of_tensors(name: &str, file: &Path, (shape, dimensions): (&[u32], usize)) -> Self {
        let uri = format!("file://{}", file.display());
        Manifest::tiny(name)
            .with("/spec/model/source", json!({"uri": uri, "sha256": sha256(file)}))
            .with("/spec/model/output/dimensions", dimensions)
            .with("/spec/input", json!({"tensor": {"shape": shape}}))
    }

    /// A model of images, `side` pixels across and down, whose vector is their mean colour; its file is written into the
    /// folder.
    pub fn of_colours(name: &str, folder: &Path, side: u32) -> Self {
        let file = folder.join(format!("{name}.onnx"));
        fs::write(&file, onnx::mean_colour(side)).expect("the folder can be written");
        let image = json!({"width": side, "height": side, "layout": "NCHW", "dtype": "Float32"});
        Manifest::of_images(name, &file, (image, 3))
    }

    /// A model of images, from a file: how an image is made for it, and the values of a vector, which stay as they are.
    pub fn of_images(name: &str, file: &Path, (image, dimensions): (Value, usize)) -> Self {
        Manifest::of_tensors(name, file, (&[1], dimensions))
            .with("/spec/model/output/normalization", "None")
            .with("/spec/input", json!({"image": image}))
    }

    /// A model of categories whose row n of so many is [n, 1]; its file is written into the folder, the vocabulary is there.
    pub fn of_categories(name: &str, folder: &Path, (vocabulary, rows): (&Path, usize)) -> Self {
        let file = folder.join(format!("{name}.onnx"));
        let rows = i64::try_from(rows).expect("rows are few");
        fs::write(&file, onnx::numbered_rows(rows)).expect("the folder can be written");
        let uri = format!("file://{}", vocabulary.display());
        let vocabulary = json!({"uri": uri, "sha256": sha256(vocabulary)});
        Manifest::of_tensors(name, &file, (&[1], 2))
            .with("/spec/model/output/normalization", "None")
            .with("/spec/input", json!({"categorical": {"vocabulary": vocabulary}}))
    }

    /// The vendored model of wines: 13 numbers → 8, as they come out of it.
    pub fn wine(name: &str) -> Self {
        Manifest::of_tensors(name, &programs::root().join(WINE), (&[13], 8))
            .with("/spec/model/output/normalization", "None")
    }

    /// A text model of a file that takes every id of the vendored tokenizer, and gives 4 values for each token; their mean is
    /// the vector. The file is written into the folder.
    pub fn of_tokens(name: &str, folder: &Path, onnx: impl FnOnce(i64) -> Vec<u8>) -> Self {
        let ids = i64::try_from(vocabulary().len()).expect("words are few");
        let bytes = onnx(ids);
        // By its content: another version is another file.
        let digest: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        let file = folder.join(format!("{name}-{}.onnx", &digest[..8]));
        fs::write(&file, bytes).expect("the folder is writable");
        let source = json!({"uri": format!("file://{}", file.display()), "sha256": digest});
        Manifest::tiny(name)
            .with("/spec/model/source", source)
            .with("/spec/model/output/dimensions", 4)
            .with("/spec/input/text/pooling", "Mean")
    }

    /// A text model that cannot bear [`PANICS`] and [`NOT_FINITE`]; its file is written into the folder. `dimensions` are a
    /// vector's values, `hidden` is what a token costs.
    pub fn poisonous(name: &str, folder: &Path, (dimensions, hidden): (i64, i64)) -> Self {
        let words = vocabulary();
        let id = |word: &str| words[word].as_i64().expect("an id");
        let model = Poisonous {
            vocabulary: i64::try_from(words.len()).expect("words are few"),
            dimensions,
            hidden,
            panics: id(PANICS),
            not_finite: id(NOT_FINITE),
        };
        let file = folder.join(format!("{name}.onnx"));
        fs::write(&file, model.onnx()).expect("the folder is writable");
        let source = json!({"uri": format!("file://{}", file.display()), "sha256": sha256(&file)});
        Manifest::tiny(name)
            .with("/spec/model/source", source)
            .with("/spec/model/output/dimensions", dimensions)
            .with("/spec/input/text/pooling", "Mean")
    }

    /// all-MiniLM-L6-v2 from the files that `tests/run` makes, by the output that is pooled inside of the model.
    pub fn minilm(name: &str) -> Self {
        static DIGESTS: OnceLock<[String; 2]> = OnceLock::new();
        let folder = programs::from_environment("EMBARK_TEST_MINILM");
        let files = [folder.join("model.onnx"), folder.join("tokenizer.json")];
        let [model, tokenizer] = DIGESTS.get_or_init(|| files.each_ref().map(|file| sha256(file)));
        let uri = |file: &Path| format!("file://{}", file.display());
        Manifest::tiny(name)
            .with("/spec/model/source", json!({"uri": uri(&files[0]), "sha256": model}))
            .with("/spec/model/output", json!({"name": "sentence_embedding", "dimensions": 384}))
            .with("/spec/input/text/tokenizer", json!({"uri": uri(&files[1]), "sha256": tokenizer}))
    }

    /// The same with dynamic int8, from the files that `tests/run` fetches; it has a vector for each token alone.
    pub fn minilm_int8(name: &str) -> Self {
        let folder = programs::from_environment("EMBARK_TEST_MINILM_INT8");
        let artifact = |file: &str| {
            let file = folder.join(file);
            json!({"uri": format!("file://{}", file.display()), "sha256": sha256(&file)})
        };
        Manifest::tiny(name)
            .with("/spec/model/source", artifact("model.onnx"))
            .with("/spec/model/output", json!({"dimensions": 384}))
            .with("/spec/input/text/tokenizer", artifact("tokenizer.json"))
            .with("/spec/input/text/pooling", "Mean")
    }

    /// The same by the output that has a vector for each token.
    #[must_use]
    pub fn pooled_outside(self, pooling: &str) -> Self {
        self.with("/spec/model/output/name", "last_hidden_state")
            .with("/spec/input/text/pooling", pooling)
    }

    /// The same with the value at a path such as `/spec/cache/ttl`; objects on the way are made.
    #[must_use]
    pub fn with(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let mut at = &mut self.0;
        for key in pointer.split('/').skip(1) {
            if at.is_null() {
                *at = json!({});
            }
            at = match at {
                Value::Array(list) => &mut list[key.parse::<usize>().expect("an index")],
                object => &mut object[key],
            };
        }
        *at = value.into();
        self
    }

    /// The same without the value at a path.
    #[must_use]
    pub fn without(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = self.0.pointer_mut(parent).expect("the parent is there");
        parent.as_object_mut().expect("an object").remove(key).expect("the value is there");
        self
    }

    /// Writes it to a file of the folder and gives the file's path.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let name = self.0["metadata"]["name"].as_str().unwrap_or("model");
        let path = folder.join(format!("{name}.yaml"));
        fs::write(&path, self.to_string()).expect("the folder is writable");
        path
    }
}

impl std::fmt::Display for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

// === free functions ===

/// The ids of the vendored tokenizer's words.
fn vocabulary() -> serde_json::Map<String, Value> {
    let tokenizer = fs::read(programs::root().join(TOKENIZER)).expect("it is vendored");
    let mut tokenizer: Value = serde_json::from_slice(&tokenizer).expect("it is JSON");
    match tokenizer["model"]["vocab"].take() {
        Value::Object(words) => words,
        other => panic!("{other} is no vocabulary"),
    }
}

/// The digest of a file, as manifests have it.
pub fn sha256(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
