//! Writes a small ONNX model, for tests that need an odd one. The messages hold what it needs of onnx.proto, no more.

use prost::Message;

const FLOAT: i32 = 1;
const INT64: i32 = 7;
const COLUMNS: i64 = 4;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<Opset>,
}

#[derive(Clone, PartialEq, Message)]
struct Opset {
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(string, tag = "8")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
struct Dim {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    param: Option<String>,
}

// === free functions ===

/// A text model: `input_ids` and `attention_mask` [batch, sequence] → `vectors` [batch, sequence, 4]: what a table of
/// `rows` holds for each id, behind one operator of this name.
pub fn lookup(rows: i64, operator: &str) -> Vec<u8> {
    let table = Tensor {
        dims: vec![rows, COLUMNS],
        data_type: FLOAT,
        float_data: (0..rows * COLUMNS).map(|place| 1.0 + (place % 7) as f32).collect(),
        name: "table".to_owned(),
    };
    let dims = ["batch", "sequence"];
    let graph = Graph {
        node: vec![
            node("Gather", &["table", "input_ids"], "tokens"),
            node(operator, &["tokens"], "vectors"),
        ],
        name: "lookup".to_owned(),
        initializer: vec![table],
        input: vec![port("input_ids", INT64, &dims), port("attention_mask", INT64, &dims)],
        output: vec![port("vectors", FLOAT, &["batch", "sequence", "4"])],
    };
    let model =
        Model { ir_version: 8, graph: Some(graph), opset_import: vec![Opset { version: 13 }] };
    model.encode_to_vec()
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Node {
    Node {
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.to_owned()],
        name: format!("make_{output}"),
        op_type: operator.to_owned(),
    }
}

fn port(name: &str, element: i32, dims: &[&str]) -> ValueInfo {
    let dim = |text: &&str| match text.parse() {
        Ok(value) => Dim { value: Some(value), param: None },
        Err(_) => Dim { value: None, param: Some((*text).to_owned()) },
    };
    let shape = Some(Shape { dim: dims.iter().map(dim).collect() });
    let kind = Some(Type { tensor: Some(TensorType { element, shape }) });
    ValueInfo { name: name.to_owned(), kind }
}
