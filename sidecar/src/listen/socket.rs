//! A Unix socket: a file by which the containers of a pod reach each other.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;
use tracing::warn;

/// Everybody who reaches the folder may call: the containers of a pod run as users of their own.
const MODE: u32 = 0o666;

/// A socket that is listened on. Its file goes with it.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file, by which another's in its place is told apart.
    file: (u64, u64),
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum NoSocket {
    /// Something else stands at the path, and is left alone.
    #[error("is there already, and is no socket")]
    Occupied,
    /// Another process listens there.
    #[error("another process listens there")]
    InUse,
    /// The system refused.
    #[error("cannot be listened on: {0}")]
    Io(#[from] io::Error),
}

// === impl Socket ===

impl Socket {
    /// Listens at a path, where the socket of a process that was killed may still be.
    ///
    /// # Errors
    /// Something else is there, another process listens, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, NoSocket> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(NoSocket::Occupied),
            Ok(_) if UnixStream::connect(path).is_ok() => return Err(NoSocket::InUse),
            Ok(_) => fs::remove_file(path)?,
            // Binding says what is the matter.
            Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        let file = number(path)?;
        Ok(Socket { listener, path: path.to_owned(), file })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = number(&self.path).is_ok_and(|file| file == self.file);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            warn!("{}: cannot be removed: {error}", self.path.display());
        }
    }
}

// === free functions ===

fn number(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_left_over_is_replaced_and_anything_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("embark.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(matches!(Socket::bind(&path), Err(NoSocket::InUse)));
        assert!(UnixStream::connect(&path).is_ok(), "the first still listens");

        // Another's in its place outlives it.
        fs::remove_file(&path).unwrap();
        let second = Socket::bind(&path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());

        fs::write(&path, "a file").unwrap();
        assert!(matches!(Socket::bind(&path), Err(NoSocket::Occupied)));
        assert_eq!(fs::read(&path).unwrap(), b"a file");
        let far = folder.path().join("missing/embark.sock");
        assert!(matches!(Socket::bind(&far), Err(NoSocket::Io(_))));
        let long = folder.path().join("long".repeat(40));
        assert!(matches!(Socket::bind(&long), Err(NoSocket::Io(_))));
    }
}
