//! Making a fiber from a closure, and its first and last steps.
//!
//! The closure, and later its result, lie in the payload below the header. Large ones are boxed, so
//! that a parked fiber stays within a page and a small stack is not eaten by its argument.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread;

use super::header::HIGHEST;
use super::local::{self, Locals};
use super::{AfterSwitch, Children, FiberPtr, Header};
use super::{header, park, spans};
use crate::arch::{self, Context, Entry};
use crate::stack::{Stack, sanitize};

/// Values up to this size lie in the payload; larger ones are boxed.
const INLINE_MAX: usize = 512;
/// The number of offsets over which headers are spread, so that those of many fibers do not fall
/// into the same few cache sets.
const COLOUR_BITS: u32 = 4;
const COLOUR_BYTES: usize = 64;

/// The most that colour, header and payload take, with what rounding adds.
const TAKEN_MAX: usize = (COLOUR_BYTES << COLOUR_BITS) + size_of::<Header>() + INLINE_MAX + 64;

// The smallest stack has 16 KiB, of which a quarter is guard.
const _: () = assert!(TAKEN_MAX <= HIGHEST && size_of::<thread::Result<()>>() <= INLINE_MAX);
const _: () = assert!(align_of::<Header>() == COLOUR_BYTES);

/// A slot's colour: the top bits of a product, which depend on all bits of the address.
#[inline]
fn colour(top: usize) -> usize {
    let hash = (top as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> (u64::BITS - COLOUR_BITS)) as usize * COLOUR_BYTES
}

/// The header's place on the stack with this top.
#[inline]
fn header_of(top: *mut u8) -> *mut Header {
    top.wrapping_sub(colour(top.addr()) + size_of::<Header>()).cast()
}

/// Asks for the memory of a stack that a fiber will be made on.
#[inline]
pub(crate) fn prefetch(top: *mut u8) {
    header::prefetch(header_of(top));
}

const fn is_inline<V>() -> bool {
    size_of::<V>() <= INLINE_MAX && align_of::<V>() <= 64
}

const fn stored_size<V>() -> usize {
    if is_inline::<V>() { size_of::<V>() } else { size_of::<Box<V>>() }
}

const fn stored_align<V>() -> usize {
    if is_inline::<V>() { align_of::<V>() } else { align_of::<Box<V>>() }
}

const fn extent<V>() -> usize {
    stored_size::<V>().next_multiple_of(stored_align::<V>())
}

/// Where a closure or a result of this type is stored: directly below the header, so that who knows
/// the type knows the place.
#[inline(always)]
fn place<V>(header: *mut Header) -> *mut () {
    header.wrapping_byte_sub(const { extent::<V>() }).cast()
}

/// How far below the header the stack's frames begin.
const fn frames_below<F, T>() -> usize {
    let (f, t) = (extent::<F>(), extent::<thread::Result<T>>());
    (if f > t { f } else { t }).next_multiple_of(16)
}

