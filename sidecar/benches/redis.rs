//! What a hit costs beside the same bytes from a redis-server (`apt-get install redis-server`): GET beside a call with one
//! item, MGET of 32 beside a call with 32. Both over TCP, one connection each, servers on one core and clients on the
//! other. Neither client decodes what it is given: redis's has bytes, and so has ours. `null` is a method of the same
//! server that does nothing, with requests and replies of the same size: what gRPC itself costs.
//!
//! `cargo measure redis` on 2 cores of a machine that did little else:
//!
//! ```text
//! ratio redis1 3.429 target <= 3  MISSED
//! value redis1-embed-us 67.855
//! value redis1-null-us 63.161
//! value redis1-redis-us 20.348
//! ratio redis32 2.366 target <= 1.5  MISSED
//! value redis32-embed-us 100.471
//! value redis32-null-us 81.995
//! value redis32-redis-us 41.762
//! ```
//!
//! Both fall short by gRPC alone: the method that does nothing takes 3.1 times what GET does, and 2.0 times what MGET of 32
//! does. Of 32 items the hits themselves take 18 us, 0.6 each.

#[path = "support/measure.rs"]
#[expect(dead_code, reason = "it measures times alone")]
mod measure;
#[path = "support/null.rs"]
mod null;
#[path = "support/report.rs"]
mod report;

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use bytes::Bytes;
use embark_sidecar::pb::client::{EmbedRequest, EmbedResponse, Item, item::Input};
use measure::{BLOCKS, Target, median, pin, ratio};
use null::{EMBED, NULL, RawClient, asking};
use prost::Message as _;
use redis::{Cmd, Connection, Value, cmd};
use report::value;
use tokio::time::Instant;
use tonic::transport::Endpoint;

/// Says that this process is the server.
const SERVER: &str = "EMBARK_BENCH_SERVER";
/// Calls of a block.
const CALLS: usize = 1500;
/// How long redis may take to start.
const START: Duration = Duration::from_secs(10);

/// A process that is ended with its handle.
struct Process(Child);

/// The same vectors on both sides.
struct Sides {
    client: RawClient,
    call: Bytes,
    nothing: Bytes,
    redis: Connection,
    get: Cmd,
}

fn main() -> ExitCode {
    if std::env::var_os(SERVER).is_some() {
        null::serve();
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    // The servers are where this thread is when it starts them.
    pin(0);
    let port = free_port();
    let Ok(_redis) = start_redis(port) else {
        eprintln!("redis-server is not there to be compared with: apt-get install redis-server");
        return ExitCode::FAILURE;
    };
    let (_server, address) = start_server();
    pin(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        for (items, aim) in [(1, 3.0), (32, 1.5)] {
            compare(Sides::new(&address, port, items).await, items, aim).await;
        }
    });
    ExitCode::SUCCESS
}

async fn compare(mut sides: Sides, items: usize, aim: f64) {
    let [mut ratios, mut hits, mut nulls, mut gets] = [const { Vec::new() }; 4];
    for _ in 0..BLOCKS {
        let (hit, get) = (sides.p50(EMBED).await, sides.p50_get());
        ratios.push(hit / get);
        hits.push(hit * 1e6);
        gets.push(get * 1e6);
        nulls.push(sides.p50(NULL).await * 1e6);
    }
    ratio(&format!("redis{items}"), median(ratios), Target::AtMost(aim));
    value(&format!("redis{items}-embed-us"), median(hits));
    value(&format!("redis{items}-null-us"), median(nulls));
    value(&format!("redis{items}-redis-us"), median(gets));
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn start_redis(port: u16) -> std::io::Result<Process> {
    let port = port.to_string();
    let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let command = &mut Command::new("redis-server");
    command.args(arguments).stdout(Stdio::null()).spawn().map(Process)
}

/// This program as the server, and where it is.
fn start_server() -> (Process, String) {
    let mut server = Command::new(std::env::current_exe().expect("this program has a path"))
        .env(SERVER, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the server starts");
    let output = server.stdout.take().expect("it is piped");
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).expect("the server says where it is");
    (Process(server), line.trim().to_owned())
}

// === impl Process ===

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// === impl Sides ===

impl Sides {
    async fn new(address: &str, port: u16, items: usize) -> Self {
        let channel = Endpoint::from_shared(address.to_owned()).expect("an address");
        let mut client = RawClient::new(channel.connect().await.expect("the server answers"));
        let texts: Vec<String> = (0..items).map(|n| format!("a text to be found, {n}")).collect();
        let item = |text: &String| Item { input: Some(Input::Text(text.clone())) };
        let call = EmbedRequest { items: texts.iter().map(item).collect(), ..Default::default() };
        let call = Bytes::from(call.encode_to_vec());
        client.call(EMBED, call.clone()).await;
        let reply = client.call(EMBED, call.clone()).await;
        let nothing = asking(call.len(), reply.len());
        let reply = EmbedResponse::decode(reply).expect("a reply");
        let mut redis = connect(port).await;
        for (text, result) in texts.iter().zip(reply.results) {
            let vector: Vec<u8> = result.vector.iter().flat_map(|v| v.to_le_bytes()).collect();
            let set = cmd("SET").arg(text).arg(vector).query::<()>(&mut redis);
            set.expect("it is kept");
        }
        let mut get = cmd(if items == 1 { "GET" } else { "MGET" });
        get.arg(&texts);
        Sides { client, call, nothing, redis, get }
    }

    async fn p50(&mut self, method: &'static str) -> f64 {
        let request = if method == EMBED { &self.call } else { &self.nothing };
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let began = Instant::now();
            let reply = self.client.call(method, request.clone()).await;
            times.push(began.elapsed().as_secs_f64());
            assert!(!reply.is_empty());
        }
        median(times)
    }

    fn p50_get(&mut self) -> f64 {
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let began = Instant::now();
            let reply: Value = self.get.query(&mut self.redis).expect("it answers");
            times.push(began.elapsed().as_secs_f64());
            assert!(reply != Value::Nil);
        }
        median(times)
    }
}

// === free functions ===

async fn connect(port: u16) -> Connection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("an address");
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let began = Instant::now();
    loop {
        match client.get_connection() {
            Ok(connection) => return connection,
            Err(error) => assert!(began.elapsed() < START, "redis-server does not answer: {error}"),
        }
        ticks.tick().await;
    }
}
