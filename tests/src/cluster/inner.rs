//! The process that has a cluster's components for children. It is started by the guard, inside of the namespaces of the
//! cluster, is told over standard input what to do, and ends everything when that ends.

use std::path::Path;

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpStream, UnixListener, UnixStream},
};

use super::{Level, component::Components, control, lines, node, state::State};

/// The longest address that a connection is forwarded to.
const MAX_ADDRESS: usize = 64;

/// Starts a cluster in this folder, says so, and serves commands until standard input ends.
pub(super) async fn run(level: Level, folder: &Path, images: &[String]) -> anyhow::Result<()> {
    let state = State::at(folder);
    let mut components = Components::new(state.clone(), level == Level::ControlPlane);
    let started = match level {
        Level::ControlPlane => control::start(&state, &mut components).await,
        Level::Node => node::start(&state, &mut components, images).await,
    };
    if let Err(error) = started {
        lines::answer(&Err(error))?;
        return components.stop_all().await;
    }
    if level == Level::Node {
        tokio::spawn(serve_connections(UnixListener::bind(socket(&state))?));
    }
    lines::answer(&Ok(String::new()))?;
    let mut commands = lines::standard_input();
    while let Some(command) = commands.recv().await {
        lines::answer(&obey(&state, &mut components, &command).await)?;
    }
    match level {
        Level::ControlPlane => components.stop_all().await,
        // They end with their namespaces, containers included.
        Level::Node => Ok(()),
    }
}

/// Where connections into a node's network are asked for.
pub(super) fn socket(state: &State) -> std::path::PathBuf {
    state.path("connect.sock")
}

async fn obey(state: &State, components: &mut Components, command: &str) -> anyhow::Result<String> {
    let (verb, name) = command.split_once(' ').context("a command has two words")?;
    match verb {
        "stop" => components.stop(name).await?,
        "start" => {
            components.start_again(name)?;
            if name == "kube-apiserver" {
                control::until_ready(state, components).await?;
            }
        }
        _ => anyhow::bail!("{verb}: no such command"),
    }
    Ok(String::new())
}

/// Each connection names an address in a first line, and is then a connection to it.
async fn serve_connections(listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            // Whoever asked sees that the connection has ended.
            let _ = connect(stream).await;
        });
    }
}

async fn connect(mut stream: UnixStream) -> anyhow::Result<()> {
    let mut address = String::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            byte => address.push(char::from(byte)),
        }
        anyhow::ensure!(address.len() <= MAX_ADDRESS, "{address} is too long");
    }
    let mut target = TcpStream::connect(&address).await?;
    copy_bidirectional(&mut stream, &mut target).await?;
    Ok(())
}

/// A connection to an address in the network of the node in this folder.
pub(super) async fn dial(socket: &Path, address: &str) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("{address}\n").as_bytes()).await?;
    Ok(stream)
}
