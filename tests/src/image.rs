//! Container images without an engine: an OCI archive of one layer, with a program and the files that it needs. What a
//! Dockerfile of ours says is the same, and a test compares them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::programs;

#[cfg(test)]
mod tests;

/// Where a node has our images, as a chart's values name it.
pub const REPOSITORY: &str = "localhost";
/// The operator's image on a node. Its tag is the one that the chart takes by itself.
pub const OPERATOR: &str = concat!("localhost/embark-operator:", env!("CARGO_PKG_VERSION"));
/// The sidecar's.
pub const SIDECAR: &str = concat!("localhost/embark-sidecar:", env!("CARGO_PKG_VERSION"));
/// A shell with the usual commands, for pods that stand for an application.
pub const CLIENT: &str = "localhost/embark-client:test";
/// What holds a pod's namespaces.
pub const PAUSE: &str = "localhost/embark-pause:test";

/// Who runs programs: a number, so that a cluster can see that it is not root.
pub const USER: &str = "65532:65532";
/// Certificate authorities, for https sources.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";
const COMMANDS: [&str; 10] =
    ["cat", "echo", "grep", "ls", "nc", "nslookup", "sh", "sleep", "tr", "true"];
/// It ends when it is told to, and adopts what a container leaves.
const PAUSE_SCRIPT: &str = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done";

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    name: &'static str,
    entrypoint: Vec<String>,
    /// By path, without a slash in front, in the order of the archive.
    entries: BTreeMap<String, Entry>,
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    File { content: Vec<u8>, mode: u32 },
    Link { target: String },
}

// === impl Image ===

impl Image {
    /// Its name, behind which a node finds it.
    pub fn name(&self) -> &str {
        self.name
    }

    /// What it starts.
    pub fn entrypoint(&self) -> &[String] {
        &self.entrypoint
    }

    /// The paths of its files.
    pub fn files(&self) -> impl Iterator<Item = String> {
        self.entries.keys().map(|path| format!("/{path}"))
    }

    /// The bytes of its files.
    pub fn size(&self) -> usize {
        let sizes = self.entries.values().map(|entry| match entry {
            Entry::File { content, .. } => content.len(),
            Entry::Link { .. } => 0,
        });
        sizes.sum()
    }

    /// Writes it as an OCI archive into a folder, the same bytes for the same image.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let file = self.name.replace(['/', ':'], "-");
        let path = folder.join(file).with_extension("tar");
        fs::write(&path, self.archive()).expect("an image can be written");
        path
    }

    fn archive(&self) -> Vec<u8> {
        let layer = self.layer();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "User": USER},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &config),
            "layers": [descriptor("layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor("manifest.v1+json", &manifest);
        entry["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name,
        });
        let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
        let layout = json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes();
        let mut files = vec![("index.json".to_owned(), index), ("oci-layout".to_owned(), layout)];
        for blob in [layer, config, manifest] {
            files.push((digest(&blob).replace("sha256:", "blobs/sha256/"), blob));
        }
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            append(&mut archive, &path, &Entry::File { content, mode: 0o644 });
        }
        archive.into_inner().expect("memory does not fail")
    }

    fn layer(&self) -> Vec<u8> {
        let mut layer = tar::Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            append(&mut layer, path, entry);
        }
        layer.into_inner().expect("memory does not fail")
    }
}

/// Every image that tests use.
pub fn all() -> [Image; 4] {
    [operator(), sidecar(), client(), pause()]
}

/// The operator, as tests are built.
pub fn operator() -> Image {
    program(OPERATOR, programs::operator())
}

/// The sidecar, as tests are built.
pub fn sidecar() -> Image {
    program(SIDECAR, programs::sidecar())
}

/// A shell with the usual commands.
pub fn client() -> Image {
    let mut image = busybox(CLIENT, &["/bin/sh"]);
    for command in COMMANDS {
        let link = Entry::Link { target: "busybox".to_owned() };
        image.entries.insert(format!("bin/{command}"), link);
    }
    image
}

