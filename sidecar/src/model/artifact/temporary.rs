//! A file of the store while it is being written. It is gone unless it is kept, so that no part of a file is ever used.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    fs::File,
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
};
use tracing::warn;

/// A file of the store that is being written; it is gone unless it is kept.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    file: File,
    kept: bool,
}

// === impl Temporary ===

impl Temporary {
    /// A new file, or an empty one.
    pub(super) async fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path).await?;
        Ok(Temporary { path: path.to_owned(), file, kept: false })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes on.
    pub(super) async fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk).await
    }

    /// Takes out what was written.
    pub(super) async fn empty(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.set_len(0).await?;
        self.file.rewind().await.map(|_| ())
    }

    /// Puts it at its place, where it stays whatever happens to the machine.
    pub(super) async fn keep_as(mut self, path: &Path) -> io::Result<()> {
        // sync_all alone would lose the error of a write that is still under way.
        self.file.flush().await?;
        self.file.sync_all().await?;
        tokio::fs::rename(&self.path, path).await?;
        self.kept = true;
        match path.parent() {
            Some(folder) => File::open(folder).await?.sync_all().await,
            None => Ok(()),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            warn!(file = %self.path.display(), %error, "an unfinished file cannot be deleted");
        }
    }
}
