//! The command line: `embed`, help, logs, and what becomes of it when nobody listens.

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
    let crlf = good(embed(&sidecar, &[], "one\r\ntwo").await);
    assert_eq!((&crlf[0]["text"], &crlf[1]["text"]), (&json!("one"), &json!("two")));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blank_line_is_answered_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &tiny()).await;
    // Across batches, with blank lines of both kinds of line end.
    let input = format!("one\n\r\n{}\nlast", "good\n".repeat(40));
    let finished = embed(&sidecar, &[], &input).await;
    assert_eq!(finished.code, 1);
    assert_eq!(finished.errors, "error: 2 texts failed; lines 2, 43 of the output say why\n");
    let embedded = lines(&finished);
    assert_eq!(embedded.len(), input.lines().count());
    for (line, text) in embedded.iter().zip(input.lines()) {
        assert_eq!(line["text"], text);
        let blank = "TEXT_EMPTY: is empty; a text has at least 1 byte";
        assert_eq!(line["error"] == blank, text.is_empty(), "{line}");
    }
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
    assert_eq!(finished.errors, "error: 2 texts failed; lines 1, 3 of the output say why\n");
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
    let sentence = "64 texts failed; lines 1, 2, 3, 4, 5, 6, 7, 8, … of the output say why";
    assert_eq!(finished.errors, format!("error: {sentence}\n"));
    let embedded = lines(&finished);
    assert_eq!(embedded.len(), 97);
    assert_eq!(embedded.iter().filter(|line| line.get("vector").is_some()).count(), 33);
    assert!(error(&embedded[63]).starts_with("TEXT_TOO_LONG: "), "{}", embedded[63]);

    let finished = embed(&sidecar, &[&long], "").await;
    assert_eq!((finished.code, lines(&finished).len()), (1, 1), "{finished:?}");
    assert_eq!(finished.errors, "error: 1 text failed; line 1 of the output says why\n");
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
    assert_eq!(finished.errors, "error: standard input: line 2 is not UTF-8\n");
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
}

#[tokio::test]
async fn an_address_that_is_none_is_told_what_it_must_be() {
    let example = "HOST:PORT, such as 127.0.0.1:8081";
    let [malformed, no_port] =
        [format!("is not {example}"), format!("has no port; it must be {example}")];
    for (address, sentence) in [
        ("not an address", &malformed),
        ("", &malformed),
        (":8081", &malformed),
        ("127.0.0.1:99999", &malformed),
        ("127.0.0.1:8081/path", &malformed),
        ("::1:8081", &malformed),
        ("localhost", &no_port),
        ("http://127.0.0.1/", &no_port),
        ("[::1]", &no_port),
    ] {
        let finished = embark(["embed", "--address", address, "a text"], b"").await;
        assert_eq!(finished.errors, format!("error: --address: {address:?} {sentence}\n"));
        assert_eq!((finished.code, finished.output.as_str()), (1, ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_and_is_no_embark_server_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &tiny()).await;
    // Takes each connection and ends it.
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap().to_string();
    tokio::spawn(async move { while other.accept().await.is_ok() {} });
    for address in [sidecar.admin(), &address] {
        let finished = embark(["embed", "--address", address, "a text"], b"").await;
        let sentence = "is no embark server; --address is that of its gRPC, by default port 8081, not of its admin port; a server with TLS wants https://";
        assert_eq!(finished.errors, format!("error: what answers at {address} {sentence}\n"));
        assert_eq!((finished.code, finished.output.as_str()), (1, ""));
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_log_level_that_is_none_is_refused_and_a_filter_is_not() {
    let file = example("quickstart.yaml").display().to_string();
    for level in ["loud", "embark_sidecar=loud"] {
        let finished = embark(["check", "--log-level", level, &file], b"").await;
        assert_eq!((finished.code, finished.output.as_str()), (2, ""), "{finished:?}");
        let allowed = "it must be error, warn, info, debug, trace or off, or a filter by module such as embark_sidecar=debug,info";
        let sentence = format!("--log-level: {level:?} is not a level; {allowed}");
        assert_eq!(finished.errors, format!("error: {sentence}\n"));
    }
    for level in ["warn", "embark_sidecar=debug,info"] {
        let finished = embark(["check", "--log-level", level, &file], b"").await;
        assert_eq!((finished.code, finished.errors.as_str()), (0, ""));
    }
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
async fn help_explains_every_command_and_option() {
    let whole = embark(["--help"], b"").await;
    assert_eq!((whole.code, whole.errors.as_str()), (0, ""));
    for command in ["serve", "embed", "mean", "invalidate", "check"] {
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
    let address = "ftp://127.0.0.1:9";
    let finished = embark(["embed", "--address", address, "a text"], b"").await;
    let sentence = "has the scheme \"ftp\"; it must be http, https or unix";
    assert_eq!(finished.errors, format!("error: --address: {address:?} {sentence}\n"));
    assert_eq!(finished.code, 1);
}
