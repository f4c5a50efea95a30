//! Where views were made, for those who look for the one that keeps a slot: with `FRAMEPORT_TRACE_VIEWS=1` in the
//! environment, which is read once.
//!
//! *Who calls it*: holds and pins, when they are made for a view; [`crate::SlotHolder`] tells what is there. *Invariants*:
//! without the variable nothing is recorded, and a view costs one load more; a record goes with its view; a forked child
//! leaves its parent's records alone. *A hostile peer* has no part in it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, PoisonError};

use frameport_sys::process;
use frameport_sys::process_local;
use frameport_sys::sync::{Mutex, MutexGuard};

use crate::pool::Pool;

static ON: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("FRAMEPORT_TRACE_VIEWS").is_some_and(|value| !value.is_empty() && value != "0"));

/// A pool's address, a slot of it, a number of the view's own. No two living pools have one address, and a view keeps its
/// pool.
type Key = (usize, u32, u64);

process_local! {
    static RECORDS: Mutex<BTreeMap<Key, String>> = Mutex::new(BTreeMap::new());
}

fn records() -> MutexGuard<'static, BTreeMap<Key, String>> {
    RECORDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it is recorded where views are made: `FRAMEPORT_TRACE_VIEWS` was set when this was asked first.
#[must_use]
pub fn traces_views() -> bool {
    *ON
}

/// One view's record.
#[derive(Debug)]
pub(crate) struct Record {
    key: Key,
    pid: u32,
}

impl Record {
    /// Notes where a view of `slot` was made, if that is wanted.
    pub(crate) fn new(pool: &Pool, slot: u32, place: impl FnOnce() -> String) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if !traces_views() {
            return None;
        }
        let key = (address(pool), slot, NEXT.fetch_add(1, Ordering::Relaxed));
        let place = place();
        records().insert(key, place);
        Some(Self { key, pid: process::id() })
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // The lock may have been copied taken.
        if self.pid == process::id() {
            records().remove(&self.key);
        }
    }
}

/// Where the living views of `slot` were made, the oldest first.
pub(crate) fn places(pool: &Pool, slot: u32) -> Vec<String> {
    if !traces_views() {
        return Vec::new();
    }
    let pool = address(pool);
    records().range((pool, slot, 0)..=(pool, slot, u64::MAX)).map(|(_, place)| place.clone()).collect()
}

fn address(pool: &Pool) -> usize {
    std::ptr::from_ref(pool).addr()
}
