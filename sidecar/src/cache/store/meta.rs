//! What is known of a model's cache folder beside its databases: one small JSON file, replaced whole.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
};

use serde::{Deserialize, Serialize};

use super::{StoreError, folder::Folder};

/// The version of everything in the folder.
pub(super) const FORMAT: u32 = 1;

const MOST_BYTES: u64 = 64 * 1024;

/// The folder's meta file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Meta {
    /// [`FORMAT`] of the writer.
    pub(super) format: u32,
    /// The highest epoch seen.
    pub(super) epoch: u64,
    /// Entries created at or before do not count.
    pub(super) invalidated_before_ms: Option<u64>,
    /// The highest time of any tombstone written.
    pub(super) items_invalidated_before_ms: Option<u64>,
    /// Whether the databases were closed in order.
    pub(super) clean: bool,
}

/// What the meta file says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// There is none.
    Missing,
    /// This.
    Meta(Meta),
    /// Another version wrote it.
    OtherFormat(u64),
    /// It is not a meta file.
    Unreadable,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    meta: Meta,
    checksum: String,
}

// === impl Meta ===

impl Meta {
    pub(super) fn new() -> Self {
        Meta {
            format: FORMAT,
            epoch: 0,
            invalidated_before_ms: None,
            items_invalidated_before_ms: None,
            clean: true,
        }
    }

    /// Reads the folder's meta file.
    pub(super) fn read(folder: &Folder) -> Result<Reading, StoreError> {
        let mut text = String::new();
        let read = File::open(folder.meta())
            .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text));
        match read {
            Ok(_) => Ok(parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Reading::Missing),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Reading::Unreadable),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(Reading::Unreadable),
            Err(error) => Err(StoreError::io("read the meta file")(error)),
        }
    }

    /// Replaces the folder's meta file; on the disk itself when this returns.
    pub(super) fn write(&self, folder: &Folder) -> Result<(), StoreError> {
        let error = || StoreError::io("write the meta file");
        let sealed = Sealed { meta: self.clone(), checksum: self.checksum() };
        let text = serde_json::to_vec_pretty(&sealed).map_err(io::Error::from).map_err(error())?;
        let written = File::create(folder.meta_new()).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
        written.map_err(error())?;
        if folder.meta().is_dir() {
            fs::remove_dir_all(folder.meta()).map_err(error())?;
        }
        fs::rename(folder.meta_new(), folder.meta()).map_err(error())?;
        File::open(folder.path()).and_then(|folder| folder.sync_all()).map_err(error())
    }

    fn checksum(&self) -> String {
        blake3::hash(format!("{self:?}").as_bytes()).to_string()
    }
}

// === free functions ===

fn parse(text: &str) -> Reading {
    if let Ok(sealed) = serde_json::from_str::<Sealed>(text)
        && sealed.meta.format == FORMAT
    {
        if sealed.checksum == sealed.meta.checksum() {
            return Reading::Meta(sealed.meta);
        }
        return Reading::Unreadable;
    }
    // Another version may have other fields, but says its number in the same place.
    let value = serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    match value["meta"]["format"].as_u64() {
        Some(format) if format != u64::from(FORMAT) => Reading::OtherFormat(format),
        _ => Reading::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta {
            epoch: 4,
            invalidated_before_ms: Some(1_700_000_000_000),
            items_invalidated_before_ms: None,
            clean: false,
            ..Meta::new()
        }
    }

    #[test]
    fn a_meta_file_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned());
        assert_eq!(Meta::read(&folder).unwrap(), Reading::Missing);
        meta().write(&folder).unwrap();
        assert_eq!(Meta::read(&folder).unwrap(), Reading::Meta(meta()));
    }

    #[test]
    fn a_changed_number_makes_it_unreadable() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned());
        meta().write(&folder).unwrap();
        let text = fs::read_to_string(folder.meta()).unwrap();
        fs::write(folder.meta(), text.replace("1700000000000", "1600000000000")).unwrap();
        assert_eq!(Meta::read(&folder).unwrap(), Reading::Unreadable);
        fs::write(folder.meta(), "").unwrap();
        assert_eq!(Meta::read(&folder).unwrap(), Reading::Unreadable);
        fs::write(folder.meta(), [0xff, 0xfe]).unwrap();
        assert_eq!(Meta::read(&folder).unwrap(), Reading::Unreadable);
    }

    #[test]
    fn another_format_is_told_from_damage() {
        let text = r#"{"meta": {"format": 7, "what": "ever"}}"#;
        assert_eq!(parse(text), Reading::OtherFormat(7));
        assert_eq!(parse("[]"), Reading::Unreadable);
    }
}
