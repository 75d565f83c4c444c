//! What a reader and a writer have to tell so that the kernel can copy.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, BufWriter, Read, Take, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::fs::File;
use crate::io::{PipeReader, PipeWriter};
use crate::process::{ChildStderr, ChildStdin, ChildStdout};

/// One step of a copy.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    /// So many bytes.
    Bytes(u64),
    /// There are no more.
    End,
    /// This way does not work here.
    Refused,
}

/// What a step does, while nobody else may.
pub(crate) type Alone<'a> = &'a mut dyn FnMut() -> io::Result<Step>;

/// A reader of a descriptor.
pub(crate) trait Source: Read {
    /// The descriptor, if nothing is set that only a read through its owner obeys.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Bytes that have been read from the descriptor and come first.
    fn buffered(&self) -> &[u8] {
        &[]
    }

    /// So many of `buffered` have been copied.
    fn consume_buffered(&mut self, _bytes: usize) {}

    /// How many bytes may be copied from the descriptor, once nothing is buffered.
    fn limit(&self) -> u64 {
        u64::MAX
    }

    /// So many bytes have been copied from the descriptor.
    fn copied(&mut self, _bytes: u64) {}

    /// Whether others may read between two steps, and then leave something in a buffer.
    fn is_shared(&self) -> bool {
        false
    }

    /// Calls `f` while no other may read, unless something is buffered: then `Refused`.
    fn alone(&self, f: Alone<'_>) -> io::Result<Step> {
        f()
    }
}

/// A writer to a descriptor.
pub(crate) trait Sink: Write {
    /// As of a [`Source`].
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Writes what is buffered.
    fn empty(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Bytes have been copied to the descriptor.
    fn copied(&mut self) {}

    /// Whether others may write between two steps.
    fn is_shared(&self) -> bool {
        false
    }

    /// Calls `f` while no other may write, with nothing buffered.
    fn alone(&self, f: Alone<'_>) -> io::Result<Step> {
        f()
    }
}

impl Source for File {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd()).filter(|_| !self.is_fifo())
    }

    fn copied(&mut self, _bytes: u64) {
        self.moved();
    }
}

impl Sink for File {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }

    fn copied(&mut self) {
        self.moved();
    }
}

impl Source for &File {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        // The end of a FIFO is not for a ring to find.
        Some(self.as_fd()).filter(|_| !self.is_fifo())
    }

    fn copied(&mut self, _bytes: u64) {
        self.moved();
    }
}

impl Sink for &File {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }

    fn copied(&mut self) {
        self.moved();
    }
}

macro_rules! plain {
    ($way:ident for $($end:ty),*) => { $(
        impl $way for $end {
            fn fd(&self) -> Option<BorrowedFd<'_>> {
                Some(self.as_fd())
            }
        }
    )* };
}

plain!(Source for PipeReader, &PipeReader);
plain!(Sink for PipeWriter, &PipeWriter);
plain!(Source for ChildStdout, ChildStderr);
plain!(Sink for ChildStdin, &ChildStdin);

impl<S: Source> Source for &mut S {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).fd()
    }

    fn buffered(&self) -> &[u8] {
        (**self).buffered()
    }

    fn consume_buffered(&mut self, bytes: usize) {
        (**self).consume_buffered(bytes);
    }

    fn limit(&self) -> u64 {
        (**self).limit()
    }

    fn copied(&mut self, bytes: u64) {
        (**self).copied(bytes);
    }

    fn is_shared(&self) -> bool {
        (**self).is_shared()
    }

    fn alone(&self, f: Alone<'_>) -> io::Result<Step> {
        (**self).alone(f)
    }
}

impl<S: Sink> Sink for &mut S {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).fd()
    }

    fn empty(&mut self) -> io::Result<()> {
        (**self).empty()
    }

    fn copied(&mut self) {
        (**self).copied();
    }

    fn is_shared(&self) -> bool {
        (**self).is_shared()
    }

    fn alone(&self, f: Alone<'_>) -> io::Result<Step> {
        (**self).alone(f)
    }
}

impl<S: Source> Source for Take<S> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.get_ref().fd()
    }

    fn buffered(&self) -> &[u8] {
        let buffered = self.get_ref().buffered();
        let len = usize::try_from(Take::limit(self)).unwrap_or(usize::MAX);
        &buffered[..buffered.len().min(len)]
    }

    fn consume_buffered(&mut self, bytes: usize) {
        self.get_mut().consume_buffered(bytes);
        self.set_limit(Take::limit(self) - bytes as u64);
    }

    fn limit(&self) -> u64 {
        Take::limit(self).min(self.get_ref().limit())
    }

    fn copied(&mut self, bytes: u64) {
        self.get_mut().copied(bytes);
        self.set_limit(Take::limit(self) - bytes);
    }

    fn is_shared(&self) -> bool {
        self.get_ref().is_shared()
    }

    fn alone(&self, f: Alone<'_>) -> io::Result<Step> {
        self.get_ref().alone(f)
    }
}

impl<S: Source> Source for BufReader<S> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.get_ref().fd()
    }

    fn buffered(&self) -> &[u8] {
        match self.buffer() {
            [] => self.get_ref().buffered(),
            own => own,
        }
    }

    fn consume_buffered(&mut self, bytes: usize) {
        if self.buffer().is_empty() {
            self.get_mut().consume_buffered(bytes);
        } else {
            self.consume(bytes);
        }
    }

    fn limit(&self) -> u64 {
        self.get_ref().limit()
    }

    fn copied(&mut self, bytes: u64) {
        self.get_mut().copied(bytes);
    }

    fn is_shared(&self) -> bool {
        self.get_ref().is_shared()
    }

    fn alone(&self, f: Alone<'_>) -> io::Result<Step> {
        self.get_ref().alone(f)
    }
}

impl<S: Sink> Sink for BufWriter<S> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.get_ref().fd()
    }

    fn empty(&mut self) -> io::Result<()> {
        self.flush()?;
        self.get_mut().empty()
    }

    fn copied(&mut self) {
        self.get_mut().copied();
    }

    fn is_shared(&self) -> bool {
        self.get_ref().is_shared()
    }

    fn alone(&self, f: Alone<'_>) -> io::Result<Step> {
        self.get_ref().alone(f)
    }
}
