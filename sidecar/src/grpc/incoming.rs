//! Connections as they come in. One that stays silent is ended after a while, and at once when the server stops: it would
//! hold the end up for a handshake that may never come, and no call is lost with it.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};

/// How long a client may take to say its first byte. A gRPC client says it at once.
const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(10);

/// A client's connection.
pub(super) struct Connection {
    stream: TcpStream,
    /// Until the client has said something: resolves when it is too late for that.
    too_late: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// The connections that a listener accepts.
pub(super) fn connections(
    listener: TcpListener,
    stopped: watch::Receiver<bool>,
) -> impl Stream<Item = io::Result<Connection>> {
    let accepted = TcpIncoming::from(listener).with_nodelay(Some(true));
    accepted.map(move |stream| {
        let too_late = too_late(stopped.clone(), Instant::now() + FIRST_BYTE_WITHIN);
        stream.map(|stream| Connection { stream, too_late: Some(Box::pin(too_late)) })
    })
}

// === impl Connection ===

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.too_late = None;
            return read;
        }
        match &mut self.too_late {
            Some(too_late) => {
                let silent =
                    || Err(io::Error::new(io::ErrorKind::TimedOut, "the client is silent"));
                too_late.as_mut().poll(context).map(|()| silent())
            }
            None => Poll::Pending,
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
