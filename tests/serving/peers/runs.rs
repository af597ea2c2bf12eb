//! What is computed together, how often, and what it costs.

use embark_sidecar::pb::client::Source;
use embark_tests::{
    Manifest, Sidecar,
    random::Random,
    refusal,
    sidecar::{Options, difference, request, sources},
};
use tokio::task::JoinSet;
use tonic::Code;

use super::{SAME, Work, anew, serve, work};

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
