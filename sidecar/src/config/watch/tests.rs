use std::time::Duration;

use embark_crds::{
    contract::{DefaultVector, OnMiss},
    resolve::Target,
};

use super::*;

const MANIFEST: &str = include_str!("../../../../examples/quickstart.yaml");

/// The quick start's model, as it would be written to a pod, with a changed policy.
fn contract(change: impl FnOnce(&mut CachePolicy)) -> Contract {
    let manifest = manifest::read(MANIFEST).unwrap().remove(0);
    let name = &manifest.metadata.name;
    let mut contract = embark_crds::resolve::resolve(name, &manifest.spec, Target::Local).unwrap();
    change(&mut contract.policy);
    contract
}

fn watch(origin: Origin) -> Watch {
    let contract = contract(|_| {});
    let (base, unsupported) = (PathBuf::new(), Vec::new());
    Watch::of(&ModelConfig { contract, base, origin, unsupported }).expect("it can be read again")
}

fn mounted() -> Watch {
    watch(Origin::Folder(PathBuf::from("policy")))
}

fn bytes(text: &str) -> Look {
    Look::Bytes(PathBuf::from("v1.json"), text.as_bytes().into())
}

fn policy(change: impl FnOnce(&mut CachePolicy)) -> Look {
    bytes(&contract(change).policy_json())
}

fn absent() -> Look {
    Look::Absent("policy: is gone".to_owned())
}

fn is_good(news: Option<News>) -> bool {
    matches!(news, Some(News::Good { .. }))
}

