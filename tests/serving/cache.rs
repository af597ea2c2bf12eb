//! Where vectors come from, and when they are forgotten.

use embark_sidecar::pb::client::Source;
use embark_tests::{
    Manifest, Sidecar,
    sidecar::{Options, sources},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_computed_once_then_remembered_in_memory_and_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    let sidecar = Sidecar::start(&options).await;
    let first = sidecar.embed(&["a text"]).await;
    let again = sidecar.embed(&["a text"]).await;
    assert_eq!(sources(&first), [Source::Computed]);
    assert_eq!(sources(&again), [Source::HitMemory]);
    assert_eq!(first[0].vector, again[0].vector);
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options).await;
    let restarted = sidecar.embed(&["a text"]).await;
    assert_eq!(sources(&restarted), [Source::HitDisk]);
    assert_eq!(first[0].vector, restarted[0].vector);
    assert_eq!(sources(&sidecar.embed(&["a text"]).await), [Source::HitMemory]);
    sidecar.stop().await;
}
