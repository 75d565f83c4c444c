//! Tests of the switches: the contract of `arch/mod.rs`, on the native switch and on the portable
//! one.
//!
//! - `oracle`: one script, run on both switches, leaves one trace; a deliberately wrong switch does
//!   not.
//! - `machine`: what the native switch does to registers, stack alignment and backtraces.
//!
//! A checker that cannot fail proves nothing, so each kind has a canary.

mod machine;
mod oracle;

use super::Entry;
use std::alloc::{Layout, alloc, dealloc};

/// The contract of `arch/mod.rs`, as a trait, so that a test can be run on every switch.
pub(super) trait Switch: 'static {
    const NAME: &'static str;
    type Context;
    unsafe fn init<E: Entry>(this: *mut Self::Context, stack: &Stack, arg: *mut ());
    unsafe fn resume(this: *mut Self::Context, word: usize) -> usize;
    unsafe fn suspend(this: *mut Self::Context, word: usize) -> usize;
    fn get_current() -> usize;
    fn set_current(word: usize);
}

macro_rules! switch {
    ($name:ident, $module:ident) => {
        pub(super) struct $name;

        impl Switch for $name {
            const NAME: &'static str = stringify!($module);
            type Context = super::$module::Context;

            unsafe fn init<E: Entry>(this: *mut Self::Context, stack: &Stack, arg: *mut ()) {
                // SAFETY: passed on to our caller.
                unsafe { Self::Context::init::<E>(this, stack.top(), || stack.limit(), arg) }
            }

            #[inline(always)]
            unsafe fn resume(this: *mut Self::Context, word: usize) -> usize {
                // SAFETY: passed on to our caller.
                unsafe { Self::Context::resume(this, word) }
            }

            #[inline(always)]
            unsafe fn suspend(this: *mut Self::Context, word: usize) -> usize {
                // SAFETY: passed on to our caller.
                unsafe { Self::Context::suspend(this, word) }
            }

            fn get_current() -> usize {
                super::$module::get_current()
            }

            fn set_current(word: usize) {
                super::$module::set_current(word);
            }
        }
    };
}

switch!(Portable, portable);
#[cfg(native = "aarch64")]
switch!(Native, aarch64);
#[cfg(native = "riscv64")]
switch!(Native, riscv64);
#[cfg(native = "x86_64")]
switch!(Native, x86_64);

/// A stack without a guard, large enough that none is needed here.
pub(super) struct Stack(*mut u8);

impl Stack {
    const LAYOUT: Layout = match Layout::from_size_align(256 << 10, 4096) {
        Ok(layout) => layout,
        Err(_) => panic!("a valid layout"),
    };

    pub(super) fn new() -> Stack {
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc(Self::LAYOUT) };
        assert!(!base.is_null(), "no memory for a test's stack");
        Stack(base)
    }

    pub(super) fn limit(&self) -> *mut u8 {
        self.0
    }

    pub(super) fn top(&self) -> *mut u8 {
        // SAFETY: one past the end of the allocation.
        unsafe { self.0.add(Self::LAYOUT.size()) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout; what ran on it has ended.
        unsafe { dealloc(self.0, Self::LAYOUT) }
    }
}

/// A fiber on a stack of its own. The body gets a handle with which it suspends; the box keeps the
/// context at one address.
pub(super) struct Fiber<S: Switch> {
    inner: Box<Inner<S>>,
}

struct Inner<S: Switch> {
    context: std::cell::UnsafeCell<std::mem::MaybeUninit<S::Context>>,
    done: std::cell::Cell<bool>,
    body: std::cell::Cell<Option<Body<S>>>,
    stack: Stack,
}

impl<S: Switch> Entry for Inner<S> {
    unsafe fn enter(arg: *mut (), word: usize) -> usize {
        let inner = arg.cast::<Inner<S>>().cast_const();
        // SAFETY: `Fiber::new` passed the address of its box, which outlives the fiber's run.
        let body = unsafe { (*inner).body.take() }.expect("a fiber starts once");
        let last = body(Suspender(inner), word);
        // SAFETY: as above.
        unsafe { (*inner).done.set(true) };
        last
    }
}

type Body<S> = Box<dyn FnOnce(Suspender<S>, usize) -> usize>;

/// What a fiber's body suspends itself with.
pub(super) struct Suspender<S: Switch>(*const Inner<S>);

impl<S: Switch> Clone for Suspender<S> {
    fn clone(&self) -> Self {
        Suspender(self.0)
    }
}

impl<S: Switch> Suspender<S> {
    pub(super) fn suspend(&self, word: usize) -> usize {
        // SAFETY: only bodies have a Suspender, and they use it on their own fiber.
        unsafe { S::suspend((*self.0).context.get().cast(), word) }
    }
}

impl<S: Switch> Fiber<S> {
    pub(super) fn new(body: impl FnOnce(Suspender<S>, usize) -> usize + 'static) -> Self {
        let inner = Box::new(Inner {
            context: std::cell::UnsafeCell::new(std::mem::MaybeUninit::uninit()),
            done: std::cell::Cell::new(false),
            body: std::cell::Cell::new(Some(Box::new(body))),
            stack: Stack::new(),
        });
        let arg = (&raw const *inner).cast_mut().cast();
        // SAFETY: the stack is new and lives in the same box as the context.
        unsafe { S::init::<Inner<S>>(inner.context.get().cast(), &inner.stack, arg) };
        Fiber { inner }
    }

    pub(super) fn resume(&self, word: usize) -> usize {
        assert!(!self.done(), "the fiber has ended");
        // SAFETY: initialised by `new`, not ended, and suspended: tests resume from outside only.
        unsafe { S::resume(self.context(), word) }
    }

    pub(super) fn context(&self) -> *mut S::Context {
        self.inner.context.get().cast()
    }

    pub(super) fn done(&self) -> bool {
        self.inner.done.get()
    }
}
