//! A group of fibers whose results come in the order in which they end.
#![forbid(unsafe_code)]

use super::members::Members;
use crate::coro::{OnCancel, Signal};
use crate::fiber::{Builder, JoinHandle, spawn, spawn_local};
use crate::sched;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// A set of fibers. Its iterator waits for them and yields their results, in the order in which
/// they end.
///
/// ```
/// use std::time::Duration;
///
/// ramie::Runtime::new()?.run(|| {
///     let mut set = ramie::FiberSet::new();
///     for n in [8, 1, 4] {
///         set.spawn(move || {
///             ramie::sleep(Duration::from_millis(5 * n));
///             n
///         });
///     }
///     assert_eq!(set.next().unwrap().unwrap(), 1);
///     set.spawn(|| 2);
///     assert_eq!(set.len(), 3);
///     assert_eq!(set.map(Result::unwrap).collect::<Vec<_>>(), [2, 4, 8]);
/// });
/// # std::io::Result::Ok(())
/// ```
///
/// Each result is an error if the fiber panicked, as that of [`JoinHandle::join`]. It is kept
/// apart from the fiber's stack, which goes as soon as the fiber ends. A call of `next` takes the
/// same time however many fibers there are, and spawning allocates nothing for each of them.
///
/// `next` waits while there are fibers and none has ended, and returns `None` when the set is
/// empty; it may be filled again then. Cancel requests do not end the wait: use
/// [`cancel_all`](Self::cancel_all).
///
/// # Dropping
/// As a drop never waits, dropping the set asks all of its fibers to end (as `cancel_all`) and
/// detaches them. To wait for them, call [`join_all`](Self::join_all), or iterate; to have them
/// borrow, use [`scope`](crate::scope()).
pub struct FiberSet<T> {
    shared: Arc<Shared<T>>,
    /// Fibers whose results have not been taken.
    len: usize,
}

struct Shared<T> {
    members: Members,
    state: Mutex<State<T>>,
    /// Something has ended; set for an owner that waits.
    some: Signal,
}

struct State<T> {
    ended: VecDeque<thread::Result<T>>,
    /// The owner is about to wait, or waits.
    waits: bool,
    /// The set is gone: nobody takes results.
    closed: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fiber of the set has ended.
    fn end(&self, result: thread::Result<T>) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            // Here, where its destructor may suspend.
            return drop(result);
        }
        state.ended.push_back(result);
        let waits = std::mem::take(&mut state.waits);
        drop(state);
        if waits {
            sched::wake_waiter(self.some.set());
        }
    }
}

impl<T> FiberSet<T> {
    /// An empty set.
    pub fn new() -> Self {
        let state = State { ended: VecDeque::new(), waits: false, closed: false };
        let shared =
            Shared { members: Members::default(), state: Mutex::new(state), some: Signal::new() };
        Self { shared: Arc::new(shared), len: 0 }
    }

    /// Spawns a fiber into the set, as [`spawn`](crate::spawn()) does.
    ///
    /// # Panics
    /// As [`spawn`](crate::spawn()).
    #[track_caller]
    pub fn spawn<F>(&mut self, f: F)
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        drop(spawn(self.wrap(f)));
        self.len += 1;
    }

    /// Spawns a fiber into the set that starts on the calling worker, as
    /// [`spawn_local`](crate::spawn_local) does. The result has to be [`Send`] nevertheless, as the
    /// set may be.
    ///
    /// # Panics
    /// As [`spawn`](crate::spawn()).
    #[track_caller]
    pub fn spawn_local<F>(&mut self, f: F)
    where
        F: FnOnce() -> T + 'static,
        T: Send + 'static,
    {
        drop(spawn_local(self.wrap(f)));
        self.len += 1;
    }

    /// Spawns a fiber into the set that is made as `builder` says.
    ///
    /// # Errors
    /// As [`Builder::spawn`].
    pub fn spawn_with<F>(&mut self, builder: Builder, f: F) -> io::Result<()>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let _detached: JoinHandle<()> = builder.spawn(self.wrap(f))?;
        self.len += 1;
        Ok(())
    }

    /// A fiber's life.
    fn wrap<F: FnOnce() -> T>(&self, f: F) -> impl FnOnce() + use<F, T> {
        let shared = Arc::clone(&self.shared);
        let birth = shared.members.birth();
        move || {
            let member = shared.members.enter(birth);
            let result = catch_unwind(AssertUnwindSafe(f));
            drop(member);
            shared.end(result);
        }
    }

    /// The fibers whose results have not been taken yet, ended or not.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none, so that `next` would return `None` at once.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The result of a fiber that has ended; `None` if there is none now. Never waits.
    pub fn try_next(&mut self) -> Option<thread::Result<T>> {
        let result = self.shared.lock().ended.pop_front()?;
        self.len -= 1;
        Some(result)
    }

    /// Asks all fibers that are in the set now to end early, as [`JoinHandle::cancel`].
    pub fn cancel_all(&self) {
        self.shared.members.cancel_all();
    }

    /// Waits for all fibers, and returns their results in the order in which they have ended.
    ///
    /// # Panics
    /// If one of them has panicked, the panic goes on in the caller at once; the set is dropped, so
    /// the others are asked to end, and detached.
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    pub fn join_all(self) -> Vec<T> {
        let mut values = Vec::with_capacity(self.len);
        for result in self {
            match result {
                Ok(value) => values.push(value),
                Err(panic) => resume_unwind(panic),
            }
        }
        values
    }
}

impl<T> Iterator for FiberSet<T> {
    type Item = thread::Result<T>;

    fn next(&mut self) -> Option<thread::Result<T>> {
        while self.len != 0 {
            {
                let mut state = self.shared.lock();
                if let Some(result) = state.ended.pop_front() {
                    drop(state);
                    self.len -= 1;
                    return Some(result);
                }
                state.waits = true;
            }
            sched::wait(&self.shared.some, None, OnCancel::Ignore);
            self.shared.some.take();
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl<T> Drop for FiberSet<T> {
    fn drop(&mut self) {
        let ended = {
            let mut state = self.shared.lock();
            state.closed = true;
            std::mem::take(&mut state.ended)
        };
        if self.len != ended.len() {
            self.cancel_all();
        }
        drop(ended);
    }
}

impl<T> Default for FiberSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for FiberSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FiberSet").field("len", &self.len).finish_non_exhaustive()
    }
}
