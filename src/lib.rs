//! Plain blocking code that suspends instead of blocking.
//!
//! A *fiber* is a function with a stack of its own. Many fibers share a few OS threads, the
//! *workers*. On a fiber, a call such as [`File::read`](std::io::Read::read) of a [`fs::File`]
//! looks as it does in std, but does not block the thread: the fiber leaves its stack, its worker
//! hands the operation to io_uring and runs other fibers meanwhile, and the fiber goes on when the
//! answer is there. On a plain thread the same call blocks, as std's does. Nothing is `async`.
//!
//! # A first program
//! ```
//! use std::io;
//!
//! #[ramie::main]
//! fn main() -> io::Result<()> {
//!     let names = ["Cargo.toml", "README.md", "LICENSE-MIT"];
//!     let fibers = names.map(|name| ramie::spawn(move || ramie::fs::read_to_string(name)));
//!     for (name, fiber) in names.iter().zip(fibers) {
//!         let text = fiber.join().unwrap()?;
//!         println!("{name}: {} lines", text.lines().count());
//!     }
//!     Ok(())
//! }
//! ```
//! The three files are read at the same time. [`spawn`] is [`std::thread::spawn`] for fibers, and
//! [`JoinHandle::join`] waits without blocking the worker.
//!
//! # The runtime
//! Fibers run in a [`Runtime`]. [`#[ramie::main]`](macro@main) makes one and runs `main` on a fiber
//! of it, [`#[ramie::test]`](macro@test) does so for a test. By hand:
//!
//! ```
//! let runtime = ramie::Runtime::builder().workers(2).build()?;
//! let answer = runtime.run(|| ramie::spawn(|| 6 * 7).join().unwrap());
//! assert_eq!(answer, 42);
//! # std::io::Result::Ok(())
//! ```
//! The thread that builds the runtime is its worker 0, and runs fibers while it is in
//! [`Runtime::run`]; the other workers are started when there is work for them. A [`Handle`] spawns
//! fibers from any other thread. Dropping the runtime cancels what is in flight and waits for its
//! fibers; see [`Runtime`].
//!
//! A new fiber may start on any worker. Once started it stays there, so its stack may hold an
//! [`Rc`](std::rc::Rc), a lock's guard, or a reference to a thread-local across a suspension.
//! [`spawn_local`] starts a fiber on the calling worker and wants nothing to be `Send`; [`Builder`]
//! gives a fiber a name, a stack size, or a certain worker.
//!
//! Where the system refuses io_uring, as many containers do, a runtime does the same by epoll and a
//! few threads, and a warning says why and what to do; see [`DriverKind`].
//!
//! # Files
//! [`fs`] is [`std::fs`] with the same names, signatures and errors, and a few extras. Its
//! [`fs::File`] implements std's `Read`, `Write` and `Seek`, so that what is built on them, such as
//! [`BufReader`](std::io::BufReader), suspends too. [`os::unix::fs`] has the rest of what Unix
//! offers. [`watch`] tells when files and directories change.
//!
//! # Sockets
//! [`net`] is [`std::net`], and [`os::unix::net`] has the sockets of the Unix family. A server is a
//! loop that accepts, and a fiber for each connection; its reads and writes are those of
//! [`Read`](std::io::Read) and [`Write`](std::io::Write).
//!
//! # Processes and signals
//! [`process`] is [`std::process`]: pipes and waits suspend. [`signal`] receives what the system or
//! the user sends, Ctrl-C for instance.
//!
//! # What is not known here
//! For calls that block and are not known here (a C library's, std's own) there is [`unblock`]: it
//! runs a closure on a thread of a pool while the fiber waits.
//!
//! # Waiting
//! [`sleep`], [`yield_now`], [`park`] and [`Fiber::unpark`] are as in [`std::thread`], and all of
//! its names are in [`mod@thread`]; [`time`] has intervals and timeouts. [`current`] names the
//! fiber, [`is_fiber`] says whether there is one. [`fiber_local!`] declares values of which every
//! fiber has its own.
//!
//! [`sync`] is [`std::sync`] for fibers and threads mixed: locks, conditions, once-cells, channels,
//! and more kinds of each than std has. [`select!`] waits for the first of several things.
//!
//! # Scopes
//! [`scope()`] is [`std::thread::scope`]: its fibers may borrow what lives around it, and have
//! ended when it returns. In a [`try_scope()`] the first failure has the others asked to end, in a
//! [`race()`] the first result. [`join()`] runs two closures, and makes a fiber for the second only
//! if that is of use, so it serves to divide computations down to small pieces. A [`FiberSet`]
//! yields results in the order in which its fibers end.
//!
//! ```
//! ramie::Runtime::new()?.run(|| {
//!     let names = ["Cargo.toml", "README.md"];
//!     let mut sizes = [0; 2];
//!     ramie::scope(|s| {
//!         for (name, size) in names.iter().zip(&mut sizes) {
//!             s.spawn(move || *size = ramie::fs::metadata(name).unwrap().len());
//!         }
//!     });
//!     assert!(sizes.iter().all(|size| *size > 100));
//! });
//! # std::io::Result::Ok(())
//! ```
//!
//! # Async code
//! [`block_on`] runs a future on the calling fiber, which suspends where the future is pending;
//! [`spawn_future`] gives it a fiber of its own. A [`JoinHandle`] is a future, so async code can
//! await fibers. So a protocol that somebody has written as a future works here as it is, without
//! another runtime.
//!
//! # Cancellation
//! [`JoinHandle::cancel`] asks a fiber to end early. Nothing is unwound: the operation that the
//! fiber waits in, or else its next one, fails with an error that [`is_cancelled`] recognises, and
//! `?` does the rest.
//!
//! ```
//! use std::io::{self, Read};
//! use std::os::fd::OwnedFd;
//!
//! ramie::Runtime::new()?.run(|| {
//!     let (reader, _writer) = io::pipe()?;
//!     let mut reader = ramie::fs::File::from(OwnedFd::from(reader));
//!     let fiber = ramie::spawn(move || reader.read(&mut [0; 16])); // nobody will ever write
//!     ramie::yield_now();
//!     fiber.cancel();
//!     let error = fiber.join().unwrap().unwrap_err();
//!     assert!(ramie::is_cancelled(&error));
//!     io::Result::Ok(())
//! })?;
//! # io::Result::Ok(())
//! ```
//! A request is reported once, and an operation that was faster keeps its result. [`cancel`] has
//! the table of what each call does, [`cancel::shield`] puts requests off, and [`time::timeout`]
//! limits how long something may take.
//!
//! # Tracing
//! Spans of [`tracing`](https://docs.rs/tracing) follow their fiber: it leaves them when it
//! suspends, and enters them again when it goes on, so `#[instrument]` and `span.enter()` do what
//! they do on a thread. A new fiber is in no span; give it one:
//! `let span = Span::current(); ramie::spawn(move || span.in_scope(f))`. Jobs of [`unblock`] are
//! in none. The subscriber should be the process's: one that is set for a thread only
//! (`with_default`) is seen by all fibers of the thread while the one that has set it is suspended.
//!
//! # Coming from elsewhere
//! The [`guide`] has a page for those who come from std's threads, from Go, or from async code, and
//! one that says what is guaranteed.
//!
//! # What to beware of
//! - Nothing interrupts a fiber: one that computes for long keeps the others of its worker waiting.
//!   Call [`yield_now`] now and then, or compute in [`unblock`].
//! - Calls of std that block, block the worker with all its fibers. A [`std::sync::Mutex`] that is
//!   held across a suspension may even stop it for good, when another of its fibers locks it; that
//!   of [`sync`] may be held.
//! - Two fibers of a worker interleave. What they share by way of their thread (a `RefCell` in a
//!   `thread_local!`, a reference taken inside a scoped thread-local) must not be held across a
//!   suspension. [`no_suspend`] turns a violation into a panic.
//! - While a thread unwinds, nothing suspends; operations in destructors block. In a signal
//!   handler, nothing of this crate may be called.
//! - A stack does not grow ([`stack_remaining`] says what is left). An overflow ends the process
//!   with a message, as a thread's does.
//! - A [`JoinHandle`] or [`Fiber`] keeps the fiber's stack from being used again, even after its
//!   end.
#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]
#![warn(missing_docs, unreachable_pub)]
#![warn(clippy::undocumented_unsafe_blocks)]

