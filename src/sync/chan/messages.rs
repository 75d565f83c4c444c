//! The messages that wait in a channel, oldest first: a list of blocks with room for a few each.
//!
//! It is used under the channel's lock, so no operation allocates, frees, or moves more than one
//! message: the caller brings a new block when [`Messages::wants_block`] says so, and takes emptied
//! ones away with [`Messages::pop`] to free them when it has let go of the lock. A few emptied
//! blocks are kept for the next messages.
//!
//! ```text
//!   head ──► ┌─────────────┐      ┌─────────────┐      ┌─────────────┐ ◄── tail
//!            │ . . a b c d │ ───► │ e f g h i j │ ───► │ k l . . . . │
//!            └─────────────┘      └─────────────┘      └─────────────┘
//!                  ▲ first                                   ▲ end
//! ```
//!
//! Invariants.
//! 1. `head` and `tail` are both null or both blocks of one list, which ends with `tail`.
//! 2. The slots from `first` of `head` to before `end` of `tail` hold messages, `len` of them, and
//!    no other slot does.
//! 3. A block in the list other than `head` holds at least one message, unless it is the only one.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

/// Slots of a block, at most. Enough to make an allocation per block cheap for each message.
const SLOTS: usize = 32;
/// A block is about this large at most, unless one message is larger.
const BLOCK_BYTES: usize = 2048;
/// Emptied blocks kept for reuse.
const SPARE: usize = 8;

/// What precedes the slots of a block.
struct Block<T> {
    next: *mut Block<T>,
    /// The slots follow; an array of no known length has their alignment.
    slots: [T; 0],
}

/// A block that is in no queue. Freed when dropped.
pub(super) struct FreeBlock<T> {
    block: NonNull<Block<T>>,
    slots: usize,
}

impl<T> FreeBlock<T> {
    fn layout(slots: usize) -> Layout {
        let slots = Layout::array::<T>(slots).expect("a block of messages fits into memory");
        let (layout, _) =
            Layout::new::<Block<T>>().extend(slots).expect("a block of messages fits into memory");
        layout
    }

    pub(super) fn new(slots: usize) -> Self {
        let layout = Self::layout(slots);
        // SAFETY: the layout is not of size 0, as a block has a header.
        let memory = unsafe { alloc(layout) }.cast::<Block<T>>();
        let Some(block) = NonNull::new(memory) else { handle_alloc_error(layout) };
        // SAFETY: the memory is ours and large enough.
        unsafe { (&raw mut (*block.as_ptr()).next).write(ptr::null_mut()) };
        Self { block, slots }
    }

    fn into_raw(self) -> *mut Block<T> {
        let block = self.block.as_ptr();
        std::mem::forget(self);
        block
    }
}

impl<T> Drop for FreeBlock<T> {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout, and in no queue.
        unsafe { dealloc(self.block.as_ptr().cast(), Self::layout(self.slots)) };
    }
}

/// See the module's head. What each message changes comes first, for `State`.
#[repr(C)]
pub(super) struct Messages<T> {
    first: u32,
    end: u32,
    len: usize,
    head: *mut Block<T>,
    tail: *mut Block<T>,
    /// Emptied blocks, linked.
    spare: *mut Block<T>,
    spares: usize,
    /// Slots of each block.
    slots: u32,
    _messages: PhantomData<T>,
}

// SAFETY: it owns its messages and blocks, and shares neither.
unsafe impl<T: Send> Send for Messages<T> {}

impl<T> Messages<T> {
    /// An empty queue, which allocates nothing before its first message. It is to hold at most
    /// `capacity` messages.
    pub(super) fn new(capacity: usize) -> Self {
        let fitting = BLOCK_BYTES / size_of::<T>().max(1);
        Self::with_slots(fitting.min(capacity).clamp(1, SLOTS) as u32)
    }

    fn with_slots(slots: u32) -> Self {
        Self {
            first: 0,
            end: 0,
            len: 0,
            head: ptr::null_mut(),
            tail: ptr::null_mut(),
            spare: ptr::null_mut(),
            spares: 0,
            slots,
            _messages: PhantomData,
        }
    }

    /// Takes everything out. What is left takes the same blocks: somebody may be about to add one.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self::with_slots(self.slots);
        std::mem::replace(self, empty)
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Slots that a block for this queue has to have.
    pub(super) fn slots(&self) -> usize {
        self.slots as usize
    }

