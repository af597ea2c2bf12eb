//! The cache policy of a server that runs is replaced by what its file says, and by nothing else.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use embark_crds::contract::files::file_name;
use embark_sidecar::pb::client::Source;
use embark_tests::{
    Manifest, Sidecar,
    sidecar::{Options, request, sources, until},
};
use serde_json::json;

use crate::mounted::{contract, mount, options};

/// A model in mounted folders, whose policy changes as a kubelet has it: files are links through `..data`, which is
/// swapped for a new folder.
struct Mounted {
    root: tempfile::TempDir,
    swaps: usize,
}

impl Mounted {
    fn of(manifest: &Manifest) -> Self {
        let root = tempfile::tempdir().unwrap();
        let contract = contract(manifest);
        mount(root.path(), "tiny", &contract);
        let mut mounted = Mounted { root, swaps: 0 };
        fs::remove_file(mounted.policy().join(file_name(1))).unwrap();
        symlink(Path::new("..data").join(file_name(1)), mounted.policy().join(file_name(1)))
            .unwrap();
        mounted.swap(&contract.policy_json());
        mounted
    }

    fn policy(&self) -> PathBuf {
        self.root.path().join("models/tiny/policy")
    }

    fn options(&self) -> Options {
        options(self.root.path())
    }

    /// Puts other bytes in the file's place.
    fn swap(&mut self, text: &str) {
        let policy = self.policy();
        let before = format!("..{}", self.swaps);
        self.swaps += 1;
        let now = format!("..{}", self.swaps);
        fs::create_dir(policy.join(&now)).unwrap();
        fs::write(policy.join(&now).join(file_name(1)), text).unwrap();
        symlink(&now, policy.join("..data_tmp")).unwrap();
        fs::rename(policy.join("..data_tmp"), policy.join("..data")).unwrap();
        let _ = fs::remove_dir_all(policy.join(before));
    }

    /// Puts the policy of a manifest in the file's place.
    fn change(&mut self, manifest: &Manifest) {
        self.swap(&contract(manifest).policy_json());
    }
}

fn tiny() -> Manifest {
    Manifest::tiny("tiny").with("/spec/cache/ttlJitterPercent", 0)
}

/// What `/status` says of the policy: its hash, and what is wrong with its file.
async fn policy(sidecar: &Sidecar) -> (String, String) {
    let status = sidecar.model_status("tiny").await;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (text(&status["policyHash"]), text(&status["cache"]["message"]))
}

/// Waits until another policy than that of `hash` is in force.
async fn until_followed(sidecar: &Sidecar, hash: &str) {
    until("another policy is in force", async || policy(sidecar).await.0 != hash).await;
}

