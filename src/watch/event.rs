//! What a watcher reports.

use std::path::PathBuf;

/// Something that happened to what is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<V> {
    /// What happened.
    pub kind: EventKind,
    /// To what: the path that was added, or one below it. Empty for [`EventKind::Overflow`].
    pub path: PathBuf,
    /// The value that was added with the path; `None` for [`EventKind::Overflow`].
    pub value: Option<V>,
}

/// The kinds of [`Event`]s.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A file that was open for writing was closed: it is complete, until it is written again.
    CloseWrite,
    /// A file was written to, or its length was changed. The kernel makes one event of several that
    /// follow each other.
    Modify,
    /// A file, a directory, or anything else with a name, was made or moved here.
    Create,
    /// It was removed, or moved out of sight.
    Delete,
    /// It was renamed, and is at the event's path now. For a file that was added, either this path
    /// or `from` is the one that was added.
    Rename {
        /// What it was called before.
        from: PathBuf,
    },
    /// Events were lost, since they were read too slowly: nobody knows which. Look at everything
    /// again. What is there is still watched, also directories whose creation was lost. (The limit
    /// is `fs.inotify.max_queued_events`.)
    Overflow,
    /// The directory that was added, or that has the file that was added, is gone or is called
    /// something else now. The path is not watched any more; it can be added again.
    Ended,
}
