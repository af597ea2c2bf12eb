//! A client's connection. One whose client does not open it as HTTP/2 does is ended after a while, and at once when the
//! server stops: it would hold the end up for a handshake that may never come, and no call is lost with it.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::{Accept, server::TlsStream};
use tonic::transport::server::Connected;
use tracing::debug;

use crate::metrics::EndpointMetrics;

/// What every HTTP/2 client says first, in bytes (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// A client's connection.
pub struct Connection {
    stream: Stream,
    /// Bytes of the preface that are still to come.
    preface_left: usize,
    /// Until the preface is there: resolves when it is too late for that.
    too_late: Option<TooLate>,
    _room: OwnedSemaphorePermit,
}

pub(super) type TooLate = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What its bytes go through.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Both sides are still agreeing on how to encrypt.
    Handshake(Box<Accept<TcpStream>>, EndpointMetrics),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A stream that bytes can go through.
enum Open<'a> {
    Tcp(Pin<&'a mut TcpStream>),
    Unix(Pin<&'a mut UnixStream>),
    Tls(Pin<&'a mut TlsStream<TcpStream>>),
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(stream: Stream, too_late: TooLate, room: OwnedSemaphorePermit) -> Self {
        let (preface_left, too_late) = (PREFACE_BYTES, Some(too_late));
        Connection { stream, preface_left, too_late, _room: room }
    }

    /// Ready once bytes can go through, in whichever direction they are to go first; an error when it takes too long to
    /// agree on encryption.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Open<'_>>> {
        if let Stream::Handshake(accept, metrics) = &mut self.stream {
            let agreed = match Pin::new(accept.as_mut()).poll(context) {
                Poll::Ready(agreed) => agreed,
                Poll::Pending => match &mut self.too_late {
                    Some(limit) => Err(ready!(limit.as_mut().poll(context).map(|()| too_late()))),
                    None => return Poll::Pending,
                },
            };
            match agreed {
                Ok(stream) => self.stream = Stream::Tls(Box::new(stream)),
                Err(error) => {
                    metrics.handshake_failed();
                    debug!("a client's TLS handshake failed: {error}");
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match &mut self.stream {
            Stream::Tcp(stream) => Ok(Open::Tcp(Pin::new(stream))),
            Stream::Unix(stream) => Ok(Open::Unix(Pin::new(stream))),
            Stream::Tls(stream) => Ok(Open::Tls(Pin::new(stream.as_mut()))),
            Stream::Handshake(..) => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match ready!(self.poll_open(context))? {
            Open::Tcp(stream) => stream.poll_read(context, buffer),
            Open::Unix(stream) => stream.poll_read(context, buffer),
            Open::Tls(stream) => stream.poll_read(context, buffer),
        };
        if self.too_late.is_none() {
            return read;
        }
        self.preface_left = self.preface_left.saturating_sub(buffer.filled().len() - before);
        if self.preface_left == 0 {
            self.too_late = None;
        }
        match &mut self.too_late {
            Some(limit) if read.is_pending() => {
                limit.as_mut().poll(context).map(|()| Err(too_late()))
            }
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
        match ready!(self.poll_open(context))? {
            Open::Tcp(stream) => stream.poll_write(context, bytes),
            Open::Unix(stream) => stream.poll_write(context, bytes),
            Open::Tls(stream) => stream.poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_open(context))? {
            Open::Tcp(stream) => stream.poll_write_vectored(context, parts),
            Open::Unix(stream) => stream.poll_write_vectored(context, parts),
            Open::Tls(stream) => stream.poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.poll_open(context))? {
            Open::Tcp(stream) => stream.poll_flush(context),
            Open::Unix(stream) => stream.poll_flush(context),
            Open::Tls(stream) => stream.poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing was said yet that the other side would have to hear of.
        if matches!(self.stream, Stream::Handshake(..)) {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.poll_open(context))? {
            Open::Tcp(stream) => stream.poll_shutdown(context),
            Open::Unix(stream) => stream.poll_shutdown(context),
            Open::Tls(stream) => stream.poll_shutdown(context),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

// === free functions ===

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client does not speak HTTP/2")
}
