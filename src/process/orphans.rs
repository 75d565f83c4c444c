//! Children that a drop has killed: somebody must ask how they ended, or they stay as zombies.
//!
//! A drop does not wait (D9), so a thread does, for as long as there are any. They have been sent
//! `SIGKILL`, so that is soon.

use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

struct Orphans {
    children: Vec<Child>,
    /// Whether the thread runs, and will look at `children` once more.
    awaited: bool,
}

fn orphans() -> MutexGuard<'static, Orphans> {
    static ORPHANS: Mutex<Orphans> = Mutex::new(Orphans { children: Vec::new(), awaited: false });
    ORPHANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a child in the background.
pub(super) fn adopt(child: Child) {
    let mut orphans = orphans();
    orphans.children.push(child);
    if !orphans.awaited {
        // If there can be no thread now, the next orphan tries again for both.
        orphans.awaited =
            thread::Builder::new().name("ramie-orphans".to_owned()).spawn(await_all).is_ok();
    }
}

fn await_all() {
    loop {
        let mut orphans = orphans();
        let children = std::mem::take(&mut orphans.children);
        if children.is_empty() {
            orphans.awaited = false;
            return;
        }
        drop(orphans);
        for mut child in children {
            let _ = child.wait(); // there is nobody to be told
        }
    }
}
