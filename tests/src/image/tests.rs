use super::*;

/// What a Dockerfile says of the image that it ends with.
#[derive(Debug, Default)]
struct Dockerfile {
    base: String,
    commands: Vec<String>,
    copied: Vec<String>,
    entrypoint: Vec<String>,
    user: String,
}

impl Dockerfile {
    fn read(folder: &str) -> Dockerfile {
        let path = programs::root().join(folder).join("Dockerfile");
        let text = fs::read_to_string(&path).unwrap().replace("\\\n", " ");
        let mut read = Dockerfile::default();
        for line in text.lines() {
            let (instruction, rest) = line.split_once(' ').unwrap_or((line, ""));
            let words: Vec<&str> = rest.split_whitespace().collect();
            match instruction {
                // A new stage: what the one before it copied is not in the image.
                "FROM" => {
                    read.base = words[0].to_owned();
                    read.copied.clear();
                }
                "RUN" => read.commands.push(words.join(" ")),
                "COPY" if words[0].starts_with("--from=") => {
                    read.copied.push((*words.last().unwrap()).to_owned());
                }
                "COPY" => read.copied.push(format!("{words:?} of the clone")),
                "USER" => read.user = rest.to_owned(),
                "ENTRYPOINT" => read.entrypoint = serde_json::from_str(rest).unwrap(),
                "" | "#" | "ARG" | "WORKDIR" => {}
                _ if line.starts_with('#') => {}
                other => panic!("{}: nobody compares {other}", path.display()),
            }
        }
        read
    }
}

fn compare(folder: &str, image: &Image) {
    let dockerfile = Dockerfile::read(folder);
    assert_eq!(dockerfile.entrypoint, image.entrypoint(), "{folder}: ENTRYPOINT");
    assert_eq!(dockerfile.user, USER, "{folder}: USER");
    // The rest of the archive is what the base has: libraries, certificates, accounts.
    assert!(dockerfile.base.ends_with("distroless/cc-debian12:nonroot"), "{}", dockerfile.base);
    let files: Vec<String> = image.files().collect();
    let of_base = |path: &String| ["/etc/", "/lib/", "/lib64/"].iter().any(|f| path.starts_with(f));
    let ours: Vec<String> = files.iter().filter(|path| !of_base(path)).cloned().collect();
    assert_eq!(dockerfile.copied, ours, "{folder}: COPY");
    let builds = format!("cargo build --release --locked --bin embark-{folder}");
    let strips = format!("strip target/release/embark-{folder}");
    for command in [builds, strips] {
        let runs = dockerfile.commands.iter().any(|line| line.contains(&command));
        assert!(runs, "{folder}: no RUN has `{command}`");
    }
}

#[test]
fn operators_dockerfile_says_what_its_archive_holds() {
    compare("operator", &operator());
}

#[test]
fn sidecars_dockerfile_says_what_its_archive_holds() {
    compare("sidecar", &sidecar());
}

#[test]
fn archive_of_the_same_image_is_the_same() {
    assert_eq!(client().archive(), client().archive());
}

#[test]
fn program_runs_with_nothing_but_what_its_image_holds() {
    let image = sidecar();
    let folder = tempfile::tempdir().unwrap();
    tar::Archive::new(&image.layer()[..]).unpack(folder.path()).unwrap();
    let mut loader = image.files().filter(|path| path.contains("/ld-linux"));
    let loader = folder.path().join(loader.next().unwrap().trim_start_matches('/'));
    let libraries: Vec<PathBuf> = image
        .files()
        .filter(|path| path.contains(".so"))
        .map(|path| folder.path().join(path.trim_start_matches('/')).parent().unwrap().to_owned())
        .collect();
    let output = Command::new(loader)
        .args(["--inhibit-cache", "--library-path"])
        .arg(std::env::join_paths(libraries).unwrap())
        .arg(folder.path().join("embark-sidecar"))
        .arg("--version")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("embark-sidecar "), "{text} {output:?}");
    assert!(image.size() < 200 << 20, "{} bytes", image.size());
}
