//! Connections as they come in. One whose client does not open it as HTTP/2 does is ended after a while, and at once when
//! the server stops: it would hold the end up for a handshake that may never come, and no call is lost with it.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until},
};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{info, warn};

/// How long a client may take to say what every HTTP/2 client says first. A gRPC client says it at once.
const PREFACE_WITHIN: Duration = Duration::from_secs(10);
/// The length of that, in bytes (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
/// The most connections at a time. Those of more clients wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// How long accepting rests after an error that would come again at once, such as no free file descriptor.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A client's connection.
pub(super) struct Connection {
    stream: TcpStream,
    /// Bytes of the preface that are still to come.
    preface_left: usize,
    /// Until the preface is there: resolves when it is too late for that.
    too_late: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _room: OwnedSemaphorePermit,
}

/// Accepts connections.
struct Acceptor {
    listener: TcpListener,
    stopped: watch::Receiver<bool>,
    room: Arc<Semaphore>,
    /// Whether the last try failed: the log says so once.
    is_failing: bool,
}

/// The connections that a listener accepts. It has no end, and no error: those are waited out.
pub(super) fn connections(
    listener: TcpListener,
    stopped: watch::Receiver<bool>,
) -> impl Stream<Item = Result<Connection, Infallible>> {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let acceptor = Acceptor { listener, stopped, room, is_failing: false };
    stream::unfold(acceptor, async |mut acceptor| {
        let connection = acceptor.next().await?;
        Some((Ok(connection), acceptor))
    })
}

// === impl Acceptor ===

impl Acceptor {
    async fn next(&mut self) -> Option<Connection> {
        let room = Arc::clone(&self.room).acquire_owned().await.ok()?;
        let stream = loop {
            match self.listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => self.rest_after(&error).await,
            }
        };
        if self.is_failing {
            self.is_failing = false;
            info!("connections are accepted again");
        }
        if let Err(error) = stream.set_nodelay(true) {
            warn!(%error, "TCP_NODELAY cannot be set: replies may wait");
        }
        let too_late = too_late(self.stopped.clone(), Instant::now() + PREFACE_WITHIN);
        let too_late: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(too_late);
        let (preface_left, too_late) = (PREFACE_BYTES, Some(too_late));
        Some(Connection { stream, preface_left, too_late, _room: room })
    }

    async fn rest_after(&mut self, error: &io::Error) {
        let of_one_client = matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
        );
        if of_one_client {
            return;
        }
        if !self.is_failing {
            self.is_failing = true;
            warn!("connections cannot be accepted, and are tried again: {error}");
        }
        sleep_until(Instant::now() + ACCEPT_AGAIN_AFTER).await;
    }
}

// === impl Connection ===

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.too_late.is_none() {
            return read;
        }
        self.preface_left = self.preface_left.saturating_sub(buffer.filled().len() - before);
        if self.preface_left == 0 {
            self.too_late = None;
        }
        match &mut self.too_late {
            Some(too_late) if read.is_pending() => too_late.as_mut().poll(context).map(|()| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not speak HTTP/2"))
            }),
            _ => read,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

// === free functions ===

async fn too_late(mut stopped: watch::Receiver<bool>, limit: Instant) {
    tokio::select! {
        () = sleep_until(limit) => {}
        // An error means that the server is gone.
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}