/// # Safety
/// `slot` is valid for writing `stored_size::<V>()` bytes at `stored_align::<V>()`.
#[inline(always)]
unsafe fn store<V>(slot: *mut (), value: V) {
    if is_inline::<V>() {
        // SAFETY: the caller's promise.
        unsafe { slot.cast::<V>().write(value) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { slot.cast::<Box<V>>().write(Box::new(value)) }
    }
}

/// # Safety
/// `slot` holds a `V` put there by `store`, which is read at most once.
#[inline(always)]
unsafe fn load<V>(slot: *mut ()) -> V {
    if is_inline::<V>() {
        // SAFETY: the caller's promise.
        unsafe { slot.cast::<V>().read() }
    } else {
        // SAFETY: the caller's promise.
        *unsafe { slot.cast::<Box<V>>().read() }
    }
}

/// Who waits for a fiber's end besides its join handle.
pub(crate) trait Parent: Copy {
    /// The count that the fiber is in.
    fn children<'a>(self) -> Option<&'a Children>;
}

/// Nobody does.
#[derive(Clone, Copy)]
pub(crate) struct NoParent;

impl Parent for NoParent {
    #[inline(always)]
    fn children<'a>(self) -> Option<&'a Children> {
        None
    }
}

/// A scope does.
#[derive(Clone, Copy)]
pub(crate) struct ChildOf(NonNull<Children>);

impl ChildOf {
    /// # Safety
    /// `children` stays where it is until the fiber has been counted out of it.
    #[inline(always)]
    pub(crate) unsafe fn new(children: &Children) -> Self {
        Self(children.into())
    }
}

impl Parent for ChildOf {
    #[inline(always)]
    fn children<'a>(self) -> Option<&'a Children> {
        // SAFETY: `new`'s promise; it is asked for by the fiber, which has not been counted out.
        Some(unsafe { self.0.as_ref() })
    }
}

/// Lays out a fresh fiber on `stack` that will run `f` and keep its result.
///
/// Nothing runs and nothing is published yet. The closure may be run on another thread than the
/// caller's if the caller hands the fiber over to one; its being `Send` is the caller's concern.
#[inline]
pub(crate) fn create<F, T>(
    stack: Stack,
    id: u64,
    home: *mut (),
    name: Option<Arc<str>>,
    f: F,
) -> FiberPtr
where
    F: FnOnce() -> T,
{
    create_child::<F, T, NoParent>(stack, id, home, name, f, NoParent)
}

/// As [`create`], for a fiber that has a parent.
#[inline]
pub(crate) fn create_child<F, T, P>(
    stack: Stack,
    id: u64,
    home: *mut (),
    name: Option<Arc<str>>,
    f: F,
    parent: P,
) -> FiberPtr
where
    F: FnOnce() -> T,
    P: Parent,
{
    let header = header_of(stack.top());
    let frames = header.wrapping_byte_sub(const { frames_below::<(F, P), T>() }).cast::<u8>();

    // The header's place depends on the stack only, as `Header::init` demands. A stack's top is
    // aligned to a page, and colours, the header and `place` to 64.
    // SAFETY: header, closure and first frame lie in the stack, which is ours and unused; they do
    // not overlap, `TAKEN_MAX` bounds what they take, and they are aligned (above).
    unsafe {
        store(place::<(F, P)>(header), (f, parent));
        Header::init(header, &stack, id, home, name);
        let fiber = FiberPtr::new(NonNull::new_unchecked(header));
        let context = fiber.context();
        Context::init::<Body<F, T, P>>(context, frames, || stack.limit(), header.cast());
        // The header is its owner now.
        std::mem::forget(stack);
        fiber
    }
}

/// What a fiber made by `create_child::<F, T, P>` runs.
struct Body<F, T, P>(PhantomData<(F, T, P)>);

impl<F: FnOnce() -> T, T, P: Parent> Entry for Body<F, T, P> {
    #[inline(always)]
    unsafe fn enter(header: *mut (), _worker: usize) -> usize {
        // SAFETY: the header that `create_child::<F, T, P>` passed to the switch.
        unsafe { body::<F, T, P>(header) }
    }
}

/// A fiber's whole life. Ends with a suspension, and is not resumed.
///
/// # Safety
/// Called once by the switch, with the header that `create_child::<F, T, P>` made.
#[inline(always)]
unsafe fn body<F, T, P>(header: *mut ()) -> usize
where
    F: FnOnce() -> T,
    P: Parent,
{
    // SAFETY: `create` made it, and the fiber is alive: it is running.
    let fiber = unsafe { FiberPtr::new(NonNull::new_unchecked(header.cast())) };
    // SAFETY: first thing on the fiber's stack.
    unsafe { sanitize::after_suspend(fiber.header().sanitize.get()) };
    // SAFETY: `create_child` stored it, and this runs once. The payload is free again after it, and
    // has room for the result.
    let (f, parent) = unsafe { load::<(F, P)>(place::<(F, P)>(fiber.as_ptr())) };
    let mut result = catch_unwind(AssertUnwindSafe(f));
    // SAFETY: the fiber is the one that runs.
    unsafe { destroy_locals_into(fiber, &mut result) };
    if spans::followed() {
        // Those whose guards were leaked; the other fibers of this thread must not be in them.
        drop(spans::leave(Some(fiber)));
        // The subscriber may have made new fiber-local values.
        // SAFETY: as above.
        unsafe { destroy_locals_into(fiber, &mut result) };
    }
    // From here on no foreign code runs on the fiber, unless it is resumed to drop the result.
    // SAFETY: as above.
    unsafe { keep_result(fiber, parent, result) };

    if !fiber.header().ended.is_detached() {
        let after = match parent.children() {
            None => AfterSwitch::Ended,
            Some(children) => AfterSwitch::ChildEnded(children),
        };
        // SAFETY: this fiber is the one that runs. Nothing on the stack needs dropping any more, so
        // never being resumed is fine.
        unsafe { park::suspend(fiber, &after) };
    }
    // Nobody wants the result: it is dropped here, where its destructor may suspend.
    // SAFETY: stored above, and the join handle is gone.
    unsafe { drop_result::<T>(fiber) };
    if spans::followed() {
        drop(spans::leave(Some(fiber))); // as above
    }
    // Its destructor may have made new fiber-local values.
    // SAFETY: the fiber is the one that runs.
    if unsafe { destroy_locals(fiber) }.is_err() {
        result_panicked();
    }
    let after = match parent.children() {
        None => AfterSwitch::Free,
        Some(children) => AfterSwitch::FreeChild(children),
    };
    // SAFETY: as above.
    unsafe { park::suspend(fiber, &after) }
}

/// # Safety
/// The fiber's payload is free, `T` is its result type, and the caller is its holder.
#[inline(always)]
unsafe fn keep_result<T, P: Parent>(fiber: FiberPtr, parent: P, result: thread::Result<T>) {
    fiber.header().panicked.set(result.is_err());
    if let (Some(children), Err(_)) = (parent.children(), &result) {
        children.panicked();
    }
    // SAFETY: the caller's promise.
    unsafe { store(place::<thread::Result<T>>(fiber.as_ptr()), result) };
}

/// Runs the closure of a fresh fiber right here, on the caller's stack, and keeps its result. The
/// fiber itself never runs.
///
/// # Safety
/// `create_child::<F, T, P>` made the fiber, it is fresh, and the caller is its holder.
pub(crate) unsafe fn run_here<F, T, P>(fiber: FiberPtr)
where
    F: FnOnce() -> T,
    P: Parent,
{
    // SAFETY: the caller's promise. This reads the closure, once, and so frees the payload.
    let (f, parent) = unsafe { load::<(F, P)>(place::<(F, P)>(fiber.as_ptr())) };
    let result = catch_unwind(AssertUnwindSafe(f));
    // SAFETY: as above.
    unsafe { keep_result(fiber, parent, result) };
}

/// Destroys the fiber-local values here, on the fiber and its thread: whoever drops the header may
/// be on another one. The panic of a destructor comes back; the other values are destroyed as well.
///
/// # Safety
/// `fiber` is the fiber that runs.
#[inline]
unsafe fn destroy_locals(fiber: FiberPtr) -> thread::Result<()> {
    if !fiber.header().has_locals() {
        return Ok(());
    }
    // SAFETY: as the caller's.
    unsafe { destroy_locals_slow(fiber.header().locals()) }
}

/// Destroys the fiber-local values; the panic of a destructor takes the place of a result that is
/// none.
///
/// # Safety
/// As for [`destroy_locals`].
#[inline]
unsafe fn destroy_locals_into<T>(fiber: FiberPtr, result: &mut thread::Result<T>) {
    // SAFETY: the caller's promise.
    while let Err(panic) = unsafe { destroy_locals(fiber) } {
        let unwanted = match result {
            Ok(_) => std::mem::replace(result, Err(panic)),
            Err(_) => Err(panic),
        };
        // Its destructor may make new values: hence the loop.
        if catch_unwind(AssertUnwindSafe(|| drop(unwanted))).is_err() {
            result_panicked();
        }
    }
}

/// # Safety
/// As [`destroy_locals`], with the running fiber's table.
#[cold]
unsafe fn destroy_locals_slow(locals: *mut Locals) -> thread::Result<()> {
    let mut result = Ok(());
    // Each round takes the value out whose destructor panics, so this ends.
    loop {
        // SAFETY: the running fiber's own.
        match catch_unwind(AssertUnwindSafe(|| unsafe { local::destroy_all(locals) })) {
            Ok(()) => return result,
            Err(panic) => result = Err(panic),
        }
    }
}

/// Drops the closure of a fiber that will never run.
///
/// # Safety
/// `F` is the closure type of the fiber, which was made by [`create`] and is fresh.
pub(crate) unsafe fn discard<F>(fiber: FiberPtr) {
    // SAFETY: the caller's promise.
    drop(unsafe { load::<(F, NoParent)>(place::<(F, NoParent)>(fiber.as_ptr())) });
}

/// Asks for the memory of a fiber's result.
#[inline]
pub(crate) fn prefetch_result<T>(fiber: FiberPtr) {
    arch::prefetch(place::<thread::Result<T>>(fiber.as_ptr()));
}

/// Takes the result of a fiber that has ended.
///
/// # Safety
/// `ended` is set, `T` is the fiber's result type, and the result has not been taken or dropped.
#[inline]
pub(crate) unsafe fn take_result<T>(fiber: FiberPtr) -> thread::Result<T> {
    // SAFETY: the caller's promise.
    unsafe { load(place::<thread::Result<T>>(fiber.as_ptr())) }
}

/// Drops the result of a fiber that has ended, as std does for a thread nobody joins.
///
/// # Safety
/// As for [`take_result`].
pub(crate) unsafe fn drop_result<T>(fiber: FiberPtr) {
    let drop_it = || {
        // SAFETY: the caller's promise.
        drop(unsafe { take_result::<T>(fiber) });
    };
    if catch_unwind(AssertUnwindSafe(drop_it)).is_err() {
        result_panicked();
    }
}

#[cold]
fn result_panicked() -> ! {
    eprintln!("fatal runtime error: fiber result panicked on drop, aborting");
    std::process::abort();
}
