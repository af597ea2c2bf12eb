//! A host's addresses: asked for once for each connection, all judged, and connected to as they were judged. There is no
//! second answer that could be another.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::addresses::AddressPolicy;

/// So many of a host's addresses are tried.
const MOST_TRIED: usize = 8;

/// Asks for a name's addresses. It may block.
pub type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Resolves names for one model.
pub(super) struct Resolver {
    addresses: Arc<AddressPolicy>,
    /// Threads that may ask at a time: one whose fetch is over by time still asks for a while. Who finds none waits,
    /// within its fetch's time.
    turns: Arc<Semaphore>,
    lookup: Lookup,
}

// === impl Resolver ===

impl Resolver {
    pub(super) fn new(
        addresses: Arc<AddressPolicy>,
        turns: Arc<Semaphore>,
        lookup: Lookup,
    ) -> Self {
        Resolver { addresses, turns, lookup }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (addresses, lookup) = (Arc::clone(&self.addresses), Arc::clone(&self.lookup));
        let turns = Arc::clone(&self.turns);
        Box::pin(async move {
            let turn = turns.acquire_owned().await?;
            let asking = spawn_blocking(move || {
                let found = lookup(name.as_str());
                drop(turn);
                found
            });
            let found = asking.await??;
            // One that is not allowed condemns all: such an answer was made for somebody else, or against us.
            for address in &found {
                addresses.check(*address)?;
            }
            // The port is put in by the client.
            let tried =
                found.into_iter().take(MOST_TRIED).map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(tried) as Addrs)
        })
    }
}

// === free functions ===

/// What the system says, by its files and its name servers.
pub fn system_lookup() -> Lookup {
    Arc::new(|name| Ok((name, 0).to_socket_addrs()?.map(|found| found.ip()).collect()))
}
