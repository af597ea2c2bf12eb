//! Defects that users of other servers have reported, each a test named after what holds here instead, in the file that is
//! named.
//!
//! | defect | reported in | tests |
//! |---|---|---|
//! | a wrong vector from a cache: its key is too small, joined, cut, or lacks what decides the vector | Triton's manual (64 bits), mick-gsk/drift#431 (64 bits), mastra-ai/mastra#17900 (32 bits), laravel/ai#839 (texts joined), Shishir435/ollama-client#300 (the first 1000 characters), spiceai/spiceai#7275 (no model), deeppavlov/AutoIntent#337 (the revision `main`, no model), rmusser01/tldw_server#2776 (no dimensions), sgl-project/sglang#22033 (no shape, no element type), MLServer (no model, but the caller's id), Infinity (an image's height) | peers/keys.rs; identity.rs; cache.rs `two_models_share_no_entries_…`; kinds not served yet: sidecar/src/key.rs |
//! | a model is swapped, and vectors of two spaces are mixed | smaramwbc/statewave#421, fabio-rovai/open-ontologies#74, BetterDB-inc/monitor#411 and #425, NVIDIA-NeMo/Guardrails#1751 | peers/keys.rs `a_caller_who_remembers_its_space_…`; identity.rs `another_…_is_another_space` |
//! | a stampede on a cold key | caura-ai/caura#213, jeanibarz/knowledge-base-mcp-server#794, praxis-proxy/praxis#316, tower-resilience#161, Triton | peers/runs.rs `five_equal_calls_…`; flights.rs; sidecar/src/embedder/tests/races.rs |
//! | no time to live, no way to drop entries | Triton server#5318 and #5384, core#142, feast-dev/feast#1802, ml-commons#3055 | cache.rs `an_expired_text_…`, `a_raised_epoch_…`; misses.rs `stale_…`; invalidation.rs; policy.rs; sidecar/src/cache/tests/model.rs |
//! | memory blows up with long or mixed inputs | TEI#156, Infinity#517 and #544, vectorize-io/hindsight#3891, cuga-agent#714, theexperiencecompany/gaia#763, Hidden-History/ai-memory#311, BentoML#3859, BYK/loreai#855, fastembed#222 | peers/runs.rs `long_texts_among_short_ones_…`, `a_text_longer_than_the_model_reads_…`; errors.rs `sixteen_million_empty_items_…` |
//! | the service hangs for ever, and its health says that all is well | TEI#723, #694 and #305, Infinity#544, Triton#8631 | peers/hangs.rs; peers/runs.rs `a_text_longer_than_the_model_reads_…` |
//! | overload has another code on each path | TEI#662, TF Serving#10, ray-project/ray#65193 and #65879, Linkerd, BentoML | peers/overload.rs; deadlines.rs `a_call_that_would_wait_too_long_…`; sidecar/src/grpc/in_flight.rs |
//! | deadlines and cancels are ignored | TF Serving#1265, Triton#6920, ray-project/ray#21438, KServe's batcher | peers/deadlines.rs; deadlines.rs; streams.rs `a_client_who_goes_…` |
//! | a drain loses requests | KServe#2269, sgl-project/sglang#39016, GIE#549, TEI | peers/process.rs `every_call_under_way_at_a_termination_…`; drain.rs |
//! | threads are sized by the host | NeptuneHub/AudioMuse-AI#787, BYK/loreai#1170, microsoft/onnxruntime#29510 and #29688, modal-labs/modal-client#4120, vellum-ai#39789 | peers/process.rs `threads_are_as_many_as_…` |
//! | batches of mixed lengths are slower than none | DanielBlomma/cortex#89, TF Serving#1904, #1312 and #1267 | peers/runs.rs `short_and_long_texts_share_no_padded_run` |
//! | one text, another vector in each batch | TEI#704, sentence-transformers#2312, openai/CLIP#147 | peers/runs.rs `the_first_answer_stands_…`; goldens.rs and tensors.rs `…_alone_and_in_a_batch_agree` |
//! | the embedded store is damaged, slow or without bounds | sled#1533 and #1527 (no open after a kill), #1531 (minutes to open), #1410 (memory of half the database), #1484 (60 times the bytes on disk), #976, databend#14709, meilisearch#158 | peers/store.rs; kills.rs; store_faults.rs; sidecar/src/cache/store/tests.rs |

mod deadlines;
mod hangs;
mod keys;
mod overload;
mod process;
mod runs;
mod store;

use embark_sidecar::pb::client::{CacheControl, EmbedRequest, ItemResult};
use embark_tests::{Manifest, Sidecar, sidecar::request};

/// How far a vector may be from that of the same input in other company.
const SAME: f32 = 1e-5;

async fn serve(manifest: Manifest) -> (tempfile::TempDir, Sidecar) {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &manifest).await;
    (folder, sidecar)
}

/// The vectors of texts, each computed anew.
async fn anew(sidecar: &Sidecar, texts: &[&str]) -> Vec<ItemResult> {
    let cache = CacheControl { no_cache: true, no_store: true, ..CacheControl::default() };
    let asked = EmbedRequest { cache: Some(cache), ..request(texts) };
    sidecar.call(asked).await.unwrap().results
}

/// What has been run so far.
struct Work {
    runs: f64,
    rows: f64,
    useful: f64,
    padding: f64,
}

async fn work(sidecar: &Sidecar) -> Work {
    let tokens = async |kind| sidecar.metric("embark_computed_tokens_total", &[kind]).await;
    Work {
        runs: sidecar.metric("embark_batch_items_count", &[]).await,
        rows: sidecar.metric("embark_batch_items_sum", &[]).await,
        useful: tokens("\"useful\"").await,
        padding: tokens("\"padding\"").await,
    }
}
