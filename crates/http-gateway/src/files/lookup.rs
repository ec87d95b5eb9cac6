//! From a path to what is sent for it: the store first, then the disk; fresh enough, and in the coding asked for.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ctl_telemetry::metrics;

use super::entry::{self, Entry};
use super::mount::Mount;
use super::representation::{self, Representation};
use super::root::{OpenError, Root, Wait};
use super::store::{KeyRef, Known};
use super::{Ask, Chosen, RECHECK_MS, Shared, pack, read};
use crate::encoding::{Coding, CodingSet};

impl Shared {
    pub(super) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Finds the file and the coding to send.
    pub(super) fn choose(&self, ask: Ask<'_>, wait: Wait) -> Result<Chosen, OpenError> {
        let mount = self.mounts.get(ask.mount).ok_or(OpenError::NoRoot)?;
        let entry = self.entry(mount, ask, wait)?;
        let coding = ask.accepted.choose(entry.codings);
        if coding == Coding::Identity {
            return Ok(Chosen::Plain(entry));
        }
        if let Some(Known::Coded(id, coded)) = self.store.get(ask.key(coding))
            && id == entry.id
        {
            return Ok(Chosen::Coded(coded));
        }
        if entry.found.sibling(coding).is_none() {
            let useless =
                entry.packing.get(coding as usize).is_none_or(|s| s.load(Relaxed) == pack::state::USELESS);
            return Ok(if useless { Chosen::Plain(entry) } else { Chosen::Pack(entry, coding) });
        }
        match self.sibling(mount, ask, &entry, coding, wait) {
            Ok(coded) => {
                self.store.put(ask.key(coding), Known::Coded(entry.id, Arc::clone(&coded)));
                Ok(Chosen::Coded(coded))
            }
            Err(OpenError::WouldBlock) => Err(OpenError::WouldBlock),
            // It has gone since; the next comparison will see that.
            Err(_) => Ok(Chosen::Plain(entry)),
        }
    }

    /// The file, from the store if that is fresh, else from the disk.
    fn entry(&self, mount: &Mount, ask: Ask<'_>, wait: Wait) -> Result<Arc<Entry>, OpenError> {
        let now_ms = self.now_ms();
        let key = ask.key(Coding::Identity);
        let known = self.store.get(key);
        match &known {
            Some(Known::Here(entry)) if is_fresh(mount, ask, entry, now_ms, wait)? => {
                return Ok(Arc::clone(entry));
            }
            Some(Known::Missing { until_ms }) if now_ms < *until_ms => return Err(OpenError::Missing),
            _ => {}
        }
        for (_, root, _) in mount.candidates(ask.path) {
            root.refresh(now_ms);
        }
        let compress = if mount.plan.edited { CodingSet::IDENTITY } else { self.compress };
        let loaded = entry::load(mount, ask.path, self.max_age, compress, wait);
        match loaded {
            Ok(entry) => {
                entry.checked_ms.store(now_ms, Relaxed);
                Ok(self.settle(key, known.as_ref(), entry))
            }
            Err(error @ (OpenError::WouldBlock | OpenError::NoRoot | OpenError::System(_))) => Err(error),
            Err(error) => {
                let until_ms = if mount.plan.edited { 0 } else { now_ms + RECHECK_MS };
                self.store.put(key, Known::Missing { until_ms });
                Err(error)
            }
        }
    }

    /// Many may load a cold file at one time; the first entry stays, so that it is compressed once for all of them.
    /// `known`: what was in the store before, and was not good enough.
    fn settle(&self, key: KeyRef<'_>, known: Option<&Known>, loaded: Entry) -> Arc<Entry> {
        let _arriving = self.arriving.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(Known::Here(theirs)) = self.store.get(key)
            && !matches!(known, Some(Known::Here(old)) if Arc::ptr_eq(old, &theirs))
            && theirs.found == loaded.found
            && (loaded.settled || theirs.identity.content.is_same(&loaded.identity.content))
        {
            return theirs;
        }
        let entry = Arc::new(loaded);
        self.store.put(key, Known::Here(Arc::clone(&entry)));
        entry
    }