    /// Whether `push` needs a block that is not there: then `add_block` first.
    #[inline]
    pub(super) fn wants_block(&self) -> bool {
        (self.tail.is_null() || self.end == self.slots) && self.spare.is_null()
    }

    /// Adds a block of `slots()` slots for later use.
    pub(super) fn add_block(&mut self, block: FreeBlock<T>) {
        assert!(block.slots == self.slots(), "a block of another queue's");
        self.keep(block.into_raw());
    }

    fn keep(&mut self, block: *mut Block<T>) {
        // SAFETY: a block of ours that is in no list.
        unsafe { (*block).next = self.spare };
        self.spare = block;
        self.spares += 1;
    }

    /// The address of a slot of a block of this queue.
    ///
    /// # Safety
    /// `block` is one of this queue's blocks, and `index` less than `slots`.
    #[inline]
    unsafe fn slot(block: *mut Block<T>, index: u32) -> *mut T {
        // SAFETY: by the caller; the slots follow the header, aligned by `Block::slots`, as
        // `Layout::extend` puts them.
        unsafe { (&raw mut (*block).slots).cast::<T>().add(index as usize) }
    }

    /// Puts a message at the end. Only when `wants_block` is false.
    #[inline]
    pub(super) fn push(&mut self, message: T) {
        if self.tail.is_null() || self.end == self.slots {
            self.append_block();
        }
        // SAFETY: `tail` is a block, and `end` a slot of it that holds nothing (invariant 2).
        unsafe { Self::slot(self.tail, self.end).write(message) };
        self.end += 1;
        self.len += 1;
    }

    fn append_block(&mut self) {
        let block = self.spare;
        assert!(!block.is_null(), "a message without room for it");
        // SAFETY: a spare block, which is ours.
        unsafe {
            self.spare = (*block).next;
            (*block).next = ptr::null_mut();
        }
        self.spares -= 1;
        if self.tail.is_null() {
            self.head = block;
            self.first = 0;
        } else {
            // SAFETY: the last block of the list (invariant 1).
            unsafe { (*self.tail).next = block };
        }
        self.tail = block;
        self.end = 0;
    }

    /// Takes the oldest message out, and with it perhaps a block that is not needed any more.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<(T, Option<FreeBlock<T>>)> {
        if self.len == 0 {
            return None;
        }
        // SAFETY: the queue is not empty, so `first` of `head` holds the oldest message, which is
        // moved out (invariant 2).
        let message = unsafe { Self::slot(self.head, self.first).read() };
        self.first += 1;
        self.len -= 1;
        if self.len == 0 && self.head == self.tail {
            self.first = 0;
            self.end = 0;
            return Some((message, None));
        }
        let block = if self.first == self.slots { self.drop_head() } else { None };
        Some((message, block))
    }

    fn drop_all(&mut self) {
        while let Some((message, _)) = self.pop() {
            drop(message);
        }
    }

    /// Frees a list of blocks, which must not be used any more.
    fn free(&self, mut list: *mut Block<T>) {
        while let Some(block) = NonNull::new(list) {
            // SAFETY: a block of ours.
            list = unsafe { (*block.as_ptr()).next };
            drop(FreeBlock { block, slots: self.slots() });
        }
    }

    /// Takes the emptied first block out of the list.
    fn drop_head(&mut self) -> Option<FreeBlock<T>> {
        let block = self.head;
        // SAFETY: all messages of the first block are out and there are more, so there is a next
        // one (invariant 1).
        self.head = unsafe { (*block).next };
        self.first = 0;
        if self.spares < SPARE {
            self.keep(block);
            return None;
        }
        NonNull::new(block).map(|block| FreeBlock { block, slots: self.slots() })
    }
}

impl<T> Drop for Messages<T> {
    fn drop(&mut self) {
        /// Goes on when the destructor of a message panics.
        struct Finish<'a, T>(&'a mut Messages<T>);
        impl<T> Drop for Finish<'_, T> {
            fn drop(&mut self) {
                self.0.drop_all();
                self.0.free(self.0.head);
                self.0.free(self.0.spare);
            }
        }
        Finish(self).0.drop_all();
    }
}
