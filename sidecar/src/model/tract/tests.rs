use embark_crds::contract::Input;
use proptest::prelude::*;
use tract_onnx::{
    pb::{StringStringEntryProto, tensor_proto::DataType},
    prelude::{Framework, InferenceModelExt},
};

use super::{test_onnx::Onnx, *};
use crate::model::{
    refusal::contained,
    test_support::{TINY_MODEL, output, text, tiny},
    tokenizer::TokenizerFacts,
};

mod categories;
mod images;
mod tensors;

/// A tokenizer of the ids 0 to 39, which is as many as the test models' tables have rows.
fn facts() -> TokenizerFacts {
    TokenizerFacts { highest_id: 39, pad_id: 0, sample: vec![1, 5, 9, 2] }
}

fn serving(pooling: Pooling) -> ServingConfig {
    let mut serving = tiny().serving;
    serving.output = output(4);
    text(&mut serving).pooling = pooling;
    text(&mut serving).max_tokens = 16;
    serving
}

fn load_and_probe(onnx: &Onnx, serving: &ServingConfig) -> Result<TractEngine, Refusal> {
    load_bytes(onnx.bytes(), serving)
}

fn load_bytes(bytes: Bytes, serving: &ServingConfig) -> Result<TractEngine, Refusal> {
    let tokenizer = &facts();
    let takes = match &serving.input {
        Input::Text(input) => Takes::Text { input, tokenizer },
        Input::Image(input) => Takes::Image(input),
        Input::Tensor(input) => Takes::Tensor(input),
        // As many ids as a table of 40 rows has, beside that of unknown ones.
        Input::Categorical(_) => Takes::Category(39),
    };
    let engine = load(bytes, serving, takes, &mut Stages::default())?;
    engine.probe()?;
    Ok(engine)
}

fn loaded(onnx: &Onnx, pooling: Pooling) -> TractEngine {
    load_and_probe(onnx, &serving(pooling)).unwrap()
}

fn refused(onnx: &Onnx, pooling: Pooling) -> String {
    load_and_probe(onnx, &serving(pooling)).unwrap_err().to_string()
}

/// A weight of the tables that rows are multiplied by.
fn weight(row: i64, column: i64) -> f32 {
    ((row * 5 + column * 3) % 7) as f32 - 2.0
}

/// What such a table makes of a row, normalised.
fn product(values: &[f32]) -> Vec<f32> {
    let sum = |column| {
        values.iter().enumerate().map(|(row, x)| x * weight(row as i64, column)).sum::<f32>()
    };
    let mut vector: Vec<f32> = (0..4).map(sum).collect();
    crate::embedding::normalize_l2(&mut vector);
    vector
}

fn row(ids: &[u32]) -> Row {
    Row::of_tokens(ids.to_vec())
}

/// The outcomes of rows that are run on one thread.
fn run(engine: &mut dyn Engine, rows: &[Row]) -> Result<Vec<Result<Embedding, Error>>, Error> {
    let rows: Vec<&Row> = rows.iter().collect();
    engine.run(&rows, Threads::One)
}

fn vectors(engine: &mut TractEngine, rows: &[Row]) -> Vec<Vec<f32>> {
    let results = run(engine, rows).unwrap();
    results.into_iter().map(|result| result.unwrap().vector.values().collect()).collect()
}

fn close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} is not {b:?}");
}

/// What [`Onnx::tokens`] makes of ids, pooled by the mean and normalised.
fn expected(ids: &[u32]) -> Vec<f32> {
    let value = |id: u32, column: u32| 1.0 + ((id * 7 + column * 3) % 11) as f32;
    let mean = |column| ids.iter().map(|id| value(*id, column)).sum::<f32>() / ids.len() as f32;
    let mut vector: Vec<f32> = (0..4).map(mean).collect();
    crate::embedding::normalize_l2(&mut vector);
    vector
}

fn rows() -> Vec<Row> {
    vec![row(&[3, 4, 5, 6, 7]), row(&[8]), row(&[9, 10, 11]), row(&[1; 16])]
}

/// Rows of several lengths together and each alone give what they should.
fn gives_means(engine: &mut TractEngine) {
    let rows = rows();
    let together = vectors(engine, &rows);
    for (row, vector) in rows.iter().zip(&together) {
        close(vector, &expected(row.tokens()));
        close(&vectors(engine, std::slice::from_ref(row))[0], vector);
    }
}

