//! Structured concurrency: fibers that borrow from the frame that waits for them.
//!
//! | file            | what                                                              |
//! |-----------------|-------------------------------------------------------------------|
//! | `mod.rs`        | [`scope`], [`Scope`]: what `std::thread::scope` is for threads    |
//! | `handle.rs`     | [`ScopedJoinHandle`]                                              |
//! | `try_scope.rs`  | [`try_scope()`]: the first failure ends all                       |
//! | `race.rs`       | [`race()`]: the first result ends all                             |
//! | `join.rs`       | [`join()`]: two closures, which run side by side if it is worth it |
//! | `set.rs`        | [`FiberSet`]: results in the order of the ends                    |
//! | `members.rs`    | the fibers of a group that run, to be asked to end                |
//!
//! All of it rests on one promise: the frame of a scope is not left, neither by a return nor by a
//! panic, while a child has not ended. So
//!
//! - `f` is called inside `catch_unwind`, and the owner waits with no panic under way, where it can
//!   suspend.
//! - A child that is leaked by a shutdown is never counted out, and its owner never resumed: it is
//!   leaked too, with its frame. Owners are fibers. On a plain thread nothing can be spawned.
//! - Where the owner could not suspend (while its thread unwinds, in `no_suspend`) it would keep
//!   its worker, and so its own children, from running. There each child runs to its end inside
//!   `spawn`, and nobody is left to be waited for.
//! - What waits, does so inside [`Stays`], which aborts the process if a panic comes its way.

mod handle;
mod join;
mod members;
mod race;
mod set;
mod try_scope;

pub use handle::ScopedJoinHandle;
pub use join::join;
pub use race::{Race, race};
pub use set::FiberSet;
pub use try_scope::{TryScope, TryScopedJoinHandle, try_scope};

use crate::coro::entry::{self, ChildOf};
use crate::coro::{Children, FiberPtr, OnCancel, Place};
use crate::fiber::{JoinHandle, heir, no_runtime, no_stack};
use crate::local;
use crate::sched::{self, Worker, current};
use crate::stack::Stack;
use members::Members;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

/// A scope to spawn fibers in that may borrow from outside of it. See [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    children: Children,
    owner: Owner,
    /// Invariant, as std's: a scope that could be taken for one with a shorter `'scope` would let
    /// its children borrow from what does not live as long as they.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// What the owner of a scope is able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// It suspends until the children have ended.
    Suspends,
    /// It can only block its worker: children run in `spawn`.
    Blocks,
    /// It is no fiber: nobody may spawn.
    Thread,
}

impl Owner {
    fn here() -> Self {
        match current::worker() {
            Some(_) if current::can_suspend() => Self::Suspends,
            Some(_) => Self::Blocks,
            None => Self::Thread,
        }
    }
}

