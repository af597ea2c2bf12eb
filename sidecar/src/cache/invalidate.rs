//! How a cache forgets: off the threads that answer, and one invalidation's work at a time.

use std::{sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::timeout};

use super::{Cache, store::RuleError};
use crate::{
    error::{Error, ErrorKind, chain},
    key::CacheKey,
};

/// How long a raised epoch is waited for until it is on disk. A policy waits for it, and a disk that hangs must not keep
/// it away for long: what it raised holds already.
const EPOCH_LIMIT: Duration = Duration::from_secs(2);

// === impl Cache ===

impl Cache {
    /// Makes entries of a lower epoch count no more, from before this is waited for; does nothing when the epoch is not
    /// higher than the one that counts. Once this returns without an error, the disk tier remembers it, unless another call
    /// raised it before and said that it does not.
    ///
    /// # Errors
    /// [`ErrorKind::NotDurable`] when it holds only until a restart, as far as is known.
    pub async fn raise_epoch(&self, epoch: u64) -> Result<(), Error> {
        let rules = &self.memory.rules;
        if rules.epoch() >= epoch {
            return Ok(());
        }
        rules.raise_epoch(epoch);
        let remembered = match &self.store {
            Some(store) => timeout(EPOCH_LIMIT, store.raise_epoch(epoch)).await,
            None => Ok(Ok(())),
        };
        let memory = self.memory.clone();
        let purge = move || {
            memory.negatives.retain_epoch(epoch);
            memory.hot.iter().for_each(|hot| hot.retain_epoch(epoch));
        };
        // Frees memory; no lookup gives an entry of another epoch.
        let _ = self.in_turn(purge).await;
        let why = match remembered {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => chain(&why),
            Err(_) => format!("the disk cache did not answer within {EPOCH_LIMIT:?}"),
        };
        let message = format!("epoch {epoch} holds until this process restarts, no longer: {why}");
        Err(Error::new(ErrorKind::NotDurable, message))
    }

    /// Makes every entry created at or before `before_ms` count no more: once this returns, no lookup gives one.
    ///
    /// # Errors
    /// [`ErrorKind::NotDurable`] when that holds only until a restart.
    pub async fn invalidate_all(&self, before_ms: u64) -> Result<(), Error> {
        self.memory.rules.invalidate_all(before_ms);
        let memory = self.memory.clone();
        let purge = move || {
            memory.negatives.retain_after(before_ms);
            memory.hot.iter().for_each(|hot| hot.retain_after(before_ms));
        };
        // The purge frees memory; the rule stands without it.
        let _ = self.in_turn(purge).await;
        match &self.store {
            Some(store) => store.forget_all(before_ms).await.map_err(not_durable),
            None => Ok(()),
        }
    }

    /// As [`Cache::invalidate_all`], for the entries of some keys.
    ///
    /// # Errors
    /// [`ErrorKind::NotDurable`] when that holds only until a restart; [`ErrorKind::WorkerLost`] when the process ends.
    pub async fn invalidate_items(&self, keys: Vec<CacheKey>, before_ms: u64) -> Result<(), Error> {
        let memory = self.memory.clone();
        let add = move || {
            let ticket = memory.rules.add_items(&keys, before_ms);
            keys.iter().for_each(|key| memory.purge(key, before_ms));
            (keys, ticket)
        };
        let (keys, ticket) = self.in_turn(add).await?;
        if let Some(store) = &self.store {
            // Without a tombstone the rules stay in memory as long as the process.
            store.forget(keys, before_ms).await.map_err(not_durable)?;
        }
        let memory = self.memory.clone();
        let complete = move || {
            memory.rules.complete_items(ticket, |key, before_ms| memory.purge(key, before_ms));
        };
        // Frees memory; the rules hold, and stay when it does not happen.
        let _ = self.in_turn(complete).await;
        Ok(())
    }

    /// Does work on a thread that may block; one at a time, so that many invalidations take no more than one thread of
    /// those that misses need. Work that has begun ends, also when its caller leaves.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let lost = || Error::new(ErrorKind::WorkerLost, "forgetting did not come to its end");
        let turn = Arc::clone(&self.forgetting).acquire_owned().await.map_err(|_| lost())?;
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        spawn_blocking(work).await.map_err(|_| lost())
    }
}

// === free functions ===

fn not_durable(why: RuleError) -> Error {
    let why = chain(&why);
    let message = format!("the invalidation holds until this process restarts, no longer: {why}");
    Error::new(ErrorKind::NotDurable, message)
}