fn runs_any_shape(engine: &TractEngine) -> bool {
    matches!(engine.shared.program, Program::Any(_))
}

#[test]
fn a_model_that_pools_gives_the_same_alone_and_among_others() {
    let mut engine = loaded(&Onnx::pooled(), Pooling::None);
    assert!(runs_any_shape(&engine));
    gives_means(&mut engine);
}

#[test]
fn a_row_says_how_many_tokens_it_has() {
    let mut engine = loaded(&Onnx::pooled(), Pooling::None);
    let rows = [row(&[3, 4, 5]), Row { truncated: true, ..row(&[1; 16]) }];
    let results: Vec<Embedding> =
        run(&mut engine, &rows).unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!((results[0].tokens, results[0].truncated), (3, false));
    assert_eq!((results[1].tokens, results[1].truncated), (16, true));
}

#[test]
fn a_run_on_all_cores_gives_the_same() {
    let mut engine = loaded(&Onnx::pooled(), Pooling::None);
    let rows = rows();
    let one = vectors(&mut engine, &rows);
    let rows: Vec<&Row> = rows.iter().collect();
    let all = engine.run(&rows, Threads::All).unwrap();
    for (all, one) in all.into_iter().zip(one) {
        assert_eq!(all.unwrap().vector.values().collect::<Vec<_>>(), one);
    }
}

#[test]
fn no_rows_are_no_vectors() {
    let mut engine = loaded(&Onnx::pooled(), Pooling::None);
    assert!(run(&mut engine, &[]).unwrap().is_empty());
}

#[test]
fn a_fork_gives_the_same() {
    let engine = loaded(&Onnx::pooled(), Pooling::None);
    let mut fork = engine.fork();
    let result = run(&mut *fork, &[row(&[3, 4])]).unwrap().remove(0).unwrap();
    close(&result.vector.values().collect::<Vec<_>>(), &expected(&[3, 4]));
}

#[test]
fn an_output_of_three_dimensions_is_pooled() {
    let onnx = Onnx::tokens().output("tokens", &["batch", "sequence", "4"]);
    gives_means(&mut loaded(&onnx, Pooling::Mean));
    let rows = [row(&[3, 4, 5]), row(&[6])];
    let first = vectors(&mut loaded(&onnx, Pooling::Cls), &rows);
    close(&first[0], &expected(&[3]));
    let last = vectors(&mut loaded(&onnx, Pooling::LastToken), &rows);
    close(&last[0], &expected(&[5]));
    close(&last[1], &expected(&[6]));
}

#[test]
fn an_output_of_three_dimensions_needs_pooling() {
    let onnx = Onnx::tokens().output("tokens", &["batch", "sequence", "4"]);
    let sentence = refused(&onnx, Pooling::None);
    assert!(sentence.starts_with("spec.input.text.pooling: None, but output \"tokens\" ["));
    assert!(sentence.ends_with("has a vector for each token; it must be Mean, CLS or LastToken"));
}

#[test]
fn an_output_of_two_dimensions_takes_no_pooling() {
    let sentence = refused(&Onnx::pooled(), Pooling::Mean);
    assert!(sentence.starts_with("spec.input.text.pooling: Mean, but output \"pooled\" ["));
    assert!(sentence.ends_with("has one vector a row already; it must be None"), "{sentence}");
}

#[test]
fn an_output_of_four_dimensions_is_a_vector_a_row() {
    let mut onnx = Onnx::pooled().integers("both", &[1, 2]);
    onnx.graph.output.clear();
    let onnx = onnx
        .node("Unsqueeze", &["pooled", "both"], "boxed")
        .output("boxed", &["batch", "1", "1", "4"]);
    gives_means(&mut loaded(&onnx, Pooling::None));
}

