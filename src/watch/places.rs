//! Which directory is watched for whom.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The number of something that a user has added.
pub(super) type Id = u64;

/// The kernel's number of a watch, which is one directory's.
pub(super) type Wd = i32;

/// A directory's place in a tree that was added; the tree's root if the path is empty.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: Id,
    pub(super) below: PathBuf,
    /// Entries that exist, and whose creation has been reported though its record may be to come.
    pub(super) seen: HashSet<OsString>,
}

/// Somebody whom an entry of a directory concerns.
#[derive(Debug)]
pub(super) struct Concern {
    pub(super) id: Id,
    /// Where it is below the root of a tree; `None` for a file that was added.
    pub(super) below: Option<PathBuf>,
    /// Whether its creation has been reported.
    pub(super) told: bool,
}

/// One watched directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) places: Vec<Place>,
    /// Files in it that were added by themselves.
    pub(super) files: Vec<(OsString, Id)>,
}

impl Directory {
    fn is_unused(&self) -> bool {
        self.places.is_empty() && self.files.is_empty()
    }

    /// Those who have added the directory itself, or a file in it.
    pub(super) fn owners(&self) -> Vec<Id> {
        let roots = self.places.iter().filter(|place| place.below.as_os_str().is_empty());
        let files = self.files.iter().map(|(_, id)| *id);
        roots.map(|place| place.id).chain(files).collect()
    }

    /// The places of an entry, and the files that it is.
    pub(super) fn concerned<'a>(&'a self, name: &'a OsStr) -> impl Iterator<Item = Concern> + 'a {
        let files = self.files.iter().filter(move |(file, _)| file == name);
        let files = files.map(|(_, id)| Concern { id: *id, below: None, told: false });
        files.chain(self.places.iter().map(move |place| Concern {
            id: place.id,
            below: Some(place.below.join(name)),
            told: place.seen.contains(name),
        }))
    }
}

/// All watched directories.
#[derive(Debug, Default)]
pub(super) struct Places {
    directories: HashMap<Wd, Directory>,
    /// How many directories have this place: more than one if a directory has taken another one's
    /// place, and the records that tell so are to come.
    counts: HashMap<(Id, PathBuf), usize>,
}

impl Places {
    pub(super) fn get(&self, wd: Wd) -> Option<&Directory> {
        self.directories.get(&wd)
    }

    pub(super) fn into_wds(self) -> impl Iterator<Item = Wd> {
        self.directories.into_keys()
    }

    pub(super) fn count(&self, id: Id, below: &Path) -> usize {
        self.counts.get(&(id, below.to_path_buf())).copied().unwrap_or(0)
    }

    /// A directory with this place.
    pub(super) fn find(&self, id: Id, below: &Path) -> Option<Wd> {
        let has = |place: &Place| place.id == id && place.below == below;
        let mut all = self.directories.iter();
        all.find(|(_, directory)| directory.places.iter().any(has)).map(|(wd, _)| *wd)
    }

    pub(super) fn add_file(&mut self, wd: Wd, name: OsString, id: Id) {
        self.directories.entry(wd).or_default().files.push((name, id));
    }

    /// The place of a tree, which is made if need be, and whether it was there.
    pub(super) fn place(&mut self, wd: Wd, id: Id, below: &Path) -> (&mut Place, bool) {
        let places = &mut self.directories.entry(wd).or_default().places;
        let found = places.iter().position(|place| place.id == id && place.below == below);
        let at = found.unwrap_or_else(|| {
            *self.counts.entry((id, below.to_path_buf())).or_default() += 1;
            places.push(Place { id, below: below.to_path_buf(), seen: HashSet::new() });
            places.len() - 1
        });
        (&mut places[at], found.is_some())
    }

    /// An entry is not there any more: its next creation is to be reported.
    pub(super) fn forget_entry(&mut self, wd: Wd, name: &OsStr) {
        if let Some(directory) = self.directories.get_mut(&wd) {
            for place in &mut directory.places {
                place.seen.remove(name);
            }
        }
    }

    /// The directory is not watched any more.
    pub(super) fn remove(&mut self, wd: Wd) -> Directory {
        let directory = self.directories.remove(&wd).unwrap_or_default();
        for place in &directory.places {
            uncount(&mut self.counts, place);
        }
        directory
    }

    /// Takes away what is not to be kept, and returns the directories that are of no use any more.
    fn retain(
        &mut self,
        keep_place: impl Fn(&Place) -> bool,
        keep_file: impl Fn(Id) -> bool,
    ) -> Vec<Wd> {
        let mut unused = Vec::new();
        self.directories.retain(|wd, directory| {
            directory.places.retain(|place| {
                keep_place(place) || {
                    uncount(&mut self.counts, place);
                    false
                }
            });
            directory.files.retain(|(_, id)| keep_file(*id));
            if directory.is_unused() {
                unused.push(*wd);
            }
            !directory.is_unused()
        });
        unused
    }

    /// Takes away all that is there for `id`.
    #[must_use]
    pub(super) fn forget(&mut self, id: Id) -> Vec<Wd> {
        self.retain(|place| place.id != id, |file| file != id)
    }

    /// Takes away what a tree has at `top` and below.
    #[must_use]
    pub(super) fn forget_below(&mut self, id: Id, top: &Path) -> Vec<Wd> {
        if self.count(id, top) == 0 {
            return Vec::new(); // the usual case: no directory
        }
        self.retain(|place| place.id != id || !place.below.starts_with(top), |_| true)
    }

    /// A directory of a tree has been renamed, with all that is below it, to where there is none.
    pub(super) fn rename(&mut self, id: Id, from: &Path, to: &Path) {
        for directory in self.directories.values_mut() {
            for place in directory.places.iter_mut().filter(|place| place.id == id) {
                if let Ok(rest) = place.below.strip_prefix(from) {
                    let new = join(to, rest);
                    uncount(&mut self.counts, place);
                    *self.counts.entry((id, new.clone())).or_default() += 1;
                    place.below = new;
                }
            }
        }
    }
}

fn uncount(counts: &mut HashMap<(Id, PathBuf), usize>, place: &Place) {
    let key = (place.id, place.below.clone());
    match counts.get_mut(&key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => drop(counts.remove(&key)),
    }
}

/// As [`Path::join`], without a slash at the end where `rest` is empty.
pub(super) fn join(path: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { path.to_path_buf() } else { path.join(rest) }
}