/// Creates a scope for spawning fibers that borrow from the caller's stack. As
/// [`std::thread::scope`].
///
/// The function passed to `scope` is given a [`Scope`] object, through which fibers are
/// [spawned](Scope::spawn). All of them that have not been joined by then are joined before this
/// returns: the calling fiber suspends until they have ended. They may run on any worker.
///
/// Differs from [`std::thread::scope`] in that a join handle that is leaked does not make the scope
/// wait for ever, and in what happens where a fiber cannot suspend: while its thread unwinds, or in
/// [`no_suspend`](crate::no_suspend), each child runs to its end inside the call that spawns it, on
/// the spawner's stack.
///
/// # Panics
/// If `f` panics, its panic goes on in the caller. If a child panics and its panic is not taken by
/// [`ScopedJoinHandle::join`], `scope` panics. Both wait for all children first.
///
/// # Cancellation
/// Cannot be cancelled: cancel the children instead.
///
/// # Shutdown
/// If the runtime shuts down and leaks a child, because it waits for something that never comes, it
/// leaks the fiber that waits for it in `scope` as well. A child that was spawned on another
/// runtime (through a reference to the scope) and is leaked by that one is waited for for ever.
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let mut a = vec![1, 2, 3];
///     let mut x = 0;
///
///     ramie::scope(|s| {
///         s.spawn(|| assert_eq!(a.len(), 3));
///         s.spawn(|| x += a[0] + a[2]);
///     });
///
///     // The borrows have ended with the scope.
///     a.push(4);
///     assert_eq!(x, a.len());
/// });
/// # std::io::Result::Ok(())
/// ```
///
/// # Lifetimes
/// `'scope` is the life of the scope itself, `'env` that of what it may borrow, as explained at
/// [`std::thread::scope`]. What is made inside of `f` is gone when the children may still run:
/// ```compile_fail,E0373
/// ramie::scope(|s| {
///     let inner = 1;
///     s.spawn(|| println!("{inner}"));
/// });
/// ```
/// Two children do not get the same thing to change,
/// ```compile_fail,E0499
/// let mut x = 0;
/// ramie::scope(|s| {
///     s.spawn(|| x += 1);
///     s.spawn(|| x += 1);
/// });
/// ```
/// nor the parent while they have it:
/// ```compile_fail,E0503
/// let mut x = 0;
/// ramie::scope(|s| {
///     s.spawn(|| x += 1);
///     x += 1;
/// });
/// ```
/// Neither the scope nor a join handle gets out:
/// ```compile_fail,E0521
/// let mut out = None;
/// ramie::scope(|s| out = Some(s));
/// ```
/// ```compile_fail
/// let handle = ramie::scope(|s| s.spawn(|| 1));
/// ```
/// Children may start on another worker, so what they take has to be [`Send`]:
/// ```compile_fail,E0277
/// let rc = std::rc::Rc::new(1);
/// ramie::scope(|s| {
///     s.spawn(|| println!("{rc}"));
/// });
/// ```
/// ```compile_fail,E0277
/// ramie::scope(|s| {
///     s.spawn(|| std::rc::Rc::new(1));
/// });
/// ```
#[track_caller]
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let scope = Scope::new();
    // Whatever happens in there, the children are waited for.
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    wait_for(&scope.children, None);
    match result {
        Err(panic) => resume_unwind(panic),
        Ok(_) if scope.children.any_panicked() => panic!("a scoped fiber panicked"),
        Ok(value) => value,
    }
}

/// Waits until all children have ended. The caller is their owner, and adds none any more. A
/// request to end that comes meanwhile is passed on to `members`, if given.
fn wait_for(children: &Children, members: Option<&Members>) {
    let Some(all_ended) = children.leave() else { return };
    let stays = Stays;
    if let Some(members) = members
        && !sched::wait(all_ended, None, OnCancel::End)
    {
        members.cancel_all();
    }
    while !sched::wait(all_ended, None, OnCancel::Ignore) {}
    std::mem::forget(stays);
}

/// A frame that must not be left: others use what lies in it. Dropped by a panic only, of which
/// none is known (a fiber that waits here may suspend, see [`Owner`], so that waiting does not
/// panic).
struct Stays;

impl Drop for Stays {
    fn drop(&mut self) {
        eprintln!("ramie: a panic on a fiber whose children may still run, aborting");
        std::process::abort();
    }
}

