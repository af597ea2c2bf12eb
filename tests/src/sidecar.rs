//! A sidecar as a process of its own.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use embark_sidecar::pb::client::{
    EmbedRequest, EmbedResponse, GetModelRequest, Item, ItemResult, Model, Source,
    cache_service_client::CacheServiceClient, embedding_service_client::EmbeddingServiceClient,
    item::Input,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, ChildStderr, Command},
    sync::watch,
    time::timeout,
};
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::{Manifest, programs};

/// The longest that anything a test waits for may take; far above what it takes, so that a busy machine fails nothing.
pub const LIMIT: Duration = Duration::from_secs(180);

/// The timeout of a call that says none, as gRPC writes it: a server gives up after 30 s otherwise, which a busy machine may
/// need.
const PATIENCE: &str = "10M";

/// A client of the EmbeddingService, whose calls have time.
pub type Embeddings = EmbeddingServiceClient<InterceptedService<Channel, Patient>>;

/// Gives calls a timeout that say none.
#[derive(Clone, Copy, Debug)]
pub struct Patient;

/// How a sidecar is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Manifest files or folders.
    pub manifests: Vec<PathBuf>,
    /// A folder of mounted models, instead of manifests.
    pub models: Option<PathBuf>,
    /// The data folder.
    pub data: PathBuf,
    /// Further arguments of `serve`.
    pub arguments: Vec<OsString>,
    /// What the command stands behind, such as `setpriv`.
    pub wrapper: Vec<OsString>,
    /// Another copy of the binary.
    pub program: Option<PathBuf>,
}

/// A sidecar that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    log: watch::Receiver<Log>,
    grpc: String,
    admin: String,
}

/// The log so far: parsed lines, and whether it has ended.
#[derive(Clone, Debug, Default)]
struct Log {
    lines: Arc<Vec<Value>>,
    ended: bool,
}

/// How a sidecar that did not stay ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Its log.
    pub log: String,
}

// === impl Patient ===

impl Interceptor for Patient {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !request.metadata().contains_key("grpc-timeout") {
            let patience = PATIENCE.parse().expect("it is ASCII");
            request.metadata_mut().insert("grpc-timeout", patience);
        }
        Ok(request)
    }
}

// === impl Options ===

impl Options {
    /// One manifest, written into `folder`, with a data folder beside it.
    pub fn new(folder: &Path, manifest: &Manifest) -> Self {
        Options {
            manifests: vec![manifest.write(folder)],
            data: folder.join("data"),
            ..Options::default()
        }
    }

    /// The same processes' folder and arguments, with another manifest of the same name.
    #[must_use]
    pub fn with(&self, manifest: &Manifest) -> Self {
        let folder = self.data.parent().expect("the data folder stands beside the manifest");
        Options { manifests: vec![manifest.write(folder)], ..self.clone() }
    }

    /// The same as a user who may write nowhere. The binary is copied to `folder`, which such a user must reach.
    #[must_use]
    pub fn as_nobody(mut self, folder: &Path) -> Self {
        let program = folder.join("embark-sidecar");
        std::fs::copy(programs::sidecar(), &program).expect("the binary can be copied");
        self.program = Some(program);
        let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        self.wrapper = words.map(OsString::from).to_vec();
        self
    }

