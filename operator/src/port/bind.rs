use std::{
    future::Future,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpListener;

/// Takes a port. `[::]` is every address of the machine, of IPv6 and of IPv4: a pod cannot know which of them its cluster
/// gives. Where the kernel has no IPv6 it is every address of IPv4.
///
/// # Errors
/// The address is not the machine's, or its port is taken or not for us.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    bind_by(address, TcpListener::bind).await
}

async fn bind_by<L, F>(address: SocketAddr, bind: impl Fn(SocketAddr) -> F) -> io::Result<L>
where
    F: Future<Output = io::Result<L>>,
{
    let refused = match bind(address).await {
        Err(error) if is_all(address) && !is_of_port(&error) => error,
        bound => return bound,
    };
    bind((Ipv4Addr::UNSPECIFIED, address.port()).into()).await.map_err(|_| refused)
}

fn is_all(address: SocketAddr) -> bool {
    address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

/// Whether another address would be refused alike.
fn is_of_port(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    /// A machine whose kernel refuses every address but these.
    async fn bound(machine: &[&str], wanted: &str) -> Result<String, ErrorKind> {
        let bind = |address: SocketAddr| {
            let is_had = machine.contains(&address.to_string().as_str());
            async move {
                if is_had { Ok(address.to_string()) } else { Err(ErrorKind::Unsupported.into()) }
            }
        };
        let bound = bind_by(wanted.parse().unwrap(), bind).await;
        bound.map_err(|error: io::Error| error.kind())
    }

    #[tokio::test]
    async fn every_address_is_that_of_ipv4_where_there_is_no_other() {
        assert_eq!(bound(&["[::]:1", "0.0.0.0:1"], "[::]:1").await.unwrap(), "[::]:1");
        assert_eq!(bound(&["0.0.0.0:1"], "[::]:1").await.unwrap(), "0.0.0.0:1");
        assert_eq!(bound(&[], "[::]:1").await, Err(ErrorKind::Unsupported));
        assert_eq!(bound(&["0.0.0.0:1"], "[::1]:1").await, Err(ErrorKind::Unsupported));
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_not_taken_beside() {
        let first = bind("[::]:0".parse().unwrap()).await.unwrap();
        let taken =
            bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), first.local_addr().unwrap().port()));
        assert_eq!(taken.await.unwrap_err().kind(), ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn every_address_has_both_kinds() {
        let listener = bind("[::]:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        // A machine may have the one kind only.
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
        }
    }
}
