//! What is watched, and what the kernel's records say about it.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::event::{Event, EventKind};
use super::places::{Concern, Directory, Id, Place, Places, Wd, join};
use super::scan::{unwatch, watch, watch_below, watch_tree};
use crate::sys::inotify;

/// How many records may lie between the two halves of a rename.
const FAR: usize = 64;

/// Something that a user has added.
struct Watch<V> {
    path: Arc<Path>,
    value: Arc<V>,
    /// A directory with all below, or else a file.
    is_tree: bool,
}

/// A record of the kernel's that has not been processed yet.
struct Record {
    wd: Wd,
    mask: u32,
    cookie: u32,
    name: OsString,
}

impl Record {
    fn is(&self, mask: u32) -> bool {
        self.mask & mask != 0
    }
}

/// An event that nobody has taken yet.
pub(super) struct Ready<V> {
    /// What was added; empty if it concerns nothing that was.
    of: Arc<Path>,
    kind: EventKind,
    path: PathBuf,
    value: Option<Arc<V>>,
}

impl<V: Clone> Ready<V> {
    /// Clones the value, which is the caller's code: outside of all locks.
    pub(super) fn into_event(self) -> Event<V> {
        let value = self.value.map(Arc::unwrap_or_clone);
        Event { kind: self.kind, path: self.path, value }
    }
}

/// What there is for somebody who wants an event.
pub(super) enum Next<V> {
    Event(io::Result<Ready<V>>),
    /// Read more records.
    Nothing,
    /// Read more records, and say so if none come soon: one half of a rename is missing.
    Partner,
}

impl<V> Next<V> {
    pub(super) fn is_partner(&self) -> bool {
        matches!(self, Next::Partner)
    }
}

/// What of a tree that is watched anew is reported as created.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Report {
    Nothing,
    /// What is in directories that were not watched before.
    New,
    All,
}

pub(super) struct State<V> {
    next_id: Id,
    ids: HashMap<Arc<Path>, Id>,
    watches: HashMap<Id, Watch<V>>,
    places: Places,
    records: VecDeque<Record>,
    /// The first record is half a rename, and the other half will not come.
    no_partner: bool,
    ready: VecDeque<io::Result<Ready<V>>>,
}

impl<V> State<V> {
    pub(super) fn new() -> Self {
        State {
            next_id: 0,
            ids: HashMap::new(),
            watches: HashMap::new(),
            places: Places::default(),
            records: VecDeque::new(),
            no_partner: false,
            ready: VecDeque::new(),
        }
    }

    // ---- What is watched ------------------------------------------------------------------

    /// Watches `path`; if that fails, all is as before.
    pub(super) fn add(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &Path,
        value: V,
        is_tree: bool,
    ) -> io::Result<Option<Arc<V>>> {
        let path: Arc<Path> = path.into();
        let id = self.next_id;
        self.next_id += 1;
        let watch = Watch { path: path.clone(), value: Arc::new(value), is_tree };
        self.watches.insert(id, watch);
        if let Err(e) = self.attach(fd, id) {
            self.forget(fd, id);
            return Err(e);
        }
        Ok(self.ids.insert(path, id).and_then(|old| self.forget(fd, old)).map(|watch| watch.value))
    }

    /// Ends the watch of `path`; what is ready of it is dropped.
    pub(super) fn remove(&mut self, fd: BorrowedFd<'_>, path: &Path) -> Option<Arc<V>> {
        let id = self.ids.remove(path)?;
        self.ready.retain(|ready| ready.as_ref().map_or(true, |ready| *ready.of != *path));
        self.forget(fd, id).map(|watch| watch.value)
    }

