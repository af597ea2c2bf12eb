use embark_crds::contract::{Artifact, Location};

use super::*;
use crate::model::test_support::artifact;

fn asks(has_secret: bool, has_ca_bundle: bool) -> Artifact {
    let location = Location::Http { url: "http://host/model.onnx".to_owned() };
    Artifact { has_secret, has_ca_bundle, ..artifact(location, b"") }
}

fn request<'a>(artifact: &'a Artifact, base: &'a Path) -> Request<'a> {
    let (field, size_limit) = ("spec.input.text.tokenizer", 1);
    Request { artifact, field, size_limit, base, progress: &|_| {} }
}

/// A model's folder in a pod, with files in it.
fn mounted(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(files::SERVING_DIR)).unwrap();
    for (path, bytes) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    variables.iter().map(owned).collect()
}

fn problem_of(result: Result<impl Sized, FetchCause>) -> (String, bool) {
    match result {
        Err(FetchCause::Reference { problem, transient }) => (problem, transient),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was there"),
    }
}

#[tokio::test]
async fn a_mounted_secret_is_read_by_key_and_the_environment_is_not() {
    let folder = mounted(&[
        ("secrets/tokenizer/token", b"mounted\n"),
        ("secrets/tokenizer/binary", &[0xff, 0xfe]),
        ("secrets/tokenizer/..data/token", b"the same again"),
        ("secrets/model/token", b"of another artifact"),
    ]);
    let (artifact, variables) = (asks(true, false), environment(&[("HF_TOKEN", "environment")]));
    let secret = Secret::of(&request(&artifact, folder.path()), &variables).await.ok().unwrap();
    assert_eq!(secret.get("token", "HF_TOKEN"), Some("mounted"));
    assert_eq!(secret.get("username", "HF_TOKEN"), None);
    assert_eq!(secret.get("binary", "HF_TOKEN"), None);
}

#[tokio::test]
async fn a_secret_that_is_not_mounted_yet_is_waited_for() {
    let (folder, artifact) = (mounted(&[]), asks(true, false));
    let variables = environment(&[]);
    let secret = Secret::of(&request(&artifact, folder.path()), &variables).await;
    let (problem, transient) = problem_of(secret);
    assert_eq!(
        (problem.as_str(), transient),
        ("the Secret cannot be read: entity not found", true)
    );
}

#[tokio::test]
async fn a_secret_is_bounded() {
    let large = vec![b'a'; 256 * 1024 + 1];
    let folder = mounted(&[("secrets/tokenizer/token", &large)]);
    let (artifact, variables) = (asks(true, false), environment(&[]));
    let secret = Secret::of(&request(&artifact, folder.path()), &variables).await;
    let (sentence, _) = problem_of(secret);
    assert_eq!(sentence, "the Secret has the key token, which has more than 262144 bytes");

    let names: Vec<String> = (0..65).map(|i| format!("secrets/tokenizer/{i}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"a"[..])).collect();
    let folder = mounted(&files);
    let secret = Secret::of(&request(&artifact, folder.path()), &variables).await;
    assert_eq!(problem_of(secret).0, "the Secret has more than 64 keys");
}

#[tokio::test]
async fn outside_of_a_cluster_the_environment_stands_for_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    // A folder of this name beside a manifest is no Secret.
    fs::create_dir_all(folder.path().join("secrets/tokenizer")).unwrap();
    fs::write(folder.path().join("secrets/tokenizer/token"), "file").unwrap();
    let (artifact, variables) = (asks(true, false), environment(&[("HF_TOKEN", "environment")]));
    let secret = Secret::of(&request(&artifact, folder.path()), &variables).await.ok().unwrap();
    assert_eq!(secret.get("token", "HF_TOKEN"), Some("environment"));
    let FetchCause::Reference { problem, transient } = secret.lacks("token", "EMBARK_HTTP_TOKEN")
    else {
        panic!("another cause");
    };
    let stands = "names a Secret of a cluster; outside of one the environment stands for it: set";
    assert_eq!((problem, transient), (format!("{stands} EMBARK_HTTP_TOKEN"), false));
}

#[tokio::test]
async fn a_ca_bundle_is_mounted_or_named_by_the_environment() {
    let artifact = asks(false, true);
    let folder = mounted(&[("ca/tokenizer/ca.crt", b"mounted")]);
    let nothing = environment(&[]);
    let bundle = ca_bundle(&request(&artifact, folder.path()), &nothing).await.unwrap();
    assert_eq!(bundle.as_deref(), Some(&b"mounted"[..]));

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("roots.pem"), "named").unwrap();
    let variables = environment(&[("SSL_CERT_FILE", "roots.pem")]);
    let bundle = ca_bundle(&request(&artifact, folder.path()), &variables).await.unwrap();
    assert_eq!(bundle.as_deref(), Some(&b"named"[..]));
    let (sentence, transient) =
        problem_of(ca_bundle(&request(&artifact, folder.path()), &nothing).await);
    assert!(sentence.ends_with("set SSL_CERT_FILE to a file of certificates"), "{sentence}");
    assert!(!transient);
    let unasked = asks(false, false);
    assert_eq!(ca_bundle(&request(&unasked, folder.path()), &variables).await.unwrap(), None);
}

#[test]
fn a_path_stays_on_its_volume() {
    let base = Path::new("/models/tiny");
    let path = |claim, path| on_volume(base, claim, path).map_err(|cause| cause.to_string());
    assert_eq!(path("claim", "a/b c.onnx"), Ok("/models/tiny/volumes/claim/a/b c.onnx".into()));
    assert_eq!(path("claim", "//a"), Ok("/models/tiny/volumes/claim/a".into()));
    for (claim, inside) in [("claim", "../../x"), ("claim", "a/../../x"), ("..", "x"), ("a/b", "x")]
    {
        let sentence = path(claim, inside).unwrap_err();
        assert!(sentence.ends_with("is outside of the volume"), "{sentence}");
    }
}
