//! Near-duplicates: photos, and copies of them that were scaled, cropped, brightened and compressed again. Their bytes have
//! nothing in common; their vectors do.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use embark_sidecar::{
    args::Address,
    grpc::client::{Client, Options},
};
use tokio::time::Instant;

use super::{
    Place,
    report::{Batch, cosine, counts, print},
    server::Server,
};

/// The name of the model in examples/images.yaml.
const MODEL: &str = "images";
/// From this cosine on, two images are one. Measured for this model: examples/README.md says how.
const THRESHOLD: f32 = 0.60;

/// Images of a call, which has half a minute on however slow a machine.
const BATCH: usize = 8;

/// A file of examples/photos.
struct Photo {
    /// Its name without the ending.
    name: String,
    file: Vec<u8>,
}

/// Two images that are alike.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pair {
    one: usize,
    other: usize,
    cosine: f32,
}

/// Finds the copies, and says where vectors came from; gives a server that was left running.
///
/// # Errors
/// A copy was not found, or two photos were taken for one.
pub(crate) async fn found(place: &Place, once: bool) -> Result<Option<Server>> {
    let photos = photos(&place.examples.join("photos"))?;
    let manifest = place.examples.join("images.yaml");
    let server = Server::start(&place.binary, &manifest, &place.data).await?;
    print(&format!(
        "started: {}\n  gRPC on {}, admin on {}; {} images of examples/photos\n",
        server.command,
        server.grpc,
        server.admin,
        photos.len()
    ));
    let first = embed(&server, &photos).await?;
    let (pairs, highest) = compared(&first.vectors, &photos);
    table(&pairs, &photos);
    check(&pairs, &photos)?;
    print(&format!(
        "\n{} pairs in all, none of them of two different photos, which come no closer than {highest:.2}.\n",
        pairs.len()
    ));
    let again = embed(&server, &photos).await?;
    seen(&first, &again)?;
    if once {
        server.stop().await?;
        return Ok(None);
    }
    try_next(&server);
    Ok(Some(server))
}

/// The files, by name.
fn photos(folder: &Path) -> Result<Vec<Photo>> {
    let mut photos = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "jpg" || ending == "webp") {
            let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
            photos.push(Photo { name, file: fs::read(&path)? });
        }
    }
    photos.sort_by(|one, other| one.name.cmp(&other.name));
    ensure!(!photos.is_empty(), "there are no photos in {}", folder.display());
    Ok(photos)
}

async fn embed(server: &Server, photos: &[Photo]) -> Result<Batch> {
    let address = Address { address: server.grpc.clone(), ..Address::default() };
    let mut client = Client::connect(&address).await?;
    let most = client.describe(MODEL).await?.max_items.min(BATCH);
    let options = Options { model: MODEL.to_owned(), ..Options::default() };
    let started = Instant::now();
    let mut embedded = Vec::new();
    for some in photos.chunks(most) {
        let files = some.iter().map(|photo| photo.file.clone()).collect();
        embedded.extend(client.embed_images(files, &options).await?);
    }
    let took = started.elapsed();
    for (one, photo) in embedded.iter().zip(photos) {
        ensure!(one.error.is_none(), "{} was refused: {:?}", photo.name, one.error);
    }
    let sources = embedded.iter().map(|one| one.source).collect();
    Ok(Batch { took, sources, vectors: embedded.into_iter().map(|one| one.vector).collect() })
}

/// The pairs that are alike, and the highest cosine of two different photos.
fn compared(vectors: &[Vec<f32>], photos: &[Photo]) -> (Vec<Pair>, f32) {
    let (mut pairs, mut highest) = (Vec::new(), -1.0_f32);
    for one in 0..vectors.len() {
        for other in one + 1..vectors.len() {
            let cosine = cosine(&vectors[one], &vectors[other]);
            if cosine >= THRESHOLD {
                pairs.push(Pair { one, other, cosine });
            }
            if photos[one].of() != photos[other].of() {
                highest = highest.max(cosine);
            }
        }
    }
    (pairs, highest)
}