#[expect(unsafe_code, reason = "L1: the context switch")]
mod arch;
mod atomic;
pub mod cancel;
#[expect(unsafe_code, reason = "L4: fibers are raw stacks and words that several threads touch")]
mod coro;
mod driver;
pub mod fs;
pub mod guide;
pub mod io;
pub mod net;
mod op;
pub mod os;
pub mod process;
#[expect(unsafe_code, reason = "L6: resuming fibers and borrowing from their stacks")]
mod sched;
pub mod signal;
#[expect(unsafe_code, reason = "L2: it owns the memory that fibers run on")]
mod stack;
#[expect(unsafe_code, reason = "L7: locks, and queues of waiters on their stacks")]
pub mod sync;
#[expect(unsafe_code, reason = "L0: system calls")]
mod sys;
pub mod time;
pub mod watch;

#[expect(unsafe_code, reason = "L8: handles own references to fibers")]
mod fiber;
mod future;
#[expect(unsafe_code, reason = "L8: values that live as long as their fiber")]
mod local;
#[cfg(all(test, loom))]
mod loom_models;
mod probe;
mod runtime;
#[expect(unsafe_code, reason = "L8: children borrow from the frame that waits for them")]
mod scope;
mod select;
pub mod thread;

pub use cancel::is_cancelled;
pub use driver::{DriverKind, WakeMethod};
pub use fiber::{
    Builder, Fiber, FiberId, JoinHandle, current, is_fiber, no_suspend, park, park_timeout, spawn,
    spawn_local, stack_remaining, unblock, yield_now,
};
pub use future::{block_on, spawn_future, spawn_future_local, try_block_on};
pub use local::{AccessError, LocalKey};
pub use probe::{Probe, probe};
/// Runs the body of `fn main` as the main fiber of a runtime.
///
/// The function may return whatever a plain `main` may. If the runtime cannot be built, the reason
/// and its remedy are printed to standard error, and the process exits with code 1.
///
/// Arguments are setters of [`RuntimeBuilder`] with their values, each any expression: `workers`,
/// `stack_size`, `ring_entries`, `blocking_threads`, `spin`, `shutdown_timeout`, `wake`,
/// `thread_name`.
///
/// # Examples
/// ```
/// #[ramie::main]
/// fn main() -> std::io::Result<()> {
///     let fiber = ramie::spawn(|| ramie::fs::read_to_string("Cargo.toml"));
///     assert!(fiber.join().unwrap()?.contains("ramie"));
///     Ok(())
/// }
/// ```
/// With arguments:
/// ```
/// #[ramie::main(workers = 2, stack_size = 64 << 10, ring_entries = 512)]
/// fn main() {
///     assert!(ramie::is_fiber());
/// }
/// ```
/// A fiber waits by suspending, so nothing is `async`:
/// ```compile_fail
/// #[ramie::main]
/// async fn main() {}
/// ```
/// Nobody would pass parameters:
/// ```compile_fail
/// #[ramie::main]
/// fn main(arguments: Vec<String>) {}
/// ```
/// Arguments have to exist, to have a value, and to be given once:
/// ```compile_fail
/// #[ramie::main(threads = 2)]
/// fn main() {}
/// ```
/// ```compile_fail
/// #[ramie::main(workers)]
/// fn main() {}
/// ```
/// ```compile_fail
/// #[ramie::main(workers = 1, workers = 2)]
/// fn main() {}
/// ```
/// and the value has to be of the setter's type:
/// ```compile_fail
/// #[ramie::main(workers = "two")]
/// fn main() {}
/// ```
/// The attribute belongs on a function with a body:
/// ```compile_fail
/// #[ramie::main]
/// struct Main;
/// # fn main() {}
/// ```
pub use ramie_macros::main;
/// Makes a function a test whose body runs on a fiber, in a runtime of its own.
///
/// It takes the place of `#[test]`, works together with `#[should_panic]` and `#[ignore]`, and the
/// function may return what a test may. The arguments are those of [`main`](macro@main); with
/// `workers = 1`, fibers take turns in an order that is always the same.
///
/// # Examples
/// ```
/// #[ramie::test]
/// fn adds() {
///     assert_eq!(ramie::spawn(|| 1 + 1).join().unwrap(), 2);
/// }
///
/// #[ramie::test(workers = 1)]
/// #[should_panic(expected = "deliberate")]
/// fn fails() {
///     panic!("deliberate");
/// }
///
/// #[ramie::test]
/// fn returns_a_result() -> std::io::Result<()> {
///     ramie::fs::metadata("Cargo.toml")?;
///     Ok(())
/// }
/// # fn main() {}
/// ```
/// It adds `#[test]` itself:
/// ```compile_fail
/// #[ramie::test]
/// #[test]
/// fn twice() {}
/// # fn main() {}
/// ```
/// ```compile_fail
/// #[ramie::test]
/// async fn asynchronous() {}
/// # fn main() {}
/// ```
pub use ramie_macros::test;
pub use runtime::{Handle, Metrics, Runtime, RuntimeBuilder};
pub use scope::{
    FiberSet, Race, Scope, ScopedJoinHandle, TryScope, TryScopedJoinHandle, join, race, scope,
    try_scope,
};
pub use time::sleep;

/// The example on the project's front page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
