//! [`File`] as a stream of bytes, at its position and at offsets.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::Relaxed;

use super::File;
use crate::op::{AT_POSITION, IOV_MAX, MAX_TRANSFER, Op, SlicesMut, Way};
use crate::sched::{blocks_thread, read_spare, submit, submit_here};
use crate::sys::fifo;
use crate::sys::file::{believed, has_offsets};

/// How much room is made for the end of a file whose size is not known.
const CHUNK: usize = 8 * 1024;
/// A full buffer is asked about the end of the file with this much, before it grows.
const PROBE: usize = 32;

/// Values of `File::fifo`; 0 is not known yet.
pub(super) const NO_FIFO: u8 = 1;
const FIFO: u8 = 2;

fn count(n: u32) -> usize {
    n as usize // a u32 fits into every usize Linux has
}

impl File {
    fn read_from(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset == AT_POSITION && !buf.is_empty() && self.has_ended()? {
            return Ok(0);
        }
        let len = buf.len().min(MAX_TRANSFER);
        let (fd, buf, habit) = (self.as_fd(), &mut buf[..len], Some(self.habit()));
        let n =
            submit_here(move || Op::Read { fd, buf, offset, habit, nowait: false }).map(count)?;
        if offset == AT_POSITION {
            self.habit().moved_by(n);
        }
        Ok(n)
    }

    fn write_to(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let len = buf.len().min(MAX_TRANSFER);
        if offset == AT_POSITION {
            self.habit().forget_position(); // it may go to the end of the file
        }
        let (fd, buf, habit) = (self.as_fd(), &buf[..len], Some(self.habit()));
        submit(Op::Write { fd, buf, offset, habit }).map(count)
    }

    fn read_vectored_from(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        if offset == AT_POSITION && self.has_ended()? {
            return Ok(0);
        }
        if offset == AT_POSITION {
            self.habit().forget_position();
        }
        let bufs = SlicesMut::new(bufs);
        submit(Op::ReadVectored { fd: self.ring_fd(), bufs, offset }).map(count)
    }

    fn write_vectored_to(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        if offset == AT_POSITION {
            self.habit().forget_position();
        }
        let bufs = &bufs[..bufs.len().min(IOV_MAX)];
        submit(Op::WriteVectored { fd: self.ring_fd(), bufs, offset }).map(count)
    }

