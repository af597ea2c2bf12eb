//! The command line.

mod bench;
mod endpoint;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use embark_crds::contract::{ADMIN_PORT, GRPC_PORT};

pub use bench::{Bench, OnMiss};
pub use endpoint::{Access, Address, Endpoint};

use crate::{grpc::client::before::Before, telemetry::LogFormat};

/// Where every command's help has what they share, behind its own options.
const LOGS: &str = "Logs";
/// What the process has before any model.
const LEAST_MEMORY_BYTES: u64 = 32 << 20;

/// Serves embeddings on CPUs, and remembers them.
///
/// A model is described by an EmbeddingModel manifest, the same that `kubectl apply` takes in a cluster.
#[derive(Debug, Parser)]
#[command(name = "embark-sidecar", version, propagate_version = true)]
pub struct Arguments {
    /// How log lines are written, to standard error.
    #[arg(long, value_enum, default_value_t, global = true, env = "EMBARK_LOG_FORMAT", help_heading = LOGS)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace or off; or a filter by module, such as embark_sidecar=debug,info.
    #[arg(long, default_value = "info", global = true, env = "EMBARK_LOG_LEVEL", help_heading = LOGS)]
    pub log_level: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the models of EmbeddingModel manifests over gRPC.
    Serve(Serve),
    /// Embed texts with a running server, and print JSON lines.
    Embed(Embed),
    /// Print the mean vector of many texts, ready to be a model's default vector.
    Mean(Mean),
    /// Make a running server, or every pod of a model, forget vectors.
    Invalidate(Invalidate),
    /// Say what is wrong with manifests, without serving them.
    Check(Check),
    /// Load the models of manifests, make their checks, and print checks that are ready to be pasted.
    SelfTest(SelfTest),
    /// Send a running server calls as users do, and say how long they took.
    Bench(Bench),
}

/// Serve the models of EmbeddingModel manifests over gRPC.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embark-sidecar serve --manifest examples/quickstart.yaml
  embark-sidecar serve --manifest models/ --listen '[::]:8081' --data-dir /var/lib/embark

It ends on SIGTERM or Ctrl-C: calls in flight are answered, and what is cached is written to disk.")]
pub struct Serve {
    /// A manifest, or a folder of manifests (*.yaml, *.yml, *.json). May be given several times.
    #[arg(long, value_name = "FILE|DIR", required_unless_present = "models_dir", num_args = 1..)]
    pub manifest: Vec<PathBuf>,
    /// In a pod: the folder with a folder for each model, as the operator mounts it. A model that cannot be served does
    /// not end the process.
    #[arg(long, value_name = "DIR", conflicts_with = "manifest")]
    pub models_dir: Option<PathBuf>,
    /// Where gRPC is served. `[::]` is every address, of IPv4 too. Port 0 takes a free one; the log says which.
    #[arg(long, value_name = "ADDRESS", default_value_t = local(GRPC_PORT))]
    pub listen: SocketAddr,
    /// Where probes, metrics and status are served, by an address as --listen takes it.
    #[arg(long, value_name = "ADDRESS", default_value_t = local(ADMIN_PORT))]
    pub admin_listen: SocketAddr,
    /// Where fetched files and the disk cache are kept.
    #[arg(long, value_name = "DIR", default_value = "./embark-data")]
    pub data_dir: PathBuf,
    /// How much memory the process may use, such as 512Mi: a model that does not fit is refused. By default what its cgroup or
    /// the machine has.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory_limit: Option<u64>,
    /// How old a client's connection may become. Its client makes another then, and so comes to know of new pods.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = age)]
    pub max_connection_age: Duration,
    /// How long requests are still accepted after SIGTERM, so that clients can learn of it first, such as 5s.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub drain_wait: Duration,
    /// TLS, tokens and a Unix socket.
    #[command(flatten)]
    pub endpoint: Endpoint,
}

/// Which model of which server is asked for vectors.
#[derive(Debug, Args)]
pub struct Asked {
    /// The server.
    #[command(flatten)]
    pub server: Address,
    /// The model. May be left out when the server has one.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub model: String,
    /// The prompt's name; by default the model's default prompt.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub prompt: String,
}

/// Embed texts with a running server, and print JSON lines.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embark-sidecar embed --model quickstart \"The weather is lovely today.\"
  embark-sidecar embed --model quickstart < sentences.txt > vectors.jsonl

Each line has: text, vector, source (where the vector came from), age_ms, tokens, truncated; or
text and error.
Line N of standard input is answered by line N of the output; a blank line, which is no text, by
an error. Texts that fail do not keep others from being embedded; it then ends with 1.")]
pub struct Embed {
    /// Who is asked.
    #[command(flatten)]
    pub asked: Asked,
    /// How many values of each vector; by default the model's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub dimensions: Option<u32>,
    /// The texts. Without any, each line of standard input is one; a blank line is an error in its place.
    pub text: Vec<String>,
}

/// Print the mean vector of many texts, ready to be a model's default vector.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embark-sidecar mean --model quickstart sentences.txt
  shuf -n 10000 titles.txt | embark-sidecar mean --model quickstart -

It prints one line of YAML, to be put behind spec.cache.defaultVector:
  {type: Values, values: [0.0123, -0.0456]}
