//! Being told when files and directories change: inotify, suspending. Not in std.
//!
//! A [`Watcher`] is given paths, each with a value of the caller's, and yields [`Event`]s. It may
//! be shared: one fiber or thread waits for events while others add and remove paths.
//!
//! | file       | what                                                          |
//! |------------|---------------------------------------------------------------|
//! | `mod.rs`   | [`Watcher`]: waiting, and who may read                        |
//! | `event.rs` | [`Event`], [`EventKind`]                                      |
//! | `state.rs` | what is watched, and from the kernel's records to events      |
//! | `places.rs`| which directory is watched for whom                           |
//! | `scan.rs`  | watching a tree of directories, on the blocking pool          |
//!
//! Invariants.  1. A descriptor's records are read by who has the one permit of `turn`, and
//! processed in the order in which they were read.  2. A directory's watch and its entry in the
//! state are made under one lock, which whoever processes records takes too: no record is met
//! before its directory is known.  3. A directory is watched before it is listed, so what appears
//! in it is in the list, or in a record, or in both; and what the list has told is remembered, so
//! that it is not told twice.
#![forbid(unsafe_code)]

mod event;
mod places;
mod scan;
mod state;

pub use event::{Event, EventKind};

use crate::cancel;
use crate::op::{AT_POSITION, Op};
use crate::sched::{blocking, blocks_thread, submit, submit_within};
use crate::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use crate::sys::inotify;
use state::{Next, Ready, State};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long the second half of a rename is waited for when the first half has been read. The kernel
/// reports both in one system call, but not in one step.
const GRACE: Duration = Duration::from_millis(10);

/// Room for a hundred records with short names; at least for one with the longest.
const BUFFER: usize = 4096;
const _: () = assert!(BUFFER >= inotify::MIN_BUFFER);

/// Watches files and directories.
///
/// Each path is added with a value, and what happens to it is reported together with a clone of
/// that value. Events come through [`recv`](Watcher::recv) or by iterating; whoever waits for one
/// suspends on a fiber and blocks on a plain thread.
///
/// Only what goes through this system's kernel is seen: not what another machine does to a network
/// file system, nor what is written through a memory mapping.
///
/// Dropping a watcher takes the kernel some milliseconds, for which a fiber waits.
///
/// # Examples
/// ```
/// use ramie::watch::{EventKind, Watcher};
///
/// # let path = std::env::temp_dir().join(format!("ramie-watch-{}", std::process::id()));
/// let watcher = Watcher::new()?;
/// watcher.add_file(&path, "the settings")?;
/// ramie::fs::write(&path, "colour = true")?;
///
/// let event = watcher.recv()?;
/// assert_eq!((event.kind, event.value), (EventKind::Create, Some("the settings")));
/// let mut kinds = watcher.iter().map(|event| event.unwrap().kind);
/// assert!(kinds.any(|kind| kind == EventKind::CloseWrite));
/// assert_eq!(watcher.remove(&path), Some("the settings"));
/// # ramie::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Watcher<V> {
    source: Source,
    state: Mutex<State<V>>,
    /// One permit: who has it may read.
    turn: Semaphore,
    buffer: Mutex<Box<[u8]>>,
}

/// The inotify descriptor. The kernel takes milliseconds to close one, so that is done on the pool.
struct Source(Option<OwnedFd>);

impl Source {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("it is there until it is dropped").as_fd()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let fd = self.0.take();
        blocking(|| drop(fd));
    }
}

impl<V> Watcher<V> {
    /// A watcher of nothing.
    ///
    /// # Errors
    /// When no descriptor, or none of the limited number of inotify instances, is to be had.
    pub fn new() -> io::Result<Self> {
        let fd = inotify::init().map_err(|e| match e.raw_os_error() {
            Some(libc::EMFILE) => io::Error::new(
                e.kind(),
                "no inotify instance is to be had: raise fs.inotify.max_user_instances, or the \
                 limit of open files",
            ),
            _ => e,
        })?;
        Ok(Watcher {
            source: Source(Some(fd)),
            state: Mutex::new(State::new()),
            turn: Semaphore::new(1),
            buffer: Mutex::new(vec![0; BUFFER].into()),
        })
    }

