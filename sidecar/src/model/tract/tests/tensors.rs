//! Models of tensors.

use embark_crds::contract::{TensorDtype, TensorInput};

use super::*;
use crate::model::engine::RowData;

/// Values of a row.
const VALUES: usize = 12;

/// `x` float of these axes → `vectors` float [batch, 4]: the values of a row, flat, times a table of 12 rows.
fn dense(axes: &[&str]) -> Onnx {
    Onnx::empty()
        .input("x", DataType::Float, axes)
        .node("Flatten", &["x"], "flat")
        .attribute("axis", 1)
        .table("table", VALUES as i64, weight)
        .node("MatMul", &["flat", "table"], "vectors")
        .output("vectors", &["batch", "4"])
}

fn serving_of(shape: &[u32]) -> ServingConfig {
    let mut serving = tiny().serving;
    serving.output = output(4);
    serving.input =
        Input::Tensor(TensorInput { shape: shape.to_vec(), dtype: TensorDtype::Float32 });
    serving
}

fn loaded(onnx: &Onnx, shape: &[u32]) -> TractEngine {
    load_and_probe(onnx, &serving_of(shape)).unwrap()
}

fn refused(onnx: &Onnx, shape: &[u32]) -> String {
    load_and_probe(onnx, &serving_of(shape)).unwrap_err().to_string()
}

fn tensor(values: &[f32]) -> Row {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Row { data: RowData::Tensor(bytes), truncated: false }
}

/// Rows that all differ.
fn values() -> Vec<[f32; VALUES]> {
    let row = |row: usize| std::array::from_fn(|at| ((row * 31 + at * 17) % 23) as f32 / 4.0 - 2.0);
    (0..5).map(row).collect()
}

/// Rows together and each alone give what they should.
fn gives_products(engine: &mut TractEngine) {
    let rows: Vec<Row> = values().iter().map(|values| tensor(values)).collect();
    let together = vectors(engine, &rows);
    for (values, (row, vector)) in values().iter().zip(rows.iter().zip(&together)) {
        close(vector, &product(values));
        close(&vectors(engine, std::slice::from_ref(row))[0], vector);
    }
}

#[test]
fn a_tensor_gives_the_same_alone_and_among_others_by_one_plan() {
    let mut engine = loaded(&dense(&["batch", "12"]), &[12]);
    assert!(runs_any_shape(&engine) && engine.shared.shapes.batch.is_none());
    gives_products(&mut engine);
    gives_products(&mut loaded(&dense(&["N", "2", "3", "2"]), &[2, 3, 2]));
}

#[test]
fn a_tensor_has_no_tokens() {
    let mut engine = loaded(&dense(&["batch", "12"]), &[12]);
    let result = run(&mut engine, &[tensor(&values()[0])]).unwrap().remove(0).unwrap();
    assert_eq!((result.tokens, result.truncated), (0, false));
    assert!(run(&mut engine, &[]).unwrap().is_empty());
}

#[test]
fn axes_that_the_file_leaves_open_are_those_of_the_manifest() {
    gives_products(&mut loaded(&dense(&["batch", "a", "3", "b"]), &[2, 3, 2]));
}

#[test]
fn a_batch_that_the_file_fixes_is_filled_up() {
    for batch in ["1", "3"] {
        let mut engine = loaded(&dense(&[batch, "12"]), &[12]);
        assert_eq!(engine.shared.shapes.batch, batch.parse().ok());
        gives_products(&mut engine);
    }
}

#[test]
fn a_model_that_takes_one_row_at_a_time_is_given_one() {
    let onnx = Onnx::empty()
        .input("x", DataType::Float, &["batch", "12"])
        .integers("one", &[1, 12])
        .node("Reshape", &["x", "one"], "flat")
        .table("table", 12, weight)
        .node("MatMul", &["flat", "table"], "vectors")
        .output("vectors", &["batch", "4"]);
    let mut engine = loaded(&onnx, &[12]);
    assert_eq!(engine.shared.shapes.batch, Some(1));
    gives_products(&mut engine);
}

#[test]
fn a_model_with_convolutions_is_planned_for_one_row() {
    let onnx = Onnx::empty()
        .input("x", DataType::Float, &["batch", "1", "3", "4"])
        .floats("kernels", &[4, 1, 3, 4], |place| {
            weight(place % VALUES as i64, place / VALUES as i64)
        })
        .node("Conv", &["x", "kernels"], "boxed")
        .node("Flatten", &["boxed"], "vectors")
        .attribute("axis", 1)
        .output("vectors", &["batch", "4"]);
    let mut engine = loaded(&onnx, &[1, 3, 4]);
    assert!(runs_any_shape(&engine));
    assert_eq!(engine.shared.shapes.batch, Some(1));
    gives_products(&mut engine);
}