#[test]
fn inputs_may_be_int32_and_have_other_names() {
    let mut onnx = Onnx::pooled();
    onnx.graph.input.clear();
    let mut onnx = onnx
        .input("segment_ids:0", DataType::Int32, &["N", "L"])
        .input("input_mask:0", DataType::Int32, &["N", "L"])
        .input("input_word_ids:0", DataType::Int32, &["N", "L"]);
    for name in onnx.graph.node.iter_mut().flat_map(|node| &mut node.input) {
        *name = match name.as_str() {
            "input_ids" => "input_word_ids:0".to_owned(),
            "attention_mask" => "input_mask:0".to_owned(),
            other => other.to_owned(),
        };
    }
    gives_means(&mut loaded(&onnx, Pooling::None));
}

#[test]
fn one_input_is_the_ids_whatever_its_name() {
    let mut onnx = Onnx::tokens()
        .without_input("attention_mask")
        .without_input("input_ids")
        .input("x", DataType::Int64, &["batch", "sequence"])
        .output("tokens", &["batch", "sequence", "4"]);
    onnx.graph.node[0].input[1] = "x".to_owned();
    gives_means(&mut loaded(&onnx, Pooling::Mean));
}

#[test]
fn without_a_mask_rows_are_never_padded() {
    let onnx = Onnx::tokens()
        .without_input("attention_mask")
        .node("ReduceMean", &["tokens"], "pooled")
        .attribute("keepdims", 0)
        .integers_attribute("axes", &[1])
        .output("pooled", &["batch", "4"]);
    gives_means(&mut loaded(&onnx, Pooling::None));
}

#[test]
fn inputs_that_are_not_of_texts_are_listed() {
    let onnx = Onnx::pooled().input("pixel_values", DataType::Float, &["batch", "3", "224"]);
    let sentence = refused(&onnx, Pooling::None);
    assert!(sentence.starts_with("spec.model.source: the model's inputs must be token ids"));
    assert!(sentence.contains("\"pixel_values\" float [batch, 3, 224]"), "{sentence}");
    let onnx = Onnx::pooled().input("position_ids", DataType::Int64, &["batch", "sequence"]);
    assert!(refused(&onnx, Pooling::None).contains("\"position_ids\" is none of these"));
}

#[test]
fn two_float_outputs_are_ambiguous_until_one_is_named() {
    let onnx = Onnx::pooled().output("tokens", &["batch", "sequence", "4"]);
    let sentence = refused(&onnx, Pooling::None);
    assert!(sentence.starts_with("spec.model.output.name: must name the output"), "{sentence}");
    assert!(sentence.contains("\"pooled\" float [batch, 4], \"tokens\" float"), "{sentence}");
    let mut named = serving(Pooling::None);
    named.output.name = Some("pooled".to_owned());
    gives_means(&mut load_and_probe(&onnx, &named).unwrap());
    named.output.name = Some("other".to_owned());
    let sentence = load_and_probe(&onnx, &named).unwrap_err().to_string();
    assert!(sentence.starts_with("spec.model.output.name: \"other\" is no output"), "{sentence}");
}

#[test]
fn an_output_that_echoes_an_input_is_not_the_embedding() {
    let mut onnx = Onnx::pooled().node("Identity", &["input_ids"], "echo");
    onnx = onnx.output("echo", &["batch", "sequence"]);
    onnx.graph.output.rotate_right(1);
    gives_means(&mut loaded(&onnx, Pooling::None));
}

#[test]
fn other_dimensions_than_the_model_has_are_refused() {
    let mut other = serving(Pooling::None);
    other.output = output(8);
    let sentence = load_and_probe(&Onnx::pooled(), &other).unwrap_err().to_string();
    assert_eq!(sentence, "spec.model.output.dimensions: 8, but output \"pooled\" has 4");
}

#[test]
fn an_unknown_operator_is_named() {
    let mut onnx = Onnx::pooled();
    onnx.graph.output.clear();
    let onnx = onnx.node("FancyOp", &["pooled"], "fancy").output("fancy", &["batch", "4"]);
    let sentence = refused(&onnx, Pooling::None);
    assert!(sentence.starts_with("spec.model.source: the model needs operator \"FancyOp\""));
}

#[test]
fn an_unknown_operator_that_the_named_output_does_not_need_does_not_matter() {
    let onnx = Onnx::pooled().node("FancyOp", &["pooled"], "fancy").output("fancy", &["batch"]);
    let mut named = serving(Pooling::None);
    named.output.name = Some("pooled".to_owned());
    gives_means(&mut load_and_probe(&onnx, &named).unwrap());
}

