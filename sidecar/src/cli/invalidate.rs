//! `invalidate`: one server is made to forget, or every pod behind a name, each answer a JSON line.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    net::SocketAddr,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::{net::lookup_host, time::timeout};

use super::Failure;
use crate::{
    args::{self, Access, Address},
    grpc::client::{CallFailed, Client, Forgotten, PodsName, Scope, before::Before},
};

/// Pods that are called at a time.
const AT_ONCE: usize = 16;
/// How long a name may take to become addresses.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// What may stand before a name, as gRPC's own clients have it.
const DNS: &str = "dns:///";
/// The same, of servers that speak TLS.
const HTTPS: &str = "https://";

/// What every pod is asked.
///
/// The time is sent as it was given, and to nobody when none was: each pod then takes its own present. Entries are dated by
/// the clock of the pod that keeps them, so a present taken elsewhere would be refused as the future by a pod whose clock
/// is behind, and would leave the newest entries of one that is ahead. Every pod is called after the command began, so
/// whatever was there when it began is forgotten everywhere.
#[derive(Clone, Debug)]
struct Ask {
    model: String,
    scope: Scope,
    before: Option<Before>,
    access: Access,
}

#[derive(Serialize)]
struct Line<'a> {
    address: &'a str,
    #[serde(flatten)]
    outcome: Outcome<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Forgotten { instance: &'a str, before: &'a str },
    Failed { error: String },
}

/// Runs the command.
///
/// # Errors
/// A server did not forget; with many, each of them has its line all the same.
pub async fn run(arguments: args::Invalidate) -> Result<(), Failure> {
    let args::Invalidate { model, all: _, item, before, address, all_pods, access } = arguments;
    let scope = if item.is_empty() { Scope::All } else { Scope::Texts(item) };
    let ask = Ask { model, scope, before, access };
    match all_pods {
        Some(names) => every(&addresses(&names).await?, &ask).await,
        None => {
            let address = args::address_or_default(address);
            let server = Address { address: address.clone(), access: ask.access.clone() };
            let forgotten = ask.of(Client::connect(&server).await).await;
            let forgotten = forgotten.map_err(|error| Failure::Run(error.to_string()))?;
            super::read_on(print(&address, &Ok(forgotten))).map(drop)
        }
    }
}

// === impl Ask ===

impl Ask {
    async fn of(&self, client: Result<Client, CallFailed>) -> Result<Forgotten, CallFailed> {
        client?.forget(&self.model, &self.scope, self.before).await
    }
}

// === free functions ===

/// Asks every server, some at a time, and prints what each says, by address.
async fn every(addresses: &BTreeMap<SocketAddr, PodsName>, ask: &Ask) -> Result<(), Failure> {
    let calls = stream::iter(addresses).map(|(address, name)| async move {
        let client = Client::connect_to(*address, name, &ask.access).await;
        (address.to_string(), ask.of(client).await)
    });
    let mut calls = calls.buffered(AT_ONCE);
    let (mut failed, mut reads_on) = (0, true);
    while let Some((address, answer)) = calls.next().await {
        failed += usize::from(answer.is_err());
        // Nobody may read any more; the other pods are to forget all the same.
        reads_on = reads_on && super::read_on(print(&address, &answer))?;
    }
    match failed {
        0 => Ok(()),
        failed => {
            let sentence = format!("{failed} of {} pods did not forget", addresses.len());
            Err(Failure::Run(format!("{sentence}; their lines say why")))
        }
    }
}

fn print(address: &str, answer: &Result<Forgotten, CallFailed>) -> io::Result<()> {
    let outcome = match answer {
        Ok(Forgotten { instance, before }) => Outcome::Forgotten { instance, before },
        Err(error) => Outcome::Failed { error: error.to_string() },
    };
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &Line { address, outcome })?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Every address that the names stand for, each once, with the host's name.
async fn addresses(names: &str) -> Result<BTreeMap<SocketAddr, PodsName>, Failure> {
    let mut addresses = BTreeMap::new();
    for name in names.split(',') {
        addresses.extend(resolve(name.trim()).await?);
    }
    Ok(addresses)
}

async fn resolve(name: &str) -> Result<BTreeMap<SocketAddr, PodsName>, Failure> {
    let (usage, run) = (
        |what: &str| Failure::Usage(format!("--all-pods: {name:?} {what}")),
        |what: &str| Failure::Run(format!("--all-pods: {name:?} {what}")),
    );
    let (is_https, target) = match name.strip_prefix(HTTPS) {
        Some(target) => (true, target),
        None => (false, name.strip_prefix(DNS).unwrap_or(name)),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let host = match target.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && is_port(port) && !target.contains('/') => host,
        _ => {
            return Err(usage(
                "is not dns:///HOST:PORT, https://HOST:PORT or HOST:PORT, or several behind commas",
            ));
        }
    };
    let pods = PodsName { host: host.trim_matches(['[', ']']).to_owned(), is_https };
    let found = timeout(LOOKUP_LIMIT, lookup_host(target)).await;
    let found = found.map_err(|_| run(&format!("was not resolved within {LOOKUP_LIMIT:?}")))?;
    // A headless Service has no address while none of its pods is ready.
    let found = found.map_err(|error| run(&format!("resolves to no address: {error}")))?;
    let found: BTreeMap<_, _> = found.map(|address| (address, pods.clone())).collect();
    if found.is_empty() { Err(run("resolves to no address")) } else { Ok(found) }
}
