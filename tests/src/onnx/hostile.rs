//! Text models that must not be served, each for one reason.

use super::{
    COLUMNS, Entry, FLOAT, Graph, INT64, ValueInfo, encode, floats, integers, node, port,
    text_ports,
};

/// Rows of every table of vectors: as many as the vendored tokenizer has ids.
const ROWS: i64 = 30_522;
/// The place of data that is in another file, as ONNX numbers places.
const EXTERNAL: i32 = 1;

/// Its table is in another file.
pub fn external() -> Vec<u8> {
    let mut graph = lookup();
    let table = &mut graph.initializer[0];
    table.float_data.clear();
    table.data_location = Some(EXTERNAL);
    let entry = |key: &str, value: &str| Entry { key: key.to_owned(), value: value.to_owned() };
    table.external_data = vec![entry("location", "../../etc/passwd"), entry("length", "64")];
    encode(graph, 13)
}

/// Its table is said to have a million times the rows that are there.
pub fn larger_than_its_data() -> Vec<u8> {
    let mut graph = lookup();
    graph.initializer[0].dims[0] = ROWS * 1_000_000;
    encode(graph, 13)
}

/// Some bytes of it ask for a tensor of 2^40 values.
pub fn filled() -> Vec<u8> {
    let mut graph = lookup();
    graph.initializer.push(integers("shape", &[2], vec![1 << 20, 1 << 20]));
    graph.node.push(node("ConstantOfShape", &["shape"], "filled"));
    graph.output.push(port("filled", FLOAT, &["n", "m"]));
    encode(graph, 13)
}

/// Two outputs could be the embedding.
pub fn two_candidates() -> Vec<u8> {
    let mut graph = lookup();
    graph.node.push(node("Neg", &["vectors"], "others"));
    graph.output.push(vectors("others"));
    encode(graph, 13)
}

/// What comes out is no float.
pub fn no_candidate() -> Vec<u8> {
    let mut graph = lookup();
    graph.node = vec![node("Neg", &["input_ids"], "ids")];
    graph.output = vec![port("ids", INT64, &["batch", "sequence"])];
    encode(graph, 13)
}

/// It has vectors for so many places of a row, and fails on a longer one.
pub fn places(places: i64) -> Vec<u8> {
    let mut graph = lookup();
    let values: Vec<f32> = (0..places * COLUMNS).map(|place| (place % 5) as f32).collect();
    graph.initializer.extend([
        floats("places", &[1, places, COLUMNS], &values),
        integers("zero", &[1], vec![0]),
        integers("one", &[1], vec![1]),
    ]);
    graph.node = vec![
        node("Shape", &["input_ids"], "shape"),
        node("Gather", &["shape", "one"], "length"),
        node("Slice", &["places", "zero", "length", "one"], "here"),
        node("Gather", &["table", "input_ids"], "words"),
        node("Add", &["words", "here"], "vectors"),
    ];
    encode(graph, 13)
}

/// Whatever goes in, its vectors are not numbers.
pub fn not_finite() -> Vec<u8> {
    let mut graph = lookup();
    graph.initializer[0].float_data.fill(f32::NAN);
    encode(graph, 13)
}

fn lookup() -> Graph {
    let values: Vec<f32> = (0..ROWS * COLUMNS).map(|place| 1.0 + (place % 7) as f32).collect();
    Graph {
        node: vec![node("Gather", &["table", "input_ids"], "vectors")],
        name: "hostile".to_owned(),
        initializer: vec![floats("table", &[ROWS, COLUMNS], &values)],
        input: text_ports(),
        output: vec![vectors("vectors")],
    }
}

fn vectors(name: &str) -> ValueInfo {
    port(name, FLOAT, &["batch", "sequence", "4"])
}
