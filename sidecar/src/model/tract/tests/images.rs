//! Models of images.

use embark_crds::contract::{ImageDtype, ImageInput, Layout};

use super::*;
use crate::model::{engine::RowData, test_support::images};

/// Values of a row: 2 pixels across, 3 down.
const VALUES: usize = 18;

/// `x` of an element type and these axes → `vectors` float [batch, 4]: the values of a row, flat, times a table.
fn dense(kind: DataType, axes: &[&str]) -> Onnx {
    Onnx::empty()
        .input("x", kind, axes)
        .node("Cast", &["x"], "floats")
        .attribute("to", DataType::Float as i64)
        .node("Flatten", &["floats"], "flat")
        .attribute("axis", 1)
        .table("table", VALUES as i64, weight)
        .node("MatMul", &["flat", "table"], "vectors")
        .output("vectors", &["batch", "4"])
}

fn serving_of(layout: Layout, dtype: ImageDtype) -> ServingConfig {
    let mut serving = tiny().serving;
    serving.output = output(4);
    serving.input = Input::Image(ImageInput { layout, dtype, ..images(2, 3) });
    serving
}

fn bytes_of(dtype: ImageDtype, values: &[u8]) -> Row {
    let bytes = match dtype {
        ImageDtype::Uint8 => values.to_vec(),
        ImageDtype::Float32 => values.iter().flat_map(|v| f32::from(*v).to_le_bytes()).collect(),
    };
    Row { data: RowData::Tensor(bytes.into()), truncated: false }
}

/// Rows together and each alone give what they should.
fn gives_products(engine: &mut TractEngine, dtype: ImageDtype) {
    let all: Vec<[u8; VALUES]> = (0..5_usize)
        .map(|row| std::array::from_fn(|at| (row * 31 + at * 17).to_le_bytes()[0]))
        .collect();
    let rows: Vec<Row> = all.iter().map(|values| bytes_of(dtype, values)).collect();
    let together = vectors(engine, &rows);
    for (values, (row, vector)) in all.iter().zip(rows.iter().zip(&together)) {
        close(vector, &product(&values.map(f32::from)));
        close(&vectors(engine, std::slice::from_ref(row))[0], vector);
    }
}

#[test]
fn pixels_of_both_types_and_both_orders_give_the_same_alone_and_among_others() {
    let types = [(ImageDtype::Uint8, DataType::Uint8), (ImageDtype::Float32, DataType::Float)];
    for (dtype, kind) in types {
        for (layout, axes) in [
            (Layout::Nhwc, ["batch", "3", "2", "3"]),
            (Layout::Nchw, ["N", "3", "3", "2"]),
            (Layout::Nhwc, ["batch", "height", "width", "3"]),
            (Layout::Nchw, ["2", "3", "3", "2"]),
        ] {
            let serving = serving_of(layout, dtype);
            let mut engine = load_and_probe(&dense(kind, &axes), &serving).unwrap();
            gives_products(&mut engine, dtype);
        }
    }
}

#[test]
fn a_model_that_does_not_take_such_images_is_refused_by_the_field_that_is_wrong() {
    let of = |kind, axes: &[&str]| {
        let serving = serving_of(Layout::Nhwc, ImageDtype::Uint8);
        load_and_probe(&dense(kind, axes), &serving).unwrap_err().to_string()
    };
    assert_eq!(
        of(DataType::Float, &["batch", "3", "2", "3"]),
        "spec.input.image.dtype: Uint8, but the model's file has input \"x\" float [batch, 3, 2, 3]; \
         it must be the input's element type"
    );
    assert_eq!(
        of(DataType::Uint8, &["batch", "3", "3", "2"]),
        "spec.input.image.layout: NHWC, but the model's file has input \"x\" uint8 [batch, 3, 3, 2]; \
         it must be its order of axes"
    );
    assert_eq!(
        of(DataType::Uint8, &["batch", "4", "2", "3"]),
        "spec.input.image: 2 pixels across and 3 down in NHWC, but the model's file has input \
         \"x\" uint8 [batch, 4, 2, 3]; they must be its sizes"
    );
    assert_eq!(
        of(DataType::Uint8, &["batch", "18"]),
        "spec.model.source: the model's input must be pixels of four axes, the first of them the batch; \
         its input: \"x\" uint8 [batch, 18]"
    );
    assert_eq!(
        of(DataType::Uint8, &["0", "3", "2", "3"]),
        "spec.model.source: input \"x\" has an axis beyond 1 to 1024"
    );
    let serving = serving_of(Layout::Nhwc, ImageDtype::Uint8);
    let two = dense(DataType::Uint8, &["batch", "3", "2", "3"]);
    let two = two.input("y", DataType::Float, &["batch", "1"]);
    let sentence = load_and_probe(&two, &serving).unwrap_err().to_string();
    assert!(sentence.contains("one input, pixels of uint8 or float; its inputs: \"x\""));
}

#[test]
fn a_row_of_another_size_is_an_error_of_the_run() {
    let serving = serving_of(Layout::Nhwc, ImageDtype::Uint8);
    let onnx = dense(DataType::Uint8, &["batch", "3", "2", "3"]);
    let mut engine = load_and_probe(&onnx, &serving).unwrap();
    for other in [row(&[1, 2]), bytes_of(ImageDtype::Uint8, &[1; VALUES - 1])] {
        let error = run(&mut engine, &[other]).unwrap_err();
        assert!(error.message.contains("is not an image of shape [3, 2, 3]"), "{error}");
    }
    gives_products(&mut engine, ImageDtype::Uint8);
}
