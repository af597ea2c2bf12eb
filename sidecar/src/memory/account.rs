//! What models may take of the process's memory, told before they take it: a model that cannot fit is refused by a sentence,
//! where the system would end the process with everything in it.
//!
//! These are estimates of the most that a model takes while it is loaded and served. What calls in flight and runs take
//! beside them is bounded elsewhere, and small beside a model.

use std::{fmt, sync::Arc};

use embark_crds::contract::{CacheMode, Input, ServingConfig};
use parking_lot::Mutex;

use crate::model::{image, refusal::Refusal};

/// What the process has before any model.
const PROCESS_BYTES: u64 = 32 << 20;
/// How often a model's file is in memory at the most: as it was decoded, and as the runtime keeps it. Measured: 2.1 for one of
/// 90 MB with the process itself.
const COPIES: u64 = 2;
/// What a disk tier keeps in memory, in both of its databases.
const DISK_TIER_BYTES: u64 = 32 << 20;

/// The process's memory, and who has what of it.
#[derive(Clone, Debug)]
pub struct Account(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: u64,
    taken: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    name: String,
    needs: Needs,
}

/// What a model needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes of its file.
    file: u64,
    /// The most of its cache's memory tier, and what its disk tier keeps in memory.
    cache: u64,
    /// Whether images are decoded for it.
    images: bool,
}

/// A model's part; given back when it is dropped.
#[derive(Debug)]
pub struct Taken {
    account: Account,
    number: u64,
}

/// Bytes, as a person reads them.
struct Mebibytes(u64);

// === impl Needs ===

impl Needs {
    /// What a model needs beside its file. With `shares_cache` it goes on with the cache of another version.
    pub fn of(serving: &ServingConfig, shares_cache: bool) -> Self {
        let cache = match serving.cache.mode {
            CacheMode::Disabled => 0,
            CacheMode::Memory => serving.cache.memory_bytes,
            CacheMode::MemoryAndDisk => serving.cache.memory_bytes + DISK_TIER_BYTES,
        };
        let cache = if shares_cache { 0 } else { cache };
        Needs { file: 0, cache, images: matches!(serving.input, Input::Image(_)) }
    }

    fn bytes(self) -> u64 {
        COPIES.saturating_mul(self.file).saturating_add(self.cache)
    }
}

// === impl Account ===

impl Account {
    /// An account of so many bytes.
    pub fn of(limit: u64) -> Self {
        Account(Arc::new(Shared { limit, taken: Mutex::default() }))
    }

    /// Takes what a model of this name needs, as far as it is known.
    ///
    /// # Errors
    /// There is too little beside what others have.
    pub fn take(&self, name: &str, needs: Needs) -> Result<Taken, Refusal> {
        let mut taken = self.0.taken.lock();
        self.check(&taken, name, needs)?;
        let number = taken.iter().map(|entry| entry.number + 1).max().unwrap_or(0);
        taken.push(Entry { number, name: name.to_owned(), needs });
        Ok(Taken { account: self.clone(), number })
    }

    fn check(&self, taken: &[Entry], name: &str, needs: Needs) -> Result<(), Refusal> {
        let others = self.others(taken, needs);
        if others.saturating_add(needs.bytes()) <= self.0.limit {
            return Ok(());
        }
        let file = needs.file;
        let (field, parts) = match needs.cache {
            _ if file == 0 => ("spec.cache.memory.sizeLimit", "for its cache".to_owned()),
            0 => ("spec.model.source", format!("{COPIES} times its file of {file} bytes")),
            cache => (
                "spec.model.source",
                format!(
                    "{COPIES} times its file of {file} bytes, and {} for its cache (spec.cache.memory.sizeLimit)",
                    Mebibytes(cache)
                ),
            ),
        };
        let needed = Mebibytes(needs.bytes());
        let sentence =
            format!("it needs about {needed} of memory, {parts}{}", self.rest(taken, name, others));
        Err(Refusal::new(field, sentence))
    }

    /// How much there is, and who has it.
    fn rest(&self, taken: &[Entry], name: &str, others: u64) -> String {
        let (limit, others) = (Mebibytes(self.0.limit), Mebibytes(others));
        let same = taken.iter().find(|entry| entry.name == name);
        let version = same.map(|entry| {
            let bytes = Mebibytes(entry.needs.bytes());
            format!("; {bytes} of it are of the version that serves until this one takes over")
        });
        format!(
            "; the process may use {limit}, and {others} are spoken for{}",
            version.unwrap_or_default()
        )
    }

    /// What is taken already when somebody with these needs comes.
    fn others(&self, taken: &[Entry], needs: Needs) -> u64 {
        let images = needs.images || taken.iter().any(|entry| entry.needs.images);
        let images = if images { image::working_bytes(self.0.limit) } else { 0 };
        let models = taken.iter().map(|entry| entry.needs.bytes()).fold(0, u64::saturating_add);
        PROCESS_BYTES.saturating_add(images).saturating_add(models)
    }
}

