//! Children that a drop has killed: somebody must ask how they ended, or they stay as zombies.
//!
//! A drop does not wait (D9), so a thread does, for as long as there are any. They have been sent
//! `SIGKILL`, so that is soon, as a rule. A program that runs as another user cannot be killed, and
//! goes on: so all are asked in turn, and none keeps the others from being waited for.

use std::process::Child;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

struct Orphans {
    children: Vec<Child>,
    /// Whether the thread runs, and will look at `children` once more.
    awaited: bool,
}

/// There is another one.
static ANOTHER: Condvar = Condvar::new();

fn orphans() -> MutexGuard<'static, Orphans> {
    static ORPHANS: Mutex<Orphans> = Mutex::new(Orphans { children: Vec::new(), awaited: false });
    ORPHANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a child in the background.
pub(super) fn adopt(child: Child) {
    let mut orphans = orphans();
    orphans.children.push(child);
    ANOTHER.notify_one();
    if !orphans.awaited {
        // If there can be no thread now, the next orphan tries again for both.
        orphans.awaited =
            thread::Builder::new().name("ramie-orphans".to_owned()).spawn(await_all).is_ok();
    }
}

fn await_all() {
    let mut orphans = orphans();
    let (mut known, mut pause) = (0, FIRST_PAUSE);
    loop {
        if orphans.children.len() > known {
            pause = FIRST_PAUSE;
        }
        // An error: there is nobody to be told.
        orphans.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        known = orphans.children.len();
        if known == 0 {
            orphans.awaited = false;
            return;
        }
        let woken = ANOTHER.wait_timeout(orphans, pause);
        orphans = woken.unwrap_or_else(PoisonError::into_inner).0;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::kill;
    use std::process::Command;

    #[test]
    fn one_that_goes_on_keeps_no_other_waiting() {
        let started = || Command::new("sleep").arg("1000").spawn().unwrap();
        let (goes_on, mut killed) = (started(), started());
        let (first, second) = (goes_on.id(), killed.id());
        adopt(goes_on);
        thread::sleep(Duration::from_millis(50)); // the thread waits for it by now
        killed.kill().unwrap();
        adopt(killed);
        let exists = |id: u32| std::path::Path::new("/proc").join(id.to_string()).exists();
        let is_gone = |id| {
            (0..2000).any(|_| {
                thread::sleep(Duration::from_millis(10));
                !exists(id)
            })
        };
        let waited_for = is_gone(second);
        kill(first, libc::SIGKILL).unwrap();
        assert!(waited_for && is_gone(first));
    }
}
