//! A server of the web that answers as a test wants: well, badly, slowly, without end, or not at all. It says who asked for
//! what, and how many at a time.

use std::{net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The longest head of a request.
const MAX_HEAD: usize = 64 * 1024;

/// What a path is answered with.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These bytes, head and all; the connection stays for the next request.
    Bytes(Vec<u8>),
    /// These bytes, then the end of the connection.
    Last(Vec<u8>),
    /// These bytes, then nothing for ever.
    Stuck(Vec<u8>),
    /// The first bytes, then the second again and again, without end.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes once the test lets them go.
    Held(Vec<u8>),
}

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The server's address that was connected to.
    pub address: IpAddr,
    /// Its path, query and all.
    pub path: String,
    /// The whole head.
    pub head: String,
}

/// A web server, at ports 80 and 8080 of every address. It ends with the test.
#[derive(Clone)]
pub struct Web {
    state: Arc<Mutex<State>>,
    released: watch::Sender<bool>,
    answer: Arc<dyn Fn(&str) -> Answer + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<Seen>,
    connections: Vec<IpAddr>,
    now: usize,
    most: usize,
}

/// Counts a request as under way.
struct UnderWay(Web);

// === impl Web ===

impl Web {
    /// Answers each path by that function.
    pub async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let (released, answer) = (watch::Sender::new(false), Arc::new(answer));
        let web = Web { state: Arc::default(), released, answer };
        for port in [80, 8080] {
            let listener = TcpListener::bind(("::", port)).await;
            let listener = listener.expect("the network is the test's");
            let web = web.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let web = web.clone();
                    // Whoever asked may go at any time.
                    tokio::spawn(async move { web.serve(stream).await.ok() });
                }
            });
        }
        web
    }

    /// Requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().seen.clone()
    }

    /// How often a path was asked for.
    pub fn count(&self, path: &str) -> usize {
        self.state.lock().seen.iter().filter(|seen| seen.path == path).count()
    }

    /// Addresses that were connected to, in order, whether or not anything was asked.
    pub fn connections(&self) -> Vec<IpAddr> {
        self.state.lock().connections.clone()
    }

    /// Requests that are under way, and the most that were at a time.
    pub fn under_way(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.now, state.most)
    }

    /// Lets go what is held, and holds nothing from then on.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Holds again what is to be held.
    pub fn hold(&self) {
        self.released.send_replace(false);
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let address = stream.local_addr()?.ip().to_canonical();
        self.state.lock().connections.push(address);
        while let Some(head) = head(&mut stream).await? {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            self.state.lock().seen.push(Seen { address, path: path.clone(), head });
            let mut under_way = Some(UnderWay::new(self));
            match (self.answer)(&path) {
                Answer::Bytes(bytes) => stream.write_all(&bytes).await?,
                Answer::Last(bytes) => {
                    stream.write_all(&bytes).await?;
                    return stream.shutdown().await;
                }
                Answer::Stuck(bytes) => {
                    stream.write_all(&bytes).await?;
                    // Until who asked has left.
                    stream.read_u8().await?;
                }
                Answer::Endless(first, again) => {
                    stream.write_all(&first).await?;
                    loop {
                        stream.write_all(&again).await?;
                    }
                }
                Answer::Held(bytes) => {
                    let mut released = self.released.subscribe();
                    tokio::select! {
                        _ = released.wait_for(|released| *released) => {}
                        // Who asked has left.
                        _ = stream.read_u8() => return Ok(()),
                    }
                    // Before the answer: the next may be asked for at once.
                    drop(under_way.take());
                    stream.write_all(&bytes).await?;
                }
            }
        }
        Ok(())
    }
}

// === impl UnderWay ===

impl UnderWay {
    fn new(web: &Web) -> Self {
        let mut state = web.state.lock();
        state.now += 1;
        state.most = state.most.max(state.now);
        drop(state);
        UnderWay(web.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state.lock().now -= 1;
    }
}

// === free functions ===

/// The next request's head; none: there is no next one.
async fn head(stream: &mut TcpStream) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") && bytes.len() < MAX_HEAD {
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) if bytes.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
