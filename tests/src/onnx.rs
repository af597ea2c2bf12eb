//! Writes ONNX models: a small one for tests that need an odd one, and a dense tower. The messages hold what they need of
//! onnx.proto, no more.

use prost::Message;

use crate::random::Random;

pub mod hostile;

const FLOAT: i32 = 1;
const INT8: i32 = 3;
const INT64: i32 = 7;
const COLUMNS: i64 = 4;

/// Rows of a [`Poisonous`] model's table: ids that are equal modulo this have one vector.
const SLOTS: i64 = 512;

/// The layers of a [`Tower`]: what goes in, and what comes out of each.
const WIDTHS: [usize; 4] = [13, 512, 512, 64];

/// A dense tower over tabular features: `features` float [batch, 13] → 512 → 512 → `embedding` float [batch, 64], ReLU
/// between. Its weights are noise, the same for everyone.
#[derive(Clone, Debug)]
pub struct Tower(Vec<Layer>);

/// A text model with two tokens that it cannot bear: `input_ids` and `attention_mask` [batch, sequence] → `vectors`
/// [batch, sequence, dimensions], what a table holds for each id, through a hidden layer as wide. Its weights are noise,
/// the same for everyone.
#[derive(Clone, Copy, Debug)]
pub struct Poisonous {
    /// Ids that there are.
    pub vocabulary: i64,
    /// Values of a vector.
    pub dimensions: i64,
    /// Values of the hidden layer: what a token costs.
    pub hidden: i64,
    /// The id at which the runtime panics: it divides integers by zero.
    pub panics: i64,
    /// The id whose vector is not a number.
    pub not_finite: i64,
}

/// One layer: a matrix [inputs, outputs], row-major, and a bias.
#[derive(Clone, Debug)]
struct Layer {
    weights: Vec<f32>,
    bias: Vec<f32>,
}

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
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    i: i64,
    /// 2: a whole number.
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<Entry>,
    #[prost(int32, optional, tag = "14")]
    data_location: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
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

// === impl Tower ===

impl Tower {
    /// Values that go in.
    pub const FEATURES: usize = WIDTHS[0];
    /// Values that come out.
    pub const DIMENSIONS: usize = WIDTHS[3];

    /// The tower.
    pub fn new() -> Self {
        let mut random = Random::new(13);
        let layer = |widths: &[usize]| {
            // So that values keep their size from layer to layer.
            let reach = (6.0 / widths[0] as f32).sqrt();
            let mut noise = |count| {
                let value = |_| reach * (random.below(1 << 16) as f32 / 32_768.0 - 1.0);
                (0..count).map(value).collect()
            };
            Layer { weights: noise(widths[0] * widths[1]), bias: noise(widths[1]) }
        };
        Tower(WIDTHS.windows(2).map(layer).collect())
    }

    /// The model as a file, opset 17.
    pub fn onnx(&self) -> Vec<u8> {
        let (mut nodes, mut constants) = (Vec::new(), Vec::new());
        let mut input = "features".to_owned();
        for (at, layer) in self.0.iter().enumerate() {
            let [weights, bias] = ["weights", "bias"].map(|name| format!("{name}_{at}"));
            let columns = WIDTHS[at + 1] as i64;
            constants.push(floats(&weights, &[WIDTHS[at] as i64, columns], &layer.weights));
            constants.push(floats(&bias, &[columns], &layer.bias));
            let is_last = at + 1 == self.0.len();
            let sum = if is_last { "embedding".to_owned() } else { format!("sum_{at}") };
            nodes.push(node("Gemm", &[&input, &weights, &bias], &sum));
            if !is_last {
                input = format!("hidden_{at}");
                nodes.push(node("Relu", &[&sum], &input));
            }
        }
        let sizes = [Self::FEATURES, Self::DIMENSIONS].map(|size| size.to_string());
        let graph = Graph {
            node: nodes,
            name: "tower".to_owned(),
            initializer: constants,
            input: vec![port("features", FLOAT, &["batch", &sizes[0]])],
            output: vec![port("embedding", FLOAT, &["batch", &sizes[1]])],
        };
        encode(graph, 17)
    }

