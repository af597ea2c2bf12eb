//! How a model's cache folder is laid out: a lock file, a meta file, a marker around opening, numbered databases, and
//! what is on its way to be deleted.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::StoreError;

const LOCK: &str = "LOCK";
const META: &str = "meta.json";
const META_NEW: &str = "meta.json.new";
const OPENING: &str = "OPENING";
const DATABASE: &str = "db-";
const TRASH: &str = "trash-";

/// A model's cache folder.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

/// Deletes what is in a folder of caches, but for those of these names and those that are locked.
pub fn discard_others(parent: &Path, names: &[String]) {
    // No folder: nothing to delete.
    let Ok(entries) = fs::read_dir(parent) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_kept = |name: &String| path.file_name().is_some_and(|own| own == name.as_str());
        if names.iter().any(is_kept) {
            continue;
        }
        let deleted = if path.is_dir() {
            // Held until its file is gone: who opens it meanwhile finds another file, or none.
            match Folder::new(path.clone()).lock() {
                Ok(_lock) => remove(&path),
                Err(StoreError::Locked) => continue,
                Err(_) => remove(&path),
            }
        } else {
            allow_missing(fs::remove_file(&path))
        };
        if let Err(error) = deleted {
            tracing::warn!(folder = %path.display(), %error, "an old cache cannot be deleted");
        }
    }
}

// === impl Folder ===

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Folder(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder and takes its lock, which holds as long as the file is open.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        fs::create_dir_all(&self.0).map_err(StoreError::io("make the folder"))?;
        let file = File::options().create(true).truncate(false).write(true).open(self.0.join(LOCK));
        let file = file.map_err(StoreError::io("open the lock file"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked),
            Err(TryLockError::Error(source)) => {
                Err(StoreError::Io { action: "lock the folder".to_owned(), source })
            }
        }
    }

    /// Whether the folder's lock file is still the one that was locked: the folder may be deleted or replaced at any time.
    pub(super) fn is_locked_by(&self, lock: &File) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let there = fs::metadata(self.0.join(LOCK)).map(identity);
        there.is_ok_and(|there| lock.metadata().map(identity).is_ok_and(|held| held == there))
    }

    pub(super) fn meta(&self) -> PathBuf {
        self.0.join(META)
    }

    pub(super) fn meta_new(&self) -> PathBuf {
        self.0.join(META_NEW)
    }

    pub(super) fn database(&self, number: u64) -> PathBuf {
        self.0.join(format!("{DATABASE}{number:08}"))
    }

    /// The numbers of the databases that are there, lowest first. No folder: none.
    pub(super) fn databases(&self) -> Result<Vec<u64>, StoreError> {
        let mut numbers: Vec<u64> = self
            .names()?
            .iter()
            .filter_map(|name| name.strip_prefix(DATABASE)?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether the last opening did not end.
    pub(super) fn has_marker(&self) -> bool {
        self.0.join(OPENING).exists()
    }

    pub(super) fn set_marker(&self) -> Result<(), StoreError> {
        File::create(self.0.join(OPENING)).map(drop).map_err(StoreError::io("mark the opening"))
    }

    pub(super) fn clear_marker(&self) -> Result<(), StoreError> {
        allow_missing(fs::remove_file(self.0.join(OPENING)))
            .map_err(StoreError::io("unmark the opening"))
    }

    /// Takes a database out of use for good. Once this gives `Ok` it is never opened again, even when some of its bytes
    /// could not be deleted yet.
    pub(super) fn discard(&self, number: u64) -> Result<(), StoreError> {
        let database = self.database(number);
        let trash = (0..).map(|n| self.0.join(format!("{TRASH}{number:08}-{n}")));
        let trash = trash.into_iter().find(|path| !path.exists()).unwrap_or(database.clone());
        match fs::rename(&database, &trash) {
            Ok(()) => {
                if let Err(error) = remove(&trash) {
                    tracing::warn!(folder = %trash.display(), %error, "left for later deletion");
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(_) => remove(&database).map_err(StoreError::io("delete a database")),
        }
    }

    /// [`Folder::discard`] for every database. Tries all before it gives the first failure.
    pub(super) fn discard_all(&self) -> Result<(), StoreError> {
        let results: Vec<_> = self.databases()?.into_iter().map(|n| self.discard(n)).collect();
        results.into_iter().collect()
    }

    /// Deletes what is on its way to be deleted.
    pub(super) fn empty_trash(&self) -> Result<(), StoreError> {
        for name in self.names()?.iter().filter(|name| name.starts_with(TRASH)) {
            remove(&self.0.join(name)).map_err(StoreError::io("delete a leftover"))?;
        }
        allow_missing(fs::remove_file(self.meta_new())).map_err(StoreError::io("delete a leftover"))
    }

    /// Bytes of every file in the folder.
    pub(super) fn bytes(&self) -> Result<u64, StoreError> {
        bytes_under(&self.0).map_err(StoreError::io("count the folder's bytes"))
    }

    /// Bytes of every file of a database; 0 when it is not there.
    pub(super) fn database_bytes(&self, number: u64) -> Result<u64, StoreError> {
        bytes_under(&self.database(number)).map_err(StoreError::io("count the folder's bytes"))
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(vec![]),
            Err(error) => return Err(StoreError::io("list the folder")(error)),
        };
        let mut names = vec![];
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list the folder"))?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }
}

// === free functions ===

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn allow_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_absent(&error) => Ok(()),
        other => other,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match allow_missing(fs::remove_dir_all(path)) {
        Err(_) if path.is_file() => fs::remove_file(path),
        other => other,
    }
}

/// Files that go away while they are counted count 0.
fn bytes_under(path: &Path) -> io::Result<u64> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes += bytes_under(&entry.path())?,
            Ok(metadata) => bytes += metadata.len(),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().join("model"));
        (dir, folder)
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_gone() {
        let (_dir, folder) = folder();
        let lock = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(StoreError::Locked)));
        drop(lock);
        folder.lock().unwrap();
    }

    #[test]
    fn a_discarded_database_is_gone_with_its_bytes() {
        let (_dir, folder) = folder();
        fs::create_dir_all(folder.database(3).join("blobs")).unwrap();
        fs::write(folder.database(3).join("blobs/7"), [0; 100]).unwrap();
        fs::create_dir_all(folder.database(12)).unwrap();
        assert_eq!((folder.databases().unwrap(), folder.bytes().unwrap()), (vec![3, 12], 100));
        folder.discard(3).unwrap();
        assert_eq!((folder.databases().unwrap(), folder.bytes().unwrap()), (vec![12], 0));
        folder.discard(3).unwrap();
    }

    #[test]
    fn caches_of_other_spaces_are_deleted_unless_somebody_has_them_open() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kept", "open", "old"] {
            fs::create_dir_all(dir.path().join(name).join("db-00000001")).unwrap();
        }
        fs::write(dir.path().join("meta.json"), "{}").unwrap();
        let lock = Folder::new(dir.path().join("open")).lock().unwrap();
        let left = || {
            let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        let kept = ["kept".to_owned()];
        discard_others(dir.path(), &kept);
        assert_eq!(left(), ["kept", "open"]);
        drop(lock);
        discard_others(dir.path(), &kept);
        assert_eq!(left(), ["kept"]);
        discard_others(&dir.path().join("none"), &kept);
    }

    #[test]
    fn a_folder_that_is_not_there_has_nothing() {
        let (_dir, folder) = folder();
        assert_eq!((folder.databases().unwrap(), folder.bytes().unwrap()), (vec![], 0));
        folder.discard_all().unwrap();
        folder.empty_trash().unwrap();
    }
}
