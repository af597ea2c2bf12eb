//! Defects that users of other servers have reported, each a test named after what holds here instead: in this file, or in
//! the one that is named.
//!
//! | defect | reported in | tests |
//! |---|---|---|
//! | a wrong vector from a cache: its key is too small, joined, cut, or lacks what decides the vector | Triton's manual (64 bits), mick-gsk/drift#431 (64 bits), mastra-ai/mastra#17900 (32 bits), laravel/ai#839 (texts joined), Shishir435/ollama-client#300 (the first 1000 characters), spiceai/spiceai#7275 (no model), deeppavlov/AutoIntent#337 (the revision `main`, no model), rmusser01/tldw_server#2776 (no dimensions), sgl-project/sglang#22033 (no shape, no element type), MLServer (no model, but the caller's id), Infinity (an image's height) | `texts_…`, `what_a_caller_says_of_itself_…`, `tensors_…`; identity.rs; cache.rs `two_models_share_no_entries_…`; kinds not served yet: sidecar/src/key.rs |
//! | a model is swapped, and vectors of two spaces are mixed | smaramwbc/statewave#421, fabio-rovai/open-ontologies#74, BetterDB-inc/monitor#411 and #425, NVIDIA-NeMo/Guardrails#1751 | `a_caller_who_remembers_its_space_…`; identity.rs `another_…_is_another_space` |
//! | a stampede on a cold key | caura-ai/caura#213, jeanibarz/knowledge-base-mcp-server#794, praxis-proxy/praxis#316, tower-resilience#161, Triton | `five_equal_calls_…`; flights.rs; sidecar/src/embedder/tests/races.rs |
//! | no time to live, no way to drop entries | Triton server#5318 and #5384, core#142, feast-dev/feast#1802, ml-commons#3055 | cache.rs `an_expired_text_…`, `a_raised_epoch_…`; misses.rs `stale_…`; invalidation.rs; policy.rs; sidecar/src/cache/tests/model.rs |
//! | memory blows up with long or mixed inputs | TEI#156, Infinity#517 and #544, vectorize-io/hindsight#3891, cuga-agent#714, theexperiencecompany/gaia#763, Hidden-History/ai-memory#311, BentoML#3859, BYK/loreai#855, fastembed#222 | `long_texts_among_short_ones_…`, `a_text_longer_than_the_model_reads_…`; errors.rs `sixteen_million_empty_items_…` |
//! | a drain loses requests | KServe#2269, sgl-project/sglang#39016, GIE#549, TEI | `every_call_under_way_at_a_termination_…`; drain.rs |
//! | threads are sized by the host | NeptuneHub/AudioMuse-AI#787, BYK/loreai#1170, microsoft/onnxruntime#29510 and #29688, modal-labs/modal-client#4120, vellum-ai#39789 | `threads_are_as_many_as_…` |
//! | batches of mixed lengths are slower than none | DanielBlomma/cortex#89, TF Serving#1904, #1312 and #1267 | `short_and_long_texts_share_no_padded_run` |
//! | one text, another vector in each batch | TEI#704, sentence-transformers#2312, openai/CLIP#147 | `the_first_answer_stands_…`; goldens.rs and tensors.rs `…_alone_and_in_a_batch_agree` |

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use embark_sidecar::pb::client::{
    CacheControl, EmbedRequest, Item, ItemResult, Source, Tensor, item::Input,
};
use embark_tests::{
    Manifest, Sidecar,
    random::Random,
    refusal,
    sidecar::{Options, difference, request, sources, until},
};
use tokio::task::JoinSet;
use tonic::Code;

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