async fn reloads(sidecar: &Sidecar, outcome: &str) -> u64 {
    let metrics = sidecar.get("/metrics").await.1;
    let series = format!("embark_policy_reloads_total{{model=\"tiny\",outcome=\"{outcome}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("no {series} in\n{metrics}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_time_to_live_makes_a_hit_a_miss() {
    let mut mounted = Mounted::of(&tiny());
    let sidecar = Sidecar::start(&mounted.options()).await;
    sidecar.embed(&["a"]).await;
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::HitMemory]);
    let (hash, _) = policy(&sidecar).await;
    mounted.change(&tiny().with("/spec/cache/ttl", "1ms"));
    until_followed(&sidecar, &hash).await;
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::Computed]);
    mounted.change(&tiny());
    until("the first policy is back", async || policy(&sidecar).await.0 == hash).await;
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::HitMemory]);
    let line = sidecar.wait_for_line("follows another cache policy").await;
    assert_eq!((&line["level"], &line["model"]), (&json!("INFO"), &json!("tiny")));
    assert_eq!((reloads(&sidecar, "applied").await, reloads(&sidecar, "refused").await), (2, 0));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_miss_policy_and_default_vector_are_followed() {
    let mut mounted = Mounted::of(&tiny());
    let sidecar = Sidecar::start(&mounted.options()).await;
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::Computed]);
    let (hash, _) = policy(&sidecar).await;
    let vector = json!({"type": "Values", "values": vec![0.5; 128]});
    let changed = tiny()
        .with("/spec/cache/onMiss", "ReturnDefault")
        .with("/spec/cache/defaultVector", vector);
    mounted.change(&changed);
    until_followed(&sidecar, &hash).await;
    let answer = sidecar.embed(&["a", "b"]).await;
    assert_eq!(sources(&answer), [Source::HitMemory, Source::Default]);
    assert_eq!(answer[1].vector, [0.5; 128]);
    until("it is computed behind", async || {
        sources(&sidecar.embed(&["b"]).await) == [Source::HitMemory]
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_epoch_purges_at_once_and_is_remembered_through_a_kill() {
    let mut mounted = Mounted::of(&tiny());
    let sidecar = Sidecar::start(&mounted.options()).await;
    sidecar.embed(&["a"]).await;
    let (hash, _) = policy(&sidecar).await;
    mounted.change(&tiny().with("/spec/cache/epoch", 7));
    until_followed(&sidecar, &hash).await;
    let cache = sidecar.model_status("tiny").await["cache"].clone();
    assert_eq!((&cache["epoch"], &cache["memory"]["entries"]), (&json!(7), &json!(0)));
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::Computed]);
    sidecar.kill().await;

    mounted.change(&tiny().with("/spec/cache/epoch", 6));
    let sidecar = Sidecar::start(&mounted.options()).await;
    let cache = sidecar.model_status("tiny").await["cache"].clone();
    assert_eq!(cache["epoch"], 7);
    let message = cache["message"].as_str().unwrap();
    assert!(message.contains("spec.cache.epoch") && message.contains("\"6\""), "{message}");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_falls_while_it_serves_is_refused_and_the_rest_is_followed() {
    let mut mounted = Mounted::of(&tiny().with("/spec/cache/epoch", 7));
    let sidecar = Sidecar::start(&mounted.options()).await;
    sidecar.embed(&["a"]).await;
    let (hash, _) = policy(&sidecar).await;
    mounted.change(&tiny().with("/spec/cache/epoch", 6).with("/spec/cache/onMiss", "Fail"));
    until_followed(&sidecar, &hash).await;
    let (_, message) = policy(&sidecar).await;
    assert!(message.contains("spec.cache.epoch") && message.contains("\"6\""), "{message}");
    sidecar.wait_for_line_with("is below the highest epoch seen, 7").await;
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::HitMemory]);
    assert_eq!(sidecar.call(request(&["b"])).await.unwrap_err().code(), tonic::Code::NotFound);
    mounted.change(&tiny().with("/spec/cache/epoch", 7));
    until("the message goes", async || policy(&sidecar).await.1.is_empty()).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_leaves_the_policy_in_force_and_a_good_one_heals_it() {
    let mut mounted = Mounted::of(&tiny());
    let sidecar = Sidecar::start(&mounted.options()).await;
    sidecar.embed(&["a"]).await;
    let (hash, message) = policy(&sidecar).await;
    assert_eq!(message, "");
    let mut short = contract(&tiny()).policy;
    short.default_vector = embark_crds::contract::DefaultVector::Values(vec![1.0; 3]);
    let later = contract(&tiny()).policy_json().replace("\"version\":1", "\"version\":2");
    let long = " ".repeat((1 << 20) + 1);
    let mut refused = 0;
    for (text, sentence, outcome) in [
        ("no JSON", "v1.json: is no contract: expected", "refused"),
        (later.as_str(), "v1.json: version: 2 is not one that is read", "refused"),
        (long.as_str(), "v1.json: has more than 1048576 bytes", "unreadable"),
        (
            &short.to_json(),
            "v1.json: spec.cache.defaultVector.values: has 3 numbers; the model's vectors have 128",
            "refused",
        ),
    ] {
        mounted.swap(text);
        until("it is told", async || policy(&sidecar).await.1.contains(sentence)).await;
        let (found, message) = policy(&sidecar).await;
        assert_eq!(found, hash);
        assert!(message.starts_with("the cache policy stays as it was: "), "{message}");
        refused += u64::from(outcome == "refused");
        let expected = if outcome == "refused" { refused } else { 1 };
        assert_eq!(reloads(&sidecar, outcome).await, expected);
        assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::HitMemory]);
        assert_eq!(sidecar.wait_for_line_with(sentence).await["level"], "WARN");
        let lines = sidecar.log().lines().filter(|line| line.contains(sentence)).count();
        assert_eq!(lines, 1, "it is said once");
    }
    fs::remove_file(mounted.policy().join("..data")).unwrap();
    until("a missing file is told", async || policy(&sidecar).await.1.contains("has none of"))
        .await;
    assert_eq!(reloads(&sidecar, "unreadable").await, 2);
    mounted.change(&tiny());
    until("the message goes", async || policy(&sidecar).await.1.is_empty()).await;
    assert_eq!((policy(&sidecar).await.0, reloads(&sidecar, "applied").await), (hash, 0));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_during_many_swaps_all_succeed() {
    let mut mounted = Mounted::of(&tiny());
    let sidecar = Sidecar::start(&mounted.options()).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let callers: Vec<_> = (0..4)
        .map(|caller| {
            let (channel, stopped) = (sidecar.grpc().to_owned(), stopped.clone());
            tokio::spawn(async move {
                let client = embark_sidecar::pb::client::embedding_service_client::EmbeddingServiceClient::connect(format!("http://{channel}"));
                let mut client = client.await.unwrap();
                let mut answered = 0_u64;
                while !*stopped.borrow() {
                    let texts = [format!("{caller} {}", answered % 50), format!("{answered}")];
                    let reply = client.embed(request(&texts.each_ref().map(String::as_str))).await;
                    let results = reply.expect("it is answered").into_inner().results;
                    assert!(results.iter().all(|result| result.error.is_none()), "{results:?}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for swap in 0..50 {
        ticks.tick().await;
        mounted.change(&tiny().with("/spec/cache/epoch", swap).with("/spec/cache/ttl", "1h"));
    }
    until("the last policy is in force", async || {
        sidecar.model_status("tiny").await["cache"]["epoch"] == 49
    })
    .await;
    stop.send_replace(true);
    for caller in callers {
        assert!(caller.await.unwrap() > 50);
    }
    assert!(reloads(&sidecar, "applied").await >= 3, "some of the swaps were followed");
    let bad = [reloads(&sidecar, "refused").await, reloads(&sidecar, "unreadable").await];
    assert_eq!(bad, [0, 0]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_followed_in_its_policy_and_says_what_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &tiny());
    let sidecar = Sidecar::start(&options).await;
    let (hash, _) = policy(&sidecar).await;
    let allowing = tiny().with("/spec/cache/allowInvalidation", true);
    let _ = options.with(&allowing);
    until_followed(&sidecar, &hash).await;
    let (hash, message) = policy(&sidecar).await;
    assert_eq!(message, "");
    let _ = options.with(&allowing.clone().with("/spec/cache/ttl", "soon"));
    until("a bad manifest is told", async || policy(&sidecar).await.1.contains("soon")).await;
    assert_eq!(policy(&sidecar).await.0, hash);
    fs::remove_file(&options.manifests[0]).unwrap();
    until("a missing one too", async || policy(&sidecar).await.1.contains("not there")).await;
    let _ = options.with(&allowing);
    until("the message goes", async || policy(&sidecar).await.1.is_empty()).await;
    assert_eq!(policy(&sidecar).await.0, hash);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_whose_mounted_policy_has_another_vectors_length_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut contract = contract(&tiny());
    contract.policy.default_vector = embark_crds::contract::DefaultVector::Values(vec![1.0]);
    mount(folder.path(), "tiny", &contract);
    let sidecar = Sidecar::start_listening(&options(folder.path())).await;
    let status = sidecar.model_status("tiny").await;
    assert_eq!(status["state"], "failed", "{status}");
    let sentence = "spec.cache.defaultVector.values: has 1 numbers; the model's vectors have 128";
    assert!(status["message"].as_str().unwrap().contains(sentence), "{status}");
    sidecar.stop().await;
}