#[test]
fn an_operator_that_the_runtime_refuses_is_named() {
    let mut onnx = Onnx::pooled();
    onnx.graph.output.clear();
    let onnx = onnx.node("Concat", &["pooled", "table"], "joined").attribute("axis", 7);
    let sentence = refused(&onnx.output("joined", &["batch", "4"]), Pooling::None);
    assert!(sentence.starts_with("spec.model.source: the runtime cannot"), "{sentence}");
    assert!(sentence.contains("oncat"), "{sentence}");
}

#[test]
fn shapes_that_the_file_claims_for_the_middle_of_the_model_are_ignored() {
    let onnx = Onnx::pooled().value_info("masked", &["3", "5", "4"]);
    let heeded = tract_onnx::onnx().model_for_proto_model(&onnx.proto()).unwrap();
    assert!(heeded.into_typed().is_err(), "the claim would not have broken the model");
    gives_means(&mut loaded(&onnx, Pooling::None));
}

#[test]
fn external_data_is_refused_by_the_tensors_name() {
    let onnx = Onnx::pooled().initializer("table", |table| {
        table.float_data.clear();
        table.data_location = Some(1);
        let (key, value) = ("location".to_owned(), "/etc/passwd".to_owned());
        table.external_data = vec![StringStringEntryProto { key, value }];
    });
    let sentence = refused(&onnx, Pooling::None);
    assert!(sentence.starts_with("spec.model.source: tensor \"table\" keeps its data in another"));
}

#[test]
fn a_tensor_that_claims_more_than_the_file_holds_is_refused() {
    for dims in [vec![1 << 40, 4], vec![i64::MAX, i64::MAX], vec![-1, 4], vec![41, 4], vec![39, 4]]
    {
        let onnx = Onnx::pooled().initializer("table", |table| table.dims = dims);
        let sentence = refused(&onnx, Pooling::None);
        assert!(sentence.starts_with("spec.model.source: tensor \"table\" of shape ["));
    }
}

#[test]
fn a_tensor_that_an_operator_blows_up_is_refused() {
    let mut onnx = Onnx::pooled();
    onnx.graph.output.clear();
    let onnx = onnx
        .integers("shape", &[1 << 20, 1 << 20])
        .node("ConstantOfShape", &["shape"], "huge")
        .output("huge", &["a", "b"]);
    let sentence = refused(&onnx, Pooling::None);
    assert!(sentence.contains("makes a tensor of more than"), "{sentence}");
}

#[test]
fn a_file_that_is_not_onnx_is_refused() {
    for bytes in [&b""[..], b"not a model", b"{\"a\": 1}", &[0xff; 64], &TINY_MODEL[..1000]] {
        let bytes = Bytes::copy_from_slice(bytes);
        let sentence = load_bytes(bytes, &serving(Pooling::None)).unwrap_err().to_string();
        assert!(sentence.starts_with("spec.model.source: the file is not an ONNX model: "));
    }
}

#[test]
fn an_output_that_nothing_makes_is_refused() {
    let sentence = refused(&Onnx::tokens().output("ghost", &["batch", "4"]), Pooling::None);
    assert_eq!(sentence, "spec.model.source: output \"ghost\" is made by no node of the model");
}

#[test]
fn a_row_that_is_not_finite_fails_alone() {
    let onnx = Onnx::pooled().table("table", 40, |row, column| {
        if row == 30 { f32::NAN } else { 1.0 + ((row * 7 + column * 3) % 11) as f32 }
    });
    let mut engine = loaded(&onnx, Pooling::None);
    let results = run(&mut engine, &[row(&[3, 4]), row(&[30])]).unwrap();
    let values: Vec<f32> = results[0].as_ref().unwrap().vector.values().collect();
    close(&values, &expected(&[3, 4]));
    assert_eq!(results[1].as_ref().unwrap_err().kind, ErrorKind::NotFinite);
}

