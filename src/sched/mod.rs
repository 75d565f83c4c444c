//! L6, the scheduler: workers, their queues, sleeping and waking, and how a call suspends.
//!
//! | file          | what                                                                      |
//! |---------------|---------------------------------------------------------------------------|
//! | `current.rs`  | which worker and which fiber the calling code runs on                     |
//! | `submit.rs`   | how a call suspends: an op, a wait on a signal, a job for the pool        |
//! | `cancel.rs`   | cancel requests, deadlines and shields                                    |
//! | `answer.rs`   | answers that are more than a number: descriptors, initialised memory      |
//! | `batch.rs`    | many ops of one fiber in flight at the same time                          |
//! | `readiness.rs`| watching a descriptor while its fiber waits for other things, too         |
//! | `detach.rs`   | an owner of a descriptor whose drop does not wait                         |
//! | `worker.rs`   | a worker: its loop, and what it does for a fiber that left its stack      |
//! | `children.rs` | fibers with a parent                                                      |
//! | `stacks.rs`   | where fibers get their stacks, and where these go afterwards              |
//! | `ends.rs`     | the end of a fiber, and who waits for it                                  |
//! | `search.rs`   | an idle worker: looking for work, and sleeping when there is none         |
//! | `steal.rs`    | whose fresh fibers an idle worker takes, and when                         |
//! | `idle.rs`     | who is awake, sleeps, searches: the counters and their transitions        |
//! | `fresh.rs`    | a worker's fresh fibers, which others may steal                           |
//! | `offer.rs`    | who is told of fresh fibers, and when                                     |
//! | `deque.rs`    | a queue of which only thieves pay for the stealing                        |
//! | `joins.rs`    | joins whose second half nobody has begun                                  |
//! | `timers.rs`   | a worker's timers, and when it wakes up for them                          |
//! | `deadlines.rs`| the order of deadlines: a heap of those that are near, a wheel for others |
//! | `inbox.rs`    | what other threads put into a worker                                      |
//! | `remote.rs`   | the part of a worker that other threads may touch                         |
//! | `shared.rs`   | a runtime: its workers, who sleeps, what came from outside                |
//! | `blocking.rs` | the bounded pool of threads for calls that have no asynchronous form      |
//! | `shutdown.rs` | ending a runtime                                                          |
//! | `lost.rs`     | fibers that will never end, and those who wait for them                   |
//!
//! The protocol of sleeping and waking, with its proof, is in `README.md` beside this file.

mod answer;
pub(crate) mod batch;
pub(crate) mod blocking;
pub(crate) mod cancel;
mod children;
pub(crate) mod current;
mod deadlines;
pub(crate) mod deque;
mod detach;
mod ends;
pub(crate) mod fresh;
pub(crate) mod idle;
pub(crate) mod inbox;
pub(crate) mod joins;
pub(crate) mod lost;
mod offer;
mod readiness;
pub(crate) mod remote;
pub(crate) mod search;
pub(crate) mod shared;
pub(crate) mod shutdown;
mod stacks;
mod steal;
pub(crate) mod submit;
pub(crate) mod timers;
pub(crate) mod worker;

pub(crate) use answer::{
    create_here, perform_fd, read_spare, recv_fds, submit_fd, submit_fd_within,
};
pub(crate) use detach::Detach;
pub(crate) use readiness::Readiness;
pub(crate) use remote::Remote;
pub(crate) use shared::{Config, Shared};
pub(crate) use submit::{
    Haste, accepting_pass, blocking, blocks_thread, blocks_worker, close_detached,
    connects_in_haste, created, haste, splices, submit, submit_here, submit_within, wait, waiting,
    wake_waiter,
};
pub(crate) use worker::Worker;