    fn command(&self) -> Command {
        let mut words = self.wrapper.clone();
        words.push(self.program.as_deref().unwrap_or_else(|| programs::sidecar()).into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["serve", "--log-format", "json"]);
        for address in ["--listen", "--admin-listen"] {
            if !self.arguments.iter().any(|argument| argument == address) {
                command.args([address, "127.0.0.1:0"]);
            }
        }
        match &self.models {
            Some(folder) => command.arg("--models-dir").arg(folder),
            None => command.arg("--manifest").args(&self.manifests),
        };
        command
            .arg("--data-dir")
            .arg(&self.data)
            .args(&self.arguments)
            // A proxy of this machine's would be asked for what a test serves.
            .env("NO_PROXY", "127.0.0.1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

// === impl Sidecar ===

impl Sidecar {
    /// Starts a sidecar and waits until every model is ready.
    pub async fn start(options: &Options) -> Self {
        let sidecar = Self::start_listening(options).await;
        sidecar.wait_until_ready().await;
        sidecar
    }

    /// Starts a sidecar with one manifest in a folder, and waits until it is ready.
    pub async fn serve(folder: &Path, manifest: &Manifest) -> Self {
        Self::start(&Options::new(folder, manifest)).await
    }

    /// Starts a sidecar and waits until it listens; its models may still load.
    pub async fn start_listening(options: &Options) -> Self {
        let mut child = options.command().spawn().expect("the sidecar starts");
        let log = follow(child.stderr.take().expect("it is piped"));
        let mut sidecar = Sidecar { child, log, grpc: String::new(), admin: String::new() };
        let line = sidecar.wait_for_line("listening").await;
        let text = |field: &str| line[field].as_str().expect("an address").to_owned();
        (sidecar.grpc, sidecar.admin) = (text("grpc"), text("admin"));
        sidecar
    }

    /// Runs a sidecar that is expected to end by itself.
    pub async fn fail(options: &Options) -> Ended {
        let output = timeout(LIMIT, options.command().output()).await;
        let output = output.expect("the sidecar ends").expect("the sidecar starts");
        Ended { status: output.status, log: String::from_utf8_lossy(&output.stderr).into_owned() }
    }

    /// Its gRPC address, HOST:PORT.
    pub fn grpc(&self) -> &str {
        &self.grpc
    }

    /// Its admin address, HOST:PORT.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The most memory that it has used, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("its peak");
        kilobytes.parse::<u64>().expect("a number") * 1024
    }

    /// A connection of its own.
    pub async fn channel(&self) -> Channel {
        channel(&self.grpc).await
    }

    /// A client of the EmbeddingService.
    pub async fn embeddings(&self) -> Embeddings {
        embeddings(&self.grpc).await
    }

    /// A client of the CacheService.
    pub async fn cache(&self) -> CacheServiceClient<Channel> {
        CacheServiceClient::new(self.channel().await)
    }

    /// Embeds texts with a request that names nothing but them.
    pub async fn embed(&self, texts: &[&str]) -> Vec<ItemResult> {
        let reply = self.call(request(texts)).await;
        reply.unwrap_or_else(|status| panic!("embed failed: {status}")).results
    }

    /// Embeds texts, each in a call of its own.
    pub async fn embed_each(&self, texts: &[&str]) -> Vec<ItemResult> {
        let mut results = Vec::new();
        for text in texts {
            results.extend(self.embed(&[text]).await);
        }
        results
    }

    /// Sends a request.
    pub async fn call(&self, request: EmbedRequest) -> Result<EmbedResponse, Status> {
        Ok(self.embeddings().await.embed(request).await?.into_inner())
    }

    /// A page of the admin port: its status code and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        http_get(&self.admin, path).await
    }

    /// The value of a metric, summed over its series that have all of these labels.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let is_it = series.split('{').next() == Some(name);
            let has = |label: &&str| series.contains(*label);
            (is_it && labels.iter().all(has)).then(|| value.parse::<f64>().ok())?
        });
        values.sum()
    }

    /// `/status` of one model.
    pub async fn model_status(&self, name: &str) -> Value {
        let status = self.status().await;
        let models = status["models"].as_array().expect("a list of models");
        models.iter().find(|model| model["name"] == name).cloned().expect("the model is served")
    }

    /// Asks for a model's description.
    pub async fn model(&self, name: &str) -> Result<Model, Status> {
        let request = GetModelRequest { model: name.to_owned() };
        let answer = self.embeddings().await.get_model(request).await?.into_inner();
        Ok(answer.model.expect("a description"))
    }

    /// The space that the one model's vectors are of.
    pub async fn space(&self) -> String {
        self.model("").await.expect("one model is served").space_id
    }

    /// `/status`.
    pub async fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").await.1).expect("the status is JSON")
    }

    /// Waits until every model is ready.
    pub async fn wait_until_ready(&self) {
        let served = self.lines().iter().filter(|l| l["message"] == "serving a model").count();
        let ready =
            move |log: &Log| log.lines.iter().filter(|l| l["message"] == "ready").count() >= served;
        self.wait(ready, "ready").await;
    }

    /// Waits for a log line with that message, and gives it.
    pub async fn wait_for_line(&self, message: &str) -> Value {
        let found = |log: &Log| log.lines.iter().find(|l| l["message"] == message).cloned();
        self.wait(|log| found(log).is_some(), message).await;
        found(&self.log.borrow()).expect("it was waited for")
    }

    /// Waits for a log line whose message holds that text, and gives it.
    pub async fn wait_for_line_with(&self, part: &str) -> Value {
        let holds = |line: &&Value| line["message"].as_str().is_some_and(|m| m.contains(part));
        let found = |log: &Log| log.lines.iter().find(holds).cloned();
        self.wait(|log| found(log).is_some(), part).await;
        found(&self.log.borrow()).expect("it was waited for")
    }

    /// The log so far, as text.
    pub fn log(&self) -> String {
        self.lines().iter().map(|line| format!("{line}\n")).collect()
    }

    /// Ends it by SIGTERM and waits until it has.
    pub async fn stop(self) {
        self.signal("-TERM").await;
        self.stopped().await;
    }

    /// Waits until it has ended in order.
    pub async fn stopped(mut self) {
        let status = timeout(LIMIT, self.child.wait()).await.expect("it ends").expect("a status");
        assert!(status.success(), "ended with {status}:\n{}", self.log());
    }

    /// Ends it by SIGKILL and waits until it has.
    pub async fn kill(mut self) {
        self.child.start_kill().expect("it runs");
        let _ = timeout(LIMIT, self.child.wait()).await.expect("it ends");
    }

    /// Sends it a signal.
    pub async fn signal(&self, signal: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().await.expect("kill runs");
        assert!(sent.success(), "kill {signal} {id} failed");
    }

    fn lines(&self) -> Arc<Vec<Value>> {
        Arc::clone(&self.log.borrow().lines)
    }

    async fn wait(&self, mut done: impl FnMut(&Log) -> bool, what: &str) {
        let mut log = self.log.clone();
        let waited = timeout(LIMIT, log.wait_for(|log| done(log) || log.ended)).await;
        let right = waited.is_ok_and(|log| log.is_ok_and(|log| done(&log)));
        assert!(right, "the sidecar's log never said {what:?}:\n{}", self.log());
    }
}

