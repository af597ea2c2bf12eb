//! `invalidate`: a server, or every pod behind a name, is made to forget from the command line.

use std::{ffi::OsString, path::Path};

use embark_sidecar::pb::client::Source;
use embark_tests::{
    Manifest, Sidecar,
    programs::{self, Finished, embark},
    sidecar::{Options, sources, until},
};
use serde_json::Value;
use tokio::process::Command;

fn allowing() -> Manifest {
    Manifest::tiny("tiny").with("/spec/cache/allowInvalidation", true)
}

/// A sidecar at an address.
async fn at(folder: &Path, listen: &str, manifest: &Manifest) -> Sidecar {
    let arguments = ["--listen", listen].map(OsString::from).to_vec();
    Sidecar::start(&Options { arguments, ..Options::new(folder, manifest) }).await
}

/// Two sidecars with one port, at two addresses of this machine, as two pods behind a name have.
async fn pods(folders: [&Path; 2], manifests: [&Manifest; 2]) -> ([Sidecar; 2], u16) {
    let first = at(folders[0], "127.0.0.1:0", manifests[0]).await;
    let port = first.grpc().rsplit_once(':').unwrap().1.parse().unwrap();
    let second = at(folders[1], &format!("127.0.0.2:{port}"), manifests[1]).await;
    ([first, second], port)
}

async fn invalidate(arguments: &[&str]) -> Finished {
    let model = ["invalidate", "--model", "tiny"];
    embark(model.into_iter().chain(arguments.iter().copied()), b"").await
}

fn lines(finished: &Finished) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).expect("each line is JSON");
    finished.output.lines().map(parse).collect()
}

/// The addresses of the lines, all of which say that it was done.
fn done(finished: &Finished) -> Vec<String> {
    assert_eq!((finished.code, finished.errors.as_str()), (0, ""), "{finished:?}");
    let address = |line: Value| {
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        assert!(!text("instance").is_empty() && text("before").ends_with('Z'), "{line}");
        text("address")
    };
    lines(finished).into_iter().map(address).collect()
}

/// Waits until what is computed from now on is younger than an invalidation.
async fn until_later() {
    use embark_sidecar::clock::{Clock as _, SystemClock};
    let now = SystemClock.now_ms();
    until("the clock goes on", async || SystemClock.now_ms() > now).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_forgets_all_or_some_items() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &allowing()).await;
    let ask = async || sources(&sidecar.embed(&["a", "b", "c"]).await);
    assert_eq!(ask().await, [Source::Computed; 3]);
    let items = ["--address", sidecar.grpc(), "--item", "a", "--item", "b"];
    assert_eq!(done(&invalidate(&items).await), [sidecar.grpc()]);
    until_later().await;
    assert_eq!(ask().await, [Source::Computed, Source::Computed, Source::HitMemory]);
    let past = ["--address", sidecar.grpc(), "--all", "--before", "2020-01-01T00:00:00Z"];
    let finished = invalidate(&past).await;
    assert_eq!(lines(&finished)[0]["before"], "2020-01-01T00:00:00Z");
    assert_eq!(ask().await, [Source::HitMemory; 3]);
    assert_eq!(done(&invalidate(&["--address", sidecar.grpc(), "--all"]).await).len(), 1);
    until_later().await;
    assert_eq!(ask().await, [Source::Computed; 3]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pod_behind_a_list_of_addresses_forgets() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = folders.each_ref().map(|folder| folder.path());
    let (pods, port) = pods(paths, [&allowing(), &allowing()]).await;
    for pod in &pods {
        pod.embed(&["a"]).await;
    }
    // One of them twice: it is called once.
    let names = format!("127.0.0.2:{port}, dns:///127.0.0.1:{port},127.0.0.2:{port}");
    let addresses = done(&invalidate(&["--all", "--all-pods", &names]).await);
    assert_eq!(addresses, pods.each_ref().map(Sidecar::grpc));
    until_later().await;
    for pod in pods {
        assert_eq!(sources(&pod.embed(&["a"]).await), [Source::Computed]);
        pod.stop().await;
    }
}

