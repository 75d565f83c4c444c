//! [`Once`].

use super::wait::{Locked, Queue, Waited, wait_in};
use crate::atomic::const_fn;
use crate::coro::OnCancel;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicU8, Ordering};

const NEW: u8 = 0;
/// A call has panicked.
const POISONED: u8 = 1;
const RUNNING: u8 = 2;
const DONE: u8 = 3;

/// Something that is done once. As [`std::sync::Once`]; the closure may suspend, and a fiber that
/// waits for another one to be through with it suspends too.
///
/// # Examples
/// ```
/// use ramie::sync::Once;
///
/// static START: Once = Once::new();
/// let mut calls = 0;
/// START.call_once(|| calls += 1);
/// START.call_once(|| calls += 1);
/// assert_eq!(calls, 1);
/// assert!(START.is_completed());
/// ```
pub struct Once {
    /// Changed under the queue's lock.
    state: AtomicU8,
    queue: Locked<Queue>,
}

impl UnwindSafe for Once {}
impl RefUnwindSafe for Once {}

/// What [`Once::call_once_force`] tells its closure.
pub struct OnceState {
    poisoned: bool,
}

impl OnceState {
    /// Whether an earlier call has panicked.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }
}

impl fmt::Debug for OnceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceState").field("poisoned", &self.is_poisoned()).finish()
    }
}

impl Once {
    const_fn! {
        /// Nothing has been done yet.
        #[inline]
        pub fn new() -> Self {
            Self { state: AtomicU8::new(NEW), queue: Locked::new(Queue::new()) }
        }
    }

    /// Calls `f`, unless that has been done already; if another fiber or thread is doing it, waits.
    /// When this returns, what `f` did has happened.
    ///
    /// # Panics
    /// If `f` panics, or has panicked in an earlier call. Inside
    /// [`no_suspend`](crate::no_suspend), if it would have to wait.
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    #[inline]
    #[track_caller]
    pub fn call_once<F>(&self, f: F)
    where
        F: FnOnce(),
    {
        if !self.is_completed() {
            let mut f = Some(f);
            self.call(false, &mut |_| f.take().expect("called once")());
        }
    }

    /// As [`call_once`](Self::call_once), but calls `f` also if an earlier call has panicked.
    ///
    /// # Panics
    /// If `f` panics. Inside [`no_suspend`](crate::no_suspend), if it would have to wait.
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    #[inline]
    pub fn call_once_force<F>(&self, f: F)
    where
        F: FnOnce(&OnceState),
    {
        if !self.is_completed() {
            let mut f = Some(f);
            self.call(true, &mut |state| f.take().expect("called once")(state));
        }
    }

    /// Whether a call has come to its end without a panic. If so, what it did has happened.
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.state.load(Ordering::Acquire) == DONE
    }

    /// Waits until a call has come to its end, without calling anything.
    ///
    /// # Panics
    /// If a call has panicked. Inside [`no_suspend`](crate::no_suspend), if it would have to wait.
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    pub fn wait(&self) {
        if !self.is_completed() && self.wait_until_done(false) == POISONED {
            poisoned();
        }
    }

    /// As [`wait`](Self::wait), and goes on waiting if a call has panicked.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it would have to wait.
    pub fn wait_force(&self) {
        if !self.is_completed() {
            self.wait_until_done(true);
        }
    }

    /// Returns what the state was when there was nothing to wait for any more.
    fn wait_until_done(&self, force: bool) -> u8 {
        loop {
            let state = self.wait_while(|state| match state {
                DONE => false,
                POISONED => force,
                _ => true,
            });
            if let Some(state) = state {
                return state;
            }
        }
    }

    /// Waits if `wait` says so of the state. Returns the state if not.
    fn wait_while(&self, wait: impl Fn(u8) -> bool) -> Option<u8> {
        let mut state = NEW;
        let waited = wait_in(
            &self.queue,
            |queue| queue,
            None,
            OnCancel::Ignore,
            |_| {
                state = self.state.load(Ordering::Acquire);
                wait(state)
            },
        );
        (waited == Waited::Not).then_some(state)
    }

    #[cold]
    #[track_caller]
    fn call(&self, force: bool, f: &mut dyn FnMut(&OnceState)) {
        loop {
            match self.state.load(Ordering::Acquire) {
                DONE => return,
                POISONED if !force => poisoned(),
                RUNNING => {
                    self.wait_while(|state| state == RUNNING);
                }
                state => {
                    // Acquire: an earlier call that has panicked may have left something.
                    let mine = self.state.compare_exchange(
                        state,
                        RUNNING,
                        Ordering::Acquire,
                        Ordering::Relaxed,
                    );
                    if mine.is_err() {
                        continue;
                    }
                    let mut end = End { once: self, becomes: POISONED };
                    f(&OnceState { poisoned: state == POISONED });
                    end.becomes = DONE;
                    return;
                }
            }
        }
    }

    /// With exclusive access: whether it is done.
    pub(super) fn is_completed_mut(&mut self) -> bool {
        *self.state.get_mut() == DONE
    }
}

/// The end of a call, also by a panic.
struct End<'a> {
    once: &'a Once,
    becomes: u8,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut queue = self.once.queue.lock();
        self.once.state.store(self.becomes, Ordering::Release);
        let waiters = queue.claim_all();
        drop(queue);
        waiters.wake();
    }
}

#[cold]
#[track_caller]
fn poisoned() -> ! {
    panic!("an earlier call of this `Once` has panicked")
}

impl Default for Once {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}
