//! Where vectors come from, and how long they stay.

use std::{fs, path::Path, time::Duration};

use embark_sidecar::pb::client::{EmbedRequest, Source};
use embark_tests::{
    Manifest, Sidecar,
    sidecar::{Options, pass, request, request_of, sources, until},
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

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_text_is_computed_anew_whichever_tier_had_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &with_ttl("1s"));
    let sidecar = Sidecar::start(&options).await;
    let first = sidecar.embed(&["a text"]).await;
    pass(Duration::from_secs(1)).await;
    let second = sidecar.embed(&["a text"]).await;
    assert_eq!(sources(&second), [Source::Computed]);
    assert_eq!(first[0].vector, second[0].vector);
    sidecar.stop().await;

    pass(Duration::from_secs(1)).await;
    let sidecar = Sidecar::start(&options).await;
    assert_eq!(sources(&sidecar.embed(&["a text"]).await), [Source::Computed]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_ttl_holds_for_entries_that_were_made_under_a_longer_one() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &with_ttl("24h"));
    let sidecar = Sidecar::start(&options).await;
    sidecar.embed(&["old", "older"]).await;
    pass(Duration::from_secs(1)).await;
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options.with(&with_ttl("1s"))).await;
    assert_eq!(sources(&sidecar.embed(&["old"]).await), [Source::Computed]);
    sidecar.stop().await;

    // Nothing was deleted for it: a longer ttl brings the rest back.
    let sidecar = Sidecar::start(&options.with(&with_ttl("24h"))).await;
    assert_eq!(sources(&sidecar.embed(&["older"]).await), [Source::HitDisk]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_epoch_forgets_everything_and_a_lowered_one_is_refused_while_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let epoch = |epoch: u64| Manifest::tiny("tiny").with("/spec/cache/epoch", epoch);
    let options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    let sidecar = Sidecar::start(&options).await;
    sidecar.embed(&["a text"]).await;
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options.with(&epoch(3))).await;
    assert_eq!(
        sources(&sidecar.embed_each(&["a text"; 2]).await),
        [Source::Computed, Source::HitMemory]
    );
    assert_eq!(sidecar.model_status("tiny").await["cache"]["epoch"], 3);
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options.with(&epoch(2))).await;
    let cache = sidecar.model_status("tiny").await["cache"].clone();
    assert_eq!(cache["epoch"], 3);
    let sentence = cache["message"].as_str().unwrap();
    for part in ["spec.cache.epoch", "\"2\"", "3"] {
        assert!(sentence.contains(part), "{sentence:?} does not say {part}");
    }
    let line = sidecar.wait_for_line_with(sentence).await;
    assert_eq!(line["level"], "WARN");
    assert_eq!(sidecar.get("/ready").await.0, 200);
    let served = sidecar.embed_each(&["a text", "a new text", "a new text"]).await;
    assert_eq!(sources(&served), [Source::HitDisk, Source::Computed, Source::HitMemory]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_items_of_a_batch_are_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    let sidecar = Sidecar::start(&options).await;
    let batch = ["a", "b", "a", "a"];
    let first = sidecar.embed(&batch).await;
    let expected = [Source::Computed, Source::Computed, Source::Coalesced, Source::Coalesced];
    assert_eq!(sources(&first), expected);
    assert_eq!(first[0].vector, first[2].vector);
    assert_ne!(first[0].vector, first[1].vector);
    assert_eq!(sources(&sidecar.embed(&batch).await), [Source::HitMemory; 4]);
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options).await;
    assert_eq!(sources(&sidecar.embed(&batch).await), [Source::HitDisk; 4]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_mode_memory_nothing_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Manifest::tiny("tiny").with("/spec/cache/mode", "Memory");
    let options = Options::new(folder.path(), &memory);
    let sidecar = Sidecar::start(&options).await;
    assert_eq!(
        sources(&sidecar.embed_each(&["a"; 2]).await),
        [Source::Computed, Source::HitMemory]
    );
    assert_eq!(sidecar.model_status("tiny").await["cache"]["disk"]["state"], "off");
    sidecar.stop().await;
    assert_eq!(bytes_in(&options.data), 0);

    let sidecar = Sidecar::start(&options).await;
    assert_eq!(sources(&sidecar.embed(&["a"]).await), [Source::Computed]);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_mode_disabled_every_call_computes() {
    let folder = tempfile::tempdir().unwrap();
    let disabled = Manifest::tiny("tiny").with("/spec/cache/mode", "Disabled");
    let options = Options::new(folder.path(), &disabled);
    let sidecar = Sidecar::start(&options).await;
    let results = sidecar.embed_each(&["a"; 3]).await;
    assert_eq!(sources(&results), [Source::Computed; 3]);
    assert_eq!(results[0].vector, results[2].vector);
    assert_eq!(sidecar.model_status("tiny").await["cache"]["memory"]["entries"], 0);
    sidecar.stop().await;
    assert_eq!(bytes_in(&options.data), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn omitted_vectors_are_remembered_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    let without = EmbedRequest { omit_vectors: true, ..request(&["a"]) };
    for source in [Source::Computed, Source::HitMemory] {
        let reply = sidecar.call(without.clone()).await.unwrap();
        assert_eq!(reply.dimensions, 128);
        let result = &reply.results[0];
        assert!(result.vector.is_empty() && result.error.is_none());
        assert_eq!((result.source(), result.tokens), (source, 3));
    }
    assert_eq!(sidecar.embed(&["a"]).await[0].vector.len(), 128);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timings_are_told_to_who_asks_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::serve(folder.path(), &Manifest::tiny("tiny")).await;
    assert_eq!(sidecar.call(request(&["untimed"])).await.unwrap().timings, None);
    let timed = EmbedRequest { include_timings: true, ..request(&["timed"]) };
    let computed = sidecar.call(timed.clone()).await.unwrap().timings.unwrap();
    assert!(computed.inference_us > 0, "{computed:?}");
    assert!(computed.total_us >= computed.inference_us + computed.queue_us, "{computed:?}");
    let hit = sidecar.call(timed).await.unwrap().timings.unwrap();
    assert_eq!((hit.disk_us, hit.preprocess_us, hit.queue_us, hit.inference_us), (0, 0, 0, 0));
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_an_entry_grows_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(folder.path(), &Manifest::tiny("tiny"));
    let sidecar = Sidecar::start(&options).await;
    assert_eq!(sidecar.embed(&["a"]).await[0].age_ms, 0);
    let older = async || sidecar.embed(&["a"]).await[0].age_ms >= 20;
    until("the entry is 20 ms old", older).await;
    let age = sidecar.embed(&["a"]).await[0].age_ms;
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options).await;
    let restarted = sidecar.embed(&["a"]).await;
    assert_eq!(sources(&restarted), [Source::HitDisk]);
    assert!(restarted[0].age_ms > age, "{} after {age}", restarted[0].age_ms);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_models_share_no_entries_even_when_they_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path(), &Manifest::tiny("one"));
    options.manifests.push(Manifest::tiny("two").write(folder.path()));
    let sidecar = Sidecar::start(&options).await;
    let one = sidecar.call(request_of("one", &["a"])).await.unwrap();
    let two = sidecar.call(request_of("two", &["a"])).await.unwrap();
    assert_eq!(one.space_id, two.space_id);
    assert_eq!(sources(&one.results), [Source::Computed]);
    assert_eq!(sources(&two.results), [Source::Computed]);
    sidecar.stop().await;

    let sidecar = Sidecar::start(&options).await;
    for model in ["one", "two"] {
        let reply = sidecar.call(request_of(model, &["a"])).await.unwrap();
        assert_eq!(sources(&reply.results), [Source::HitDisk]);
    }
    sidecar.stop().await;
}

fn with_ttl(ttl: &str) -> Manifest {
    Manifest::tiny("tiny").with("/spec/cache/ttl", ttl)
}

/// Bytes of every file in a folder.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |path: &Path| match path.is_dir() {
        true => bytes_in(path),
        false => path.metadata().map_or(0, |file| file.len()),
    };
    entries.map(|entry| size(&entry.unwrap().path())).sum()
}