    /// What the model gives for a row, by plain arithmetic, of length 1.
    pub fn vector(&self, features: &[f32]) -> Vec<f32> {
        let mut values: Vec<f64> = features.iter().copied().map(f64::from).collect();
        for (at, layer) in self.0.iter().enumerate() {
            let mut sums: Vec<f64> = layer.bias.iter().copied().map(f64::from).collect();
            for (value, weights) in values.iter().zip(layer.weights.chunks(sums.len())) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += value * f64::from(*weight);
                }
            }
            if at + 1 < self.0.len() {
                sums.iter_mut().for_each(|sum| *sum = sum.max(0.0));
            }
            values = sums;
        }
        let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
        #[expect(clippy::cast_possible_truncation, reason = "values of a vector of length 1")]
        values.into_iter().map(|value| (value / length) as f32).collect()
    }
}

impl Default for Tower {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Poisonous ===

impl Poisonous {
    /// The model as a file, opset 13.
    pub fn onnx(self) -> Vec<u8> {
        let mut random = Random::new(17);
        let mut noise = |count: i64| -> Vec<f32> {
            (0..count).map(|_| random.below(1 << 16) as f32 / 32_768.0 - 1.0).collect()
        };
        let mut table = noise(SLOTS * self.dimensions);
        table.extend((0..self.dimensions).map(|_| f32::NAN));
        let slot = |id| if id == self.not_finite { SLOTS } else { id % SLOTS };
        let divisor = |id| i64::from(id != self.panics);
        let [all, wide] = [&[self.vocabulary][..], &[self.dimensions, self.hidden]];
        let constants = vec![
            integers("slots", all, (0..self.vocabulary).map(slot).collect()),
            integers("divisors", all, (0..self.vocabulary).map(divisor).collect()),
            floats("table", &[SLOTS + 1, self.dimensions], &table),
            floats("widen", wide, &noise(self.dimensions * self.hidden)),
            floats(
                "narrow",
                &[self.hidden, self.dimensions],
                &noise(self.hidden * self.dimensions),
            ),
        ];
        let nodes = vec![
            node("Gather", &["slots", "input_ids"], "dividend"),
            node("Gather", &["divisors", "input_ids"], "divisor"),
            node("Div", &["dividend", "divisor"], "slot"),
            node("Gather", &["table", "slot"], "tokens"),
            node("MatMul", &["tokens", "widen"], "wide"),
            node("Relu", &["wide"], "hidden"),
            node("MatMul", &["hidden", "narrow"], "vectors"),
        ];
        let dimensions = self.dimensions.to_string();
        let graph = Graph {
            node: nodes,
            name: "poisonous".to_owned(),
            initializer: constants,
            input: text_ports(),
            output: vec![port("vectors", FLOAT, &["batch", "sequence", &dimensions])],
        };
        encode(graph, 13)
    }
}

// === free functions ===

/// A text model: `input_ids` and `attention_mask` [batch, sequence] → `vectors` [batch, sequence, 4]: what a table of
/// `rows` holds for each id, behind one operator of this name.
pub fn lookup(rows: i64, operator: &str) -> Vec<u8> {
    let values: Vec<f32> = (0..rows * COLUMNS).map(|place| 1.0 + (place % 7) as f32).collect();
    let table = floats("table", &[rows, COLUMNS], &values);
    let graph = Graph {
        node: vec![
            node("Gather", &["table", "input_ids"], "tokens"),
            node(operator, &["tokens"], "vectors"),
        ],
        name: "lookup".to_owned(),
        initializer: vec![table],
        input: text_ports(),
        output: vec![port("vectors", FLOAT, &["batch", "sequence", "4"])],
    };
    encode(graph, 13)
}

/// A model of tensors: `x` float [batch, size] → `vector` float [batch, size], the same.
pub fn as_it_is(size: u32) -> Vec<u8> {
    let size = size.to_string();
    let graph = Graph {
        node: vec![node("Identity", &["x"], "vector")],
        name: "same".to_owned(),
        initializer: Vec::new(),
        input: vec![port("x", FLOAT, &["batch", &size])],
        output: vec![port("vector", FLOAT, &["batch", &size])],
    };
    encode(graph, 13)
}

/// A model of categories: `id`, `[batch]`, gives `row`, floats `[batch, 2]`: row n of a table of so many rows is (n, 1).
pub fn numbered_rows(rows: i64) -> Vec<u8> {
    let values: Vec<f32> = (0..rows).flat_map(|row| [row as f32, 1.0]).collect();
    let graph = Graph {
        node: vec![node("Gather", &["table", "id"], "row")],
        name: "rows".to_owned(),
        initializer: vec![floats("table", &[rows, 2], &values)],
        input: vec![port("id", INT64, &["batch"])],
        output: vec![port("row", FLOAT, &["batch", "2"])],
    };
    encode(graph, 13)
}

/// The same, quantised as it runs: what a table holds for each id, times 1, by 8-bit integers whose scale is that of the
/// largest value of the whole run. Those of id 0, which texts are padded with, are far larger than all others.
pub fn dynamic_int8(rows: i64) -> Vec<u8> {
    let mut random = Random::new(8);
    let mut noise = || random.below(1 << 16) as f32 / 32_768.0 - 1.0;
    let mut values: Vec<f32> = (0..rows * COLUMNS).map(|_| noise()).collect();
    for (column, value) in (0..COLUMNS).zip(&mut values) {
        *value = if column % 2 == 0 { 40.0 } else { -40.0 };
    }
    let one = |place: i64| i32::from(place / COLUMNS == place % COLUMNS);
    let weights = Tensor {
        data_type: INT8,
        int32_data: (0..COLUMNS * COLUMNS).map(one).collect(),
        ..tensor("weights", &[COLUMNS, COLUMNS])
    };
    let mut quantise = node("DynamicQuantizeLinear", &["tokens"], "quantised");
    quantise.output.extend(["scale", "zero"].map(str::to_owned));
    let mut cast = node("Cast", &["integers"], "floats");
    let to = Attribute { name: "to".to_owned(), i: FLOAT.into(), kind: 2 };
    cast.attribute.push(to);
    let graph = Graph {
        node: vec![
            node("Gather", &["table", "input_ids"], "tokens"),
            quantise,
            node("MatMulInteger", &["quantised", "weights", "zero"], "integers"),
            cast,
            node("Mul", &["floats", "scale"], "vectors"),
        ],
        name: "dynamic_int8".to_owned(),
        initializer: vec![floats("table", &[rows, COLUMNS], &values), weights],
        input: text_ports(),
        output: vec![port("vectors", FLOAT, &["batch", "sequence", "4"])],
    };
    encode(graph, 13)
}

/// An image model: `pixels` float [batch, 3, side, side] → `colour` float [batch, 3]: the mean of each channel.
pub fn mean_colour(side: u32) -> Vec<u8> {
    let side = side.to_string();
    let graph = Graph {
        node: vec![
            node("GlobalAveragePool", &["pixels"], "means"),
            node("Flatten", &["means"], "colour"),
        ],
        name: "colour".to_owned(),
        initializer: Vec::new(),
        input: vec![port("pixels", FLOAT, &["batch", "3", &side, &side])],
        output: vec![port("colour", FLOAT, &["batch", "3"])],
    };
    encode(graph, 13)
}

fn encode(graph: Graph, opset: i64) -> Vec<u8> {
    let opset_import = vec![Opset { version: opset }];
    Model { ir_version: 8, graph: Some(graph), opset_import }.encode_to_vec()
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> Tensor {
    Tensor { data_type: FLOAT, float_data: values.to_vec(), ..tensor(name, dims) }
}

fn integers(name: &str, dims: &[i64], values: Vec<i64>) -> Tensor {
    Tensor { data_type: INT64, int64_data: values, ..tensor(name, dims) }
}

fn tensor(name: &str, dims: &[i64]) -> Tensor {
    Tensor { dims: dims.to_vec(), name: name.to_owned(), ..Tensor::default() }
}

fn text_ports() -> Vec<ValueInfo> {
    ["input_ids", "attention_mask"].map(|name| port(name, INT64, &["batch", "sequence"])).into()
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Node {
    Node {
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.to_owned()],
        name: format!("make_{output}"),
        op_type: operator.to_owned(),
        attribute: Vec::new(),
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
