//! A Unix socket: a file by which the containers of a pod reach each other.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
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
    Io(io::Error),
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
            Ok(_) => remove_left_over(path)?,
            // Binding says what is the matter.
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(NoSocket::Io)?;
        let file = number(path).map_err(NoSocket::Io)?;
        // From here on its file goes with it.
        let socket = Socket { listener, path: path.to_owned(), file };
        fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(NoSocket::Io)?;
        Ok(socket)
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

/// Removes the socket of a process that has gone, of which connecting says that nobody listens. Whatever else it says,
/// the file is somebody's.
fn remove_left_over(path: &Path) -> Result<(), NoSocket> {
    let address = SocketAddrUnix::new(path).map_err(|error| NoSocket::Io(error.into()))?;
    let kind = (AddressFamily::UNIX, SocketType::STREAM);
    // A process that stands still, with callers waiting, is not waited for.
    let ours = socket_with(kind.0, kind.1, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None);
    let ours = ours.map_err(|error| NoSocket::Io(error.into()))?;
    match connect(&ours, &address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(NoSocket::Io),
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => Err(NoSocket::InUse),
        Err(error) => Err(NoSocket::Io(error.into())),
    }
}

fn number(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

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

        // Another program's, of another kind.
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(NoSocket::Io(_))));
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert!(matches!(Socket::bind(&path), Err(NoSocket::Occupied)));
        assert_eq!(fs::read(&path).unwrap(), b"a file");
        let far = folder.path().join("missing/embark.sock");
        assert!(matches!(Socket::bind(&far), Err(NoSocket::Io(_))));
        let long = folder.path().join("long".repeat(40));
        assert!(matches!(Socket::bind(&long), Err(NoSocket::Io(_))));
    }
}
