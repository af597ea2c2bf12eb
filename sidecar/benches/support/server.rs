//! The real binary as a process of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, ChildStderr, Command, Stdio},
    sync::Arc,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::metrics::metric;

/// A server that answers. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    grpc: String,
    admin: String,
    folder: Arc<TempDir>,
}

// === impl Server ===

impl Server {
    /// Serves a manifest on the cores of this thread, and waits until its model is ready.
    pub(crate) fn start(manifest: &Value) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().expect("a folder")), manifest)
    }

    /// The same in a folder, which may have what an earlier server left there.
    pub(crate) fn start_in(folder: Arc<TempDir>, manifest: &Value) -> Self {
        let file = folder.path().join("model.yaml");
        fs::write(&file, manifest.to_string()).expect("the folder is writable");
        let mut child = Command::new(env!("CARGO_BIN_EXE_embark-sidecar"))
            .args(["serve", "--log-format", "json", "--log-level", "info"])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .arg("--manifest")
            .arg(&file)
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let (grpc, admin) = ready(child.stderr.take().expect("it is piped"));
        Server { child, grpc, admin, folder }
    }

    /// A connection of its own.
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).expect("an address");
        endpoint.connect().await.expect("the server answers")
    }

    /// Ends it in order, and gives its folder.
    pub(crate) fn end(mut self) -> Arc<TempDir> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "it ended with {status}");
        Arc::clone(&self.folder)
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The value of a metric.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(&self.admin).expect("the admin port is there");
        let request = format!("GET /metrics HTTP/1.0\r\nhost: {}\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).expect("it listens");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        metric(&text, name, "")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === free functions ===

/// Reads the log up to the line that says that the model is ready, and goes on reading it: the pipe must not fill up.
fn ready(log: ChildStderr) -> (String, String) {
    let mut lines = BufReader::new(log).lines().map_while(Result::ok);
    let (mut addresses, mut said) = (None, String::new());
    for line in lines.by_ref() {
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        match text("message").as_str() {
            "listening" => addresses = Some((text("grpc"), text("admin"))),
            "ready" => {
                std::thread::spawn(move || lines.for_each(drop));
                return addresses.expect("it listens before");
            }
            _ => said = line,
        }
    }
    panic!("the server ended: {said}");
}
