//! Threads of a sidecar that are held where they are, as a bug, a lock or a disk might hold them: what waits then waits
//! until the test says otherwise, and not as long as some computation happens to take. It takes root.

use std::{fs, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{
    Sidecar, programs,
    sidecar::{LIMIT, until},
};

/// Stops threads by ptrace, until its standard input ends.
const SCRIPT: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes, libc.ptrace.restype = [ctypes.c_long] * 4, ctypes.c_long
SEIZE, INTERRUPT, WAIT_ALL = 0x4206, 0x4207, 0x40000000
for thread in map(int, sys.argv[1:]):
    for request in (SEIZE, INTERRUPT):
        if libc.ptrace(request, thread, 0, 0):
            sys.exit('ptrace: ' + os.strerror(ctypes.get_errno()))
    os.waitpid(thread, WAIT_ALL)
print('held', flush=True)
sys.stdin.read()
";

/// Threads that are held. Dropping it lets them go.
#[derive(Debug)]
pub struct Held(Child);

// === impl Held ===

impl Held {
    /// Holds the threads of an idle sidecar that compute: what is asked from now on waits.
    ///
    /// # Panics
    /// They cannot be held: it takes root, or the right to trace.
    pub async fn workers(sidecar: &Sidecar) -> Self {
        let count = sidecar.metric("embark_workers", &[]).await;
        let mut threads = Vec::new();
        // A thread bears its parent's name until it has begun.
        until("every worker is there and idle", async || {
            threads = workers(sidecar.id());
            #[expect(clippy::cast_precision_loss, reason = "threads are few")]
            let are_all = (threads.len() as f64 - count).abs() < 0.5;
            are_all && sidecar.metric("embark_flights", &[]).await < 0.5
        })
        .await;
        let mut python = Command::new(programs::from_environment("EMBARK_TEST_PYTHON"));
        python.args(["-c", SCRIPT]).args(threads).kill_on_drop(true);
        python.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().expect("Python starts");
        let mut said = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = tokio::time::timeout(LIMIT, said.next_line()).await.expect("it says something");
        let line = line.expect("it is text");
        assert_eq!(line.as_deref(), Some("held"), "threads can be held by root alone");
        Held(child)
    }

    /// Lets them go on.
    pub async fn release(mut self) {
        drop(self.0.stdin.take());
        let ended = tokio::time::timeout(LIMIT, self.0.wait()).await.expect("it ends");
        assert!(ended.expect("a status").success());
    }
}

// === free functions ===

/// The ids of the threads `compute-0`, `compute-1` …
fn workers(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    let is_worker = |name: &str| {
        let number = name.trim().strip_prefix("compute-");
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let tasks = tasks.flatten().filter(|task| {
        // One may end meanwhile.
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| is_worker(&name))
    });
    tasks.map(|task| task.file_name().to_string_lossy().into_owned()).collect()
}