/// Runs `invalidate` where a name stands for both addresses. Needs root, for the name is mounted over /etc/hosts in a
/// mount namespace of its own.
async fn where_a_name_is_known(folder: &Path, arguments: &[&str]) -> Finished {
    let hosts = folder.join("hosts");
    std::fs::write(&hosts, "127.0.0.1 tiny-pods\n127.0.0.2 tiny-pods\n").unwrap();
    let mut command = Command::new("unshare");
    let script = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
    command.args(["--mount", "sh", "-c", script]).arg(&hosts).arg(programs::sidecar());
    // A sidecar injected beside it says where its own is; that is no reason to refuse.
    command.args(["invalidate"]).args(arguments).env("EMBARK_ADDRESS", "127.0.0.1:1");
    programs::run(command, b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_of_a_name_is_called() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = folders.each_ref().map(|folder| folder.path());
    let (pods, port) = pods(paths, [&allowing(), &allowing()]).await;
    for name in [format!("dns:///tiny-pods:{port}"), format!("tiny-pods:{port}")] {
        let arguments = ["--all", "--all-pods", &name];
        let finished = where_a_name_is_known(paths[0], &arguments).await;
        assert_eq!(done(&finished), pods.each_ref().map(Sidecar::grpc));
    }
    for pod in pods {
        pod.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fails_keeps_no_other_from_forgetting_and_is_counted() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = folders.each_ref().map(|folder| folder.path());
    let (pods, port) = pods(paths, [&Manifest::tiny("tiny"), &allowing()]).await;
    pods[1].embed(&["a"]).await;
    let names = format!("127.0.0.1:{port},127.0.0.2:{port},127.0.0.3:{port}");
    let finished = invalidate(&["--all", "--all-pods", &names]).await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert_eq!(finished.errors, "error: 2 of 3 pods did not forget; their lines say why\n");
    let lines = lines(&finished);
    let error = |line: &Value| line["error"].as_str().unwrap_or_default().to_owned();
    let off = "INVALIDATION_OFF: model \"tiny\" does not allow invalidation (spec.cache.allowInvalidation: false)";
    assert_eq!((error(&lines[0]).as_str(), error(&lines[1]).as_str()), (off, ""));
    assert!(error(&lines[2]).starts_with("nothing answers at 127.0.0.3:"), "{}", lines[2]);
    until_later().await;
    assert_eq!(sources(&pods[1].embed(&["a"]).await), [Source::Computed]);

    let finished = invalidate(&["--all", "--address", pods[0].grpc()]).await;
    assert_eq!((finished.code, finished.output.as_str()), (1, ""), "{finished:?}");
    assert_eq!(finished.errors, format!("error: {off}\n"));
    for pod in pods {
        pod.stop().await;
    }
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_anybody_is_called() {
    for (arguments, code, part) in [
        (vec![], 2, "--all"),
        (vec!["--all", "--item", "a"], 2, "cannot be used with"),
        (vec!["--all", "--before", "yesterday"], 2, "is not a time by RFC 3339"),
        (vec!["--all", "--all-pods", "a:1", "--address", "b:1"], 2, "cannot be used with"),
        (vec!["--all", "--all-pods", "tiny-pods"], 2, "is not dns:///HOST:PORT"),
        (vec!["--all", "--all-pods", "http://a:1"], 2, "is not dns:///HOST:PORT"),
        (vec!["--all", "--all-pods", "no-such-name.invalid:8081"], 1, "resolves to no address"),
    ] {
        let finished = invalidate(&arguments).await;
        assert_eq!((finished.code, finished.output.as_str()), (code, ""), "{finished:?}");
        assert!(finished.errors.contains(part), "{}", finished.errors);
    }
}
