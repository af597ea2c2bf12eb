//! Taking a port.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpListener;

/// Takes a port. `[::]` is every address of the machine, of IPv6 and of IPv4, unless its kernel was told to keep them apart
/// (`net.ipv6.bindv6only`): a pod cannot know which of them its cluster gives. Where there is no IPv6 it is every address of
/// IPv4.
///
/// # Errors
/// The address is not the machine's, or its port is taken or not for us.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    match bound.as_ref().err().and_then(|error| instead(address, error)) {
        Some(other) => TcpListener::bind(other).await,
        None => bound,
    }
}

/// What is taken instead of an address that was refused: of all there are those of IPv4, in case the kernel has no others.
fn instead(refused: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let is_all = refused.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let is_taken = error.kind() == ErrorKind::AddrInUse;
    (is_all && !is_taken).then(|| (Ipv4Addr::UNSPECIFIED, refused.port()).into())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn every_address_is_that_of_ipv4_where_there_is_no_other() {
        let other = |address: &str, kind: ErrorKind| {
            instead(address.parse().unwrap(), &kind.into()).map(|other| other.to_string())
        };
        let v4 = Some("0.0.0.0:81".to_owned());
        assert_eq!(other("[::]:81", ErrorKind::Unsupported), v4);
        assert_eq!(other("[::]:81", ErrorKind::PermissionDenied), v4);
        assert_eq!(other("[::]:81", ErrorKind::AddrInUse), None);
        assert_eq!(other("[::1]:81", ErrorKind::Unsupported), None);
        assert_eq!(other("0.0.0.0:81", ErrorKind::Unsupported), None);
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
