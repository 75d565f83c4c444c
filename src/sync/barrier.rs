//! [`Barrier`].
#![forbid(unsafe_code)]

use super::wait::{Locked, Queue, wait_in};
use crate::atomic::const_fn;
use crate::coro::OnCancel;
use std::fmt;

/// A point at which a number of fibers or threads wait for each other. As [`std::sync::Barrier`],
/// and a fiber that waits suspends.
///
/// # Examples
/// ```
/// use ramie::sync::{Arc, Barrier};
///
/// ramie::Runtime::new()?.run(|| {
///     let barrier = Arc::new(Barrier::new(3));
///     let fibers: Vec<_> = (0..3)
///         .map(|_| {
///             let barrier = Arc::clone(&barrier);
///             ramie::spawn(move || barrier.wait().is_leader())
///         })
///         .collect();
///     let leaders = fibers.into_iter().map(|fiber| fiber.join().unwrap());
///     assert_eq!(leaders.filter(|is_leader| *is_leader).count(), 1);
/// });
/// # std::io::Result::Ok(())
/// ```
pub struct Barrier {
    state: Locked<State>,
    parties: usize,
}

struct State {
    arrived: usize,
    queue: Queue,
}

/// What [`Barrier::wait`] returns.
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// Whether this one is the leader: one of those who met is.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl fmt::Debug for BarrierWaitResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarrierWaitResult").field("is_leader", &self.is_leader()).finish()
    }
}

impl std::panic::UnwindSafe for Barrier {}
impl std::panic::RefUnwindSafe for Barrier {}

impl Barrier {
    const_fn! {
        /// A barrier at which `n` meet; 0 is taken as 1.
        #[inline]
        pub fn new(n: usize) -> Self {
            Self { state: Locked::new(State { arrived: 0, queue: Queue::new() }), parties: n }
        }
    }

    /// Waits until as many as the barrier is for have called this. It can be used again at once.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend).
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    pub fn wait(&self) -> BarrierWaitResult {
        let mut others = None;
        wait_in(
            &self.state,
            |state| &mut state.queue,
            None,
            OnCancel::Ignore,
            |state| {
                state.arrived += 1;
                if state.arrived < self.parties {
                    return true;
                }
                state.arrived = 0;
                others = Some(state.queue.claim_all());
                false
            },
        );
        // The leader's own call did not wait; it wakes the others, now without the lock.
        BarrierWaitResult(others.is_some())
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}
