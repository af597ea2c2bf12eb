//! Where clients come in: TCP, with TLS or without, and a Unix socket.

mod connection;
mod incoming;
mod port;
mod secrets;
mod socket;
mod tls;

use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpListener;

pub use connection::Connection;
pub use incoming::connections;
pub use port::bind;
pub use secrets::Secrets;
pub use socket::{NoSocket, Socket};

use crate::{metrics::EndpointMetrics, secrets::Rotating};

/// One of the places.
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A port whose connections are encrypted, and how; each by what is in force when it begins.
    Tls(TcpListener, Arc<Rotating<ServerConfig>>, EndpointMetrics),
    /// A file that pods' containers share.
    Unix(Socket),
}