// === impl Ended ===

impl Ended {
    /// Its exit code; -1: a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// What it said beside its log: the reason that it ended, line by line.
    pub fn sentences(&self) -> Vec<&str> {
        self.log.lines().filter(|line| !line.starts_with('{')).collect()
    }
}

// === free functions ===

/// Waits until a condition holds, looked at again and again.
///
/// # Panics
/// It does not come to hold.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let polled = timeout(LIMIT, async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while !holds().await {
            ticks.tick().await;
        }
    });
    assert!(polled.await.is_ok(), "it never came to be that {what}");
}

/// What an HTTP server says of a path: the status code and the body.
pub async fn http_get(address: &str, path: &str) -> (u16, String) {
    parts(&get(address, path).await.expect("the port answers"))
}

/// What an HTTP server says to a body: the status code and the body.
pub async fn http_put(address: &str, path: &str, body: &str) -> (u16, String) {
    parts(&ask(address, ("PUT", path), body).await.expect("the port answers"))
}

fn parts(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (code, body.to_owned())
}

/// A client of the EmbeddingService at an address.
pub async fn embeddings(address: &str) -> Embeddings {
    let client = EmbeddingServiceClient::with_interceptor(channel(address).await, Patient);
    client.max_decoding_message_size(64 << 20)
}

/// A request for texts that leaves everything else to the model.
pub fn request(texts: &[&str]) -> EmbedRequest {
    EmbedRequest { items: items(texts), ..EmbedRequest::default() }
}

/// The same, of a model among several.
pub fn request_of(model: &str, texts: &[&str]) -> EmbedRequest {
    EmbedRequest { model: model.to_owned(), ..request(texts) }
}

/// Texts as items.
pub fn items(texts: &[&str]) -> Vec<Item> {
    texts.iter().map(|text| Item { input: Some(Input::Text((*text).to_owned())) }).collect()
}

/// Waits for a time to pass, such as that to live.
pub async fn pass(time: Duration) {
    tokio::time::sleep_until(tokio::time::Instant::now() + time).await;
}

/// Where each result came from.
pub fn sources(results: &[ItemResult]) -> Vec<Source> {
    results.iter().map(ItemResult::source).collect()
}

/// The cosine of the angle between two vectors.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The largest difference between two vectors' values; infinite for different lengths.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

async fn get(address: &str, path: &str) -> std::io::Result<String> {
    ask(address, ("GET", path), "").await
}

async fn ask(address: &str, (method, path): (&str, &str), body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nhost: {address}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn follow(log: ChildStderr) -> watch::Receiver<Log> {
    let (sender, receiver) = watch::channel(Log::default());
    tokio::spawn(async move {
        let mut lines = BufReader::new(log).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let plain = || serde_json::json!({ "message": line });
            let line = serde_json::from_str(&line).unwrap_or_else(|_| plain());
            sender.send_modify(|log| Arc::make_mut(&mut log.lines).push(line));
        }
        sender.send_modify(|log| log.ended = true);
    });
    receiver
}

async fn channel(address: &str) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("the sidecar answers")
}
