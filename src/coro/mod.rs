//! L4, coroutines: what a fiber *is*, below any scheduler.
//!
//! A fiber is a [`Header`] at the top of its own stack. While it does not run, it is held by
//! exactly one of: a run queue, an op in flight, a [`Signal`] it waits on, or (ended) its join
//! handle.
//!
//! A fiber leaves its stack together with an [`AfterSwitch`]: what the idle context is to do once
//! nobody runs on that stack any more. That is the whole trick of this crate: a fiber that is still
//! running can never be seen, woken, or resumed by another thread.
//!
//! | file         | what                                                                    |
//! |--------------|-------------------------------------------------------------------------|
//! | `header.rs`  | the header, its layout at the top of the stack, who may touch what      |
//! | `signal.rs`  | the one word a fiber or thread waits on (pure, model-checked)           |
//! | `thread.rs`  | the same wait for a plain thread                                        |
//! | `task.rs`    | the same wait for a future                                              |
//! | `cancel.rs`  | requests to end early (pure, model-checked)                             |
//! | `bounds.rs`  | the calls of `timeout` and `shield` that a fiber is in                  |
//! | `children.rs` | the fibers of a scope, counted (pure, model-checked)                   |
//! | `entry.rs`   | making a fiber from a closure; its first and its last step              |
//! | `park.rs`    | [`AfterSwitch`], `suspend` and `resume`                                 |
//! | `pending.rs` | an op in flight: the op, its outcome and the fiber that waits for it    |
//! | `timer.rs`   | a deadline among its worker's timers                                     |
//! | `list.rs`    | a queue of started fibers                                               |
//! | `spans.rs`   | leaving a fiber's tracing spans, and entering them again                |
//! | `local.rs`   | fiber-local values                                                      |
//!
//! Words: a fiber is *fresh* until it first runs, then *started*. Fresh fibers may move between
//! workers; a started fiber stays on the worker that started it (its *home*).

pub(crate) mod bounds;
mod cancel;
mod children;
pub(crate) mod entry;
#[cfg(all(test, not(loom)))]
pub(crate) mod fake;
pub(crate) mod header;
pub(crate) mod list;
pub(crate) mod local;
pub(crate) mod park;
pub(crate) mod pending;
pub(crate) mod signal;
pub(crate) mod spans;
pub(crate) mod task;
pub(crate) mod thread;
pub(crate) mod timer;

pub(crate) use bounds::{Bound, Bounds};
pub(crate) use cancel::Cancel;
pub(crate) use children::{Children, Place};
pub(crate) use header::{FiberPtr, Header};
pub(crate) use list::FiberList;
pub(crate) use park::{AfterSwitch, OnCancel, Wait};
pub(crate) use pending::{Pending, PendingPtr};
pub(crate) use signal::{Signal, Waiter};
pub(crate) use timer::{Timer, TimerPtr};