#[test]
fn a_model_that_would_not_keep_its_rows_apart_is_run_row_by_row() {
    // The mean over all rows has the shape of one.
    let mut onnx = dense(&["batch", "12"]);
    onnx.graph.output.clear();
    let onnx = onnx
        .node("ReduceMean", &["vectors"], "mean")
        .attribute("keepdims", 1)
        .integers_attribute("axes", &[0])
        .output("mean", &["batch", "4"]);
    let mut engine = loaded(&onnx, &[12]);
    assert_eq!(engine.shared.shapes.batch, Some(1));
    gives_products(&mut engine);
}

#[test]
fn an_output_of_four_dimensions_is_a_vector_a_tensor() {
    let mut onnx = dense(&["batch", "12"]).integers("both", &[1, 2]);
    onnx.graph.output.clear();
    let onnx = onnx
        .node("Unsqueeze", &["vectors", "both"], "boxed")
        .output("boxed", &["batch", "1", "1", "4"]);
    gives_products(&mut loaded(&onnx, &[12]));
}

#[test]
fn an_output_of_three_dimensions_is_a_vector_a_tensor_where_the_middle_one_is_1() {
    let mut onnx = dense(&["batch", "12"]).integers("middle", &[1]);
    onnx.graph.output.clear();
    let onnx = onnx.node("Unsqueeze", &["vectors", "middle"], "three");
    gives_products(&mut loaded(&onnx.output("three", &["batch", "1", "4"]), &[12]));
}

#[test]
fn any_other_output_of_three_dimensions_is_refused_without_a_word_of_pooling() {
    let mut onnx = dense(&["batch", "12"]).integers("middle", &[1]);
    onnx.graph.output.clear();
    let onnx = onnx
        .node("Unsqueeze", &["vectors", "middle"], "one")
        .node("Concat", &["one", "one"], "three")
        .attribute("axis", 1);
    let sentence = refused(&onnx.output("three", &["batch", "2", "4"]), &[12]);
    assert!(sentence.starts_with("spec.model.source: output \"three\" has shape ["), "{sentence}");
    let allowed =
        "it must be [batch, dimensions], [batch, 1, dimensions] or [batch, 1, 1, dimensions]";
    assert!(sentence.ends_with(allowed), "{sentence}");
}

/// The bytes of small numbers as values of a type.
fn bytes_of(dtype: TensorDtype, values: &[u8]) -> Vec<u8> {
    let wide = |value: &u8| match dtype {
        TensorDtype::Float32 => f32::from(*value).to_le_bytes().to_vec(),
        TensorDtype::Float64 => f64::from(*value).to_le_bytes().to_vec(),
        TensorDtype::Int32 => i32::from(*value).to_le_bytes().to_vec(),
        TensorDtype::Int64 => i64::from(*value).to_le_bytes().to_vec(),
        TensorDtype::Uint8 | TensorDtype::Int8 | TensorDtype::Bool => vec![*value],
    };
    values.iter().flat_map(wide).collect()
}

#[test]
fn tensors_of_every_type_are_read_as_they_are() {
    let cases = [
        (TensorDtype::Float32, DataType::Float),
        (TensorDtype::Float64, DataType::Double),
        (TensorDtype::Int32, DataType::Int32),
        (TensorDtype::Int64, DataType::Int64),
        (TensorDtype::Uint8, DataType::Uint8),
        (TensorDtype::Int8, DataType::Int8),
        (TensorDtype::Bool, DataType::Bool),
    ];
    for (dtype, kind) in cases {
        let onnx = Onnx::empty()
            .input("x", kind, &["batch", "12"])
            .node("Cast", &["x"], "floats")
            .attribute("to", DataType::Float as i64)
            .table("table", VALUES as i64, weight)
            .node("MatMul", &["floats", "table"], "vectors")
            .output("vectors", &["batch", "4"]);
        let mut serving = serving_of(&[12]);
        serving.input = Input::Tensor(TensorInput { shape: vec![12], dtype });
        let mut engine = load_and_probe(&onnx, &serving).unwrap();
        let most = if dtype == TensorDtype::Bool { 2 } else { 100 };
        let rows = [3_u8, 5, 7].map(|step| {
            let mut row = [0; VALUES];
            for (at, value) in (0_u8..).zip(&mut row) {
                *value = (at * step) % most;
            }
            row
        });
        let given = rows.map(|row| {
            let data = RowData::Tensor(bytes_of(dtype, &row).into());
            Row { data, truncated: false }
        });
        let together = vectors(&mut engine, &given);
        for ((row, given), vector) in rows.iter().zip(&given).zip(&together) {
            close(vector, &product(&row.map(f32::from)));
            close(&vectors(&mut engine, std::slice::from_ref(given))[0], vector);
        }
        let short =
            Row { data: RowData::Tensor(bytes_of(dtype, &[1; 11]).into()), truncated: false };
        assert!(run(&mut engine, &[short]).is_err(), "{dtype:?}");
        let sentence = load_and_probe(&dense(&["batch", "12"]), &serving).map(drop);
        let fits = dtype == TensorDtype::Float32;
        assert_eq!(sentence.is_ok(), fits, "{dtype:?}");
    }
}

