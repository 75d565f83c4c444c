//! Buffers that the kernel picks from when it receives: a ring of them, shared with one io_uring.
#![allow(dead_code, reason = "each program uses some of it")]

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

/// See the module's head.
pub struct Buffers {
    entries: *mut BufRingEntry,
    count: u16,
    size: usize,
    data: Vec<u8>,
    tail: u16,
}

impl Buffers {
    /// `count`, a power of two, of `size` bytes each, as group 0 of the ring. They are leaked,
    /// since the ring may still write to them when this is dropped.
    pub fn new(ring: &IoUring, count: u16, size: usize) -> io::Result<Buffers> {
        let layout = std::alloc::Layout::array::<BufRingEntry>(usize::from(count))
            .and_then(|layout| layout.align_to(4096))
            .expect("a sane size");
        // SAFETY: the size is not zero.
        let entries = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<BufRingEntry>();
        // SAFETY: the entries are never freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries as u64, count, 0, 0)?;
        }
        let data = vec![0; usize::from(count) * size];
        let mut buffers = Buffers { entries, count, size, data, tail: 0 };
        (0..count).for_each(|id| buffers.give(id));
        buffers.publish();
        Ok(buffers)
    }

    /// The first bytes of one that the kernel has filled.
    pub fn get(&self, id: u16, len: usize) -> &[u8] {
        &self.data[usize::from(id) * self.size..][..len]
    }

    /// Gives one back, with the next `publish`.
    pub fn give(&mut self, id: u16) {
        let data = self.data.as_mut_ptr().wrapping_add(usize::from(id) * self.size);
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: in bounds, and the entry is ours until the tail is published.
        let entry = unsafe { &mut *self.entries.add(place) };
        entry.set_addr(data as u64);
        entry.set_len(self.size as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was given back.
    pub fn publish(&mut self) {
        // SAFETY: the first entry holds the tail, which both sides use as an atomic.
        let tail = unsafe { &*BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        std::mem::forget(std::mem::take(&mut self.data));
    }
}
