//! A port that anybody may connect to: bounded in connections, bytes and time. It counts whose turn it is. A connection that
//! waits for its client makes room when there are too many, the longest wait first; one that is owed an answer never does.

mod bind;
mod seats;

use std::{convert::Infallible, error::Error, future::Future, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::ConnectInfo,
    http::{HeaderValue, Request, StatusCode, header::CONNECTION},
    response::{IntoResponse as _, Response},
};
use futures_util::StreamExt as _;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Duration, Instant, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower_service::Service as _;
use tracing::debug;

pub(crate) use self::bind::bind;
use self::seats::{Seat, Seats};

/// How long a client may take to agree on encryption, and then to ask for the first time.
const FIRST: Duration = Duration::from_secs(5);
/// How long a connection may rest after an answer, and a client take to ask again.
const REST: Duration = Duration::from_secs(60);
/// How long a request's body may take to arrive.
const BODY: Duration = Duration::from_secs(5);
/// The most bytes of a request's head.
const HEAD_BYTES: usize = 64 * 1024;
/// How long a failed accept rests: the process may be short of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long answers may take at the end.
const GRACE: Duration = Duration::from_secs(5);

/// How much a port takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// The most bytes of a request's body.
    pub(crate) body_bytes: usize,
    /// The most bytes of the bodies of all connections.
    pub(crate) all_bodies_bytes: usize,
}

/// A port, and what answers there.
pub(crate) struct Port {
    pub(crate) listener: TcpListener,
    /// Absent: connections are not encrypted.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) routes: Router,
    pub(crate) bounds: Bounds,
}

/// What every connection goes by.
#[derive(Clone)]
struct Shared {
    tls: Option<TlsAcceptor>,
    routes: Router,
    bounds: Bounds,
    seats: Arc<Seats>,
    /// Bytes of bodies that there is room for.
    room: Arc<Semaphore>,
    /// Whether it ends: what was asked is still answered.
    ending: watch::Receiver<bool>,
}

type Failure = Box<dyn Error + Send + Sync>;

// === impl Port ===

impl Port {
    /// Answers until `stop` resolves; then what was asked is still answered.
    pub(crate) async fn serve(self, stop: impl Future<Output = ()>) {
        let Port { listener, tls, routes, bounds } = self;
        let (end, ending) = watch::channel(false);
        let room = Arc::new(Semaphore::new(bounds.all_bodies_bytes));
        let shared = Shared { tls, routes, bounds, seats: Arc::default(), room, ending };
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            // One more than there may be: somebody makes room for it.
            let takes_more = connections.len() <= bounds.connections;
            let (stream, from) = tokio::select! {
                () = &mut stop => break,
                // What has ended is forgotten.
                Some(_) = connections.join_next() => continue,
                accepted = accept(&listener), if takes_more => accepted,
            };
            if connections.len() >= bounds.connections {
                shared.seats.dismiss_longest();
            }
            let seat = Arc::new(Seats::take(&shared.seats));
            let shared = shared.clone();
            connections.spawn(async move {
                tokio::select! {
                    ended = shared.connection(stream, from, &seat) => {
                        if let Err(error) = ended {
                            debug!("a connection ended: {error}");
                        }
                    }
                    () = seat.dismissed() => debug!("a connection made room for another"),
                }
            });
        }
        drop(listener);
        end.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(GRACE, all).await.is_err() {
            debug!("connections were left behind");
        }
    }
}

// === impl Shared ===

impl Shared {
    async fn connection(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        seat: &Arc<Seat>,
    ) -> Result<(), Failure> {
        match &self.tls {
            Some(tls) => {
                let stream = timeout(FIRST, tls.accept(stream)).await??;
                self.talk(stream, from, seat).await
            }
            None => self.talk(stream, from, seat).await,
        }
    }

    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        from: SocketAddr,
        seat: &Arc<Seat>,
    ) -> Result<(), Failure> {
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let (shared, seat) = (self.clone(), Arc::clone(seat));
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(from));
                Ok::<_, Infallible>(shared.answer(request, &seat).await)
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REST)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(serving);
        let mut ending = self.ending.clone();
        let silent = async {
            sleep_until(Instant::now() + FIRST).await;
            if seat.has_asked() {
                std::future::pending().await
            }
        };
        tokio::select! {
            served = serving.as_mut() => return Ok(served?),
            () = silent => return Err(format!("nothing was asked within {FIRST:?}").into()),
            // An error: the listener is gone.
            _ = ending.wait_for(|ends| *ends) => serving.as_mut().graceful_shutdown(),
        }
        Ok(serving.await?)
    }

    /// Reads what is asked to its end, and answers: only from then on it is the client that waits.
    async fn answer(&self, request: Request<Body>, seat: &Seat) -> Response {
        seat.asks();
        let (head, body) = request.into_parts();
        let (body, _room) = match timeout(BODY, self.read(body, seat)).await {
            Ok(Ok(read)) => read,
            Ok(Err(refusal)) => return close(refusal),
            Err(_) => return close(StatusCode::REQUEST_TIMEOUT.into_response()),
        };
        seat.waits();
        let mut routes = self.routes.clone();
        let Ok(answer) = routes.call(Request::from_parts(head, Body::from(body))).await;
        seat.rests();
        // There is one too many, and nobody else has made room.
        if self.seats.len() > self.bounds.connections { close(answer) } else { answer }
    }

    /// A body, and the room that it takes.
    async fn read(
        &self,
        body: Body,
        seat: &Seat,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Response> {
        let most = self.bounds.body_bytes;
        let sentence = format!("the body is cut short, or has more than {most} bytes");
        let refusal = || (StatusCode::PAYLOAD_TOO_LARGE, sentence.clone()).into_response();
        let (mut read, mut room) = (Vec::new(), None::<OwnedSemaphorePermit>);
        let mut parts = body.into_data_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|_| refusal())?;
            if read.len() + part.len() > most {
                return Err(refusal());
            }
            let more = self.more_room(part.len(), seat).await.ok_or_else(refusal)?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
            read.extend_from_slice(&part);
            seat.holds(read.len());
        }
        Ok((read.into(), room))
    }

    /// Room for so many bytes. Whoever takes longest to send what it has begun gives up its own.
    async fn more_room(&self, bytes: usize, seat: &Seat) -> Option<OwnedSemaphorePermit> {
        let count = u32::try_from(bytes).ok()?;
        if let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(count) {
            return Some(room);
        }
        self.seats.dismiss_holders(bytes, seat);
        // It is never closed.
        Arc::clone(&self.room).acquire_many_owned(count).await.ok()
    }
}

// === free functions ===

/// The last answer of a connection.
fn close(mut answer: Response) -> Response {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                debug!("a connection could not be taken: {error}");
                sleep_until(Instant::now() + ACCEPT_REST).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