The vector has the model's full dimensions, and length 1 when the model's vectors have. A text
that fails ends it with 1 and the number of its line.")]
pub struct Mean {
    /// Who is asked.
    #[command(flatten)]
    pub asked: Asked,
    /// The texts, a line each; - is standard input. Blank lines are passed over.
    pub file: PathBuf,
}

/// Make a running server, or every pod of a model, forget vectors.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embark-sidecar invalidate --model quickstart --all
  embark-sidecar invalidate --model quickstart --item \"Hello, world.\" --item \"Good bye.\"
  embark-sidecar invalidate --model quickstart --all --all-pods dns:///quickstart-pods:8081

The model must allow it: spec.cache.allowInvalidation. Each server is answered for by a JSON line:
address, instance, before (the time applied, by the server's own clock unless --before says it);
or address and error. Ends with 1 when a server did not forget; the others have all the same.")]
pub struct Invalidate {
    /// The model. May be left out when the server has one.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub model: String,
    /// Forget every vector of the model.
    #[arg(long, required_unless_present = "item", conflicts_with = "item")]
    pub all: bool,
    /// Forget the vectors of this text, under every prompt. May be given several times.
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    pub item: Vec<String>,
    /// Forget what was begun at or before this time, such as 2026-01-31T12:00:00Z; by default now.
    #[arg(long, value_name = "TIME")]
    pub before: Option<Before>,
    /// The server, such as 127.0.0.1:8081, https://host:8081 or unix:///run/embark/embark.sock. By default EMBARK_ADDRESS,
    /// or 127.0.0.1:8081.
    // Not clap's own env: the variable stands in every pod that a sidecar is injected into, and would forbid --all-pods.
    #[arg(long, conflicts_with = "all_pods")]
    pub address: Option<String>,
    /// Every address that a name stands for, as the headless Service of a model does: dns:///HOST:PORT, with or without
    /// dns:///, or https://HOST:PORT, or several behind commas.
    #[arg(long, value_name = "NAMES")]
    pub all_pods: Option<String>,
    /// What it takes to be let in.
    #[command(flatten)]
    pub access: Access,
}

/// Say what is wrong with manifests, without serving them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embark-sidecar check model.yaml
  embark-sidecar check --target cluster models/

It looks at the manifests alone: their fields, that no name stands twice, and that built-in
files exist. The files that they name are not opened: whether a model is there, has its sha256
and can be run is found out by serve.

Ends with 0 when every manifest is good, with 1 when one is not.")]
pub struct Check {
    /// Manifests, or folders of manifests.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub file: Vec<PathBuf>,
    /// Where the manifests are to be used. By default either will do, and it says which accept them.
    #[arg(long, value_enum)]
    pub target: Option<Target>,
}

/// Load the models of manifests, make their checks, and print checks that are ready to be pasted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  embark-sidecar self-test model.yaml
  embark-sidecar self-test model.yaml --text \"The weather is lovely today.\" --text \"Hello, world.\"

Models are loaded as serve would load them, without a port. It prints YAML: for each check of
spec.selfTest a comment with the cosine that it measured, and then a block to be put into the
spec, with the vectors of the texts given, or of the inputs that the spec has.

Ends with 0 when every check passes, with 1 when one does not or a model cannot be loaded.")]
pub struct SelfTest {
    /// Manifests, or folders of manifests.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub file: Vec<PathBuf>,
    /// A text whose vector is printed. May be given up to 8 times.
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    pub text: Vec<String>,
    /// Where fetched files are kept.
    #[arg(long, value_name = "DIR", default_value = "./embark-data")]
    pub data_dir: PathBuf,
}

/// Where a manifest is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// By `embark-sidecar serve`.
    Local,
    /// By the operator.
    Cluster,
}

// === impl Target ===

impl From<Target> for embark_crds::resolve::Target {
    fn from(target: Target) -> Self {
        match target {
            Target::Local => embark_crds::resolve::Target::Local,
            Target::Cluster => embark_crds::resolve::Target::Cluster,
        }
    }
}

// === free functions ===

/// The address given, the environment's, or the default one.
pub fn address_or_default(given: Option<String>) -> String {
    let from_environment = || std::env::var("EMBARK_ADDRESS").ok();
    given.or_else(from_environment).unwrap_or_else(|| local(GRPC_PORT).to_string())
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// How old a connection may become. One that ends at once serves nobody.
fn age(text: &str) -> Result<Duration, String> {
    let age = duration(text)?;
    let allowed = || "is less than 1s".to_owned();
    (age >= Duration::from_secs(1)).then_some(age).ok_or_else(allowed)
}

/// How much memory the process may use, written as in manifests. With less nothing is served.
fn size(text: &str) -> Result<u64, String> {
    let allowed = || "is not a size of 32Mi or more, such as 512Mi or 2Gi".to_owned();
    let bytes = embark_crds::resolve::quantity::bytes(text);
    bytes.filter(|bytes| *bytes >= LEAST_MEMORY_BYTES).ok_or_else(allowed)
}

/// A duration as manifests write them.
fn duration(text: &str) -> Result<Duration, String> {
    let allowed = || "is not a duration such as 500ms, 5s or 1m30s".to_owned();
    embark_crds::resolve::duration::parse(text).ok_or_else(allowed)
}