/// Prints what was found: each image that is first of its kind, and those that are like it.
fn table(pairs: &[Pair], photos: &[Photo]) {
    print(&format!(
        "\nImages whose vectors have a cosine of at least {THRESHOLD:.2}, found among all:\n\n"
    ));
    let width = photos.iter().map(|photo| photo.name.chars().count()).max().unwrap_or_default();
    print(&format!("  {:<width$}   {:<width$}   cosine\n", "image", "is like"));
    print(&format!("  {0}   {0}   ------\n", "-".repeat(width)));
    let is_like_an_earlier = |image: usize| pairs.iter().any(|pair| pair.other == image);
    for pair in pairs.iter().filter(|pair| !is_like_an_earlier(pair.one)) {
        let (one, other) = (&photos[pair.one].name, &photos[pair.other].name);
        print(&format!("  {one:<width$}   {other:<width$}   {:.2}\n", pair.cosine));
    }
}

/// Every copy is found, and nothing else.
fn check(pairs: &[Pair], photos: &[Photo]) -> Result<()> {
    for one in 0..photos.len() {
        for other in one + 1..photos.len() {
            let alike = pairs.iter().any(|pair| (pair.one, pair.other) == (one, other));
            let (one, other) = (&photos[one], &photos[other]);
            let (a, b) = (&one.name, &other.name);
            ensure!(alike || one.of() != other.of(), "{a} and {b} are one, and were not found");
            ensure!(!alike || one.of() == other.of(), "{a} and {b} were taken for one");
        }
    }
    Ok(())
}

/// Prints where vectors came from.
fn seen(first: &Batch, again: &Batch) -> Result<()> {
    let count = first.vectors.len();
    print(&format!("\nWhere the vectors of the same {count} images came from:\n\n"));
    for (what, batch, wanted) in [("first time", first, "COMPUTED"), ("again", again, "HIT_MEMORY")]
    {
        let milliseconds = batch.took.as_secs_f64() * 1e3;
        let found = counts(&batch.sources);
        print(&format!("  {what:<10}   {found:<14}   {milliseconds:>9.1} ms\n"));
        let only = batch.sources.iter().all(|source| *source == wanted);
        ensure!(only, "{what}: expected {wanted} for every image, found {found}");
    }
    ensure!(first.vectors == again.vectors, "a vector changed");
    Ok(())
}

fn try_next(server: &Server) {
    let (grpc, admin) = (&server.grpc, &server.admin);
    print(&format!(
        "\nThe server is still running; Ctrl-C ends it. Try, in another terminal:\n\
         \n  curl http://{admin}/status\n  \
         echo \"{{\\\"items\\\": [{{\\\"image\\\": \\\"$(base64 -w0 examples/photos/cat.jpg)\\\"}}]}}\" | \\\n    \
         grpcurl -plaintext -d @ {grpc} embark.v1.EmbeddingService/Embed\n"
    ));
}

// === impl Photo ===

impl Photo {
    /// Which photo it is, or is a copy of: what its name begins with.
    fn of(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photos(names: &[&str]) -> Vec<Photo> {
        let photo = |name: &&str| Photo { name: (*name).to_owned(), file: Vec::new() };
        names.iter().map(photo).collect()
    }

    #[test]
    fn copies_are_found_and_what_is_not_found_or_wrong_is_said() {
        let photos = photos(&["cat", "cat-cropped", "dog"]);
        let vectors = [vec![1.0, 0.0], vec![0.9, 0.1], vec![0.5, 1.0]];
        let (pairs, highest) = compared(&vectors, &photos);
        let found: Vec<_> = pairs.iter().map(|pair| (pair.one, pair.other)).collect();
        assert_eq!(found, [(0, 1)]);
        assert!((0.5..THRESHOLD).contains(&highest), "{highest}");
        check(&pairs, &photos).unwrap();
        let missed = check(&[], &photos).unwrap_err().to_string();
        assert_eq!(missed, "cat and cat-cropped are one, and were not found");
        let wrong = [Pair { one: 1, other: 2, cosine: 0.7 }, pairs[0]];
        let wrong = check(&wrong, &photos).unwrap_err().to_string();
        assert_eq!(wrong, "cat-cropped and dog were taken for one");
    }
}