#[test]
fn a_model_that_gives_nothing_finite_is_refused() {
    let onnx = Onnx::pooled().table("table", 40, |_, _| f32::NAN);
    let sentence = refused(&onnx, Pooling::None);
    assert!(sentence.contains("values that are not finite for a short text"), "{sentence}");
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let onnx = Onnx::pooled().table("table", 20, |_, _| 1.0);
    let sentence = refused(&onnx, Pooling::None);
    assert!(
        sentence
            .starts_with("spec.input.text.tokenizer: does not fit the model: its highest id is 39")
            && sentence.contains("20 rows"),
        "{sentence}"
    );
}

#[test]
fn a_tokenizer_of_another_model_is_found_by_running_too() {
    // The table is behind an operator that the check of the file does not see through.
    let mut onnx = Onnx::pooled().table("table", 20, |_, _| 1.0);
    onnx.graph.node[0].input[0] = "moved".to_owned();
    onnx = onnx.node("Abs", &["table"], "moved");
    onnx.graph.node.rotate_right(1);
    let sentence = refused(&onnx, Pooling::None);
    assert!(sentence.starts_with("spec.input.text.tokenizer: does not fit the model, which fails"));
}

/// [`Onnx::pooled`] with positions added from a table of `rows`, as exports of BERT have them.
fn with_positions(rows: i64) -> Onnx {
    let mut onnx = Onnx::pooled()
        .table("positions", rows, |_, _| 0.0)
        .integers("all", &(0..rows).collect::<Vec<_>>())
        .integers("zero", &[0])
        .integers("one", &[1]);
    let rest = onnx.graph.node.split_off(1);
    onnx = onnx
        .node("Shape", &["input_ids"], "shape")
        .node("Gather", &["shape", "one"], "length")
        .node("Slice", &["all", "zero", "length"], "places")
        .node("Gather", &["positions", "places"], "placed")
        .node("Add", &["tokens", "placed"], "summed");
    onnx.graph.node.extend(rest);
    for node in &mut onnx.graph.node {
        if node.op_type == "Mul" {
            node.input[0] = "summed".to_owned();
        }
    }
    onnx
}

#[test]
fn a_table_of_positions_that_suffices_is_fine() {
    gives_means(&mut loaded(&with_positions(16), Pooling::None));
}

#[test]
fn a_table_of_positions_shorter_than_the_longest_row_is_refused() {
    let sentence = refused(&with_positions(12), Pooling::None);
    let both =
        "spec.input.text.maxTokens: 16, but the longest row that the model can run has 12 tokens: ";
    assert!(sentence.starts_with(both), "{sentence}");
}

#[test]
fn a_model_of_fixed_shape_is_padded_to_it() {
    for batch in ["1", "3"] {
        let onnx = Onnx::pooled().input("input_ids", DataType::Int64, &[batch, "20"]).input(
            "attention_mask",
            DataType::Int64,
            &[batch, "20"],
        );
        let mut engine = loaded(&onnx, Pooling::None);
        assert_eq!(engine.shared.shapes.sequence, Some(20));
        gives_means(&mut engine);
    }
}

#[test]
fn a_fixed_shape_shorter_than_the_longest_row_is_refused() {
    let onnx = Onnx::pooled().input("input_ids", DataType::Int64, &["1", "8"]);
    let sentence = refused(&onnx, Pooling::None);
    assert!(sentence.starts_with("spec.input.text.maxTokens: 16, but the model's file fixes"));
}

/// A model whose middle only takes one row of `length` tokens; with a length of -1 one row of any length.
fn one_row_at_a_time(length: i64) -> Onnx {
    let mut onnx = Onnx::pooled().integers("flat", &[1, length, 4]);
    let rest = onnx.graph.node.split_off(1);
    onnx = onnx.node("Reshape", &["tokens", "flat"], "flattened");
    onnx.graph.node.extend(rest);
    for node in &mut onnx.graph.node {
        if node.op_type == "Mul" {
            node.input[0] = "flattened".to_owned();
        }
    }
    onnx
}

#[test]
fn a_model_that_refuses_a_free_shape_gets_a_plan_for_each() {
    for length in [-1, 16] {
        let mut engine = loaded(&one_row_at_a_time(length), Pooling::None);
        assert!(!runs_any_shape(&engine), "{length}");
        gives_means(&mut engine);
    }
}

