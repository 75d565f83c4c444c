//! Fibers under the names that [`std::thread`] has for threads.
//!
//! A program written for threads says `use ramie::thread` where it said `use std::thread`, and
//! spawns fibers. What is about fibers is at the root of this crate, too, and called so there:
//! [`Thread`] is [`Fiber`](crate::Fiber). What std has not is only there.
//!
//! `thread_local!` stays std's. Its values belong to the thread, and so to all fibers of a worker;
//! [`fiber_local!`](crate::fiber_local) declares such that every fiber has for itself.
//!
//! # Examples
//! ```
//! use ramie::thread;
//! use std::time::Duration;
//!
//! ramie::Runtime::new()?.run(|| {
//!     let parked = thread::Builder::new().name("sleeper".into()).spawn(|| {
//!         thread::sleep(Duration::from_millis(1));
//!         thread::park();
//!         thread::current().name().map(String::from)
//!     })?;
//!     parked.thread().unpark();
//!     assert_eq!(parked.join().unwrap().as_deref(), Some("sleeper"));
//!
//!     let mut numbers = [1, 2];
//!     thread::scope(|s| {
//!         for number in &mut numbers {
//!             s.spawn(|| *number *= 2);
//!         }
//!     });
//!     assert_eq!(numbers, [2, 4]);
//!     std::io::Result::Ok(())
//! })?;
//! # std::io::Result::Ok(())
//! ```
#![forbid(unsafe_code)]

#[doc(no_inline)]
pub use crate::fiber::{
    Builder, Fiber as Thread, FiberId as ThreadId, JoinHandle, current, park, park_timeout, spawn,
    yield_now,
};
#[doc(no_inline)]
pub use crate::local::{AccessError, LocalKey};
#[doc(no_inline)]
pub use crate::scope::{Scope, ScopedJoinHandle, scope};
#[doc(no_inline)]
pub use crate::time::sleep;
#[doc(no_inline)]
pub use std::thread::{Result, available_parallelism, panicking};
