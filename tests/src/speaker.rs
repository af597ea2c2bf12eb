//! Pods that speak where no pod runs: what a sidecar answers at `/status` of its admin port, at a loopback address of each
//! pod's own. On a control plane a test says itself that a pod runs, and at which address.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{Json, Router, extract::State, routing::get};
use embark_crds::contract::{
    ADMIN_PORT,
    report::{
        CacheReport, DiskReport, DiskState, ModelReport, ModelState, QueueReport, RecentReport,
        Report,
    },
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{Random, sidecar::until};

/// A pod's process. It ends with the test's runtime.
#[derive(Clone, Debug)]
pub struct Speaker {
    address: Ipv4Addr,
    state: Arc<Mutex<Speech>>,
}

#[derive(Debug)]
struct Speech {
    report: ModelReport,
    /// What changes each time that it is asked.
    moves: fn(&mut ModelReport),
    asked: usize,
}

/// How often another address is tried when one is taken.
const ATTEMPTS: usize = 100;

// === impl Speaker ===

impl Speaker {
    /// A process that serves a model of this name, and is ready.
    pub async fn start(model: &str) -> Speaker {
        let (address, listener) = listen().await;
        let state = Speech { report: report(model), moves: |_| (), asked: 0 };
        let speaker = Speaker { address, state: Arc::new(Mutex::new(state)) };
        let app = Router::new().route("/status", get(answer)).with_state(speaker.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        speaker
    }

    /// Changes what it says.
    pub fn say(&self, change: impl FnOnce(&mut ModelReport)) {
        change(&mut self.state.lock().report);
    }

    /// Changes what it says of its model's cache.
    pub fn say_of_cache(&self, change: impl FnOnce(&mut CacheReport)) {
        self.say(|report| change(report.cache.as_mut().expect("it has one")));
    }

    /// Changes what it says each time that it is asked.
    pub fn moves(&self, moves: fn(&mut ModelReport)) {
        self.state.lock().moves = moves;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.state.lock().asked
    }

    /// Waits until it was asked this often since now.
    pub async fn is_asked(&self, times: usize) {
        let before = self.asked();
        until(&format!("a pod is asked {times} times"), async || self.asked() >= before + times)
            .await;
    }

    /// The status of the pod whose process it is, as a kubelet tells it.
    pub fn status(&self, is_ready: bool) -> Value {
        let address = self.address.to_string();
        let ready = if is_ready { "True" } else { "False" };
        let conditions = ["Ready", "ContainersReady"].map(|type_| {
            json!({"type": type_, "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"})
        });
        json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": conditions,
        }})
    }
}

// === free functions ===

/// An address that nobody has: all of 127.0.0.0/8 lead here, and the port is the contract's.
async fn listen() -> (Ipv4Addr, TcpListener) {
    let mut random = Random::new((u64::from(std::process::id()) << 32) + u64::from(number()));
    for _ in 0..ATTEMPTS {
        let [a, b, c] = [1 + random.below(254), random.below(256), 1 + random.below(254)]
            .map(|part| u8::try_from(part).expect("it is below 256"));
        let address = Ipv4Addr::new(127, a, b, c);
        if let Ok(listener) = TcpListener::bind(SocketAddr::from((address, ADMIN_PORT))).await {
            return (address, listener);
        }
    }
    panic!("nobody can listen at port {ADMIN_PORT} of any loopback address");
}

/// Another each time.
fn number() -> u32 {
    static NEXT: Mutex<u32> = Mutex::new(0);
    let mut next = NEXT.lock();
    *next += 1;
    *next
}

async fn answer(State(speaker): State<Speaker>) -> Json<Report> {
    let mut state = speaker.state.lock();
    state.asked += 1;
    let moves = state.moves;
    moves(&mut state.report);
    let report = state.report.clone();
    let ready = report.state == ModelState::Ready;
    Json(Report { ready, models: vec![report], ..Report::default() })
}

fn report(model: &str) -> ModelReport {
    let disk = DiskReport {
        state: DiskState::Healthy,
        message: String::new(),
        bytes: 4096,
        size_limit: 1 << 30,
    };
    let cache = CacheReport {
        epoch: 0,
        message: String::new(),
        recent: RecentReport::default(),
        memory: Default::default(),
        disk,
    };
    ModelReport {
        name: model.to_owned(),
        state: ModelState::Ready,
        message: String::new(),
        space_id: String::new(),
        model_digest: String::new(),
        dimensions: 4,
        policy_hash: String::new(),
        queue: QueueReport::default(),
        merging: None,
        cache: Some(cache),
        next: None,
    }
}
