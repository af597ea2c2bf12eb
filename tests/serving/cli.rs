//! The command line: `embed`, `check`, help, logs, and what becomes of it when nobody listens.

use std::{fs, path::PathBuf, process::Stdio};

use embark_tests::{
    Manifest, Sidecar,
    programs::{self, Finished, embark},
    sidecar::{Options, difference},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::Command,
};

fn tiny() -> Manifest {
    Manifest::tiny("tiny")
        .with("/spec/input/text/prompts", json!([{"name": "query", "prefix": "query: "}]))
}

/// `embed` against this server.
async fn embed(sidecar: &Sidecar, arguments: &[&str], input: &str) -> Finished {
    let all = ["embed", "--address", sidecar.grpc()].into_iter().chain(arguments.iter().copied());
    embark(all, input.as_bytes()).await
}

fn lines(finished: &Finished) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).expect("each line is JSON");
    finished.output.lines().map(parse).collect()
}

fn vector(line: &Value) -> Vec<f32> {
    serde_json::from_value(line["vector"].clone()).expect("a vector")
}

fn good(finished: Finished) -> Vec<Value> {
    assert_eq!((finished.code, finished.errors.as_str()), (0, ""), "{finished:?}");
    lines(&finished)
}

fn example(name: &str) -> PathBuf {
    programs::root().join("examples").join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_become_json_lines() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &tiny()).await;
    let first = good(embed(&sidecar, &["a text", "another"], "").await);
    assert_eq!(first.len(), 2);
    let fields: Vec<&String> = first[0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["age_ms", "source", "text", "tokens", "truncated", "vector"]);
    assert_eq!((&first[0]["text"], &first[1]["text"]), (&json!("a text"), &json!("another")));
    assert_eq!(first[0]["source"], "COMPUTED");
    assert_eq!((&first[0]["age_ms"], &first[0]["truncated"]), (&json!(0), &json!(false)));
    assert_eq!(first[0]["tokens"], 4, "[CLS] a text [SEP]");
    let right = sidecar.embed(&["a text"]).await;
    assert_eq!(vector(&first[0]), right[0].vector);

    let again = good(embed(&sidecar, &["--model", "tiny", "a text"], "").await);
    assert_eq!(again[0]["source"], "HIT_MEMORY");
    let cut = good(embed(&sidecar, &["--dimensions", "8", "a text"], "").await);
    assert_eq!(vector(&cut[0]).len(), 8);
    let prompted = good(embed(&sidecar, &["--prompt", "query", "a text"], "").await);
    let joined = good(embed(&sidecar, &["query: a text"], "").await);
    assert_eq!(prompted[0]["text"], "a text");
    assert!(difference(&vector(&prompted[0]), &vector(&joined[0])) <= 1e-5);
    assert!(difference(&vector(&prompted[0]), &right[0].vector) > 1e-3);
    let long = "word ".repeat(1_000);
    assert_eq!(good(embed(&sidecar, &[&long], "").await)[0]["truncated"], true);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_standard_input_are_texts_and_stay_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &tiny()).await;
    let sentences = fs::read_to_string(example("sentences.txt")).unwrap();
    let texts: Vec<&str> = sentences.lines().filter(|line| !line.is_empty()).collect();
    assert!(texts.len() >= 200);
    let embedded = good(embed(&sidecar, &[], &sentences).await);
    let given: Vec<&str> = embedded.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(given, texts);
    let right = sidecar.embed(&texts).await;
    for (line, right) in embedded.iter().zip(&right) {
        assert!(difference(&vector(line), &right.vector) <= 1e-5, "{line}");
    }
    assert_eq!(good(embed(&sidecar, &[], "").await), Vec::<Value>::new());
    let crlf = good(embed(&sidecar, &[], "one\r\n\r\ntwo").await);
    assert_eq!((&crlf[0]["text"], &crlf[1]["text"]), (&json!("one"), &json!("two")));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_fails_does_so_alone() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = tiny().with("/spec/input/text/sizeLimit", "16");
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    let long = "x".repeat(17);
    let finished = embed(&sidecar, &["", "fine", &long], "").await;
    assert_eq!(finished.code, 1);
    assert_eq!(finished.errors, "error: 2 texts failed; their lines say why\n");
    let embedded = lines(&finished);
    let error = |line: &Value| line["error"].as_str().unwrap_or_default().to_owned();
    assert!(error(&embedded[0]).starts_with("TEXT_EMPTY: "), "{}", embedded[0]);
    assert_eq!(vector(&embedded[1]).len(), 128);
    assert!(error(&embedded[2]).starts_with("TEXT_TOO_LONG: "), "{}", embedded[2]);
    assert!(error(&embedded[2]).contains("17 bytes; at most 16"), "{}", embedded[2]);
    assert!(embedded[2].get("vector").is_none());

    // A call of nothing but bad texts fails as a whole; the texts of other calls are embedded all the same.
    let input = format!("{}{}fine\n", format!("{long}\n").repeat(64), "good\n".repeat(32));
    let finished = embed(&sidecar, &[], &input).await;
    assert_eq!(finished.code, 1, "{}", finished.errors);
    assert_eq!(finished.errors, "error: 64 texts failed; their lines say why\n");
    let embedded = lines(&finished);
    assert_eq!(embedded.len(), 97);
    assert_eq!(embedded.iter().filter(|line| line.get("vector").is_some()).count(), 33);
    assert!(error(&embedded[63]).starts_with("TEXT_TOO_LONG: "), "{}", embedded[63]);

    let finished = embed(&sidecar, &[&long], "").await;
    assert_eq!((finished.code, lines(&finished).len()), (1, 1), "{finished:?}");
    assert_eq!(finished.errors, "error: 1 text failed; its line says why\n");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_answered_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &tiny()).await;
    let cases = [
        (
            vec!["--model", "other", "a"],
            "MODEL_UNKNOWN: model: \"other\" is not served here; served: tiny",
        ),
        (
            vec!["--prompt", "other", "a"],
            "PROMPT_UNKNOWN: prompt: \"other\" is not a prompt of the model; its prompts: query",
        ),
        (
            vec!["--dimensions", "129", "a"],
            "DIMENSIONS: dimensions: \"129\" is more than the model's 128",
        ),
    ];
    for (arguments, sentence) in cases {
        let finished = embed(&sidecar, &arguments, "").await;
        assert_eq!((finished.code, finished.output.as_str()), (1, ""), "{finished:?}");
        assert_eq!(finished.errors, format!("error: {sentence}\n"));
    }
    let finished = embed(&sidecar, &["--dimensions", "0", "a"], "").await;
    assert_eq!(finished.code, 2, "{finished:?}");
    let mut command = Command::new(programs::sidecar());
    command.args(["embed", "--address", sidecar.grpc()]);
    let finished = programs::run(command, b"good\n\xff\xfe\n").await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.errors.starts_with("error: standard input: "), "{finished:?}");
    assert!(finished.errors.contains("UTF-8"), "{finished:?}");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_found_by_the_environment_and_missed_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &tiny()).await;
    let mut command = Command::new(programs::sidecar());
    command.args(["embed", "a text"]).env("EMBARK_ADDRESS", format!("http://{}", sidecar.grpc()));
    assert_eq!(good(programs::run(command, b"").await).len(), 1);
    sidecar.stop().await;

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let finished = embark(["embed", "--address", &address, "a text"], b"").await;
    assert_eq!((finished.code, finished.output.as_str()), (1, ""));
    let sentence = format!("nothing answers at {address}; is embark-sidecar serving there?");
    assert_eq!(finished.errors, format!("error: {sentence}\n"));
    let finished = embark(["embed", "--address", "not an address", "a text"], b"").await;
    assert_eq!(finished.code, 1);
    assert_eq!(finished.errors, "error: --address: \"not an address\" is not HOST:PORT\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_has_enough_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &tiny()).await;
    let mut embedding = Command::new(programs::sidecar())
        .args(["embed", "--address", sidecar.grpc()])
        .stdin(fs::File::open(example("sentences.txt")).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut output = BufReader::new(embedding.stdout.take().unwrap()).lines();
    assert!(output.next_line().await.unwrap().is_some());
    drop(output);
    let ended = embedding.wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert!(ended.status.success(), "{}", ended.status);
    // Closed altogether, as `<&-` does.
    let mut command = Command::new("sh");
    let embed = r#"exec "$0" embed --address "$1" <&-"#;
    command.args(["-c", embed]).arg(programs::sidecar()).arg(sidecar.grpc());
    assert_eq!(good(programs::run(command, b"").await), Vec::<Value>::new());
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_does_not_end_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = tiny().write(folder.path());
    let mut server = Command::new(programs::sidecar())
        .args(["--log-level", "debug", "serve", "--log-format", "json"])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .arg("--manifest")
        .arg(file)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
    let mut address = String::new();
    while let Some(line) = log.next_line().await.unwrap() {
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["message"] == "listening" {
            address = line["grpc"].as_str().unwrap().to_owned();
        }
        if line["message"] == "ready" {
            break;
        }
    }
    drop(log);
    let finished = embark(["embed", "--address", &address, "a text"], b"").await;
    assert_eq!(good(finished).len(), 1);
    let id = server.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    let status = server.wait().await.unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn check_answers_with_the_sentences_of_the_custom_resource_definition() {
    let folder = tempfile::tempdir().unwrap();
    let crd = programs::root().join("crds/embeddingmodels.embark.dev.yaml");
    let crd = fs::read_to_string(crd).unwrap();
    let sentences: Vec<&str> =
        crd.lines().filter_map(|line| line.split_once("message: ")).map(|(_, text)| text).collect();
    let rules = [
        ("/spec/cache/ttl", json!("0s"), "spec.cache.ttl: \"0s\""),
        ("/spec/cache/memory/sizeLimit", json!("1Ki"), "spec.cache.memory.sizeLimit: \"1Ki\""),
        ("/spec/cache/disk/sizeLimit", json!("1Mi"), "spec.cache.disk.sizeLimit: \"1Mi\""),
        ("/spec/input/text/defaultPrompt", json!("x"), "spec.input.text.defaultPrompt: \"x\""),
        (
            "/spec/model/output/truncateDimensions",
            json!(129),
            "spec.model.output.truncateDimensions: 129",
        ),
        ("/spec/batching/maxDelay", json!("50ms"), "spec.batching.maxDelay: \"50ms\""),
        ("/spec/model/source/uri", json!("ftp://a/b"), "spec.model.source.uri: \"ftp://a/b\""),
        ("/spec/input/tensor", json!({"shape": [1]}), "spec.input:"),
        ("/metadata/name", json!("Tiny"), "metadata.name: \"Tiny\""),
    ];
    for (pointer, value, place) in rules {
        let file = tiny().with(pointer, value).write(folder.path());
        let finished = embark(["check".as_ref(), file.as_os_str()], b"").await;
        assert_eq!((finished.code, finished.output.as_str()), (1, ""), "{finished:?}");
        assert_eq!(finished.errors.lines().count(), 1, "{finished:?}");
        let (_, said) = finished.errors.trim_end().split_once(&format!("{place} ")).unwrap();
        assert!(sentences.contains(&said), "{said:?} is no sentence of the CRD");
    }
}

#[tokio::test]
async fn check_says_who_accepts_a_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let uri = "/spec/model/source/uri";
    let both = Manifest::tiny("both").write(folder.path());
    let local = Manifest::tiny("local").with(uri, "file://model.onnx").write(folder.path());
    let cluster =
        Manifest::tiny("cluster").with(uri, "pvc://models/tiny.onnx").write(folder.path());
    let [both, local, cluster] = [both, local, cluster].map(|file| file.display().to_string());
    let finished = embark(["check", &both, &local, &cluster], b"").await;
    let expected = format!(
        "{both}: both: good (local and cluster)\n{local}: local: good (local only)\n{cluster}: cluster: good (cluster only)\n"
    );
    assert_eq!((finished.code, finished.output), (0, expected), "{}", finished.errors);

    let refused = async |target: &str, file: &str, sentence: &str| {
        let finished = embark(["check", "--target", target, file], b"").await;
        assert_eq!(finished.code, 1, "{finished:?}");
        assert!(finished.errors.contains(sentence), "{finished:?}");
    };
    refused(
        "cluster",
        &local,
        "spec.model.source.uri: \"file://model.onnx\" cannot be read in a cluster",
    )
    .await;
    refused(
        "local",
        &cluster,
        "spec.model.source.uri: \"pvc://models/tiny.onnx\" can be read in a cluster only",
    )
    .await;
    let finished = embark(["check", "--target", "local", &local], b"").await;
    assert_eq!((finished.code, finished.output), (0, format!("{local}: local: good (local)\n")));
    let finished = embark(["check", "--target", "cluster", &cluster], b"").await;
    assert_eq!(
        (finished.code, finished.output),
        (0, format!("{cluster}: cluster: good (cluster)\n"))
    );
}

#[tokio::test]
async fn check_tells_of_every_file() {
    let folder = tempfile::tempdir().unwrap();
    Manifest::tiny("good").write(folder.path());
    Manifest::tiny("rule").with("/spec/cache/ttl", "0s").write(folder.path());
    let structure = Manifest::tiny("structure").with("/spec/input/text/maxTokens", "many");
    structure.with("/spec/cache/mode", "Disk").write(folder.path());
    let finished = embark(["check".as_ref(), folder.path().as_os_str()], b"").await;
    assert_eq!(finished.code, 1);
    let place = |name: &str| folder.path().join(format!("{name}.yaml")).display().to_string();
    assert_eq!(finished.output, format!("{}: good: good (local and cluster)\n", place("good")));
    for said in [
        format!("{}: rule: spec.cache.ttl: \"0s\" must be above 0s", place("rule")),
        format!(
            "{}: spec.cache.mode: \"Disk\" must be one of Disabled, Memory, MemoryAndDisk",
            place("structure")
        ),
        format!(
            "{}: spec.input.text.maxTokens: \"many\" must be a whole number",
            place("structure")
        ),
    ] {
        assert!(
            finished.errors.lines().any(|line| line == said),
            "{said}\nin\n{}",
            finished.errors
        );
    }
    assert_eq!(finished.errors.lines().count(), 3, "{}", finished.errors);
}

#[tokio::test]
async fn the_examples_are_good() {
    let finished = embark(["check".as_ref(), example("").as_os_str()], b"").await;
    assert_eq!((finished.code, finished.errors.as_str()), (0, ""));
    let said: Vec<&str> = finished.output.lines().collect();
    assert!(said.len() >= 2, "{said:?}");
    assert!(
        said.iter().any(|line| line.ends_with("quickstart: good (local and cluster)")),
        "{said:?}"
    );
    assert!(said.iter().any(|line| line.ends_with("minilm: good (local only)")), "{said:?}");
}

#[tokio::test]
async fn help_explains_every_command_and_option() {
    let whole = embark(["--help"], b"").await;
    assert_eq!((whole.code, whole.errors.as_str()), (0, ""));
    for command in ["serve", "embed", "check"] {
        let short = whole.output.lines().find(|line| line.trim_start().starts_with(command));
        assert!(short.is_some_and(|line| line.split_whitespace().count() > 3), "{}", whole.output);
        let help = embark([command, "--help"], b"").await;
        assert_eq!((help.code, help.errors.as_str()), (0, ""));
        assert!(
            help.output.contains(&format!("Usage: embark-sidecar {command} ")),
            "{}",
            help.output
        );
        let (_, examples) = help.output.split_once("Examples:\n").expect("examples");
        assert!(examples.contains(&format!("  embark-sidecar {command} ")), "{}", help.output);
        assert_options_are_explained(&help.output);
    }
    assert_options_are_explained(&whole.output);
    let version = embark(["--version"], b"").await;
    assert_eq!(version.output, format!("embark-sidecar {}\n", env!("CARGO_PKG_VERSION")));
    let nothing = embark(Vec::<String>::new(), b"").await;
    assert_eq!(nothing.code, 2);
    assert!(nothing.errors.contains("Usage: "), "{}", nothing.errors);
}

/// Behind each option, on its line or the next, stands a sentence.
fn assert_options_are_explained(help: &str) {
    let lines: Vec<&str> = help.lines().collect();
    // A line that begins with a dash and a space is one of an option's values.
    let is_option = |line: &str| line.trim_start().starts_with('-') && !line.contains("- ");
    let options = (0..lines.len()).filter(|&at| is_option(lines[at]));
    let mut count = 0;
    for at in options {
        count += 1;
        let beside = lines[at].trim().split_once("  ").map_or("", |(_, text)| text.trim());
        let below = lines.get(at + 1).map_or("", |line| line.trim());
        let text = if beside.is_empty() { below } else { beside };
        let first = text.chars().next().unwrap_or(' ');
        assert!(first.is_uppercase(), "{:?} is not explained in\n{help}", lines[at]);
    }
    assert!(count >= 3, "{help}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_for_machines_is_json_and_says_what_is_served_where() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &tiny());
    let sidecar = Sidecar::start(&options).await;
    let served = sidecar.wait_for_line("serving a model").await;
    let listening = sidecar.wait_for_line("listening").await;
    assert_eq!((&served["model"], &served["dimensions"]), (&json!("tiny"), &json!(128)));
    assert_eq!(listening["grpc"], sidecar.grpc());
    sidecar.signal("-TERM").await;
    sidecar.wait_for_line("ended").await;
    for line in sidecar.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        // A line that was no JSON would have nothing but its text.
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
    sidecar.stopped().await;
}

#[tokio::test]
async fn a_log_for_people_has_colours_on_a_terminal_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = tiny().with("/spec/model/source/sha256", "0".repeat(64)).write(folder.path());
    let mut command = Command::new(programs::sidecar());
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(folder.path().join("data")).arg("--manifest").arg(file);
    let finished = programs::run(command, b"").await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.errors.contains("ERROR failed to load: "), "{}", finished.errors);
    assert!(!finished.errors.contains('\u{1b}'), "{}", finished.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheme_that_is_not_served_is_refused_by_name() {
    for scheme in ["https", "ftp"] {
        let mut command = Command::new(programs::sidecar());
        command.args(["embed", "--address", &format!("{scheme}://127.0.0.1:9"), "a text"]);
        let finished = programs::run(command, b"").await;
        let sentence = format!("scheme {scheme:?} is not supported yet; only http is");
        assert_eq!(finished.errors, format!("error: --address: {sentence}\n"));
        assert_eq!(finished.code, 1);
    }
}