fn refusal(news: Option<News>) -> String {
    match news {
        Some(News::Bad { outcome: Reload::Refused, sentence }) => sentence,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn the_same_bytes_are_told_once() {
    let mut watch = mounted();
    assert!(is_good(watch.consider(&policy(|_| {}))));
    assert_eq!(watch.consider(&policy(|_| {})), None);
    assert!(is_good(watch.consider(&policy(|policy| policy.epoch = 4))));
    assert_eq!(watch.consider(&policy(|policy| policy.epoch = 4)), None);
    assert!(is_good(watch.consider(&policy(|_| {}))), "what was there before is new again");
}

#[test]
fn a_file_that_is_missing_for_a_moment_is_not_told() {
    let mut watch = mounted();
    assert!(is_good(watch.consider(&policy(|_| {}))));
    for _ in 0..3 {
        assert_eq!(watch.consider(&absent()), None);
        assert_eq!(watch.consider(&policy(|_| {})), None);
    }
    assert_eq!(watch.consider(&absent()), None);
    let sentence = "policy: is gone".to_owned();
    let gone = News::Bad { outcome: Reload::Unreadable, sentence };
    assert_eq!(watch.consider(&absent()), Some(gone));
    assert_eq!(watch.consider(&absent()), None, "it is told once");
    assert!(is_good(watch.consider(&policy(|_| {}))), "and that it is back");
}

#[test]
fn a_bad_file_is_told_once_and_so_is_its_mending() {
    let mut watch = mounted();
    assert!(refusal(watch.consider(&bytes("{"))).starts_with("v1.json: is no contract: "));
    assert_eq!(watch.consider(&bytes("{")), None);
    let fault = Look::Fault("v1.json: has more than 5 bytes".to_owned());
    let unreadable = watch.consider(&fault);
    assert!(matches!(unreadable, Some(News::Bad { outcome: Reload::Unreadable, .. })));
    assert_eq!(watch.consider(&fault), None);
    assert!(is_good(watch.consider(&policy(|_| {}))));
}

#[test]
fn a_manifest_counts_when_it_is_the_same_in_two_looks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.yaml");
    fs::write(&path, MANIFEST).unwrap();
    let mut watch = watch(Origin::Manifest(path));
    let (half, whole) = (bytes(&MANIFEST[..MANIFEST.len() / 2]), bytes(MANIFEST));
    assert_eq!(watch.consider(&half), None);
    assert_eq!(watch.consider(&whole), None);
    assert!(is_good(watch.consider(&whole)));
    assert_eq!(watch.consider(&whole), None);
}

#[test]
fn a_policy_that_is_not_for_the_model_is_refused_by_name() {
    let refused = |look: &Look| refusal(mounted().consider(look));
    for (look, sentence) in [
        (policy(|policy| policy.version = 2), "v1.json: version: 2 is not one that is read: [1]"),
        (
            policy(|policy| policy.negative_ttl = Duration::from_secs(1)),
            "v1.json: spec.cache.negativeTTL: is not supported yet; supported: 0s",
        ),
        (
            policy(|policy| policy.default_vector = DefaultVector::Values(vec![1.0; 3])),
            "v1.json: spec.cache.defaultVector.values: has 3 numbers; the model's vectors have 128",
        ),
    ] {
        assert_eq!(refused(&look), sentence);
    }
    let long = format!("{{\"ttl\": \"{}\"}}", "x".repeat(100_000));
    assert!(refused(&bytes(&long)).len() < 1_000, "a sentence stays one");
}

/// The quick start's manifest with another cache block, which is its last.
fn with_cache(fields: &str) -> String {
    let (before, _) = MANIFEST.split_once("  cache:\n").expect("it has one");
    format!("{before}  cache: {{{fields}}}\n")
}

/// What a changed manifest means for the quick start that runs.
fn of(text: &str) -> Result<Judged, String> {
    of_manifest(Path::new("m.yaml"), text.as_bytes(), &contract(|_| {}).serving)
}

#[test]
fn a_manifests_policy_is_followed_and_the_rest_takes_a_restart() {
    let judged = of(&with_cache("onMiss: Fail")).unwrap();
    assert_eq!((judged.policy.on_miss, judged.rest.as_str()), (OnMiss::Fail, ""));
    let more = format!("{}  batching: {{maxItems: 8}}\n", with_cache("ttl: 1s, mode: Memory"));
    let judged = of(&more).unwrap();
    assert_eq!(judged.policy.ttl, Duration::from_secs(1));
    let sentence = "m.yaml: quickstart: spec.cache.mode, memory or disk, spec.batching have changed, which takes a restart; the cache policy is followed";
    assert_eq!(judged.rest, sentence);
}

#[test]
fn a_manifest_that_serve_would_refuse_is_refused() {
    let refused = |text: &str| of(text).err().expect("it is refused");
    assert!(refused("a: [").starts_with("m.yaml: "));
    let other = MANIFEST.replace("name: quickstart", "name: other");
    assert_eq!(refused(&other), "m.yaml: has no model \"quickstart\" any more");
    let twice = format!("{MANIFEST}\n---\n{MANIFEST}");
    assert_eq!(refused(&twice), "m.yaml: has model \"quickstart\" more than once");
    let negative = refused(&with_cache("negativeTTL: 1s"));
    assert!(negative.contains("spec.cache.negativeTTL: "), "{negative}");
    let wrong = refused(&with_cache("ttl: never, epoch: -1"));
    assert!(wrong.contains("spec.cache.") && wrong.ends_with(" more)"), "{wrong}");
}

#[test]
fn what_is_no_file_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let sentence = |look: Look| look.seen().unwrap_err();
    let none = sentence(read(folder.path(), 9));
    assert!(none.ends_with(": has none of v1.json"), "{none}");
    assert!(matches!(read(&folder.path().join("v1.json"), 9), Look::Absent(_)));
    let path = folder.path().join("long");
    fs::write(&path, "0123456789").unwrap();
    assert!(sentence(read(&path, 9)).ends_with(": has more than 9 bytes"));
    assert!(read(&path, 10).seen().is_ok());
    assert!(sentence(read(Path::new("/dev/null"), 9)).ends_with(": is no file"));
    let (contract, base) = (contract(|_| {}), PathBuf::new());
    let origin = Origin::Manifest(PathBuf::from("/dev/null"));
    let pipe = ModelConfig { contract, base, origin, unsupported: Vec::new() };
    assert!(Watch::of(&pipe).is_none());
}
