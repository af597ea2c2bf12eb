//! How a server is reached: where it is, what is trusted, and what the client proves itself with.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use embark_crds::contract::GRPC_PORT;
use tokio::time::timeout;
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri},
};
use tracing::warn;

use super::{ANSWER_LIMIT, CallFailed, Client, REPLY_BYTES};
use crate::{
    args::{Access, Address},
    pb::client::embedding_service_client::EmbeddingServiceClient,
    secrets::{Named, pem, tokens},
};

/// A connection whose calls show a token.
pub(super) type Door = InterceptedService<Channel, Bearer>;

/// What calls show, if anything.
#[derive(Clone, Debug)]
pub(super) struct Bearer(Option<AsciiMetadataValue>);

/// A name that several addresses stand behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodsName {
    /// The host, which the servers' certificate must have; without brackets.
    pub host: String,
    /// Whether it was said that they speak TLS.
    pub is_https: bool,
}

/// Where a server is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Tcp {
        uri: Uri,
        /// Whether it is encrypted; `None`: the address does not say.
        tls: Option<bool>,
    },
    Unix(String),
}

// === impl Client ===

impl Client {
    /// Connects to a server.
    ///
    /// # Errors
    /// The address is none, a file of the access cannot be used, or nothing answers there.
    pub async fn connect(server: &Address) -> Result<Self, CallFailed> {
        let Address { address, access } = server;
        let (endpoint, shown) = match place(address)? {
            Place::Tcp { uri, tls } => {
                let shown = uri.authority().map(ToString::to_string).unwrap_or_default();
                (of_tcp(uri, tls, access)?, shown)
            }
            Place::Unix(path) => (of_socket(&path)?, path),
        };
        Self::open(endpoint, shown, access).await
    }

    /// Connects to one of the addresses that a name stands for, encrypted where the access or the name says so.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub async fn connect_to(
        pod: SocketAddr,
        name: &PodsName,
        access: &Access,
    ) -> Result<Self, CallFailed> {
        let is_tls = name.is_https || access.speaks_of_tls();
        let mut access = access.clone();
        if is_tls {
            access.tls_server_name.get_or_insert_with(|| name.host.clone());
        }
        let Place::Tcp { uri, .. } = place(&pod.to_string())? else {
            return Err(CallFailed(format!("{pod} is no address")));
        };
        Self::open(of_tcp(uri, Some(is_tls), &access)?, pod.to_string(), &access).await
    }

    async fn open(
        endpoint: Endpoint,
        address: String,
        access: &Access,
    ) -> Result<Self, CallFailed> {
        let bearer = bearer(access)?;
        let is_tls = endpoint.uri().scheme_str() == Some("https");
        // Its own limit is on the connection alone, and not on agreeing about encryption.
        let connected = timeout(ANSWER_LIMIT, endpoint.connect()).await;
        let channel = connected.map_err(|_| {
            CallFailed(format!("what answers at {address} says nothing within {ANSWER_LIMIT:?}"))
        })?;
        let channel = channel.map_err(|error| CallFailed(unreached(&address, &error)))?;
        let channel = InterceptedService::new(channel, bearer);
        let service = EmbeddingServiceClient::new(channel.clone());
        let service = service.max_decoding_message_size(REPLY_BYTES);
        Ok(Client { channel, service, is_tls, address })
    }
}

// === impl Bearer ===

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

// === free functions ===