    /// Has the kernel watch what `id` stands for.
    fn attach(&mut self, fd: BorrowedFd<'_>, id: Id) -> io::Result<()> {
        let Watch { path, is_tree, .. } = &self.watches[&id];
        if *is_tree {
            return self.attach_tree(fd, id, PathBuf::new(), Report::Nothing);
        }
        let Some(name) = path.file_name() else {
            let text = "the path does not end in a file name";
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let wd = watch(fd, parent.unwrap_or(Path::new(".")))?;
        let name = name.to_owned();
        self.places.add_file(wd, name, id);
        Ok(())
    }

    /// Watches `top` of a tree and what is below it.
    fn attach_tree(
        &mut self,
        fd: BorrowedFd<'_>,
        id: Id,
        top: PathBuf,
        report: Report,
    ) -> io::Result<()> {
        let root = self.watches[&id].path.clone();
        let (scanned, result) = watch_tree(fd, &root, top, report != Report::Nothing);
        for found in scanned {
            let (place, known) = self.places.place(found.wd, id, &found.below);
            if report == Report::Nothing || (report == Report::New && known) {
                continue;
            }
            let is_new = |name: &OsString| place.seen.insert(name.clone());
            for name in found.names.into_iter().filter(is_new).collect::<Vec<_>>() {
                let path = root.join(found.below.join(name));
                self.tell(id, EventKind::Create, path);
            }
        }
        result
    }

    /// As [`attach_tree`](State::attach_tree), of what has appeared by itself: an error is for
    /// whoever waits for events.
    fn follow(&mut self, fd: BorrowedFd<'_>, id: Id, top: PathBuf, report: Report) {
        if let Err(e) = self.attach_tree(fd, id, top, report) {
            self.ready.push_back(Err(e));
        }
    }

    fn forget(&mut self, fd: BorrowedFd<'_>, id: Id) -> Option<Watch<V>> {
        unwatch(fd, &self.places.forget(id));
        self.watches.remove(&id)
    }

    /// The watch ends by itself, which is reported.
    fn end(&mut self, fd: BorrowedFd<'_>, id: Id) {
        let Some(watch) = self.watches.get(&id) else { return };
        let path = watch.path.clone();
        self.tell(id, EventKind::Ended, path.to_path_buf());
        if self.ids.get(&path) == Some(&id) {
            self.ids.remove(&path);
        }
        self.forget(fd, id);
    }

    // ---- From records to events -----------------------------------------------------------

    fn tell(&mut self, id: Id, kind: EventKind, path: PathBuf) {
        if let Some(watch) = self.watches.get(&id) {
            let (of, value) = (watch.path.clone(), Some(watch.value.clone()));
            self.ready.push_back(Ok(Ready { of, kind, path, value }));
        }
    }

    /// Takes over what has been read.
    pub(super) fn records(&mut self, buf: &[u8]) {
        self.records.extend(inotify::records(buf).map(|record| Record {
            wd: record.wd,
            mask: record.mask,
            cookie: record.cookie,
            name: OsStr::from_bytes(record.name).to_owned(),
        }));
    }

    /// The other half of a rename has not come.
    pub(super) fn no_partner(&mut self) {
        self.no_partner = true;
    }

    /// The next event, if the records that have been read hold one.
    pub(super) fn next(&mut self, fd: BorrowedFd<'_>) -> Next<V> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Next::Event(event);
            }
            let Some(first) = self.records.front() else { return Next::Nothing };
            let mut partner = None;
            if first.is(libc::IN_MOVED_FROM) && self.places.get(first.wd).is_some() {
                let other = |r: &Record| r.is(libc::IN_MOVED_TO) && r.cookie == first.cookie;
                match self.records.iter().position(other) {
                    Some(at) => partner = self.records.remove(at),
                    None if !self.no_partner && self.records.len() < FAR => return Next::Partner,
                    None => {}
                }
            }
            self.no_partner = false;
            let record = self.records.pop_front().expect("there was a first one");
            match partner {
                Some(to) => self.renamed(fd, &record, &to),
                None => self.process(fd, &record),
            }
        }
    }

    fn process(&mut self, fd: BorrowedFd<'_>, record: &Record) {
        if record.is(libc::IN_Q_OVERFLOW) {
            return self.overflowed(fd);
        }
        let Some(directory) = self.places.get(record.wd) else {
            return; // of a watch that has been ended
        };
        match record.mask & libc::IN_ALL_EVENTS {
            libc::IN_CREATE | libc::IN_MOVED_TO => self.appeared(fd, record),
            libc::IN_DELETE | libc::IN_MOVED_FROM => self.disappeared(fd, record),
            libc::IN_MODIFY => self.tell_all(record, &EventKind::Modify),
            libc::IN_CLOSE_WRITE => self.tell_all(record, &EventKind::CloseWrite),
            libc::IN_DELETE_SELF => {
                let root = |place: &&Place| place.below.as_os_str().is_empty();
                let roots: Vec<_> =
                    directory.places.iter().filter(root).map(|place| place.id).collect();
                for id in roots {
                    let path = self.watches[&id].path.to_path_buf();
                    self.tell(id, EventKind::Delete, path);
                }
            }
            libc::IN_MOVE_SELF => {
                for id in directory.owners() {
                    self.end(fd, id);
                }
            }
            _ if record.is(libc::IN_IGNORED) => {
                let directory = self.places.remove(record.wd);
                for id in directory.owners() {
                    self.end(fd, id);
                }
            }
            _ => {} // an unmounted file system: `IN_IGNORED` follows
        }
    }

    /// Whom an entry concerns.
    fn concerned(&self, wd: Wd, name: &OsStr) -> Vec<Concern> {
        self.places.get(wd).map_or(Vec::new(), |directory| directory.concerned(name).collect())
    }

    fn path(&self, id: Id, below: &Option<PathBuf>) -> PathBuf {
        let path = &self.watches[&id].path;
        below.as_ref().map_or_else(|| path.to_path_buf(), |below| join(path, below))
    }

    fn tell_all(&mut self, record: &Record, kind: &EventKind) {
        for Concern { id, below, .. } in self.concerned(record.wd, &record.name) {
            self.tell(id, kind.clone(), self.path(id, &below));
        }
    }

    fn appeared(&mut self, fd: BorrowedFd<'_>, record: &Record) {
        for Concern { id, below, told } in self.concerned(record.wd, &record.name) {
            if told && record.is(libc::IN_CREATE) {
                continue; // a listing has been faster
            }
            self.tell(id, EventKind::Create, self.path(id, &below));
            if let Some(below) = below.filter(|_| record.is(libc::IN_ISDIR)) {
                self.follow(fd, id, below, Report::All);
            }
        }
    }

    fn disappeared(&mut self, fd: BorrowedFd<'_>, record: &Record) {
        self.places.forget_entry(record.wd, &record.name);
        for Concern { id, below, .. } in self.concerned(record.wd, &record.name) {
            self.tell(id, EventKind::Delete, self.path(id, &below));
            // A directory that was moved lives on elsewhere. And if there is one although it was
            // removed, it is another one, whose creation is still to be told.
            if let Some(below) = below {
                unwatch(fd, &self.places.forget_below(id, &below));
            }
        }
    }

    fn renamed(&mut self, fd: BorrowedFd<'_>, from: &Record, to: &Record) {
        let is_dir = from.is(libc::IN_ISDIR);
        let sources = self.concerned(from.wd, &from.name);
        let targets = self.concerned(to.wd, &to.name);
        let Some(any_target) = self.path_of(to.wd, &to.name) else {
            return self.disappeared(fd, from); // to where nobody watches any more
        };
        let Some(any_source) = self.path_of(from.wd, &from.name) else {
            return self.appeared(fd, to);
        };
        self.places.forget_entry(from.wd, &from.name);
        let mut arrived: Vec<bool> = vec![false; targets.len()];
        for Concern { id, below, .. } in sources {
            // Within a tree it has one old and one new place.
            let twin = targets.iter().position(|target| target.id == id);
            if let Some(at) = twin {
                arrived[at] = true;
                if let (Some(below), Some(new_below)) = (&below, &targets[at].below) {
                    self.renamed_within(fd, id, is_dir, below, new_below);
                    continue;
                }
            }
            self.tell(id, EventKind::Rename { from: self.path(id, &below) }, any_target.clone());
            if let Some(below) = below {
                unwatch(fd, &self.places.forget_below(id, &below));
            }
        }
        for (Concern { id, below, .. }, arrived) in targets.into_iter().zip(arrived) {
            if !arrived {
                let kind = EventKind::Rename { from: any_source.clone() };
                self.tell(id, kind, self.path(id, &below));
                if let Some(below) = below.filter(|_| is_dir) {
                    unwatch(fd, &self.places.forget_below(id, &below));
                    self.follow(fd, id, below, Report::All);
                }
            }
        }
    }

    /// An entry of a tree is elsewhere in that tree now.
    fn renamed_within(&mut self, fd: BorrowedFd<'_>, id: Id, is_dir: bool, from: &Path, to: &Path) {
        let root = self.watches[&id].path.clone();
        let (old, new) = (root.join(from), root.join(to));
        let counts = (self.places.count(id, from), self.places.count(id, to));
        // Is the directory that is known at its old place the one that was renamed? By the time it
        // was looked for there, another one may have had the name.
        let is_there = if is_dir { watch_below(fd, &root, to).ok() } else { None };
        let is_known = !is_dir || (is_there.is_some() && is_there == self.places.find(id, from));
        if is_known && counts == (usize::from(is_dir), 0) {
            self.tell(id, EventKind::Rename { from: old }, new);
            if is_dir {
                self.places.rename(id, from, to);
                // Something in it may have been missed on the way.
                self.follow(fd, id, to.to_path_buf(), Report::New);
            }
            return;
        }
        // A listing has been faster, so what has been told of these places is of a later time.
        for (place, path) in [(from, old), (to, new.clone())] {
            unwatch(fd, &self.places.forget_below(id, place));
            self.tell(id, EventKind::Delete, path);
        }
        self.tell(id, EventKind::Create, new);
        if is_dir {
            self.follow(fd, id, to.to_path_buf(), Report::All);
        }
        if let Some(wd) = is_there.filter(|wd| self.places.get(*wd).is_none()) {
            unwatch(fd, &[wd]); // it is elsewhere by now
        }
    }

    /// A path of an entry of a watched directory, whoever has added it.
    fn path_of(&self, wd: Wd, name: &OsStr) -> Option<PathBuf> {
        let Directory { places, files, .. } = self.places.get(wd)?;
        if let Some(place) = places.first() {
            return Some(self.watches[&place.id].path.join(place.below.join(name)));
        }
        files.first().map(|(_, id)| self.watches[id].path.with_file_name(name))
    }

    /// Records are lost, and nobody knows which: so the directories may be others than believed.
    fn overflowed(&mut self, fd: BorrowedFd<'_>) {
        let (of, path) = (Path::new("").into(), PathBuf::new());
        self.ready.push_back(Ok(Ready { of, kind: EventKind::Overflow, path, value: None }));
        let old = std::mem::take(&mut self.places);
        let ids: Vec<Id> = self.watches.keys().copied().collect();
        for id in ids {
            match self.attach(fd, id) {
                Ok(()) => {}
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    self.end(fd, id);
                }
                Err(e) => self.ready.push_back(Err(e)),
            }
        }
        let unused: Vec<Wd> = old.into_wds().filter(|wd| self.places.get(*wd).is_none()).collect();
        unwatch(fd, &unused);
    }
}
