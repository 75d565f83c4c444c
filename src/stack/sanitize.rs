//! What AddressSanitizer and ThreadSanitizer must be told about fibers; nothing in a usual build.
//!
//! `build.rs` sets `cfg(sanitizer)` from what rustc was asked for (nightly,
//! `RUSTFLAGS=-Zsanitizer=address` or `=thread`); it is read in this file only. Each build has one
//! of three modules below with the same names, so that callers need no cfg. Without a sanitizer the
//! states have no size and the functions no code.
//!
//! | call              | where                                                                 |
//! |-------------------|-----------------------------------------------------------------------|
//! | `FiberState::new` | when a fiber gets its stack, before it starts                         |
//! | `before_resume`   | idle context, directly before `Context::resume`                       |
//! | `after_suspend`   | fiber, first thing on its stack and directly after `Context::suspend` |
//! | `before_suspend`  | fiber, directly before `Context::suspend`                             |
//! | `after_resume`    | idle context, directly after `Context::resume`                        |
//! | `clear`           | idle context, when the fiber has ended and before its stack is others' |
//! | `destroy`         | idle context, once, when the fiber has ended and is never resumed again |
//!
//! `destroy` touches nothing but the two states, so that it may have a copy of a fiber's state when
//! the fiber itself is gone already.
//!
//! All are inlined: ThreadSanitizer counts function entries and exits per fiber, so one must not
//! enter a function on one side of the switch and leave it on the other. For the same reason the
//! function that calls a `before_` must be the one that switches, and a fiber ends by a suspension
//! from which it is not resumed.
//!
//! # Safety of all of them
//! The pointers are valid, the fiber is the one being resumed or running, and the thread state is
//! that of the calling thread; the fiber's state names it from `before_resume` to the next
//! suspension. No reference to either is held across a switch.

#[cfg(sanitizer = "none")]
pub(crate) use none::*;

#[cfg(sanitizer = "address")]
pub(crate) use address::*;

#[cfg(sanitizer = "thread")]
pub(crate) use thread::*;

/// No sanitizer: nothing to tell.
#[cfg(sanitizer = "none")]
mod none {
    use super::super::Stack;

    #[derive(Debug)]
    pub(crate) struct FiberState;

    #[derive(Debug)]
    pub(crate) struct ThreadState;

    const _: () = assert!(size_of::<FiberState>() == 0 && size_of::<ThreadState>() == 0);

    impl FiberState {
        #[inline(always)]
        pub(crate) fn new(_stack: &Stack) -> FiberState {
            FiberState
        }
    }

    impl ThreadState {
        pub(crate) const fn new() -> ThreadState {
            ThreadState
        }
    }

    #[inline(always)]
    pub(crate) unsafe fn before_resume(_thread: *mut ThreadState, _fiber: *mut FiberState) {}

    #[inline(always)]
    pub(crate) unsafe fn after_resume(_thread: *mut ThreadState, _fiber: *mut FiberState) {}

    #[inline(always)]
    pub(crate) unsafe fn before_suspend(_fiber: *mut FiberState) {}

    #[inline(always)]
    pub(crate) unsafe fn after_suspend(_fiber: *mut FiberState) {}

    #[inline(always)]
    pub(crate) unsafe fn clear(_stack: &Stack) {}

    #[inline(always)]
    pub(crate) unsafe fn destroy(_thread: *mut ThreadState, _fiber: *mut FiberState) {}
}

/// AddressSanitizer keeps, per thread, the bounds of the running stack and a "fake stack" on the
/// heap where frames outlive their function (to find uses after return). Each side of a switch
/// names the other's bounds and swaps the fake stack.
#[cfg(sanitizer = "address")]
mod address {
    use super::super::Stack;
    use core::ffi::c_void;
    use core::ptr;

