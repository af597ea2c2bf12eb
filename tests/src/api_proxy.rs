//! A proxy between an operator and the API server. It notes every request in order, and makes trouble when it is told to:
//! refusals, answers that are late or lost, watches that break off, end, expire or say nothing.
//!
//! ```text
//! operator ── http, loopback ──► proxy ── the operator's own credentials ──► API server
//! ```

mod call;
mod fault;
mod stream;

use std::{
    fs, io,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
};
use http::{HeaderName, header};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::Instant,
};

use self::{call::read, fault::Rule};
pub use self::{
    call::{Call, Verb},
    fault::Fault,
    stream::Order,
};

/// The longest body of a request: API servers take 3 MiB.
const BODY_BYTES: usize = 4 << 20;

/// A proxy. It ends with the test's runtime.
#[derive(Clone, Debug)]
pub struct ApiProxy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kubeconfig: PathBuf,
    upstream: PathBuf,
    _folder: tempfile::TempDir,
    /// What is held goes on when this says so.
    released: watch::Sender<bool>,
    state: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    calls: Vec<Call>,
    rules: Vec<Rule>,
    /// The watches that are open, by the number of their call.
    streams: Vec<(usize, mpsc::Sender<Order>)>,
}

/// What a request is passed on by.
#[derive(Clone)]
struct Way {
    proxy: ApiProxy,
    upstream: Client,
}

/// What concerns one connection alone.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::ACCEPT_ENCODING,
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

// === impl ApiProxy ===

impl ApiProxy {
    /// A proxy to the API server that this kubeconfig names, as the user that it names.
    pub async fn start(kubeconfig: &Path) -> ApiProxy {
        let upstream = kubeconfig.to_owned();
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("it was written for this");
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let mut config = config.expect("it names a server");
        // What is tried again, and how often, is the operator's to say.
        config.default_retry = false;
        let client = Client::try_from(config).expect("its certificates are good");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let server = format!("http://{}", listener.local_addr().expect("it is bound"));
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("kubeconfig");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": server}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        });
        fs::write(&path, config.to_string()).expect("a kubeconfig can be written");
        let proxy = ApiProxy(Arc::new(Shared {
            kubeconfig: path,
            upstream,
            _folder: folder,
            released: watch::Sender::new(true),
            state: Mutex::default(),
        }));
        let way = Way { proxy: proxy.clone(), upstream: client };
        let app = Router::new().fallback(pass).with_state(way);
        tokio::spawn(async move { axum::serve(listener, app).await });
        proxy
    }

    /// Another proxy to the same API server, as the same user.
    pub async fn another(&self) -> ApiProxy {
        ApiProxy::start(&self.0.upstream).await
    }

    /// The kubeconfig that leads through it.
    pub fn kubeconfig(&self) -> &Path {
        &self.0.kubeconfig
    }

    /// How many requests there were: a place in their order.
    pub fn mark(&self) -> usize {
        self.0.state.lock().calls.len()
    }

    /// The requests since a mark that are so.
    pub fn since(&self, mark: usize, is: impl Fn(&Call) -> bool) -> Vec<Call> {
        self.0.state.lock().calls[mark..].iter().filter(|call| is(call)).cloned().collect()
    }

    /// The writes since a mark within a namespace, but those of the Lease.
    pub fn writes(&self, mark: usize, namespace: &str) -> Vec<Call> {
        self.since(mark, |call| {
            call.is_write() && call.namespace == namespace && call.resource != "leases"
        })
    }

    /// Makes this of the next requests that are so, that many of them.
    pub fn inject(
        &self,
        times: usize,
        fault: Fault,
        is: impl Fn(&Call) -> bool + Send + Sync + 'static,
    ) {
        let rule = Rule { left: times, fault, is: Box::new(is) };
        self.0.state.lock().rules.push(rule);
    }

    /// Makes trouble no more; what is held goes on.
    pub fn clear(&self) {
        self.0.state.lock().rules.clear();
        self.0.released.send_replace(true);
    }

    /// Gives an order to every open watch that is so, and says to how many.
    pub async fn order(&self, order: Order, is: impl Fn(&Call) -> bool) -> usize {
        let streams: Vec<_> = {
            let mut state = self.0.state.lock();
            state.streams.retain(|(_, orders)| !orders.is_closed());
            let chosen = state.streams.iter().filter(|(call, _)| is(&state.calls[*call]));
            chosen.map(|(_, orders)| orders.clone()).collect()
        };
        let mut given = 0;
        for stream in streams {
            // One that has ended meanwhile needs none.
            given += usize::from(stream.send(order).await.is_ok());
        }
        given
    }

    fn note(&self, call: Call) -> (usize, Option<Fault>) {
        let mut state = self.0.state.lock();
        let rule = state.rules.iter_mut().find(|rule| rule.left > 0 && (rule.is)(&call));
        let fault = rule.map(|rule| {
            rule.left -= 1;
            rule.fault
        });
        if matches!(fault, Some(Fault::Hold | Fault::HoldAnswer)) {
            self.0.released.send_replace(false);
        }
        state.calls.push(call);
        (state.calls.len() - 1, fault)
    }

    fn answered(&self, call: usize, code: u16) {
        let call = &mut self.0.state.lock().calls[call];
        (call.code, call.ended) = (code, Some(Instant::now()));
    }

    async fn until_released(&self) {
        // An error would mean that there is no proxy any more.
        let _ = self.0.released.subscribe().wait_for(|released| *released).await;
    }
}

// === impl Way ===

impl Way {
    /// What the API server answers. When it cannot be asked, neither can we.
    async fn ask(&self, request: http::Request<Vec<u8>>) -> Response {
        match self.upstream.send(request.map(Into::into)).await {
            Ok(answer) => {
                let (mut head, body) = answer.into_parts();
                HOP_BY_HOP.iter().for_each(|name| drop(head.headers.remove(name)));
                Response::from_parts(head, Body::new(body))
            }
            Err(_) => no_answer(),
        }
    }
}

// === free functions ===

async fn pass(State(way): State<Way>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let call = read(&head);
    let is_watch = call.verb == Verb::Watch;
    let (number, fault) = way.proxy.note(call);
    HOP_BY_HOP.iter().for_each(|name| drop(head.headers.remove(name)));
    let body = match to_bytes(Body::new(body), BODY_BYTES).await {
        Ok(body) => body.to_vec(),
        Err(_) => no_answer(),
    };
    if matches!(fault, Some(Fault::Hold)) {
        way.proxy.until_released().await;
    }
    let made_up = fault.and_then(Fault::answer);
    let is_made_up = made_up.is_some();
    let answer = match made_up {
        Some(answer) => answer,
        None if matches!(fault, Some(Fault::NoAnswer)) => no_answer(),
        None => way.ask(http::Request::from_parts(head, body)).await,
    };
    match fault {
        Some(Fault::LoseAnswer) => no_answer(),
        Some(Fault::HoldAnswer) => {
            way.proxy.until_released().await;
        }
        _ => {}
    }
    way.proxy.answered(number, answer.status().as_u16());
    if !is_watch || is_made_up || !answer.status().is_success() {
        return answer;
    }
    let (head, body) = answer.into_parts();
    let (orders, body) = stream::controlled(body);
    way.proxy.0.state.lock().streams.push((number, orders));
    Response::from_parts(head, body)
}

/// Ends the connection, as a server does that falls over: what unwinds is the connection's task, and nobody is told.
fn no_answer() -> ! {
    resume_unwind(Box::new(io::ErrorKind::ConnectionReset))
}