/// What an address means.
fn place(address: &str) -> Result<Place, CallFailed> {
    let refuse = |what: &str| Err(CallFailed(format!("--address: {address:?} {what}")));
    let (tls, authority) = match address.split_once("://") {
        None => (None, address),
        Some(("http", authority)) => (Some(false), authority),
        Some(("https", authority)) => (Some(true), authority),
        Some(("unix", path)) if path.starts_with('/') => return Ok(Place::Unix(path.to_owned())),
        Some(("unix", _)) => return refuse("has no absolute path"),
        Some((scheme, _)) => {
            let allowed = "it must be http, https or unix";
            return refuse(&format!("has the scheme {scheme:?}; {allowed}"));
        }
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let example = format!("HOST:PORT, such as 127.0.0.1:{GRPC_PORT}");
    let Ok(uri) = format!("http://{authority}/").parse::<Uri>() else {
        return refuse(&format!("is not {example}"));
    };
    match (uri.path(), uri.host(), uri.port_u16()) {
        ("/", Some(host), Some(_)) if !host.is_empty() => Ok(Place::Tcp { uri, tls }),
        ("/", Some(host), None) if host == authority => {
            refuse(&format!("has no port; it must be {example}"))
        }
        _ => refuse(&format!("is not {example}")),
    }
}

fn of_tcp(uri: Uri, tls: Option<bool>, access: &Access) -> Result<Endpoint, CallFailed> {
    let is_tls = match tls {
        Some(false) if access.speaks_of_tls() => {
            let sentence = "--address: is an http one; with --tls-ca, --tls-cert or --tls-server-name it must be https";
            return Err(CallFailed(sentence.to_owned()));
        }
        Some(tls) => tls,
        None => access.speaks_of_tls(),
    };
    let endpoint = |uri| Endpoint::from(uri).tcp_nodelay(true).connect_timeout(ANSWER_LIMIT);
    if !is_tls {
        if access.token_file.is_some() && !is_loopback(&uri) {
            warn!("the token goes to {uri} unencrypted: whoever can listen on the way learns it");
        }
        return Ok(endpoint(uri));
    }
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let uri: Uri = format!("https://{authority}/")
        .parse()
        .map_err(|_| CallFailed(format!("--address: {authority:?} is not HOST:PORT")))?;
    endpoint(uri).tls_config(tls_config(access)?).map_err(|error| {
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        CallFailed(format!("TLS cannot be used: {why}"))
    })
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn of_socket(path: &str) -> Result<Endpoint, CallFailed> {
    let endpoint = Endpoint::from_shared(format!("unix://{path}"));
    let endpoint = endpoint.map_err(|_| CallFailed(format!("--address: {path:?} is no path")))?;
    Ok(endpoint.connect_timeout(ANSWER_LIMIT))
}

/// What is trusted, and what the client proves itself with. Each file is looked at first, for a sentence that names it.
fn tls_config(access: &Access) -> Result<ClientTlsConfig, CallFailed> {
    let mut config = ClientTlsConfig::new();
    config = match &access.tls_ca {
        None => config.with_native_roots(),
        Some(path) => {
            let bytes = read("--tls-ca", path, |content| pem::certificates(content).map(drop))?;
            config.ca_certificate(Certificate::from_pem(bytes))
        }
    };
    if let (Some(certificate), Some(key)) = (&access.tls_cert, &access.tls_key) {
        let chain =
            read("--tls-cert", certificate, |content| pem::certificates(content).map(drop))?;
        let key = read("--tls-key", key, |content| pem::key(content).map(drop))?;
        config = config.identity(Identity::from_pem(chain, key));
    }
    if let Some(name) = &access.tls_server_name {
        config = config.domain_name(name);
    }
    Ok(config)
}

fn bearer(access: &Access) -> Result<Bearer, CallFailed> {
    let Some(path) = &access.token_file else { return Ok(Bearer(None)) };
    let named = Named { argument: "--token-file", path: path.clone() };
    let content = named.read().map_err(CallFailed)?;
    let token = tokens::lines(&content.bytes).next().unwrap_or_default();
    let is_token = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    let value = AsciiMetadataValue::try_from([b"Bearer ", token].concat());
    match value {
        Ok(mut value) if is_token => {
            value.set_sensitive(true);
            Ok(Bearer(Some(value)))
        }
        _ => Err(CallFailed(content.wrong("has no token of visible ASCII characters"))),
    }
}

fn read(
    argument: &'static str,
    path: &Path,
    check: fn(&crate::secrets::Content) -> Result<(), String>,
) -> Result<Vec<u8>, CallFailed> {
    let named = Named { argument, path: path.to_owned() };
    let content = named.read().map_err(CallFailed)?;
    check(&content).map_err(CallFailed)?;
    Ok(content.bytes)
}

/// Why there is no connection.
fn unreached(address: &str, error: &(dyn Error + 'static)) -> String {
    if let Some(why) = tls_trouble(error) {
        return format!("no TLS with what answers at {address}: {why}");
    }
    let mut causes =
        std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    let cause = causes.find_map(|cause| cause.downcast_ref::<io::Error>());
    match cause.filter(|cause| cause.kind() != io::ErrorKind::ConnectionRefused) {
        Some(cause) => format!("{address} cannot be reached: {cause}"),
        None => format!("nothing answers at {address}; is embark-sidecar serving there?"),
    }
}

/// What is wrong about encryption, if that is what broke a connection.
pub(super) fn tls_trouble(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(explained(found));
        }
        let inner = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(explained(found));
        }
        cause = error.source();
    }
    None
}

/// The library's words, and what they mean to who typed the command.
fn explained(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error, InvalidMessage};
    match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak it; is it an http:// one?".to_owned()
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!(
                "{error}: no authority that is trusted (--tls-ca, or the system's) vouches for it"
            )
        }
        _ => error.to_string(),
    }
}
