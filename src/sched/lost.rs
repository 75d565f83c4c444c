//! Fibers that will never end, because a shutdown has leaked them: whoever joins one is told.
//!
//! A fiber that was never started is told lost by its header: `ended` is `LOST` (`coro/signal.rs`).
//! Nobody has a list of the started ones, so these are lost when their home is *gone*, which is
//! said in its remote. Those who wait for them inside the runtime are leaked too. But a plain
//! thread, or a fiber of another runtime, lists what it waits for before it looks at the remote; a
//! worker that goes says so in its remote before it looks at the list. So either the one or the
//! other sees.
//!
//! A lost fiber's result is never taken, and the reference that it shares with its handle never
//! dropped: its stack stays as it is.
#![forbid(unsafe_code)]

use super::shared::Phase;
use super::{Remote, Shared, Worker, current, submit};
use crate::coro::{FiberPtr, OnCancel};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The fibers that somebody outside of their runtime waits for, by address.
static AWAITED: Mutex<BTreeMap<usize, FiberPtr>> = Mutex::new(BTreeMap::new());

fn awaited() -> MutexGuard<'static, BTreeMap<usize, FiberPtr>> {
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the fiber will never end. The caller keeps its header alive.
pub(crate) fn is_lost(fiber: FiberPtr) -> bool {
    let ended = &fiber.header().ended;
    ended.is_lost()
        // In this order: an end comes before its worker goes.
        || (Remote::of(fiber).is_some_and(Remote::is_gone) && !ended.is_set())
}

/// Where the calling fiber is at home.
#[derive(Clone, Copy)]
pub(crate) struct Home(&'static Remote);

impl Home {
    /// That of the calling code, if it is on a fiber that may suspend.
    pub(crate) fn here() -> Option<Home> {
        current::suspendable().map(|(worker, _)| Home(worker.remote))
    }

    /// Whether a fiber that had this home, and has not ended, never goes on. To be asked while that
    /// fiber cannot go on: a home without fibers may become another one's.
    pub(crate) fn is_gone(self) -> bool {
        self.0.is_gone()
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Home").field(&std::ptr::from_ref(self.0)).finish()
    }
}

/// Whether the calling code is leaked together with the fiber.
fn is_inside(fiber: FiberPtr) -> bool {
    let inside = |worker: &Worker| match Remote::of(fiber) {
        Some(home) => std::ptr::eq(home, worker.remote) || worker.shared().has_seat_of(home),
        None => fiber.header().home.load(Ordering::Relaxed) == Remote::none_yet(worker.shared()),
    };
    current::fiber().is_some_and(|(worker, _)| inside(worker)) && current::can_suspend()
}

/// Waits until the fiber has ended, and no shorter. Returns `false` if it never will. Only its join
/// handle may call this.
#[inline]
pub(crate) fn join(fiber: FiberPtr) -> bool {
    if !is_inside(fiber) {
        return wait_for_end(fiber, None);
    }
    submit::join(fiber);
    !fiber.header().ended.is_lost()
}

/// The caller is about to wait for the fiber's end, perhaps from outside, until `unlist`. Only its
/// join handle may call this.
pub(crate) fn list(fiber: FiberPtr) {
    if !fiber.header().awaited.get() && !is_inside(fiber) {
        fiber.header().awaited.set(true);
        awaited().insert(fiber.address(), fiber);
    }
}

/// The caller waits no more. Only the fiber's join handle may call this.
#[inline]
pub(crate) fn unlist(fiber: FiberPtr) {
    if fiber.header().awaited.get() {
        fiber.header().awaited.set(false);
        awaited().remove(&fiber.address());
    }
}

/// Waits until the fiber has ended, or `deadline_ns` has come. Returns `false` if it never will
/// end. Only its join handle may call this.
pub(crate) fn wait_for_end(fiber: FiberPtr, deadline_ns: Option<u64>) -> bool {
    struct Listed(FiberPtr);
    impl Drop for Listed {
        fn drop(&mut self) {
            unlist(self.0);
        }
    }

    let ended = &fiber.header().ended;
    if is_inside(fiber) {
        submit::wait(ended, deadline_ns, OnCancel::Ignore);
        return !ended.is_lost();
    }
    let _listed = Listed(fiber);
    list(fiber);
    if !is_lost(fiber) {
        submit::wait(ended, deadline_ns, OnCancel::Ignore);
    }
    !is_lost(fiber)
}

/// Tells those outside who wait for a fiber whose home is gone.
fn tell() {
    let mut waiters = Vec::new();
    for fiber in awaited().values().filter(|fiber| is_lost(**fiber)) {
        waiters.push(fiber.header().ended.lose());
    }
    waiters.into_iter().for_each(submit::wake_waiter);
}

impl Shared {
    /// A fresh fiber that nobody will start. The caller is its holder.
    pub(super) fn lose(&self, fiber: FiberPtr) {
        self.count_lost(1);
        submit::wake_waiter(fiber.header().ended.lose());
    }

    /// Fresh fibers in the inbox of a worker that is gone.
    pub(super) fn lose_mail(&self, remote: &Remote) {
        for woken in remote.woken.take() {
            if Remote::of(woken.0).is_none() {
                self.lose(woken.0);
            }
        }
    }
}

impl Worker {
    /// Fibers of this worker that have started and not ended.
    fn suspended(&self) -> u64 {
        self.started.get() - self.remote.ended.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn count_start(&self) {
        self.started.set(self.started.get() + 1);
    }

    /// Whether no fiber may be resumed any more. While its thread destroys its thread-local values,
    /// a suspended fiber might go on inside the `with` of one that is gone.
    pub(crate) fn is_lost(&self) -> bool {
        if self.marker.is_gone() && self.suspended() != 0 {
            self.lost.set(true);
        }
        self.lost.get()
    }

    pub(super) fn enter(&self) -> current::Entered {
        debug_assert!(!self.is_lost());
        let entered = current::enter(self);
        self.marker.renew();
        entered
    }

    pub(super) fn leave(&self, entered: current::Entered) {
        if self.suspended() != 0 {
            self.marker.lay();
        }
        entered.leave();
    }

    /// The worker has left its loop for good.
    pub(crate) fn retire(&self) {
        self.remote.retire();
        // Either who puts a fiber in after this sees that we are gone, or we see the fiber.
        fence(Ordering::SeqCst);
        self.shared.lose_mail(self.remote);
        while let Some(fiber) = self.next.take().or_else(|| self.ready.pop()) {
            if Remote::of(fiber).is_none() {
                self.shared.lose(fiber);
            }
        }
        // Before the runtime has stopped, other workers may still steal.
        if self.shared.workers() == 1 || self.shared.phase() == Phase::Stopped {
            while !self.fresh.is_empty() {
                match self.fresh.pop() {
                    Some(fiber) => self.shared.lose(fiber),
                    None => std::hint::spin_loop(), // somebody is about to steal the rest
                }
            }
        }
        let suspended = self.suspended();
        if suspended != 0 {
            self.shared.count_lost(suspended);
            tell();
        }
    }
}
