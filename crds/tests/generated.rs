//! The committed CRD is the one that the types make.

use std::{env, fs, path::Path};

use embark_crds::crd::{crd_json, crd_yaml};

/// What the API server keeps of the last applied object in an annotation, at most.
const MAX_APPLIED_BYTES: usize = 256 * 1024;

#[test]
fn the_committed_crd_is_the_generated_one() {
    let path = Path::new("embeddingmodels.embark.dev.yaml");
    let generated = crd_yaml();
    if env::var_os("BLESS").is_some() {
        fs::write(path, &generated).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap();
    assert!(
        committed == generated,
        "{} is not what the types make: run this test with BLESS=1",
        path.display()
    );
}

#[test]
fn the_crd_can_be_applied_by_a_client() {
    let bytes = crd_json().to_string().len();
    assert!(bytes < MAX_APPLIED_BYTES, "{bytes} bytes");
}

#[test]
fn the_yaml_says_what_the_json_says() {
    let read: serde_json::Value = serde_saphyr::from_str(&crd_yaml()).unwrap();
    assert_eq!(read, crd_json());
}
