//! Files of settings, read whole and never beyond a limit.

use std::{fs::File, io::Read as _, path::Path};

/// The bytes of a file.
///
/// # Errors
/// What is wrong with it, a sentence with its path.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(format!("{}: has more than {limit} bytes", path.display()));
    }
    Ok(bytes)
}

/// The sentence for a file or folder that cannot be read.
pub fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{}: cannot be read: {error}", path.display())
}