impl<'scope> Scope<'scope, '_> {
    fn new() -> Self {
        Self {
            children: Children::new(current::worker().map_or(Place(0), Worker::place)),
            owner: Owner::here(),
            scope: PhantomData,
            env: PhantomData,
        }
    }

    /// Spawns a fiber in the scope and returns a handle to it. As [`std::thread::Scope::spawn`].
    ///
    /// The fiber may borrow what lives longer than the scope, may start on any worker, and may
    /// spawn others in the same scope. Dropping the handle does not detach the fiber from the
    /// scope, which waits for it in any case.
    ///
    /// # Panics
    /// As [`ramie::spawn`](crate::spawn): when called outside of a runtime (also if only the scope
    /// was opened there), and when there is no memory for another stack. See
    /// [`Builder::spawn_scoped`](crate::Builder::spawn_scoped) for these as errors.
    ///
    /// # Examples
    /// ```
    /// ramie::Runtime::new()?.run(|| {
    ///     let words = ["one", "two", "three"];
    ///     let lengths = ramie::scope(|s| {
    ///         let fibers = words.each_ref().map(|word| s.spawn(|| word.len()));
    ///         fibers.map(|fiber| fiber.join().unwrap())
    ///     });
    ///     assert_eq!(lengths, [3, 3, 5]);
    /// });
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.launch("Scope::spawn", f, Worker::push_fresh)
    }

    /// As [`spawn`](Self::spawn), but the fiber starts on the calling worker, where it stays:
    /// neither the closure nor its result has to be [`Send`].
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn).
    ///
    /// # Examples
    /// ```
    /// use std::cell::Cell;
    ///
    /// ramie::Runtime::new()?.run(|| {
    ///     let sum = Cell::new(0);
    ///     ramie::scope(|s| {
    ///         for n in 1..=4 {
    ///             let sum = &sum;
    ///             s.spawn_local(move || sum.set(sum.get() + n));
    ///         }
    ///     });
    ///     assert_eq!(sum.get(), 10);
    /// });
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn spawn_local<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        self.launch("Scope::spawn_local", f, Worker::push_ready)
    }

    #[inline]
    #[track_caller]
    fn launch<F, T>(
        &'scope self,
        what: &str,
        f: F,
        publish: impl FnOnce(&Worker, FiberPtr),
    ) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let Some(worker) = current::worker() else { no_runtime(what) };
        match self.start(worker, || Ok(None), None, f, publish) {
            Ok(handle) => handle,
            Err(_) if self.owner == Owner::Thread => opened_outside(),
            Err(error) => no_stack(&error),
        }
    }

    /// Makes a child, and publishes it as the caller wants; or runs it here if the owner could not
    /// wait for it.
    ///
    /// Whoever publishes it so that it may start on another thread has seen that `F` and `T` are
    /// `Send`.
    #[inline]
    pub(crate) fn start<F, T>(
        &'scope self,
        worker: &Worker,
        stack: impl FnOnce() -> io::Result<Option<Stack>>,
        name: Option<Arc<str>>,
        f: F,
        publish: impl FnOnce(&Worker, FiberPtr),
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        if self.owner == Owner::Thread {
            return Err(io::Error::other(OPENED_OUTSIDE));
        }
        // SAFETY: they lie in the frame of `scope`, which is not left before the child has been
        // counted out (`wait_for`). The same goes for whatever `F` and `T` borrow: it outlives
        // `'scope`, and that the frame.
        let parent = unsafe { ChildOf::new(&self.children) };
        let make = || worker.create_child(stack()?, name, f, parent);
        let fiber = if local::is_inherited() && self.owner == Owner::Suspends {
            heir(make)?
        } else {
            make()?
        };
        // The caller is counted: it is `f`, before its end, or a child. Nobody else has a
        // `&'scope Scope`.
        self.children.add(worker.place());
        if self.owner == Owner::Suspends {
            publish(worker, fiber);
        } else {
            // SAFETY: made above, with these types, and not published.
            unsafe { entry::run_here::<F, T, ChildOf>(fiber) };
            let worker = current::worker().expect("a fiber stays on its worker");
            worker.ended_here(fiber, &self.children);
        }
        Ok(ScopedJoinHandle::new(JoinHandle::new(fiber), &self.children))
    }
}

const OPENED_OUTSIDE: &str = "a fiber was spawned in a scope that was opened outside of the \
     runtime, where nobody can wait for it: open the scope inside Runtime::run (or under \
     #[ramie::main])";

#[cold]
#[track_caller]
fn opened_outside() -> ! {
    panic!("{OPENED_OUTSIDE}")
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("any_panicked", &self.children.any_panicked())
            .finish_non_exhaustive()
    }
}
