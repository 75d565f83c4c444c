//! Plain blocking code that suspends instead of blocking.
#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]
#![warn(missing_docs, unreachable_pub)]
#![warn(clippy::undocumented_unsafe_blocks)]

#[expect(unsafe_code, reason = "L1: the context switch")]
mod arch;
mod atomic;
#[expect(unsafe_code, reason = "L4: fibers are raw stacks and words that several threads touch")]
mod coro;
mod driver;
pub mod fs;
mod op;
pub mod os;
#[expect(unsafe_code, reason = "L6: resuming fibers and borrowing from their stacks")]
mod sched;
#[expect(unsafe_code, reason = "L2: it owns the memory that fibers run on")]
mod stack;
#[expect(unsafe_code, reason = "L0: system calls")]
mod sys;

#[expect(unsafe_code, reason = "L8: handles own references to fibers")]
mod fiber;
#[expect(unsafe_code, reason = "L8: values that live as long as their fiber")]
mod local;
#[cfg(all(test, loom))]
mod loom_models;
mod runtime;

pub use driver::WakeMethod;
pub use fiber::{
    Builder, Fiber, FiberId, JoinHandle, current, is_fiber, no_suspend, park, park_timeout, sleep,
    spawn, spawn_local, stack_remaining, unblock, yield_now,
};
pub use local::{AccessError, LocalKey};
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

/// Whether an operation failed because its fiber was asked to end, or its runtime shut down.
///
/// # Examples
/// ```
/// let error = std::io::Error::from_raw_os_error(125); // ECANCELED
/// assert!(ramie::is_cancelled(&error));
/// ```
pub fn is_cancelled(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
}