#[test]
fn plans_are_bounded_in_number() {
    let mut wide = serving(Pooling::None);
    text(&mut wide).max_tokens = 64;
    // Without a mask each length is a shape of its own.
    let mut onnx = Onnx::tokens().without_input("attention_mask").integers("flat", &[1, -1, 4]);
    onnx = onnx.node("Reshape", &["tokens", "flat"], "flattened");
    let onnx = onnx
        .node("ReduceMean", &["flattened"], "pooled")
        .attribute("keepdims", 0)
        .integers_attribute("axes", &[1])
        .output("pooled", &["batch", "4"]);
    let mut engine = load_and_probe(&onnx, &wide).unwrap();
    for length in 1..=40 {
        let ids: Vec<u32> = (0..length).collect();
        close(&vectors(&mut engine, &[row(&ids)])[0], &expected(&ids));
    }
    match &engine.shared.program {
        Program::Shapes(cache) => assert_eq!(cache.kept_plans(), 16),
        Program::Any(_) => panic!("the model runs any shape"),
    }
}

#[test]
fn a_panic_of_the_runtime_is_an_error_of_the_run() {
    // An id beyond the table makes the lookup panic.
    let mut engine = loaded(&Onnx::pooled(), Pooling::None);
    let error = run(&mut engine, &[row(&[1000])]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Inference);
    gives_means(&mut engine);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_are_checked_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = graph::read(&bytes);
    }

    #[test]
    fn a_damaged_model_is_refused_or_runs(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        let mut bytes = Onnx::pooled().bytes().to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let loaded = contained(|| load_bytes(bytes.into(), &serving(Pooling::None)).map(drop));
        prop_assert!(loaded.is_ok(), "{loaded:?}");
    }
}

/// A model that has a vector for each of so many places of a row.
fn of_places(places: i64) -> Onnx {
    let value = |place| (place % 5) as f32;
    Onnx::empty()
        .input("input_ids", DataType::Int64, &["batch", "sequence"])
        .table("table", 40, |row, column| (row + column) as f32)
        .floats("places", &[1, places, 4], value)
        .integers("zero", &[0])
        .integers("one", &[1])
        .node("Shape", &["input_ids"], "shape")
        .node("Gather", &["shape", "one"], "length")
        .node("Slice", &["places", "zero", "length", "one"], "here")
        .node("Gather", &["table", "input_ids"], "words")
        .node("Add", &["words", "here"], "vectors")
        .output("vectors", &["batch", "sequence", "4"])
}

#[test]
fn a_model_of_fewer_places_than_the_longest_row_has_is_refused_with_both_numbers() {
    for places in [11, 4, 15] {
        let sentence = refused(&of_places(places), Pooling::Mean);
        let expected = format!(
            "spec.input.text.maxTokens: 16, but the longest row that the model can run has {places} tokens: "
        );
        assert!(sentence.starts_with(&expected), "{sentence}");
    }
    loaded(&of_places(16), Pooling::Mean);
}

#[test]
fn one_to_three_inputs_are_known_by_the_names_that_exporters_give_them() {
    // Which of them is the ids, and all of them.
    let names: [(usize, &[&str]); 9] = [
        (0, &["ids"]),
        (0, &["tokens"]),
        (0, &["input.1"]),
        (0, &["anything"]),
        (0, &["input_ids:0", "attention_mask:0"]),
        (1, &["mask", "input_ids"]),
        (0, &["input_word_ids", "input_mask", "input_type_ids"]),
        (0, &["ids", "attention", "segment_ids"]),
        (1, &["token_type_ids", "tokens", "attention_mask"]),
    ];
    let (wide, narrow) = (DataType::Int64, DataType::Int32);
    for (ids, names) in names {
        for kinds in [[wide; 3], [narrow; 3], [narrow, wide, narrow]] {
            let named = names.iter().zip(kinds);
            let onnx = named.fold(Onnx::empty(), |onnx, (name, kind)| {
                onnx.input(name, kind, &["batch", "sequence"])
            });
            let value = |row, column| 1.0 + ((row * 7 + column * 3) % 11) as f32;
            let onnx = onnx
                .table("table", 40, value)
                .node("Gather", &["table", names[ids]], "vectors")
                .output("vectors", &["batch", "sequence", "4"]);
            gives_means(&mut loaded(&onnx, Pooling::Mean));
        }
    }
}
