//! How a server is reached: what it serves by, and what a client calls it by.

use std::path::PathBuf;

use clap::Args;

/// Where every command's help has this, behind its own options.
const HEADING: &str = "Secure transport";

/// What a server proves itself with, and what it asks of clients. Every file is read again when it changes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = HEADING)]
pub struct Endpoint {
    /// The certificate that gRPC is served with, and those that lead to an authority, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Authorities, in PEM: clients must have a certificate of one of them.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// Bearer tokens, a line each: clients must show one of them. Health and reflection stay open.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A Unix socket that gRPC is served at too, without encryption; its folder must be there.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// The server that is called.
#[derive(Clone, Debug, Default, Args)]
pub struct Address {
    /// The server, such as 127.0.0.1:8081, https://host:8081 or unix:///run/embark/embark.sock.
    #[arg(long, env = "EMBARK_ADDRESS", default_value = "127.0.0.1:8081")]
    pub address: String,
    /// What it takes to be let in.
    #[command(flatten)]
    pub access: Access,
}

/// What a client trusts, and what it proves itself with.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = HEADING)]
pub struct Access {
    /// Authorities that vouch for the server, in PEM; by default those that the system trusts. The address is an https
    /// one then.
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// The client's certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The name that the server's certificate must have; by default the address's.
    #[arg(long, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// A file with a bearer token; the first line counts.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

// === impl Access ===

impl Access {
    /// Whether something is said that only TLS has.
    pub fn speaks_of_tls(&self) -> bool {
        self.tls_ca.is_some() || self.tls_cert.is_some() || self.tls_server_name.is_some()
    }
}
