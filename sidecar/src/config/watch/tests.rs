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
    let model = ModelConfig { contract, base, origin, unsupported };
    Watch::of(&model, Offered::ALL).expect("it can be read again")
}

fn mounted() -> Watch {
    watch(Origin::Folder(PathBuf::from("quickstart")))
}

fn bytes(text: &str) -> Look {
    Look::Bytes(PathBuf::from("v1.json"), text.as_bytes().into())
}

/// Both files of a folder, with a changed policy.
fn policy(change: impl FnOnce(&mut CachePolicy)) -> [Look; 2] {
    with_serving(bytes(&contract(change).policy_json()))
}

/// Something in the policy's place, beside the contract.
fn with_serving(policy: Look) -> [Look; 2] {
    [policy, bytes(&contract(|_| {}).serving_json())]
}

fn absent() -> [Look; 2] {
    with_serving(Look::Absent("policy: is gone".to_owned()))
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
    let broken = with_serving(bytes("{"));
    assert!(refusal(watch.consider(&broken)).starts_with("v1.json: is no contract: "));
    assert_eq!(watch.consider(&broken), None);
    let fault = with_serving(Look::Fault("v1.json: has more than 5 bytes".to_owned()));
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
    let (half, whole) = ([bytes(&MANIFEST[..MANIFEST.len() / 2])], [bytes(MANIFEST)]);
    assert_eq!(watch.consider(&half), None);
    assert_eq!(watch.consider(&whole), None);
    assert!(is_good(watch.consider(&whole)));
    assert_eq!(watch.consider(&whole), None);
}

#[test]
fn a_policy_that_is_not_for_the_model_is_refused_by_name() {
    let refused = |looks: &[Look]| refusal(mounted().consider(looks));
    for (look, sentence) in [
        (policy(|policy| policy.version = 2), "v1.json: version: 2 is not one that is read: [1]"),
        (
            policy(|policy| policy.default_vector = DefaultVector::Values(vec![1.0; 3])),
            "v1.json: spec.cache.defaultVector.values: has 3 numbers; the model's vectors have 128",
        ),
    ] {
        assert_eq!(refused(&look), sentence);
    }
    let long = format!("{{\"ttl\": \"{}\"}}", "x".repeat(100_000));
    assert!(refused(&with_serving(bytes(&long))).len() < 1_000, "a sentence stays one");
}

/// The quick start's manifest with another cache block, which is its last.
fn with_cache(fields: &str) -> String {
    let (before, _) = MANIFEST.split_once("  cache:\n").expect("it has one");
    format!("{before}  cache: {{{fields}}}\n")
}

/// What a changed manifest means for the quick start that runs.
fn of(text: &str) -> Result<Judged, String> {
    let watch = watch(Origin::Manifest(PathBuf::from("Cargo.toml")));
    watch.of_manifest(Path::new("m.yaml"), text.as_bytes())
}

#[test]
fn a_manifest_gives_its_policy_and_what_is_to_be_served() {
    let judged = of(&with_cache("onMiss: Fail")).unwrap();
    assert_eq!(judged.policy.on_miss, OnMiss::Fail);
    assert_eq!(*judged.serving.unwrap(), contract(|_| {}).serving);
    let more = format!("{}  batching: {{maxItems: 8}}\n", with_cache("ttl: 1s, mode: Memory"));
    let judged = of(&more).unwrap();
    assert_eq!(judged.policy.ttl, Duration::from_secs(1));
    assert_eq!(judged.serving.unwrap().batching.max_items, 8);
}

#[test]
fn a_contract_that_cannot_be_read_leaves_its_policy_to_be_followed() {
    let mut other = contract(|_| {}).serving;
    other.name = "other".to_owned();
    let mut unserved = contract(|_| {}).serving;
    unserved.endpoint =
        Some(embark_crds::contract::Endpoint { tls: true, client_ca: false, token: false });
    let json = |serving: &ServingConfig| serde_json::to_string(serving).unwrap();
    for (serving, sentence) in [
        (Look::Absent("contract: has none".to_owned()), "contract: has none"),
        (bytes("{}"), "v1.json: is no contract: missing field"),
        (bytes(&json(&other)), "v1.json: holds the contract of another model, \"other\""),
        (bytes(&json(&unserved)), "spec.endpoint.tls: is asked for"),
    ] {
        let mut watch = mounted();
        watch.offered = Offered { tls: false, client_ca: false, token: false };
        let looks = [policy(|policy| policy.epoch = 7)[0].clone(), serving];
        let news = watch.consider(&looks).or_else(|| watch.consider(&looks));
        let Some(News::Good { policy, serving: Err(found) }) = news else { panic!("{news:?}") };
        assert!(policy.epoch == 7 && found.starts_with(sentence), "{found}");
    }
}

#[test]
fn another_contract_is_told_with_its_policy() {
    let mut other = contract(|_| {}).serving;
    other.output.dimensions = std::num::NonZeroU32::MIN;
    let serving = bytes(&serde_json::to_string(&other).unwrap());
    let one = |policy: &mut CachePolicy| policy.default_vector = DefaultVector::Values(vec![1.0]);
    let looks = [policy(one)[0].clone(), serving];
    let Some(News::Good { serving, .. }) = mounted().consider(&looks) else { panic!("it is good") };
    assert_eq!(*serving.unwrap(), other);
}

#[test]
fn a_manifest_that_serve_would_refuse_is_refused() {
    let refused = |text: &str| of(text).expect_err("it is refused");
    assert!(refused("a: [").starts_with("m.yaml: "));
    let other = MANIFEST.replace("name: quickstart", "name: other");
    assert_eq!(refused(&other), "m.yaml: has no model \"quickstart\" any more");
    let twice = format!("{MANIFEST}\n---\n{MANIFEST}");
    assert_eq!(refused(&twice), "m.yaml: has model \"quickstart\" more than once");
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
    assert!(Watch::of(&pipe, Offered::ALL).is_none());
}

#[test]
fn what_comes_into_a_folder_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("a.yaml"), "").unwrap();
    let mut manifests = Arrivals::of_manifests(&[folder.path().to_owned(), path("a.yaml")]);
    assert!(manifests.look().is_empty());
    fs::write(path("b.yaml"), "").unwrap();
    fs::write(path("c.txt"), "").unwrap();
    assert_eq!(manifests.look(), [path("b.yaml")]);
    assert!(manifests.look().is_empty());
    let mut mounts = Arrivals::of_mounts(folder.path());
    fs::create_dir(path("model")).unwrap();
    fs::create_dir(path("..data")).unwrap();
    assert_eq!(mounts.look(), [path("model")]);
}
