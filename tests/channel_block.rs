//! A channel's memory comes and goes by layouts that match, whoever leaves while a sender gets
//! some.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `AT_ALLOC` in the midst of the next allocation of its thread, whose size it notes.
struct Hooked;

type Hook = Box<dyn FnOnce()>;

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static AT_ALLOC: RefCell<Option<Hook>> = const { RefCell::new(None) };
}
static WATCHED: AtomicUsize = AtomicUsize::new(0);
static SIZE: AtomicUsize = AtomicUsize::new(0);
static FREED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator.
unsafe impl GlobalAlloc for Hooked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let memory = unsafe { System.alloc(layout) };
        if ARMED.try_with(|armed| armed.replace(false)).unwrap_or(false) {
            WATCHED.store(memory.addr(), Ordering::Relaxed);
            SIZE.store(layout.size(), Ordering::Relaxed);
            let hook = AT_ALLOC.with_borrow_mut(Option::take);
            hook.expect("armed with a hook")();
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if memory.addr() == WATCHED.load(Ordering::Relaxed) {
            WATCHED.store(0, Ordering::Relaxed);
            FREED.store(layout.size(), Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Hooked = Hooked;

/// The first message needs a block, for which the sender lets go of the lock. The last receiver
/// goes meanwhile, with the queue, whose successor must take the same blocks.
#[test]
fn the_last_receiver_leaves_while_a_sender_allocates() {
    let (sender, receiver) = ramie::sync::mpsc::channel::<u64>();
    AT_ALLOC.set(Some(Box::new(move || drop(receiver))));
    ARMED.set(true);
    assert_eq!(sender.send(1).map_err(|error| error.0), Err(1));
    assert_ne!(SIZE.load(Ordering::Relaxed), 0, "a block was allocated");
    drop(sender);
    assert_eq!(FREED.load(Ordering::Relaxed), SIZE.load(Ordering::Relaxed));
}
