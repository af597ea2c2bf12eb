//! A dense tower over tabular features, written as ONNX: layers of any widths, ReLU between. Its weights are noise.

use std::path::Path;

use prost::Message as _;
use serde_json::{Value, json};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension, type_proto,
};

use crate::{models::artifact, random::Random};

/// Values that go in.
pub(crate) const FEATURES: usize = 13;
/// What goes in, and what comes out of each layer, where computing counts.
pub(crate) const DENSE: [usize; 4] = [FEATURES, 512, 512, 64];

/// A manifest of a tower, with the cache off; its file is put into `folder`. The widths are of what goes in, and of what
/// comes out of each layer.
pub(crate) fn manifest(folder: &Path, widths: &[usize]) -> Value {
    let (first, last) = (widths[0], widths[widths.len() - 1]);
    let file = folder.join("tower.onnx");
    std::fs::write(&file, onnx(widths)).expect("the folder is writable");
    json!({
        "apiVersion": "embark.dev/v1alpha1",
        "kind": "EmbeddingModel",
        "metadata": {"name": "tower"},
        "spec": {
            "model": {
                "source": artifact(&file).expect("it was written"),
                "output": {"dimensions": last},
            },
            "input": {"tensor": {"shape": [first]}},
            "cache": {"mode": "Disabled"},
        },
    })
}

fn onnx(widths: &[usize]) -> Vec<u8> {
    let layers = widths.len() - 1;
    let mut random = Random::new(13);
    let mut graph = GraphProto {
        name: "tower".to_owned(),
        input: vec![port("at_0", widths[0])],
        output: vec![port(&format!("at_{layers}"), widths[layers])],
        ..Default::default()
    };
    for (at, widths) in widths.windows(2).enumerate() {
        let [weights, bias, sum] = ["weights", "bias", "sum"].map(|name| format!("{name}_{at}"));
        graph.initializer.push(noise(&weights, &[widths[0], widths[1]], &mut random));
        graph.initializer.push(noise(&bias, &[widths[1]], &mut random));
        let (from, to) = (format!("at_{at}"), format!("at_{}", at + 1));
        let is_last = at + 1 == layers;
        let product = if is_last { &to } else { &sum };
        graph.node.push(node("Gemm", &[&from, &weights, &bias], product));
        if !is_last {
            graph.node.push(node("Relu", &[&sum], &to));
        }
    }
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![opset],
        graph: Some(graph),
        ..Default::default()
    };
    model.encode_to_vec()
}

fn noise(name: &str, dims: &[usize], random: &mut Random) -> TensorProto {
    // So that values keep their size from layer to layer.
    let reach = (6.0 / dims[0] as f32).sqrt();
    let value = |_| reach * ((random.number() >> 48) as f32 / 32_768.0 - 1.0);
    TensorProto {
        name: name.to_owned(),
        data_type: DataType::Float as i32,
        dims: dims.iter().map(|size| *size as i64).collect(),
        float_data: (0..dims.iter().product()).map(value).collect(),
        ..Default::default()
    }
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.to_owned(),
        name: format!("make_{output}"),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.to_owned()],
        ..Default::default()
    }
}

/// Floats [batch, size].
fn port(name: &str, size: usize) -> ValueInfoProto {
    let batch = dimension::Value::DimParam("batch".to_owned());
    let dims = [batch, dimension::Value::DimValue(size as i64)];
    let dim = |value| Dimension { value: Some(value), ..Default::default() };
    let shape = TensorShapeProto { dim: dims.map(dim).into() };
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    let value = Some(type_proto::Value::TensorType(tensor));
    let kind = TypeProto { value, ..Default::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(kind), ..Default::default() }
}