// === impl Taken ===

impl Taken {
    /// The largest file that its model may have.
    pub fn most_file_bytes(&self) -> u64 {
        let taken = self.account.0.taken.lock();
        let all = self.account.others(&taken, Needs::default());
        self.account.0.limit.saturating_sub(all) / COPIES
    }

    /// Takes what a file of so many bytes needs too.
    ///
    /// # Errors
    /// There is too little beside what others have.
    pub fn take_file(&self, bytes: u64) -> Result<(), Refusal> {
        let mut taken = self.account.0.taken.lock();
        let Some(at) = taken.iter().position(|entry| entry.number == self.number) else {
            return Ok(());
        };
        let mut own = taken.swap_remove(at);
        let needs = Needs { file: bytes, ..own.needs };
        let fits = self.account.check(&taken, &own.name, needs);
        if fits.is_ok() {
            own.needs = needs;
        }
        taken.push(own);
        fits
    }

    /// From now on the cache that was shared is its own.
    pub fn own_cache(&self, serving: &ServingConfig) {
        let mut taken = self.account.0.taken.lock();
        if let Some(entry) = taken.iter_mut().find(|entry| entry.number == self.number) {
            entry.needs.cache = Needs::of(serving, false).cache;
        }
    }

    /// The sentence for a file that was found to be larger than [`Taken::most_file_bytes`] before its size was known.
    pub fn too_large(&self, most: u64) -> Refusal {
        let mut taken = self.account.0.taken.lock();
        let Some(at) = taken.iter().position(|entry| entry.number == self.number) else {
            return Refusal::new("spec.model.source", "does not fit into memory");
        };
        let own = taken.swap_remove(at);
        let cache = Mebibytes(own.needs.cache);
        let others = self.account.others(&taken, own.needs);
        let rest = self.account.rest(&taken, &own.name, others);
        taken.push(own);
        let sentence = format!(
            "its file has more than {most} bytes, and memory for no more: it takes {COPIES} times its file, beside {cache} for its cache (spec.cache.memory.sizeLimit){rest}"
        );
        Refusal::new("spec.model.source", sentence)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.account.0.taken.lock().retain(|entry| entry.number != self.number);
    }
}

// === impl Mebibytes ===

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0.div_ceil(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn cache(bytes: u64) -> Needs {
        Needs { cache: bytes, ..Needs::default() }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_it_needs_and_what_there_is() {
        let account = Account::of(256 * MIB);
        let taken = account.take("a", cache(64 * MIB)).unwrap();
        assert_eq!(taken.most_file_bytes(), 80 * MIB);
        let refused = taken.take_file(80 * MIB + 1).unwrap_err().to_string();
        assert_eq!(
            refused,
            "spec.model.source: it needs about 225 MiB of memory, 2 times its file of 83886081 bytes, and 64 MiB for its cache (spec.cache.memory.sizeLimit); the process may use 256 MiB, and 32 MiB are spoken for"
        );
        taken.take_file(80 * MIB).unwrap();
        let refused = account.take("b", cache(MIB)).unwrap_err().to_string();
        assert!(
            refused.starts_with("spec.cache.memory.sizeLimit: it needs about 1 MiB"),
            "{refused}"
        );
        assert!(
            refused.ends_with("the process may use 256 MiB, and 256 MiB are spoken for"),
            "{refused}"
        );
        drop(taken);
        account.take("b", cache(224 * MIB)).unwrap();
    }

    #[test]
    fn both_versions_of_a_model_count() {
        let account = Account::of(256 * MIB);
        let old = account.take("a", cache(0)).unwrap();
        old.take_file(64 * MIB).unwrap();
        let new = account.take("a", cache(0)).unwrap();
        assert_eq!(new.most_file_bytes(), 48 * MIB);
        let refused = new.take_file(50 * MIB).unwrap_err().to_string();
        let said = "; 128 MiB of it are of the version that serves until this one takes over";
        assert!(refused.ends_with(said), "{refused}");
        assert!(new.too_large(48 * MIB).to_string().ends_with(said));
        drop(old);
        new.take_file(50 * MIB).unwrap();
    }

    #[test]
    fn images_are_decoded_in_memory_of_their_own_whoever_they_are_for() {
        let account = Account::of(512 * MIB);
        let images = Needs { images: true, ..cache(0) };
        let first = account.take("a", images).unwrap();
        let second = account.take("b", images).unwrap();
        assert_eq!(first.most_file_bytes(), (512 - 32 - 128) / 2 * MIB);
        drop((first, second));
        assert_eq!(account.take("c", cache(0)).unwrap().most_file_bytes(), 240 * MIB);
    }
}