    /// A compressed sibling (`app.css.br`).
    fn sibling(
        &self,
        mount: &Mount,
        ask: Ask<'_>,
        entry: &Entry,
        coding: Coding,
        wait: Wait,
    ) -> Result<Arc<Representation>, OpenError> {
        let found = mount.candidates(ask.path).find(|(i, _, _)| *i == entry.found.root);
        let (_, root, below) = found.ok_or(OpenError::Missing)?;
        let (file, metadata) = root.open(&entry::sibling_path(below, coding), wait)?;
        let identity = entry::Identity::of(&metadata);
        if Some(identity) != entry.found.sibling(coding) {
            return Err(OpenError::Missing);
        }
        let content = representation::content(file, metadata.len(), wait)?;
        Ok(Arc::new(self.recipe(mount, ask.path, identity, coding).make(content, None)))
    }

    fn recipe<'a>(
        &self,
        mount: &'a Mount,
        path: &'a [u8],
        file: entry::Identity,
        coding: Coding,
    ) -> representation::Recipe<'a> {
        representation::Recipe { mount, path, file, varies: true, coding, max_age: self.max_age }
    }

    /// Compresses a file and keeps the result; on the blocking pool.
    pub(super) fn pack_now(&self, ask: Ask<'_>, entry: &Entry, coding: Coding) {
        let packed = self.packed(ask, entry, coding);
        let state = if packed.is_some() { pack::state::IDLE } else { pack::state::USELESS };
        if let Some(coded) = packed {
            self.store.put(ask.key(coding), Known::Coded(entry.id, coded));
            metrics::FILES_COMPRESSED_TOTAL.inc();
        }
        if let Some(place) = entry.packing.get(coding as usize) {
            place.store(state, Relaxed);
        }
        entry.packed.notify_waiters();
    }

    fn packed(&self, ask: Ask<'_>, entry: &Entry, coding: Coding) -> Option<Arc<Representation>> {
        let mount = self.mounts.get(ask.mount)?;
        let identity = &entry.identity;
        let packed = match &identity.content {
            representation::Content::Memory(bytes) => pack::compress(coding, bytes),
            representation::Content::Open(file) => {
                let bytes = read::read(file, 0, identity.size, Wait::Allowed).ok()?;
                // It is being written to; the next comparison will see that.
                if bytes.len() as u64 != identity.size {
                    return None;
                }
                pack::compress(coding, &bytes)
            }
        };
        let packed = packed.ok()?.filter(|packed| (packed.len() as u64) < self.store.entry_max())?;
        let tag = identity.etag.get(1..identity.etag.len().saturating_sub(1))?;
        let recipe = self.recipe(mount, ask.path, entry.found.file, coding);
        Some(Arc::new(recipe.make(representation::Content::Memory(packed.into()), Some(tag))))
    }
}

/// Is it still what lies on the disk? One request in [`RECHECK_MS`] looks; the others take its word.
fn is_fresh(mount: &Mount, ask: Ask<'_>, entry: &Entry, now_ms: u64, wait: Wait) -> Result<bool, OpenError> {
    let checked = entry.checked_ms.load(Relaxed);
    let is_recent = now_ms.saturating_sub(checked) < RECHECK_MS;
    let trusted = !mount.plan.edited
        && (is_recent || entry.checked_ms.compare_exchange(checked, now_ms, Relaxed, Relaxed).is_err());
    if trusted {
        return Ok(true);
    }
    for (_, root, _) in mount.candidates(ask.path) {
        root.refresh(now_ms);
    }
    let look = |root: &Root, below: &[u8]| root.look(below, wait).map(|seen| ((), seen));
    let fresh = match entry::find(mount, ask.path, wait, look) {
        Ok(((), found)) => Ok(entry.settled && found == entry.found),
        Err(OpenError::WouldBlock) => Err(OpenError::WouldBlock),
        Err(_) => Ok(false),
    };
    if fresh != Ok(true) {
        // The next request looks again, unless this one puts another entry in place.
        entry.checked_ms.store(checked, Relaxed);
    }
    fresh
}
