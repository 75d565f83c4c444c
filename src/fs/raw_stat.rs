//! [`std::os::linux::fs::MetadataExt`] for [`Metadata`].

use std::os::linux::fs::MetadataExt as Linux;
#[allow(deprecated, reason = "a method that std has still needs it")]
use std::os::linux::raw;
use std::os::unix::fs::MetadataExt as Unix;

use super::Metadata;
use crate::sys::path::empty_raw_stat;

#[allow(deprecated, reason = "as above")]
impl Linux for Metadata {
    fn as_raw_stat(&self) -> &raw::stat {
        self.raw.get_or_init(|| {
            let mut raw = empty_raw_stat();
            #[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
            {
                raw.st_dev = Unix::dev(self) as _;
                raw.st_ino = Unix::ino(self) as _;
                raw.st_mode = Unix::mode(self) as _;
                raw.st_nlink = Unix::nlink(self) as _;
                raw.st_uid = Unix::uid(self) as _;
                raw.st_gid = Unix::gid(self) as _;
                raw.st_rdev = Unix::rdev(self) as _;
                raw.st_size = Unix::size(self) as _;
                raw.st_blksize = Unix::blksize(self) as _;
                raw.st_blocks = Unix::blocks(self) as _;
                raw.st_atime = Unix::atime(self) as _;
                raw.st_atime_nsec = Unix::atime_nsec(self) as _;
                raw.st_mtime = Unix::mtime(self) as _;
                raw.st_mtime_nsec = Unix::mtime_nsec(self) as _;
                raw.st_ctime = Unix::ctime(self) as _;
                raw.st_ctime_nsec = Unix::ctime_nsec(self) as _;
            }
            Box::new(raw)
        })
    }

    fn st_dev(&self) -> u64 {
        Unix::dev(self)
    }
    fn st_ino(&self) -> u64 {
        Unix::ino(self)
    }
    fn st_mode(&self) -> u32 {
        Unix::mode(self)
    }
    fn st_nlink(&self) -> u64 {
        Unix::nlink(self)
    }
    fn st_uid(&self) -> u32 {
        Unix::uid(self)
    }
    fn st_gid(&self) -> u32 {
        Unix::gid(self)
    }
    fn st_rdev(&self) -> u64 {
        Unix::rdev(self)
    }
    fn st_size(&self) -> u64 {
        Unix::size(self)
    }
    fn st_atime(&self) -> i64 {
        Unix::atime(self)
    }
    fn st_atime_nsec(&self) -> i64 {
        Unix::atime_nsec(self)
    }
    fn st_mtime(&self) -> i64 {
        Unix::mtime(self)
    }
    fn st_mtime_nsec(&self) -> i64 {
        Unix::mtime_nsec(self)
    }
    fn st_ctime(&self) -> i64 {
        Unix::ctime(self)
    }
    fn st_ctime_nsec(&self) -> i64 {
        Unix::ctime_nsec(self)
    }
    fn st_blksize(&self) -> u64 {
        Unix::blksize(self)
    }
    fn st_blocks(&self) -> u64 {
        Unix::blocks(self)
    }
}
