//! ghz, a load generator that shares no code with the sidecar: whatever it is told is an answer, or a documented shed.
//!
//! Five seconds at a moderate rate, for the tests beside it; a minute as fast as it goes with `EMBARK_TEST_LONG=1`.

use std::time::Duration;

use embark_tests::{
    Manifest, Sidecar,
    long::is_long,
    programs,
    sidecar::{LIMIT, Options},
};
use serde_json::Value;
use tokio::process::Command;

/// Texts of which some come again, of a call that has several.
const REQUEST: &str = r#"{"items": [{"text": "text {{randomInt 0 5000}}"}, {"text": "text {{randomInt 0 50}}"}, {"text": "call {{.RequestNumber}}"}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn ghz_meets_no_error_but_documented_sheds() {
    let long = is_long();
    let folder = tempfile::tempdir().unwrap();
    // So small a queue that some of it is shed.
    let manifest = Manifest::tiny("tiny")
        .with("/spec/batching/maxItems", 4)
        .with("/spec/batching/queue/maxItems", 4);
    let sidecar = Sidecar::start(&Options::new(folder.path(), &manifest)).await;
    let mut ghz = Command::new(programs::from_environment("EMBARK_TEST_GHZ"));
    ghz.args(["--insecure", "--format=json", "--duration-stop=wait", "--timeout=60s"]);
    ghz.args(["--call=embark.v1.EmbeddingService/Embed", "--concurrency=32", "--connections=4"]);
    ghz.arg(if long { "--duration=60s" } else { "--duration=5s" });
    if !long {
        ghz.arg("--rps=500");
    }
    ghz.args(["--data", REQUEST, sidecar.grpc()]);
    let limit = LIMIT + Duration::from_secs(60);
    let Ok(ran) = tokio::time::timeout(limit, programs::run(ghz, b"")).await else {
        panic!("it does not end: {}\n{}", sidecar.status().await, sidecar.log());
    };
    assert_eq!(ran.code, 0, "{}{}", ran.output, ran.errors);
    let report: Value = serde_json::from_str(&ran.output).unwrap();
    let codes = report["statusCodeDistribution"].as_object().unwrap();
    let (count, errors) = (report["count"].as_u64().unwrap(), &report["errorDistribution"]);
    println!(
        "{count} calls, {} a second, {codes:?}, {errors}, {}",
        report["rps"], report["latencyDistribution"]
    );
    assert!(codes["OK"].as_u64().unwrap() > 0, "{codes:?}");
    assert!(codes.keys().all(|code| code == "OK" || code == "ResourceExhausted"), "{codes:?}");
    let counted: u64 = codes.values().filter_map(Value::as_u64).sum();
    assert_eq!(counted, count, "{codes:?}");
    sidecar.stop().await;
}
