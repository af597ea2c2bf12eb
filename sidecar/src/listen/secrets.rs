//! What lets callers in, made of files that may change.

use std::sync::Arc;

use rustls::ServerConfig;

use super::tls;
use crate::{
    metrics::SecretKind,
    secrets::{Named, News, Rotating, tokens::Tokens},
};

/// What lets callers in. Clones share it.
#[derive(Clone, Default)]
pub struct Secrets {
    /// How connections are encrypted; `None`: they are not.
    pub tls: Option<Arc<Rotating<ServerConfig>>>,
    /// What callers show; `None`: they need nothing.
    pub tokens: Option<Arc<Rotating<Tokens>>>,
}

// === impl Secrets ===

impl Secrets {
    /// Reads a chain of certificates, its key and perhaps authorities of clients, and a file of tokens.
    ///
    /// # Errors
    /// A file is missing, or is not what it should be.
    pub fn read(tls: Vec<Named>, token: Option<Named>) -> Result<Self, String> {
        let tls = (!tls.is_empty()).then(|| Rotating::read(tls, tls::config)).transpose()?;
        let tokens = token.map(|file| Rotating::read(vec![file], Tokens::parse)).transpose()?;
        Ok(Secrets { tls: tls.map(Arc::new), tokens: tokens.map(Arc::new) })
    }

    /// Why files as they are now are not what is used; or empty.
    pub fn trouble(&self) -> String {
        let tls = self.tls.iter().map(|tls| tls.trouble());
        let all = tls.chain(self.tokens.iter().map(|tokens| tokens.trouble()));
        all.filter(|sentence| !sentence.is_empty()).collect::<Vec<_>>().join("; ")
    }

    /// Reads the files again, and gives what is new. May block.
    pub fn look(&self) -> Vec<(SecretKind, News)> {
        let tls = self.tls.as_ref().and_then(|tls| tls.look()).map(|new| (SecretKind::Tls, new));
        let token = self.tokens.as_ref().and_then(|tokens| tokens.look());
        tls.into_iter().chain(token.map(|new| (SecretKind::Token, new))).collect()
    }
}
