//! The fibers of a group that run, so that they can be asked to end all at once.
//!
//! A fiber registers itself when it starts, and goes when it is done: those that are fresh cost
//! nothing here, and see at their start what they have missed. So a request reaches every fiber
//! that was spawned before it, and no later one. Nobody else's code runs under the lock.
#![forbid(unsafe_code)]

use crate::fiber::{Fiber, current};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Members(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By the index that the member knows.
    running: Vec<Option<Fiber>>,
    free: Vec<usize>,
    requests: u64,
}

/// How many requests there had been when a fiber was spawned.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Birth(u64);

/// The calling fiber's registration.
pub(super) struct Member<'a> {
    members: &'a Members,
    index: usize,
}

impl Members {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be asked for when a fiber is spawned.
    pub(super) fn birth(&self) -> Birth {
        Birth(self.lock().requests)
    }

    /// Whether a fiber that was born then has been asked to end.
    pub(super) fn cancelled_since(&self, birth: Birth) -> bool {
        self.lock().requests > birth.0
    }

    /// Registers the calling fiber, and asks it to end if that was asked of all since its birth.
    pub(super) fn enter(&self, birth: Birth) -> Member<'_> {
        let me = current();
        let mut state = self.lock();
        let late = (state.requests > birth.0).then(|| me.clone());
        let index = match state.free.pop() {
            Some(index) => {
                state.running[index] = Some(me);
                index
            }
            None => {
                state.running.push(Some(me));
                state.running.len() - 1
            }
        };
        drop(state);
        if let Some(me) = late {
            me.request_cancel();
        }
        Member { members: self, index }
    }

    /// Asks all fibers to end that have been spawned so far and have not ended.
    pub(super) fn cancel_all(&self) {
        let mut state = self.lock();
        state.requests += 1;
        let running: Vec<Fiber> = state.running.iter().flatten().cloned().collect();
        drop(state);
        running.iter().for_each(Fiber::request_cancel);
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        let mut state = self.members.lock();
        let me = state.running[self.index].take();
        state.free.push(self.index);
        drop(state);
        drop(me);
    }
}
