//! The admin port's pages beside probes and status.

use embark_tests::{Manifest, Sidecar, sidecar::http_put};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_in_force_is_told_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest::tiny("tiny").with("/spec/cache/ttl", "90m");
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    let (code, body) = sidecar.get("/config").await;
    let config: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(code, 200);
    let model = &config["models"][0];
    assert_eq!(
        (&model["serving"]["name"], &model["policy"]["ttl"]),
        (&"tiny".into(), &5_400_000.into())
    );
    assert_eq!(model["policyHash"], sidecar.model_status("tiny").await["policyHash"]);
    assert_eq!(config["settings"]["listen"], "127.0.0.1:0");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_of_the_log_is_changed_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    assert_eq!(sidecar.get("/log-level").await, (200, "info\n".to_owned()));
    let put = async |level: &str| http_put(sidecar.admin(), "/log-level", level).await;
    let (code, sentence) = put("loud").await;
    assert!(
        code == 400 && sentence.starts_with("\"loud\" is not a level; it must be"),
        "{sentence}"
    );
    assert_eq!(sidecar.get("/log-level").await.1, "info\n", "a wrong one changes nothing");
    assert_eq!(put("embark_sidecar=debug,warn\n").await.0, 200);
    assert_eq!(sidecar.get("/log-level").await.1, "embark_sidecar=debug,warn\n");
    sidecar.wait_for_line("the level of the log was changed").await;
    let (code, _) = put(&"x".repeat(5000)).await;
    assert_eq!(code, 413);
    sidecar.stop().await;
}