    /// Watches the file at `path`, and returns the value that the path had if it was watched
    /// before; it then has the new one.
    ///
    /// What is watched is the name: the file may be missing now, may be deleted and made again, and
    /// may be replaced by renaming another one over it, as editors do. A symbolic link is watched
    /// itself, not what it leads to, and of a file with several names, what is done by way of the
    /// others is not seen. The directory that has the name must exist; when it goes away, the watch
    /// ends with [`EventKind::Ended`].
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the path does not end in a name,
    /// [`NotFound`](io::ErrorKind::NotFound) and others for its directory,
    /// [`StorageFull`](io::ErrorKind::StorageFull) if the system's limit of watches is reached.
    /// What was watched before still is.
    ///
    /// # Cancellation
    /// Once begun, it is waited for.
    pub fn add_file<P: AsRef<Path>>(&self, path: P, value: V) -> io::Result<Option<V>>
    where
        V: Clone,
    {
        self.add(path.as_ref(), value, false)
    }

    /// Watches the directory at `path` with all that is in it, however deep, and returns the value
    /// that the path had if it was watched before; it then has the new one.
    ///
    /// Directories that appear later are watched too, and what has appeared in them by then is
    /// reported as created. Symbolic links in the directory are not followed. When the directory
    /// itself is removed, renamed or unmounted, the watch ends with [`EventKind::Ended`].
    ///
    /// # Errors
    /// [`NotFound`](io::ErrorKind::NotFound), [`NotADirectory`](io::ErrorKind::NotADirectory),
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) also for a directory somewhere below,
    /// [`StorageFull`](io::ErrorKind::StorageFull) if the system's limit of watches is reached.
    /// What was watched before still is.
    ///
    /// # Cancellation
    /// Once begun, it is waited for.
    ///
    /// # Examples
    /// ```
    /// use ramie::watch::{EventKind, Watcher};
    ///
    /// # let root = std::env::temp_dir().join(format!("ramie-watch-tree-{}", std::process::id()));
    /// ramie::fs::create_dir_all(root.join("a"))?;
    /// let watcher = Watcher::new()?;
    /// watcher.add_dir(&root, ())?;
    /// ramie::fs::create_dir_all(root.join("a/b/c"))?;
    /// for path in ["a/b", "a/b/c"] {
    ///     let event = watcher.recv()?;
    ///     assert_eq!((event.kind, event.path), (EventKind::Create, root.join(path)));
    /// }
    /// # ramie::fs::remove_dir_all(&root)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn add_dir<P: AsRef<Path>>(&self, path: P, value: V) -> io::Result<Option<V>>
    where
        V: Clone,
    {
        self.add(path.as_ref(), value, true)
    }

    fn add(&self, path: &Path, value: V, tree: bool) -> io::Result<Option<V>>
    where
        V: Clone,
    {
        cancel::check()?;
        let old = self.state().add(self.source.fd(), path, value, tree)?;
        Ok(old.map(Arc::unwrap_or_clone))
    }

    /// Stops watching `path`, as it was added, and returns its value; `None` if it was not watched,
    /// or is not any more. No event of it is delivered after that.
    ///
    /// # Cancellation
    /// Is done all the same.
    pub fn remove<P: AsRef<Path>>(&self, path: P) -> Option<V>
    where
        V: Clone,
    {
        let value = self.state().remove(self.source.fd(), path.as_ref());
        value.map(Arc::unwrap_or_clone)
    }

    /// Waits for the next event.
    ///
    /// Several may wait: each event goes to one of them. If nothing is watched, this waits until
    /// something is.
    ///
    /// # Errors
    /// What the kernel reports; among it that a new directory below one that was added cannot be
    /// watched, for lack of watches or of permission. The watcher goes on with the rest.
    ///
    /// # Cancellation
    /// A cancelled wait has taken no event.
    pub fn recv(&self) -> io::Result<Event<V>>
    where
        V: Clone,
    {
        loop {
            if let Some(event) = self.next_until(None)? {
                return Ok(event);
            }
        }
    }

    /// As [`recv`](Watcher::recv), and `None` if there is no event within `timeout`.
    ///
    /// # Errors
    /// As [`recv`](Watcher::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> io::Result<Option<Event<V>>>
    where
        V: Clone,
    {
        match Instant::now().checked_add(timeout) {
            Some(deadline) => self.next_until(Some(deadline)),
            None => self.recv().map(Some), // in hundreds of years
        }
    }

    /// An iterator over all events to come: each step is a [`recv`](Watcher::recv), and it never
    /// ends.
    pub fn iter(&self) -> Iter<'_, V> {
        Iter { watcher: self }
    }

    fn state(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_until(&self, deadline: Option<Instant>) -> io::Result<Option<Event<V>>>
    where
        V: Clone,
    {
        // The value is cloned by the caller's code: outside of all locks.
        self.ready_until(deadline).map(|ready| ready.map(Ready::into_event))
    }

    fn ready_until(&self, deadline: Option<Instant>) -> io::Result<Option<Ready<V>>> {
        let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let Some(_turn) = self.take_turn(left())? else { return Ok(None) };
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let next = self.state().next(self.source.fd());
            let timeout = match next {
                Next::Event(event) => return event.map(Some),
                Next::Nothing => left(),
                Next::Partner => Some(GRACE),
            };
            match read_within(self.source.fd(), &mut buffer, timeout)? {
                Some(n) => self.state().records(&buffer[..n]),
                None if next.is_partner() => self.state().no_partner(),
                None => return Ok(None),
            }
        }
    }

    fn take_turn(&self, timeout: Option<Duration>) -> io::Result<Option<SemaphorePermit<'_>>> {
        let taken = match timeout {
            Some(timeout) => self.turn.acquire_timeout(timeout),
            None => self.turn.acquire(),
        };
        match taken {
            Ok(permit) => Ok(Some(permit)),
            Err(e) if e.is_timed_out() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// Reads records, and waits for them; `None` if there are none within `timeout`.
fn read_within(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    timeout: Option<Duration>,
) -> io::Result<Option<usize>> {
    let mut timeout = timeout;
    if let Some(time) = timeout {
        // What is there is read however little time there is.
        let look = if blocks_thread() { time } else { Duration::ZERO };
        match inotify::readable_within(fd, look) {
            Ok(true) => timeout = None,
            Ok(false) if look == time => return Ok(None),
            Ok(false) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(Some(0)),
            Err(e) => return Err(e),
        }
    }
    let op = Op::Read { fd, buf, offset: AT_POSITION, habit: None, nowait: false };
    let result = match timeout {
        Some(timeout) => submit_within(op, Some(timeout)),
        None => Some(submit(op)),
    };
    match result {
        None => Ok(None),
        Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
        Some(result) => result.map(|n| Some(n as usize)),
    }
}

impl<V> fmt::Debug for Watcher<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("fd", &self.source.0).finish_non_exhaustive()
    }
}

/// An iterator over the events of a [`Watcher`]; see [`Watcher::iter`].
#[derive(Debug)]
pub struct Iter<'a, V> {
    watcher: &'a Watcher<V>,
}

impl<V: Clone> Iterator for Iter<'_, V> {
    type Item = io::Result<Event<V>>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.watcher.recv())
    }
}

impl<'a, V: Clone> IntoIterator for &'a Watcher<V> {
    type Item = io::Result<Event<V>>;
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Iter<'a, V> {
        self.iter()
    }
}