#[test]
fn another_shape_than_the_files_is_refused() {
    let onnx = dense(&["batch", "2", "6"]);
    for shape in [&[12][..], &[6, 2], &[2, 6, 1], &[]] {
        let expected = format!(
            "spec.input.tensor.shape: {shape:?}, but the model's file has input \"x\" float [batch, 2, 6]; \
             it must be the axes behind the first, which is the batch"
        );
        assert_eq!(refused(&onnx, shape), expected);
    }
    gives_products(&mut loaded(&onnx, &[2, 6]));
}

#[test]
fn another_element_type_than_the_files_is_refused() {
    let onnx = dense(&["batch", "12"]).input("x", DataType::Int64, &["batch", "12"]);
    let expected = "spec.input.tensor.dtype: Float32, but the model's file has input \"x\" int64 [batch, 12]; \
                    it must be the input's element type";
    assert_eq!(refused(&onnx, &[12]), expected);
}

#[test]
fn inputs_that_are_not_one_tensor_are_listed() {
    let onnx = dense(&["batch", "12"]).input("y", DataType::Float, &["batch", "1"]);
    let sentence = refused(&onnx, &[12]);
    let expected = "spec.model.source: the model must have one input, a tensor [batch, …]; \
                    its inputs: \"x\" float [batch, 12], \"y\" float [batch, 1]";
    assert_eq!(sentence, expected);
    assert!(refused(&Onnx::pooled(), &[12]).contains("one input, a tensor [batch"));
}

#[test]
fn a_batch_axis_that_no_run_can_have_is_refused() {
    for batch in ["0", "-3", "1000000"] {
        let sentence = refused(&dense(&[batch, "12"]), &[12]);
        let expected = "spec.model.source: input \"x\" has an axis beyond 1 to 1024";
        assert_eq!(sentence, expected);
    }
}

#[test]
fn other_dimensions_than_a_model_of_tensors_has_are_refused() {
    let mut serving = serving_of(&[12]);
    serving.output = output(8);
    let sentence = load_and_probe(&dense(&["batch", "12"]), &serving).unwrap_err().to_string();
    assert_eq!(sentence, "spec.model.output.dimensions: 8, but output \"vectors\" has 4");
}

#[test]
fn a_tensor_without_a_finite_vector_fails_alone() {
    // Divided by the sum of its values, a row of zeros has no vector; such a model is served all the same.
    let mut onnx = dense(&["batch", "12"]).integers("last", &[1]);
    onnx.graph.output.clear();
    let onnx = onnx
        .node("ReduceSum", &["flat", "last"], "sum")
        .attribute("keepdims", 1)
        .node("Div", &["vectors", "sum"], "divided")
        .output("divided", &["batch", "4"]);
    let mut engine = loaded(&onnx, &[12]);
    let ones = [1.0; VALUES];
    let infinite = [f32::INFINITY; VALUES];
    let rows = [tensor(&[0.0; VALUES]), tensor(&ones), tensor(&infinite)];
    let results = run(&mut engine, &rows).unwrap();
    let values: Vec<f32> = results[1].as_ref().unwrap().vector.values().collect();
    close(&values, &product(&ones));
    for failed in [&results[0], &results[2]] {
        assert_eq!(failed.as_ref().unwrap_err().kind, ErrorKind::NotFinite);
    }
}

#[test]
fn a_model_that_fails_on_a_tensor_is_found_by_trying() {
    // Ones are looked up in a table that has a row for zeros alone.
    let onnx = Onnx::empty()
        .input("x", DataType::Float, &["batch"])
        .node("Cast", &["x"], "ids")
        .attribute("to", DataType::Int64 as i64)
        .table("table", 1, |_, _| 1.0)
        .node("Gather", &["table", "ids"], "vectors")
        .output("vectors", &["batch", "4"]);
    let sentence = refused(&onnx, &[]);
    let expected = "spec.model.source: the model fails on a tensor of ones: ";
    assert!(sentence.starts_with(expected), "{sentence}");
}

#[test]
fn a_row_of_another_kind_or_size_is_an_error_of_the_run() {
    let mut engine = loaded(&dense(&["batch", "12"]), &[12]);
    for other in [row(&[1, 2, 3]), tensor(&[1.0; VALUES - 1])] {
        let error = run(&mut engine, &[other]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Inference);
        assert!(error.message.contains("is not a tensor of shape [12]"), "{error}");
    }
    gives_products(&mut engine);
}