    unsafe extern "C" {
        fn __sanitizer_start_switch_fiber(
            fake_stack_save: *mut *mut c_void,
            bottom: *const c_void,
            size: usize,
        );
        fn __sanitizer_finish_switch_fiber(
            fake_stack_save: *mut c_void,
            bottom_old: *mut *const c_void,
            size_old: *mut usize,
        );
        fn __asan_unpoison_memory_region(addr: *const c_void, size: usize);
    }

    /// A stack's bounds, and its fake stack while it is not running.
    #[derive(Debug)]
    struct Side {
        bottom: *const c_void,
        size: usize,
        fake: *mut c_void,
    }

    /// With the state of the thread that resumed it last.
    #[derive(Debug)]
    pub(crate) struct FiberState(Side, *mut ThreadState);

    // SAFETY: addresses, used by the one thread that runs the fiber.
    unsafe impl Send for FiberState {}

    #[derive(Debug)]
    pub(crate) struct ThreadState(Side);

    impl FiberState {
        pub(crate) fn new(stack: &Stack) -> FiberState {
            let bottom = stack.limit();
            let size = stack.top().addr() - bottom.addr();
            let side = Side { bottom: bottom.cast(), size, fake: ptr::null_mut() };
            FiberState(side, ptr::null_mut())
        }
    }

    impl ThreadState {
        /// Its bounds are learnt from the first switch away from it.
        pub(crate) const fn new() -> ThreadState {
            ThreadState(Side { bottom: ptr::null(), size: 0, fake: ptr::null_mut() })
        }
    }

    #[inline(always)]
    pub(crate) unsafe fn before_resume(thread: *mut ThreadState, fiber: *mut FiberState) {
        // SAFETY: see the head of this file.
        unsafe {
            (*fiber).1 = thread;
            let to = &raw const (*fiber).0;
            __sanitizer_start_switch_fiber(&raw mut (*thread).0.fake, (*to).bottom, (*to).size);
        }
    }

    #[inline(always)]
    pub(crate) unsafe fn after_resume(thread: *mut ThreadState, _fiber: *mut FiberState) {
        // SAFETY: see the head of this file.
        unsafe {
            __sanitizer_finish_switch_fiber((*thread).0.fake, ptr::null_mut(), ptr::null_mut());
        }
    }

    #[inline(always)]
    pub(crate) unsafe fn before_suspend(fiber: *mut FiberState) {
        // SAFETY: see the head of this file; `after_suspend` has learnt the thread's bounds.
        unsafe {
            let to = &raw const (*(*fiber).1).0;
            __sanitizer_start_switch_fiber(&raw mut (*fiber).0.fake, (*to).bottom, (*to).size);
        }
    }

    #[inline(always)]
    pub(crate) unsafe fn after_suspend(fiber: *mut FiberState) {
        // SAFETY: see the head of this file.
        unsafe {
            let from = &raw mut (*(*fiber).1).0;
            __sanitizer_finish_switch_fiber(
                (*fiber).0.fake,
                &raw mut (*from).bottom,
                &raw mut (*from).size,
            );
        }
    }

    /// Frames that were never left (the base of the fiber) leave their red zones behind.
    #[inline(always)]
    pub(crate) unsafe fn clear(stack: &Stack) {
        let len = stack.top().addr() - stack.limit().addr();
        // SAFETY: the memory is a stack's, and the fiber on it has ended.
        unsafe { __asan_unpoison_memory_region(stack.limit().cast(), len) };
    }