    /// Reads into several buffers, one after the other, from `offset` on. The position stays.
    /// `preadv`; unstable in std.
    ///
    /// # Errors
    /// As [`read_at`](FileExt::read_at).
    ///
    /// # Examples
    /// ```
    /// use std::io::IoSliceMut;
    ///
    /// let file = ramie::fs::File::open("Cargo.toml")?;
    /// let (mut a, mut b) = ([0; 3], [0; 5]);
    /// let n = file.read_vectored_at(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)], 1)?;
    /// assert_eq!(n, 8);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn read_vectored_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        self.read_vectored_from(bufs, self.offset_of(offset)?)
    }

    /// Writes several buffers, one after the other, from `offset` on. The position stays.
    /// `pwritev`; unstable in std.
    ///
    /// # Errors
    /// As [`write_at`](FileExt::write_at).
    pub fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.write_vectored_to(bufs, self.offset_of(offset)?)
    }

    /// Whether this is a FIFO that a driver is about to read, and at its end. Waits for data if it
    /// is neither at its end nor has any; so the read that follows does not wait.
    ///
    /// A ring must not see the end of a FIFO. Only pipes without a name take part in its
    /// non-blocking reads (`FMODE_NOWAIT`); of others it asks `poll` for data, and as the end is
    /// none, it tries 128 times in vain and then reads on a kernel worker. There the request, and
    /// with it the file, lives on after its completion, until the kernel worker has let go of it
    /// and the ring has run what that deferred (Linux 6.18, `io_free_req`). The FIFO has a reader
    /// meanwhile although it is closed: the next writer does not wait in `open` and is gone before
    /// the next reader comes, which then waits for ever. The other way round, a ring would wait for
    /// the end of a FIFO whose last writer was gone before its reader came: `poll` does not report
    /// it.
    fn has_ended(&self) -> io::Result<bool> {
        Ok(self.is_fifo() && !fifo_has_data(self.as_fd())?)
    }

    /// Whether this is a FIFO, and a ring would be asked to read it.
    #[inline]
    pub(crate) fn is_fifo(&self) -> bool {
        match self.fifo.load(Relaxed) {
            NO_FIFO => false,
            FIFO => !blocks_thread(),
            _ => {
                let fifo = fifo::is_pipe(self.as_fd())
                    && fifo::has_name(self.as_fd()).is_ok_and(|named| named);
                self.fifo.store(if fifo { FIFO } else { NO_FIFO }, Relaxed);
                fifo && !blocks_thread()
            }
        }
    }

    /// Refuses the offsets that `pread` and `pwrite` refuse: those that are negative as the
    /// kernel's signed type, among which is the value that stands for the file's own position, and
    /// all of them on what has no offsets. The ring would read from a pipe at any offset, so the
    /// file is asked once.
    fn offset_of(&self, offset: u64) -> io::Result<u64> {
        if offset > i64::MAX.unsigned_abs() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        if !self.has_offsets.load(Relaxed) {
            if !has_offsets(self.as_fd()) {
                return Err(io::Error::from_raw_os_error(libc::ESPIPE));
            }
            self.has_offsets.store(true, Relaxed);
        }
        Ok(offset)
    }

    /// How many bytes are left to read, as far as the file's size tells: a hint, for which a ring
    /// would need a thread of the kernel.
    fn size_left(&self) -> Option<usize> {
        let size = believed(self.as_fd())?.size;
        let position = self.std().stream_position().ok()?; // lseek never waits
        usize::try_from(size.saturating_sub(position)).ok()
    }

    /// Reads from the position to the end of the file.
    fn append_to(&self, buf: &mut Vec<u8>) -> io::Result<usize> {
        let hint = self.size_left();
        buf.try_reserve(hint.unwrap_or(0))?;
        self.append_up_to(buf, usize::MAX, hint)
    }

    /// Reads from the position to the end of the file, `max` bytes at most. Memory for `hint` bytes
    /// is there already.
    pub(super) fn append_up_to(
        &self,
        buf: &mut Vec<u8>,
        max: usize,
        hint: Option<usize>,
    ) -> io::Result<usize> {
        let start = buf.len();
        let exact = buf.capacity();
        if hint.is_none_or(|n| n == 0) && buf.capacity() - start < PROBE {
            // Sizes of 0 are often no sizes (/proc): look before making room for a chunk.
            if self.probe(buf, max)? == 0 {
                return Ok(0);
            }
        }
        loop {
            let done = buf.len() - start;
            if done == max {
                return Ok(done);
            }
            if buf.len() == buf.capacity() {
                // The buffer was sized to the file: most likely this is the end.
                if buf.capacity() == exact && self.probe(buf, max - done)? == 0 {
                    return Ok(done);
                }
                if buf.len() == buf.capacity() {
                    buf.try_reserve(CHUNK)?;
                }
                continue;
            }
            let room = (buf.capacity() - buf.len()).min(max - done).min(MAX_TRANSFER);
            let read = match self.has_ended() {
                Ok(true) => Ok(0),
                Ok(false) => read_spare(self.as_fd(), buf, room, AT_POSITION, self.habit()),
                Err(e) => Err(e),
            };
            match read {
                Ok(0) => return Ok(done),
                Ok(n) => {
                    self.habit().moved_by(n);
                    if n < room && hint == Some(done + n) && self.ends_short() {
                        return Ok(done + n);
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Whether a read that is short, and has found as many bytes as were expected, is known to have
    /// found the end of the file: its reads come from the kernel's memory, as those that did not
    /// wait have shown. What makes up its answers (/proc), or asks somebody for them (FUSE), does
    /// not know how not to wait.
    fn ends_short(&self) -> bool {
        matches!(self.habit().reads(), Way::Cached | Way::Memory)
    }

    /// Appends what a single read at the position gives; 0 is the end of the file.
    pub(crate) fn read_more(&self, buf: &mut Vec<u8>) -> io::Result<usize> {
        if self.has_ended()? {
            return Ok(0);
        }
        buf.try_reserve(CHUNK)?;
        let n = read_spare(self.as_fd(), buf, usize::MAX, AT_POSITION, self.habit())?;
        self.habit().moved_by(n);
        Ok(n)
    }

    /// Appends a few bytes, which are read without a place in `buf`.
    fn probe(&self, buf: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        let mut few = [0; PROBE];
        let few = &mut few[..PROBE.min(max)];
        let n = super::retry(|| self.read_from(few, AT_POSITION))?;
        buf.try_reserve(n)?;
        buf.extend_from_slice(&few[..n]);
        Ok(n)
    }
}

impl Read for &File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_from(buf, AT_POSITION)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read_vectored_from(bufs, AT_POSITION)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        self.append_to(buf)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        let mut bytes = std::mem::take(buf).into_bytes();
        let start = bytes.len();
        let result = self.append_to(&mut bytes);
        let valid = std::str::from_utf8(&bytes[start..]).is_ok();
        if !valid {
            bytes.truncate(start);
        }
        *buf = String::from_utf8(bytes).expect("UTF-8 followed by UTF-8");
        match result {
            Ok(_) if !valid => Err(not_utf8()),
            result => result,
        }
    }
}

/// Waits until a FIFO has data, which is `true`, or is at its end.
#[cold]
pub(crate) fn fifo_has_data(fd: BorrowedFd<'_>) -> io::Result<bool> {
    loop {
        if fifo::has_data(fd)? {
            return Ok(true);
        }
        if !fifo::has_data_or_writer(fd)? {
            return Ok(false);
        }
        submit(Op::Poll { fd, events: libc::POLLIN })?;
    }
}

#[cold]
pub(super) fn not_utf8() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "stream did not contain valid UTF-8")
}

impl Write for &File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_to(buf, AT_POSITION)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_vectored_to(bufs, AT_POSITION)
    }

    /// Does nothing: there is no buffer in this process.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let position = self.std().seek(pos)?; // lseek never waits
        self.habit().moved_to(position);
        Ok(position)
    }
}

impl FileExt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_from(buf, self.offset_of(offset)?)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.write_to(buf, self.offset_of(offset)?)
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buf)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(buf)
    }
}

impl Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl Seek for File {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        (&*self).seek(pos)
    }
}
