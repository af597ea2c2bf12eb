//! `cargo demo`: the main job, on an embedded default. It starts the real server as its own process, embeds real sentences
//! over real gRPC, searches them, and shows where vectors come from: computed, memory, disk after a restart, computed
//! again after they expire. It leaves a server running until Ctrl-C; `--once` ends by itself. `--example image-duplicates`
//! is another: photos and altered copies of them, by an image model.

mod duplicates;
mod report;
mod server;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use embark_sidecar::{
    args::Address,
    grpc::client::{Client, Embedded, Options},
};
use tokio::time::Instant;

use report::{Batch, Report};
use server::Server;

/// The name of the model in examples/quickstart.yaml.
const MODEL: &str = "quickstart";
/// What the sentences are searched for.
const QUERIES: [&str; 4] = [
    "ruins of ancient civilizations",
    "damage done by an earthquake",
    "electricity from rivers and dams",
    "where to pay little tax",
];
/// The time to live of the copy of the manifest that shows expiry.
const SHORT_TTL: Duration = Duration::from_secs(1);

/// Shows what embark does, in half a minute, with nothing but this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo demo")]
struct Arguments {
    /// End after the demonstration instead of leaving a server running.
    #[arg(long)]
    once: bool,
    /// What is shown.
    #[arg(long, value_enum, default_value = "search")]
    example: Example,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Example {
    /// Sentences are searched by what they mean.
    Search,
    /// Photos that are copies of each other are found, although they were altered.
    ImageDuplicates,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?;
    let examples = root.join("examples");
    let binary = server::build(root)?;
    let folder = tempfile::Builder::new().prefix("embark-demo-").tempdir()?;
    let data = folder.path().join("data");
    let place = Place { examples, binary, data };
    let server = match arguments.example {
        Example::Search => searched(&place, folder.path(), arguments.once).await?,
        Example::ImageDuplicates => duplicates::found(&place, arguments.once).await?,
    };
    if let Some(server) = server {
        tokio::signal::ctrl_c().await?;
        server.stop().await?;
    }
    Ok(())
}

/// What every example needs.
struct Place {
    /// The repository's folder of examples.
    examples: PathBuf,
    /// The sidecar's binary.
    binary: PathBuf,
    /// An empty data folder.
    data: PathBuf,
}

/// Shows a search, and where vectors come from; gives a server that was left running.
async fn searched(place: &Place, folder: &Path, once: bool) -> Result<Option<Server>> {
    let Place { examples, binary, data } = place;
    let sentences = sentences(examples)?;
    let manifest = examples.join("quickstart.yaml");

    let mut report = Report::new(&sentences);
    let server = Server::start(binary, &manifest, data).await?;
    report.started(&server);
    let first = embed(&server, &sentences).await?;
    report.search(&first.vectors, &search(&server).await?);
    report.measured("first time", first);
    report.measured("again", embed(&server, &sentences).await?);
    server.stop().await?;

    let server = Server::start(binary, &manifest, data).await?;
    report.measured("after a restart", embed(&server, &sentences).await?);
    server.stop().await?;

    let short = with_short_ttl(&manifest, folder)?;
    let server = Server::start(binary, &short, data).await?;
    report.measured("expired (ttl 1s)", expired(&server, &sentences).await?);
    server.stop().await?;
    report.table()?;

    if once {
        return Ok(None);
    }
    let server = Server::start(binary, &manifest, data).await?;
    report.try_next(&server);
    Ok(Some(server))
}

/// The sentences, one a line.
fn sentences(examples: &Path) -> Result<Vec<String>> {
    let path = examples.join("sentences.txt");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Embeds a batch and notes what it took.
async fn embed(server: &Server, sentences: &[String]) -> Result<Batch> {
    let mut client =
        Client::connect(&Address { address: server.grpc.clone(), ..Address::default() }).await?;
    let most = client.describe(MODEL).await?.max_items;
    let options = Options { model: MODEL.to_owned(), ..Options::default() };
    let started = Instant::now();
    let mut embedded: Vec<Embedded> = Vec::new();
    for texts in sentences.chunks(most) {
        embedded.extend(client.embed(texts.to_vec(), &options).await?);
    }
    let took = started.elapsed();
    for one in &embedded {
        ensure!(one.error.is_none(), "a sentence was refused: {:?}", one.error);
    }
    let sources = embedded.iter().map(|one| one.source).collect();
    Ok(Batch { took, sources, vectors: embedded.into_iter().map(|one| one.vector).collect() })
}

/// The queries and their vectors.
async fn search(server: &Server) -> Result<Vec<(&'static str, Vec<f32>)>> {
    let queries: Vec<String> = QUERIES.iter().map(|query| (*query).to_owned()).collect();
    let vectors = embed(server, &queries).await?.vectors;
    Ok(QUERIES.into_iter().zip(vectors).collect())
}

/// What a server with a short ttl answers once its entries have outlived it.
async fn expired(server: &Server, sentences: &[String]) -> Result<Batch> {
    embed(server, sentences).await?;
    // Entries are dated when their computation begins: a ttl from now on, every one of them has expired.
    tokio::time::sleep_until(Instant::now() + SHORT_TTL).await;
    embed(server, sentences).await
}

/// A copy of the manifest whose entries live a second.
fn with_short_ttl(manifest: &Path, folder: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string(manifest)?;
    let short = text.replace("ttl: 24h", "ttl: 1s");
    ensure!(short != text, "{} has no line with ttl: 24h", manifest.display());
    let path = folder.join("short-ttl.yaml");
    fs::write(&path, short)?;
    Ok(path)
}
