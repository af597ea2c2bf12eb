//! The process: its threads, and its end.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use embark_sidecar::pb::client::ItemResult;
use embark_tests::{
    Manifest, Sidecar,
    sidecar::{Options, request, until},
};
use tokio::task::JoinSet;
use tonic::Code;

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
