//! [`WaitGroup`].
#![forbid(unsafe_code)]

use super::wait::{Locked, Queue, wait_in};
use crate::coro::OnCancel;
use std::fmt;
use std::sync::Arc;

/// Waits until all parts of some work are done: each has a clone, and is done when it drops that,
/// by a panic too.
///
/// # Examples
/// ```
/// use ramie::sync::WaitGroup;
///
/// ramie::Runtime::new()?.run(|| {
///     let group = WaitGroup::new();
///     for _ in 0..4 {
///         let part = group.clone();
///         ramie::spawn(move || {
///             ramie::yield_now(); // the work
///             drop(part);
///         });
///     }
///     group.wait();
/// });
/// # std::io::Result::Ok(())
/// ```
pub struct WaitGroup {
    inner: Arc<Inner>,
}

struct Inner(Locked<State>);

struct State {
    members: usize,
    queue: Queue,
}

impl std::panic::UnwindSafe for WaitGroup {}
impl std::panic::RefUnwindSafe for WaitGroup {}

impl WaitGroup {
    /// A group of one member: this.
    pub fn new() -> Self {
        Self { inner: Arc::new(Inner(Locked::new(State { members: 1, queue: Queue::new() }))) }
    }

    /// Leaves the group, and waits until all other members have.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it would have to wait.
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    pub fn wait(self) {
        let inner = Arc::clone(&self.inner);
        drop(self);
        if inner.0.lock().members != 0 {
            wait_in(
                &inner.0,
                |state| &mut state.queue,
                None,
                OnCancel::Ignore,
                |state| state.members != 0,
            );
        }
    }
}

impl Clone for WaitGroup {
    fn clone(&self) -> Self {
        self.inner.0.lock().members += 1;
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl Drop for WaitGroup {
    fn drop(&mut self) {
        let mut state = self.inner.0.lock();
        state.members -= 1;
        if state.members == 0 {
            let waiters = state.queue.claim_all();
            drop(state);
            waiters.wake();
        }
    }
}

impl Default for WaitGroup {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.inner.0.lock().members;
        f.debug_struct("WaitGroup").field("members", &members).finish()
    }
}
