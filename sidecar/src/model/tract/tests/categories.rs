//! Models of categories.

use embark_crds::contract::CategoricalInput;

use super::*;
use crate::model::{
    engine::RowData,
    test_support::{TINY_TOKENIZER, builtin},
};

/// `id` → `vectors` float [batch, 4]: a table of so many rows.
fn table(kind: DataType, axes: &[&str], rows: i64) -> Onnx {
    Onnx::empty()
        .input("id", kind, axes)
        .table("table", rows, value)
        .node("Gather", &["table", "id"], "vectors")
        .output("vectors", &["batch", "4"])
}

fn value(row: i64, column: i64) -> f32 {
    1.0 + ((row * 5 + column * 3) % 7) as f32
}

fn serving() -> ServingConfig {
    let mut serving = tiny().serving;
    serving.output = output(4);
    let vocabulary = builtin("tokenizer.json", TINY_TOKENIZER);
    serving.input = Input::Categorical(CategoricalInput { vocabulary });
    serving
}

fn loaded(onnx: &Onnx) -> TractEngine {
    load_and_probe(onnx, &serving()).unwrap()
}

fn refused(onnx: &Onnx) -> String {
    load_and_probe(onnx, &serving()).unwrap_err().to_string()
}

fn index(row: u32) -> Row {
    Row { data: RowData::Index(row), truncated: false }
}

/// Rows together and each alone are those of the table.
fn gives_rows(engine: &mut TractEngine) {
    let rows = [0, 39, 7, 7, 1].map(index);
    let together = vectors(engine, &rows);
    for (row, vector) in rows.iter().zip(&together) {
        let RowData::Index(at) = row.data else { panic!("it is a row") };
        let mut expected: Vec<f32> = (0..4).map(|column| value(at.into(), column)).collect();
        crate::embedding::normalize_l2(&mut expected);
        close(vector, &expected);
        close(&vectors(engine, std::slice::from_ref(row))[0], vector);
    }
}

#[test]
fn a_category_is_a_row_of_the_table_by_any_integer_and_either_shape() {
    for kind in [DataType::Int32, DataType::Int64] {
        for axes in [&["batch"][..], &["batch", "1"], &["batch", "n"], &["1"], &["3", "1"]] {
            gives_rows(&mut loaded(&table(kind, axes, 40)));
        }
    }
}

#[test]
fn a_category_has_no_tokens() {
    let mut engine = loaded(&table(DataType::Int64, &["batch"], 40));
    let result = run(&mut engine, &[index(3)]).unwrap().remove(0).unwrap();
    assert_eq!((result.tokens, result.truncated), (0, false));
    assert!(run(&mut engine, &[row(&[1])]).is_err(), "tokens are no category");
}

#[test]
fn a_table_of_too_few_rows_is_refused_with_both_numbers() {
    let expected = "spec.input.categorical.vocabulary: does not fit the model: it has 39 ids, which with the row of \
                    unknown ids are 40 rows, but the model's table has 39";
    assert_eq!(refused(&table(DataType::Int64, &["batch"], 39)), expected);
    gives_rows(&mut loaded(&table(DataType::Int64, &["batch"], 41)));
}

#[test]
fn a_table_that_cannot_be_seen_is_found_too_short_by_trying() {
    // Behind a sum the lookup is not recognised.
    let hidden = |rows| {
        Onnx::empty()
            .input("id", DataType::Int64, &["batch"])
            .integers("nothing", &[0])
            .node("Add", &["id", "nothing"], "same")
            .table("table", rows, value)
            .node("Gather", &["table", "same"], "vectors")
            .output("vectors", &["batch", "4"])
    };
    gives_rows(&mut loaded(&hidden(40)));
    let sentence = refused(&hidden(39));
    let expected = "spec.input.categorical.vocabulary: does not fit the model: it has 39 ids, but the model fails on row \
                    39, though not on row 0: ";
    assert!(sentence.starts_with(expected), "{sentence}");
}

#[test]
fn an_input_that_is_no_category_is_refused_with_those_that_are_there() {
    let cases = [
        table(DataType::Float, &["batch"], 40),
        table(DataType::Int64, &["batch", "2"], 40),
        table(DataType::Int64, &["batch", "1", "1"], 40),
        table(DataType::Int64, &["batch"], 40).input("other", DataType::Int64, &["batch"]),
        table(DataType::Int64, &["5000"], 40),
        table(DataType::Int64, &["0"], 40),
    ];
    for onnx in cases {
        let sentence = refused(&onnx);
        let expected = "spec.model.source: the model must have one input, rows of its table, int32 or int64 [batch] or \
                        [batch, 1]; ";
        assert!(sentence.starts_with(expected), "{sentence}");
        assert!(sentence.contains("its inputs: \"id\" "), "{sentence}");
    }
}

#[test]
fn a_row_of_unknown_ids_that_is_not_finite_fails_alone() {
    let onnx = table(DataType::Int64, &["batch"], 40)
        .table("table", 40, |row, column| if row == 0 { f32::NAN } else { value(row, column) });
    let mut engine = loaded(&onnx);
    let results = run(&mut engine, &[index(0), index(1)]).unwrap();
    assert_eq!(results[0].as_ref().unwrap_err().kind, ErrorKind::NotFinite);
    assert!(results[1].is_ok());
}
