//! Waiting for each other: [`std::sync`] for fibers and threads mixed.
//!
//! What std has is here under the same names, with the same signatures, errors and poisoning, so
//! that `use ramie::sync::...` takes the place of `use std::sync::...`. A fiber that has to wait
//! suspends, and a thread blocks; either may wake the other. And there are [`Semaphore`],
//! [`Event`], [`WaitGroup`] and [`futex`], and beside [`mpsc`] four other kinds of channels.
//!
//! - A wait needs no memory but the waiter's own stack, and a wake between fibers of one worker no
//!   system call.
//! - A lock may be held across anything that suspends. Its holder lets go of it without suspending,
//!   also while it unwinds.
//! - Locks, once-cells, [`Barrier`] and [`WaitGroup`] cannot be cancelled. A [`Condvar`] and a
//!   futex wake up once for a cancel request, a semaphore and an event report it.
//! - A fiber that is left behind by its runtime keeps what it holds, and may be handed what it
//!   waited for.
//!
//! What differs from std: there is no guard for a part of a value yet, and a lock's
//! `while the thread unwinds` section says what not to do in destructors.
//
// | file            | what                                                            |
// |-----------------|-----------------------------------------------------------------|
// | `wait.rs`       | queues of waiters, which everything here is made of             |
// | `lock.rs`       | the tiny lock that guards them                                  |
// | `bias.rs`       | that lock for fibers of one worker, without locked instructions |
// | `block.rs`      | how they wait and wake: by the scheduler, or the model checker  |
// | `raw.rs`        | the lock inside a mutex; `raw_rw.rs`, inside an `RwLock`        |
// | `poison.rs`     | poisoning                                                       |
// | `chan/`         | what `mpsc` and `mpmc` are made of                              |
//
// The rest is one file per type.

mod barrier;
pub(crate) mod bias;
mod block;
pub mod broadcast;
pub(crate) mod chan;
mod condvar;
mod event;
#[cfg(not(all(test, loom)))]
pub mod futex;
mod lazy_lock;
pub(crate) mod lock;
pub mod mpmc;
pub mod mpsc;
mod mutex;
mod once;
mod once_lock;
pub mod oneshot;
mod poison;
pub(crate) mod raw;
pub(crate) mod raw_rw;
mod rwlock;
#[doc(hidden)]
pub mod select;
mod semaphore;
pub(crate) mod wait;
mod wait_group;
pub mod watch;

#[cfg(all(test, loom))]
pub(crate) use block::{GOES_BLINDLY, IS_CANARY, LETS_GO_EARLY, LINGERS, NO_FENCES};

pub use barrier::{Barrier, BarrierWaitResult};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use event::Event;
pub use lazy_lock::LazyLock;
pub use mutex::{Mutex, MutexGuard};
pub use once::{Once, OnceState};
pub use once_lock::OnceLock;
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{
    AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit, TryAcquireError,
};
pub use std::sync::{Arc, LockResult, PoisonError, TryLockError, TryLockResult, Weak, atomic};
pub use wait_group::WaitGroup;