    /// Only the running stack's fake stack can be destroyed, by a switch that does not save it. The
    /// fiber could do that at its last switch, but frames that it has yet to leave may lie there.
    /// So the idle context plays a switch to the ended fiber and a last one back. One that never
    /// ran has none; that may be found out on another fiber, too.
    #[inline(always)]
    pub(crate) unsafe fn destroy(thread: *mut ThreadState, fiber: *mut FiberState) {
        // SAFETY: the fiber's state is the caller's to use.
        if unsafe { (*fiber).0.fake.is_null() } {
            return;
        }
        // SAFETY: see the head of this file. No stack is switched, the calls only keep books; the
        // fiber has ended, so nothing of it is on its fake stack any more.
        unsafe {
            let here = &raw mut (*thread).0;
            let ended = &raw mut (*fiber).0;
            __sanitizer_start_switch_fiber(&raw mut (*here).fake, (*ended).bottom, (*ended).size);
            __sanitizer_finish_switch_fiber((*ended).fake, ptr::null_mut(), ptr::null_mut());
            __sanitizer_start_switch_fiber(ptr::null_mut(), (*here).bottom, (*here).size);
            __sanitizer_finish_switch_fiber((*here).fake, ptr::null_mut(), ptr::null_mut());
            (*ended).fake = ptr::null_mut();
        }
    }
}

/// ThreadSanitizer keeps a context (vector clock, shadow call stack) per fiber and is told which
/// one runs; a switch orders what came before it, as on one thread.
#[cfg(sanitizer = "thread")]
mod thread {
    use super::super::Stack;
    use core::ffi::c_void;
    use core::ptr;

    unsafe extern "C" {
        fn __tsan_get_current_fiber() -> *mut c_void;
        fn __tsan_create_fiber(flags: u32) -> *mut c_void;
        fn __tsan_destroy_fiber(fiber: *mut c_void);
        fn __tsan_switch_to_fiber(fiber: *mut c_void, flags: u32);
    }

    /// Flags of a switch: 0 makes it a synchronisation, too.
    const SYNCHRONISE: u32 = 0;

    /// With the state of the thread that resumed it last.
    #[derive(Debug)]
    pub(crate) struct FiberState(*mut c_void, *mut ThreadState);

    // SAFETY: a handle, used by the one thread that runs the fiber.
    unsafe impl Send for FiberState {}

    #[derive(Debug)]
    pub(crate) struct ThreadState(*mut c_void);

    impl FiberState {
        /// Its context is made by the first switch to it: there is room for some 8,000 at a time,
        /// and fresh fibers may be more.
        pub(crate) fn new(_stack: &Stack) -> FiberState {
            FiberState(ptr::null_mut(), ptr::null_mut())
        }
    }

    impl ThreadState {
        /// Its context is asked for at each switch away from it.
        pub(crate) const fn new() -> ThreadState {
            ThreadState(ptr::null_mut())
        }
    }

    #[inline(always)]
    pub(crate) unsafe fn before_resume(thread: *mut ThreadState, fiber: *mut FiberState) {
        // SAFETY: see the head of this file.
        unsafe {
            (*thread).0 = __tsan_get_current_fiber();
            (*fiber).1 = thread;
            if (*fiber).0.is_null() {
                (*fiber).0 = __tsan_create_fiber(0);
            }
            __tsan_switch_to_fiber((*fiber).0, SYNCHRONISE);
        }
    }

    #[inline(always)]
    pub(crate) unsafe fn after_resume(_thread: *mut ThreadState, _fiber: *mut FiberState) {}

    #[inline(always)]
    pub(crate) unsafe fn before_suspend(fiber: *mut FiberState) {
        // SAFETY: see the head of this file.
        unsafe { __tsan_switch_to_fiber((*(*fiber).1).0, SYNCHRONISE) };
    }

    #[inline(always)]
    pub(crate) unsafe fn after_suspend(_fiber: *mut FiberState) {}

    #[inline(always)]
    pub(crate) unsafe fn clear(_stack: &Stack) {}

    #[inline(always)]
    pub(crate) unsafe fn destroy(_thread: *mut ThreadState, fiber: *mut FiberState) {
        // SAFETY: see the head of this file; the fiber has ended, or never ran and has no context.
        unsafe {
            if !(*fiber).0.is_null() {
                __tsan_destroy_fiber((*fiber).0);
            }
        }
    }
}
