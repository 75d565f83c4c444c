//! The thread that hears of every signal, and all who are to hear of it from there.

use crate::sync::lock::Locked;
use crate::sync::wait::Queue;
use crate::sys::caught;
use crate::sys::signal::{Action, FAULTS};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The part of a `Signals` that the thread knows.
pub(crate) struct Listener {
    /// What it listens for, a bit each.
    wanted: u64,
    pub(super) state: Locked<State>,
}

/// What has come and has not been received.
pub(crate) struct State {
    come: u64,
    /// The number that was received last, so that each kind has its turn.
    last: u32,
    pub(crate) waiting: Queue,
}

impl State {
    pub(crate) fn is_empty(&self) -> bool {
        self.come == 0
    }

    /// The next number above the last one, or else the lowest.
    pub(super) fn take(&mut self) -> Option<i32> {
        let above = self.come & u64::MAX.checked_shl(self.last).unwrap_or(0);
        let first = if above == 0 { self.come } else { above };
        let bit = first & first.wrapping_neg();
        self.come &= !bit;
        if bit == 0 {
            return None;
        }
        self.last = bit.trailing_zeros() + 1;
        Some(self.last.cast_signed())
    }
}

impl Listener {
    pub(super) fn numbers(&self) -> impl Iterator<Item = i32> {
        (1..=64).filter(|signal| caught::bit(*signal).is_some_and(|bit| bit & self.wanted != 0))
    }

    fn tell(&self, come: u64) {
        let mut state = self.state.lock();
        state.come |= come;
        let waiting = state.waiting.claim_all();
        drop(state);
        waiting.wake();
    }
}

struct Hub {
    listeners: Vec<Arc<Listener>>,
    has_thread: bool,
}

fn hub() -> MutexGuard<'static, Hub> {
    static HUB: Mutex<Hub> = Mutex::new(Hub { listeners: Vec::new(), has_thread: false });
    HUB.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new listener for these signals.
pub(super) fn listen(signals: &[i32]) -> io::Result<Arc<Listener>> {
    let mut wanted = 0;
    for &signal in signals {
        wanted |= check(signal)?;
    }
    if wanted == 0 {
        return Err(invalid("no signals to receive".to_owned()));
    }
    let state = Locked::new(State { come: 0, last: 0, waiting: Queue::new() });
    let listener = Arc::new(Listener { wanted, state });
    let mut hub = hub();
    if !hub.has_thread {
        thread::Builder::new().name("ramie-signals".to_owned()).spawn(pass_on)?;
        hub.has_thread = true;
    }
    for &signal in signals {
        caught::catch(signal)?;
    }
    hub.listeners.push(Arc::clone(&listener));
    Ok(listener)
}

/// The bit of a signal that can be received.
fn check(signal: i32) -> io::Result<u64> {
    let why = match (signal, caught::bit(signal)) {
        (libc::SIGKILL | libc::SIGSTOP, _) => "nobody can",
        (fault, _) if FAULTS.contains(&fault) => {
            "it is about what a thread has just done, which cannot go on"
        }
        (_, Some(bit)) if Action::get(signal).is_ok() => return Ok(bit),
        _ => "there is no such signal",
    };
    Err(invalid(format!("signal {signal} cannot be received: {why}")))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Takes a listener off the list.
pub(super) fn forget(listener: &Arc<Listener>) {
    hub().listeners.retain(|other| !Arc::ptr_eq(other, listener));
}

/// The thread.
fn pass_on() {
    loop {
        let come = caught::next();
        for listener in &hub().listeners {
            if come & listener.wanted != 0 {
                listener.tell(come & listener.wanted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_turn() {
        let mut state = State { come: 0, last: 0, waiting: Queue::new() };
        assert_eq!(state.take(), None);
        state.come = 1 | 1 << 14 | 1 << 63;
        assert_eq!(state.take(), Some(1));
        state.come |= 1; // again and again
        assert_eq!(state.take(), Some(15));
        assert_eq!(state.take(), Some(64));
        assert_eq!(state.take(), Some(1));
        assert_eq!(state.take(), None);
    }

    #[test]
    fn what_cannot_be_received() {
        for signal in [i32::MIN, -1, 0, 65, i32::MAX, 9, 19, 11, 7, 8, 4, 5, 31, 32, 33] {
            let error = check(signal).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        for signal in [1, 2, 15, 34, 64] {
            assert_eq!(check(signal).unwrap().trailing_zeros().cast_signed(), signal - 1);
        }
    }
}
