//! What memory a server takes, as a process of its own: with the vendored model loaded and nothing cached; and with MiniLM
//! (EMBARK_TEST_MINILM, as tests/run has it) when it has computed texts of every length in runs of every size, beside the
//! size of the model's file. What is counted is what is resident, pages of the program's file among it.
//!
//! `cargo measure memory` on 2 cores:
//!
//! ```text
//! ratio memory-tiny-mb 56.685 target <= 40  MISSED
//! value memory-tiny-anonymous-mb 19.169
//! value memory-tiny-peak-mb 56.685
//! value memory-minilm-loaded-mb 192.061
//! ratio memory-minilm-mb 206.246 target <= 239
//! value memory-minilm-file-mb 90.288
//! value memory-minilm-anonymous-mb 168.358
//! value memory-minilm-peak-mb 222.282
//! ```
//!
//! Of what is missed by the vendored model, 37 MB are pages of the program's file: 25 of its code, of which there are 41,
//! and 11 of its data, with the model in it. They are those of a build without link-time optimisation, and the system may
//! drop them; a release's have not been measured.

#[path = "support/measure.rs"]
#[expect(dead_code, reason = "it takes no times")]
mod measure;
#[path = "support/metrics.rs"]
mod metrics;
#[path = "support/models.rs"]
mod models;
#[path = "support/random.rs"]
#[expect(dead_code, reason = "words need numbers alone")]
mod random;
#[path = "support/report.rs"]
mod report;
#[path = "support/resident.rs"]
mod resident;
#[path = "support/server.rs"]
#[expect(dead_code, reason = "what is in memory alone is asked")]
mod server;
#[path = "support/words.rs"]
mod words;

use std::{fs, process::ExitCode};

use embark_sidecar::pb::client::{
    EmbedRequest, Item, embedding_service_client::EmbeddingServiceClient, item::Input,
};
use measure::{Target, ratio};
use report::value;
use resident::{anonymous, peak, resident};
use serde_json::{Value, json};
use server::Server;

const MB: f64 = 1e6;
/// Tokens of the texts that warm a model up, and items of a call.
const TOKENS: [usize; 6] = [8, 16, 32, 64, 128, 256];
const ITEMS: [u64; 3] = [1, 8, 32];

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    let server = Server::start(&models::tiny(&json!({})));
    ratio("memory-tiny-mb", resident(server.id()) / MB, Target::AtMost(40.0));
    value("memory-tiny-anonymous-mb", anonymous(server.id()) / MB);
    value("memory-tiny-peak-mb", peak(server.id()) / MB);
    drop(server);
    let (manifest, file) =
        match models::minilm().and_then(|manifest| Ok((size(&manifest)?, manifest))) {
            Ok((file, manifest)) => (manifest, file),
            Err(sentence) => {
                eprintln!("{sentence}");
                return ExitCode::FAILURE;
            }
        };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(minilm(&manifest, file));
    ExitCode::SUCCESS
}

async fn minilm(manifest: &Value, file: f64) {
    let server = Server::start(manifest);
    value("memory-minilm-loaded-mb", resident(server.id()) / MB);
    let mut client = EmbeddingServiceClient::new(server.channel().await);
    for call in calls() {
        let reply = client.embed(call).await.expect("it is answered").into_inner();
        let failed = reply.results.iter().find_map(|result| result.error.as_ref());
        assert!(failed.is_none(), "{failed:?}");
    }
    let most = 2.2 * file + 40.0 * MB;
    ratio("memory-minilm-mb", resident(server.id()) / MB, Target::AtMost((most / MB).round()));
    value("memory-minilm-file-mb", file / MB);
    value("memory-minilm-anonymous-mb", anonymous(server.id()) / MB);
    value("memory-minilm-peak-mb", peak(server.id()) / MB);
}

/// Bytes of a manifest's model.
fn size(manifest: &Value) -> Result<f64, String> {
    let uri = manifest["spec"]["model"]["source"]["uri"].as_str().unwrap_or_default();
    let file = uri.trim_start_matches("file://");
    let metadata = fs::metadata(file).map_err(|error| format!("{file}: {error}"))?;
    Ok(metadata.len() as f64)
}

/// Calls of texts of every length, alone and together.
fn calls() -> Vec<EmbedRequest> {
    let text = |number, tokens| Item { input: Some(Input::Text(words::text(number, tokens))) };
    let mut calls = Vec::new();
    for tokens in TOKENS {
        for items in ITEMS {
            let items = (0..items).map(|number| text(number, tokens)).collect();
            calls.push(EmbedRequest { items, ..Default::default() });
        }
    }
    calls
}
