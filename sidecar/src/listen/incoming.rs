//! Connections as they come in, of all listeners together.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use futures_util::stream::{self, BoxStream};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{Instant, sleep_until},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tracing::{info, warn};

use super::{
    Listener,
    connection::{Connection, Stream as Bytes},
};

/// How long a client may take to say what every HTTP/2 client says first, and to agree on encryption before. A gRPC client
/// says it at once.
const PREFACE_WITHIN: Duration = Duration::from_secs(10);
/// The most connections at a time. Those of more clients wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 4096;
/// How long accepting rests after an error that would come again at once, such as no free file descriptor.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Accepts connections.
struct Acceptor {
    listener: Listener,
    stopped: watch::Receiver<bool>,
    room: Arc<Semaphore>,
    /// Whether the last try failed: the log says so once.
    is_failing: bool,
}

/// The connections that the listeners accept. They have no end, and no error: those are waited out.
pub fn connections(
    listeners: Vec<Listener>,
    stopped: &watch::Receiver<bool>,
) -> impl Stream<Item = Result<Connection, Infallible>> + use<> {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepted = listeners.into_iter().map(|listener| {
        let (stopped, room) = (stopped.clone(), Arc::clone(&room));
        Acceptor { listener, stopped, room, is_failing: false }.connections()
    });
    stream::select_all(accepted.collect::<Vec<_>>())
}

// === impl Acceptor ===

impl Acceptor {
    fn connections(self) -> BoxStream<'static, Result<Connection, Infallible>> {
        Box::pin(stream::unfold(self, async |mut acceptor| {
            let connection = acceptor.next().await?;
            Some((Ok(connection), acceptor))
        }))
    }

    async fn next(&mut self) -> Option<Connection> {
        let room = Arc::clone(&self.room).acquire_owned().await.ok()?;
        let stream = loop {
            match self.listener.accept().await {
                Ok(stream) => break stream,
                Err(error) => self.rest_after(&error).await,
            }
        };
        if self.is_failing {
            self.is_failing = false;
            info!("connections are accepted again");
        }
        let too_late = too_late(self.stopped.clone(), Instant::now() + PREFACE_WITHIN);
        Some(Connection::new(stream, Box::pin(too_late), room))
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

// === impl Listener ===

impl Listener {
    async fn accept(&self) -> io::Result<Bytes> {
        let tcp = async |listener: &TcpListener| {
            let (stream, _) = listener.accept().await?;
            if let Err(error) = stream.set_nodelay(true) {
                warn!(%error, "TCP_NODELAY cannot be set: replies may wait");
            }
            io::Result::Ok(stream)
        };
        Ok(match self {
            Listener::Tcp(listener) => Bytes::Tcp(tcp(listener).await?),
            Listener::Tls(listener, config, metrics) => {
                let stream = tcp(listener).await?;
                // What is in force now: a certificate may have been replaced since the last.
                let accept = TlsAcceptor::from(config.load()).accept(stream);
                Bytes::Handshake(Box::new(accept), metrics.clone())
            }
            Listener::Unix(socket) => Bytes::Unix(socket.listener().accept().await?.0),
        })
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
