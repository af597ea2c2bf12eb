//! Writes small models for tests, sound and odd ones.

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto,
    type_proto,
};

/// Values of a vector in the models of [`Onnx::tokens`].
pub(super) const DIMENSIONS: i64 = 4;
/// Rows of the embedding table in the models of [`Onnx::tokens`].
pub(super) const VOCABULARY: i64 = 40;

/// A model in the making.
#[derive(Clone)]
pub(super) struct Onnx {
    pub(super) graph: GraphProto,
}

impl Onnx {
    /// Nothing.
    pub(super) fn empty() -> Self {
        Onnx { graph: GraphProto { name: "test".to_owned(), ..Default::default() } }
    }

    /// Ids and mask of int64 [batch, sequence] → `tokens` float [batch, sequence, 4], looked up in a table of 40 rows. It
    /// has no output yet.
    pub(super) fn tokens() -> Self {
        Self::empty()
            .input("input_ids", DataType::Int64, &["batch", "sequence"])
            .input("attention_mask", DataType::Int64, &["batch", "sequence"])
            .table("table", VOCABULARY, |row, column| 1.0 + (row * 7 + column * 3) as f32 % 11.0)
            .node("Gather", &["table", "input_ids"], "tokens")
    }

    /// [`Onnx::tokens`] with the mean over the mask as its output, `pooled` [batch, 4].
    pub(super) fn pooled() -> Self {
        let mut model = Self::tokens()
            .integers("last", &[2])
            .node("Cast", &["attention_mask"], "mask")
            .attribute("to", DataType::Float as i64)
            .node("Unsqueeze", &["mask", "last"], "mask3")
            .node("Mul", &["tokens", "mask3"], "masked")
            .integers("middle", &[1])
            .node("ReduceSum", &["masked", "middle"], "sum")
            .attribute("keepdims", 0)
            .node("ReduceSum", &["mask", "middle"], "count")
            .attribute("keepdims", 1);
        model = model.node("Div", &["sum", "count"], "pooled");
        model.output("pooled", &["batch", "4"])
    }

    pub(super) fn input(mut self, name: &str, kind: DataType, dims: &[&str]) -> Self {
        self.graph.input.retain(|input| input.name != name);
        self.graph.input.push(port(name, kind, dims));
        self
    }

    pub(super) fn without_input(mut self, name: &str) -> Self {
        self.graph.input.retain(|input| input.name != name);
        self
    }

    pub(super) fn output(mut self, name: &str, dims: &[&str]) -> Self {
        self.graph.output.push(port(name, DataType::Float, dims));
        self
    }

    pub(super) fn value_info(mut self, name: &str, dims: &[&str]) -> Self {
        self.graph.value_info.push(port(name, DataType::Float, dims));
        self
    }

    /// An initialiser of floats, [rows, 4].
    pub(super) fn table(self, name: &str, rows: i64, value: impl Fn(i64, i64) -> f32) -> Self {
        let value = |place| value(place / DIMENSIONS, place % DIMENSIONS);
        self.floats(name, &[rows, DIMENSIONS], value)
    }

    /// An initialiser of floats, by their place in row-major order.
    pub(super) fn floats(mut self, name: &str, dims: &[i64], value: impl Fn(i64) -> f32) -> Self {
        self.graph.initializer.retain(|tensor| tensor.name != name);
        self.graph.initializer.push(TensorProto {
            name: name.to_owned(),
            data_type: DataType::Float as i32,
            dims: dims.to_vec(),
            float_data: (0..dims.iter().product()).map(value).collect(),
            ..Default::default()
        });
        self
    }

    /// An initialiser of int64 values, in one dimension.
    pub(super) fn integers(mut self, name: &str, values: &[i64]) -> Self {
        self.graph.initializer.push(TensorProto {
            name: name.to_owned(),
            data_type: DataType::Int64 as i32,
            dims: vec![values.len() as i64],
            raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ..Default::default()
        });
        self
    }

    pub(super) fn node(mut self, operator: &str, inputs: &[&str], output: &str) -> Self {
        self.graph.node.push(NodeProto {
            op_type: operator.to_owned(),
            name: format!("{operator}_{output}"),
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.to_owned()],
            ..Default::default()
        });
        self
    }

    /// An integer attribute of the last node.
    pub(super) fn attribute(mut self, name: &str, value: i64) -> Self {
        let node = self.graph.node.last_mut().expect("an attribute follows its node");
        node.attribute.push(AttributeProto {
            name: name.to_owned(),
            r#type: tract_onnx::pb::attribute_proto::AttributeType::Int as i32,
            i: value,
            ..Default::default()
        });
        self
    }

    /// An attribute of integers of the last node.
    pub(super) fn integers_attribute(mut self, name: &str, values: &[i64]) -> Self {
        let node = self.graph.node.last_mut().expect("an attribute follows its node");
        node.attribute.push(AttributeProto {
            name: name.to_owned(),
            r#type: tract_onnx::pb::attribute_proto::AttributeType::Ints as i32,
            ints: values.to_vec(),
            ..Default::default()
        });
        self
    }

    /// Changes an initialiser.
    pub(super) fn initializer(mut self, name: &str, change: impl FnOnce(&mut TensorProto)) -> Self {
        let mut all = self.graph.initializer.iter_mut();
        change(all.find(|tensor| tensor.name == name).expect("the initialiser is there"));
        self
    }

    pub(super) fn proto(&self) -> ModelProto {
        let opset = OperatorSetIdProto { domain: String::new(), version: 13 };
        ModelProto {
            ir_version: 8,
            opset_import: vec![opset],
            graph: Some(self.graph.clone()),
            ..Default::default()
        }
    }

    pub(super) fn bytes(&self) -> bytes::Bytes {
        self.proto().encode_to_vec().into()
    }
}

fn port(name: &str, kind: DataType, dims: &[&str]) -> ValueInfoProto {
    let dim = |text: &&str| {
        let value = match text.parse() {
            Ok(size) => tensor_shape_proto::dimension::Value::DimValue(size),
            Err(_) => tensor_shape_proto::dimension::Value::DimParam(text.to_string()),
        };
        tensor_shape_proto::Dimension { value: Some(value), ..Default::default() }
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: kind as i32, shape: Some(shape) };
    let value = Some(type_proto::Value::TensorType(tensor));
    let kind = TypeProto { value, ..Default::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(kind), ..Default::default() }
}
