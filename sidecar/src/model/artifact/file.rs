//! Files of this machine, read whole and with a bound.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::FetchCause;

// === free functions ===

/// The file's bytes, at most `limit` of them.
pub(super) async fn read(path: PathBuf, limit: u64) -> Result<Bytes, FetchCause> {
    match tokio::task::spawn_blocking(move || read_blocking(&path, limit)).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn read_blocking(path: &Path, limit: u64) -> Result<Bytes, FetchCause> {
    let problem = |problem: String| FetchCause::File { path: path.to_owned(), problem };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => problem("does not exist".to_owned()),
        _ => problem(format!("cannot be read: {error}")),
    };
    // Before it is opened: opening a pipe waits for its writer.
    let kind = fs::metadata(path).map_err(failed)?;
    if kind.is_dir() {
        return Err(problem("is a folder; name the file in it".to_owned()));
    }
    if !kind.is_file() {
        return Err(problem("is not a regular file".to_owned()));
    }
    let file = fs::File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size > limit {
        return Err(FetchCause::TooLarge { limit });
    }
    // A file may grow while it is read, so the bound stands here too.
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(FetchCause::TooLarge { limit });
    }
    Ok(bytes.into())
}