/// What holds a pod's namespaces, in busybox's words.
pub fn pause() -> Image {
    let mut image = busybox(PAUSE, &["/bin/sh", "-c", PAUSE_SCRIPT]);
    for command in ["sh", "sleep"] {
        let link = Entry::Link { target: "busybox".to_owned() };
        image.entries.insert(format!("bin/{command}"), link);
    }
    image
}

/// A program of ours, stripped, in the root folder, with the shared libraries that it names.
fn program(name: &'static str, binary: &Path) -> Image {
    let file = binary.file_name().expect("a binary has a name").to_string_lossy().into_owned();
    let entries = BTreeMap::from([
        (AUTHORITIES.to_owned(), read(&Path::new("/").join(AUTHORITIES), 0o644)),
        // A name of a Service is asked of the cluster's DNS.
        ("etc/nsswitch.conf".to_owned(), text("hosts: files dns\n")),
        ("etc/passwd".to_owned(), text("nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")),
        (file.clone(), Entry::File { content: stripped(binary), mode: 0o755 }),
    ]);
    let libraries = libraries(binary).into_iter().map(|library| {
        let path = library.strip_prefix("/").expect("ldd prints whole paths");
        (path.to_string_lossy().into_owned(), read(&library, 0o755))
    });
    let entries = entries.into_iter().chain(libraries).collect();
    Image { name, entrypoint: vec![format!("/{file}")], entries }
}

fn busybox(name: &'static str, entrypoint: &[&str]) -> Image {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|f| f.join("busybox")).find(|p| p.is_file());
    let busybox = found.expect("`bash tests/run` installs busybox-static");
    let entries = BTreeMap::from([("bin/busybox".to_owned(), read(&busybox, 0o755))]);
    let entrypoint = entrypoint.iter().map(ToString::to_string).collect();
    Image { name, entrypoint, entries }
}

fn stripped(binary: &Path) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let copy = folder.path().join("stripped");
    let strip = Command::new("strip").arg("-o").arg(&copy).arg(binary).output();
    let strip = strip.expect("strip runs");
    assert!(strip.status.success(), "strip: {}", String::from_utf8_lossy(&strip.stderr));
    fs::read(copy).expect("strip has written it")
}

/// The libraries that a binary needs, the loader too, by the paths that it looks for them.
fn libraries(binary: &Path) -> Vec<PathBuf> {
    let ldd = Command::new("ldd").arg(binary).output().expect("ldd runs");
    let text = String::from_utf8_lossy(&ldd.stdout);
    assert!(ldd.status.success() && !text.contains("not found"), "ldd: {text}");
    // NAME => PATH (ADDRESS), or PATH (ADDRESS); what the kernel brings has no path.
    let words =
        text.lines().filter_map(|line| line.split_whitespace().find(|w| w.starts_with('/')));
    words.map(PathBuf::from).collect()
}

fn read(path: &Path, mode: u32) -> Entry {
    let content = fs::read(path);
    Entry::File { content: content.unwrap_or_else(|e| panic!("{}: {e}", path.display())), mode }
}

fn text(content: &str) -> Entry {
    Entry::File { content: content.as_bytes().to_vec(), mode: 0o644 }
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, entry: &Entry) {
    // Its times and owners are zero.
    let mut header = tar::Header::new_gnu();
    let appended = match entry {
        Entry::File { content, mode } => {
            header.set_size(content.len().try_into().expect("a usize fits"));
            header.set_mode(*mode);
            archive.append_data(&mut header, path, &content[..])
        }
        Entry::Link { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            archive.append_link(&mut header, path, target)
        }
    };
    appended.expect("memory does not fail");
}

fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": digest(content),
        "size": content.len(),
    })
}

fn digest(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let digits: Vec<String> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", digits.concat())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => panic!("{other}: no images are made for it"),
    }
}