/// Checks that a cache that has seen none of these texts computes each of them, and keeps them apart.
async fn are_kept_apart(sidecar: &Sidecar, texts: &[&str]) {
    let right = anew(sidecar, texts).await;
    for (at, text) in texts.iter().enumerate() {
        // One after the other, so that each might be taken for one before it.
        let computed = sidecar.embed(&[text]).await;
        assert_eq!(sources(&computed), [Source::Computed], "{text:.40}");
        let apart = difference(&computed[0].vector, &right[at].vector);
        assert!(apart <= SAME, "{text:.40} differs by {apart} from itself");
    }
    for (text, right) in texts.iter().zip(&right) {
        let found = sidecar.embed(&[text]).await;
        assert_eq!(sources(&found), [Source::HitMemory], "{text:.40}");
        assert!(difference(&found[0].vector, &right.vector) <= SAME, "{text:.40}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_join_to_the_same_string_have_different_keys() {
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    let batches: [&[&str]; 4] = [
        &["rain-sun", "snow"],
        &["rain", "sun-snow"],
        &["rain-sun-snow"],
        &["rain", "sun", "snow"],
    ];
    for batch in batches {
        let right = anew(&sidecar, batch).await;
        let found = sidecar.embed(batch).await;
        for (found, right) in found.iter().zip(&right) {
            assert!(difference(&found.vector, &right.vector) <= SAME, "{batch:?}");
        }
    }
    are_kept_apart(&sidecar, &["ab cd", "a bcd", "abcd", "ab,cd", "ab\ncd", "ab\0cd"]).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_share_a_long_beginning_have_different_keys() {
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    let beginning = "mountains and rivers ".repeat(48);
    assert!(beginning.len() > 1000);
    let texts = ["", "sun", "rain", "sun and rain"].map(|end| format!("{beginning}{end}"));
    are_kept_apart(&sidecar, &texts.each_ref().map(String::as_str)).await;
    // Nor does it count what of a text the model reads.
    let longer = texts.each_ref().map(|text| format!("{} {text}", beginning.repeat(9)));
    are_kept_apart(&sidecar, &longer.each_ref().map(String::as_str)).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_whose_short_hashes_collide_have_different_keys() {
    let fnv = |text: &str| {
        text.bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    };
    let java = |text: &str| {
        text.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()))
    };
    let sum = |text: &str| text.bytes().map(u32::from).sum::<u32>();
    type Hash = fn(&str) -> u32;
    let hashes: [(Hash, [&str; 2]); 4] = [
        (fnv, ["costarring", "liquid"]),
        (fnv, ["declinate", "macallums"]),
        (java, ["Siblings", "Teheran"]),
        (sum, ["listen", "silent"]),
    ];
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    for (hash, pair) in hashes {
        assert_eq!(hash(pair[0]), hash(pair[1]), "{pair:?}");
        are_kept_apart(&sidecar, &pair).await;
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_says_of_itself_is_not_in_the_key() {
    let (_folder, sidecar) = serve(Manifest::tiny("tiny")).await;
    let mut found = Vec::new();
    for id in ["one", "two", "three"] {
        let mut asked = tonic::Request::new(request(&["a text"]));
        for name in ["x-request-id", "traceparent", "user-agent-of", "authorization"] {
            asked.metadata_mut().insert(name, id.parse().unwrap());
        }
        let reply = sidecar.embeddings().await.embed(asked).await.unwrap().into_inner();
        found.extend(sources(&reply.results));
    }
    assert_eq!(found, [Source::Computed, Source::HitMemory, Source::HitMemory]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tensors_of_the_same_values_in_another_order_have_different_keys() {
    let (_folder, sidecar) = serve(Manifest::wine("wine")).await;
    let values: [f32; 13] =
        [13.2, 1.78, 2.14, 11.2, 100.0, 2.65, 2.76, 0.26, 1.28, 4.38, 1.05, 3.4, 1050.0];
    let mut other_order = values;
    other_order.swap(1, 2);
    let mut one_bit = values;
    one_bit[12] = f32::from_bits(one_bit[12].to_bits() ^ 1);
    let tensors = [values, other_order, one_bit].map(|values| Item {
        input: Some(Input::Tensor(Tensor { float_values: values.to_vec(), ..Tensor::default() })),
    });
    for tensor in &tensors {
        let alone = EmbedRequest { items: vec![tensor.clone()], ..EmbedRequest::default() };
        assert_eq!(sources(&sidecar.call(alone).await.unwrap().results), [Source::Computed]);
    }
    let all = EmbedRequest { items: tensors.to_vec(), ..EmbedRequest::default() };
    let found = sidecar.call(all).await.unwrap().results;
    assert_eq!(sources(&found), [Source::HitMemory; 3]);
    assert!(difference(&found[0].vector, &found[1].vector) > 1e-3);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_remembers_its_space_is_refused_by_a_model_that_took_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::tiny("words"));
    let sidecar = Sidecar::start(&options).await;
    let before = sidecar.call(request(&["a text"])).await.unwrap();
    sidecar.stop().await;
    // The same name and the same length of vectors: nothing else would tell.
    let swapped = Manifest::tiny("words").with("/spec/input/text/maxTokens", 8);
    let sidecar = Sidecar::start(&options.with(&swapped)).await;
    for texts in [&["a text"][..], &["a text", "another"]] {
        let expecting = EmbedRequest { expect_space_id: before.space_id.clone(), ..request(texts) };
        let refused = sidecar.call(expecting).await.unwrap_err();
        let at = "expect_space_id";
        let metadata = refusal::of_field(&refused, Code::FailedPrecondition, "SPACE_MISMATCH", at);
        assert_eq!(metadata["value"], before.space_id);
    }
    assert!(sidecar.metric("embark_batch_items_count", &[]).await < 0.5, "something was computed");
    let after = sidecar.call(request(&["a text"])).await.unwrap();
    assert_eq!(sources(&after.results), [Source::Computed]);
    assert_ne!(after.space_id, before.space_id);
    let expecting = EmbedRequest { expect_space_id: after.space_id, ..request(&["a text"]) };
    assert_eq!(sources(&sidecar.call(expecting).await.unwrap().results), [Source::HitMemory]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_equal_calls_on_a_cold_key_do_one_computation() {
    let (_folder, sidecar) = serve(Manifest::minilm("minilm")).await;
    for round in 0..8 {
        let text = format!("round {round} ").repeat(40);
        let mut calls = JoinSet::new();
        for _ in 0..5 {
            let (mut client, asked) = (sidecar.embeddings().await, request(&[&text]));
            calls.spawn(async move { client.embed(asked).await.unwrap().into_inner() });
        }
        let replies = calls.join_all().await;
        let first = &replies[0].results[0].vector;
        assert!(replies.iter().all(|reply| reply.results[0].vector == *first));
        // Rows of runs, not answers: one for each round.
        let rows = sidecar.metric("embark_batch_items_sum", &[]).await;
        assert!((rows - f64::from(round + 1)).abs() < 0.5, "{rows} rows in round {round}");
    }
    sidecar.stop().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn long_texts_among_short_ones_blow_up_neither_memory_nor_runs() {
    let most = 1024;
    let manifest = Manifest::minilm("minilm")
        .with("/spec/batching/maxTokens", most)
        .with("/spec/batching/maxItems", 256)
        .with("/spec/batching/maxDuration", "10s");
    let (_folder, sidecar) = serve(manifest).await;
    let long = "it was the best of times, it was the worst of times ".repeat(40);
    sidecar.embed(&[&long]).await;
    let before = sidecar.peak_memory();
    let mut texts: Vec<String> = (0..256).map(|n| format!("short {n}")).collect();
    for (n, at) in [17, 99, 200].into_iter().enumerate() {
        texts[at] = format!("{n} {long}");
    }
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let results = sidecar.embed(&texts).await;
    assert!(results.iter().all(|result| result.error.is_none()));
    assert!(results[17].truncated && results[17].tokens == 256 && results[18].tokens < 8);
    // Padded to the longest, 256 rows of 256 tokens would take gigabytes.
    let grown = sidecar.peak_memory() - before;
    assert!(grown < 256 << 20, "{grown} bytes for one call");
    let Work { runs, rows, useful, padding } = work(&sidecar).await;
    assert!((rows - 257.0).abs() < 0.5, "{rows} rows");
    assert!(useful + padding <= runs * f64::from(most), "{runs} runs of {useful} + {padding}");
    assert!(padding <= useful / 3.0, "{padding} of padding for {useful} tokens");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_longer_than_the_model_reads_is_cut_or_refused_and_hangs_nothing() {
    // A text of all tokens costs as much as a run may.
    let manifest = Manifest::minilm("minilm")
        .with("/spec/batching/maxTokens", 384)
        .with("/spec/batching/queue/maxTokens", 384);
    let (_folder, sidecar) = serve(manifest).await;
    let limit = 256 * 1024;
    let longest = "word ".repeat(limit / 5);
    let cut = sidecar.embed(&[&longest]).await.remove(0);
    assert!(cut.truncated && cut.tokens == 256, "{} tokens", cut.tokens);
    let before = sidecar.peak_memory();
    let over = "x".repeat(limit + 1);
    let refused = sidecar.call(request(&[&over])).await.unwrap_err();
    let field = "items[0].text";
    let metadata = refusal::of_field(&refused, Code::InvalidArgument, "TEXT_TOO_LONG", field);
    assert!(metadata["allowed"].contains(&limit.to_string()), "{metadata:?}");
    assert!(sidecar.peak_memory() - before < 64 << 20);
    // Its company is served, and so is the next.
    let mixed = sidecar.embed(&["short", &over, "also short"]).await;
    assert_eq!(mixed[1].error.as_ref().unwrap().reason, "TEXT_TOO_LONG");
    assert_eq!((mixed[0].source(), mixed[2].source()), (Source::Computed, Source::Computed));
    assert_eq!(sources(&sidecar.embed(&["the next"]).await), [Source::Computed]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_under_way_at_a_termination_is_answered_or_unavailable() {
    const CALLERS: usize = 24;
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path(), &Manifest::minilm("minilm"));
    options.arguments = ["--drain-wait", "300ms"].map(Into::into).into();
    let sidecar = Sidecar::start(&options).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (mut client, answered) = (sidecar.embeddings().await, Arc::clone(&answered));
        callers.spawn(async move {
            for call in 0.. {
                let text = format!("caller {caller}, call {call}: all work and no play");
                match client.embed(request(&[&text, "the same for all"])).await {
                    Ok(reply) => {
                        let results = reply.into_inner().results;
                        let is_right = |result: &ItemResult| {
                            result.error.is_none() && result.vector.len() == 384
                        };
                        assert!(results.len() == 2 && results.iter().all(is_right), "{results:?}");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(refused) => return refused,
                }
            }
            unreachable!("it calls until it is refused")
        });
    }
    until("calls are answered", async || answered.load(Ordering::Relaxed) > 2 * CALLERS).await;
    sidecar.signal("-TERM").await;
    let (_, refusals) = tokio::join!(sidecar.stopped(), callers.join_all());
    assert_eq!(refusals.len(), CALLERS);
    for refused in refusals {
        // The client's word for a call that it had not sent when the connection was closed.
        let never_left =
            refused.code() == Code::Cancelled && refused.to_string().contains("connection closed");
        assert!(refused.code() == Code::Unavailable || never_left, "{refused}");
    }
}

/// The threads of a process, by their names without numbers.
fn threads(id: u32) -> BTreeMap<String, usize> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{id}/task")).unwrap() {
        // One may end meanwhile.
        let Ok(name) = fs::read_to_string(task.unwrap().path().join("comm")) else { continue };
        let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit());
        *threads.entry(name.to_owned()).or_default() += 1;
    }
    threads
}

/// The first processor that this process may use.
fn a_processor() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let is_number = |c: char| !c.is_ascii_digit();
    list.trim().split(is_number).next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_are_as_many_as_the_processors_that_it_may_use() {
    let all = std::thread::available_parallelism().unwrap().get();
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    for (processors, expected) in [(None, all), (Some(a_processor()), 1)] {
        options.wrapper = match processors {
            Some(one) => ["taskset", "-c", &one].map(Into::into).into(),
            None => Vec::new(),
        };
        let sidecar = Sidecar::start(&options).await;
        sidecar.embed(&["a text", "another"]).await;
        // For a run by itself; one processor needs none. For preparing, one more: it is for invalidations.
        let all_cores = if expected > 1 { expected } else { 0 };
        let right =
            [("compute-", expected), ("compute-all-", all_cores), ("prepare-", expected + 1)];
        // A thread bears its parent's name until it has begun.
        until("there are as many threads as processors", async || {
            let threads = threads(sidecar.id());
            right.iter().all(|(kind, count)| threads.get(*kind).unwrap_or(&0) == count)
        })
        .await;
        let workers = sidecar.metric("embark_workers", &[]).await;
        #[expect(clippy::cast_precision_loss, reason = "processors are few")]
        let right = (workers - expected as f64).abs() < 0.5;
        assert!(right, "the metric says {workers} of {expected}");
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn short_and_long_texts_share_no_padded_run() {
    let (_folder, sidecar) = serve(Manifest::minilm("minilm")).await;
    // Of 8 and of 128 tokens, by turns.
    let texts: Vec<String> = (0..96)
        .map(|n| format!("{n:03} {}", "rain ".repeat(if n % 2 == 0 { 3 } else { 123 })))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let results = sidecar.embed(&texts).await;
    assert!(results[0].tokens <= 10 && results[1].tokens >= 120, "{}", results[1].tokens);
    let Work { runs, rows, useful, padding } = work(&sidecar).await;
    assert!((rows - 96.0).abs() < 0.5 && runs <= rows, "{runs} runs of {rows} rows");
    let share = useful / (useful + padding);
    assert!(share >= 0.8, "{share} of what was computed was of use");
    // Of any length.
    let mut random = Random::new(5);
    let texts: Vec<String> =
        (0..96).map(|n| format!("{n} {}", "sun ".repeat(random.index(120)))).collect();
    sidecar.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let after = work(&sidecar).await;
    let (useful, padding) = (after.useful - useful, after.padding - padding);
    let share = useful / (useful + padding);
    assert!(share >= 0.8, "{share} of what was computed was of use");
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_stands_for_a_text_wherever_it_was_computed() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::minilm("minilm"));
    let sidecar = Sidecar::start(&options).await;
    let texts = ["a", "the rain in spain", "it was the best of times, it was the worst of times"];
    let company: Vec<String> = (0..29).map(|n| format!("company {n} ").repeat(1 + n)).collect();
    let company: Vec<&str> = company.iter().map(String::as_str).collect();
    let batch = [&texts[..], &company].concat();
    let first = sidecar.embed(&batch).await;
    let alone = sidecar.embed_each(&texts).await;
    assert_eq!(sources(&alone), [Source::HitMemory; 3]);
    for ((text, alone), first) in texts.iter().zip(&alone).zip(&first) {
        // Bit by bit.
        let bits = |vector: &[f32]| vector.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&alone.vector), bits(&first.vector), "{text}");
        let again = anew(&sidecar, &[text]).await;
        let apart = difference(&again[0].vector, &first.vector);
        assert!(apart <= SAME, "{text} differs by {apart} alone");
    }
    sidecar.stop().await;
    let sidecar = Sidecar::start(&options).await;
    let kept = sidecar.embed_each(&texts).await;
    assert_eq!(sources(&kept), [Source::HitDisk; 3]);
    for (kept, first) in kept.iter().zip(&first) {
        assert!(kept.vector.iter().zip(&first.vector).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
    sidecar.stop().await;
}
