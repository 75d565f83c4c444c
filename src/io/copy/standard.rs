//! The standard streams as ends of a copy.
//!
//! Who has locked one keeps the lock, and what is buffered goes first. One that is not locked is
//! locked for each step alone, as for each `read` and `write`: so bytes of others may come in
//! between, but none are overtaken.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Write};
use std::os::fd::BorrowedFd;

use super::ends::{Alone, Sink, Source, Step};
use crate::io::{Stderr, StderrLock, Stdin, StdinLock, Stdout, StdoutLock};

impl Source for StdinLock<'_> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd_to_copy()
    }

    fn buffered(&self) -> &[u8] {
        self.left()
    }

    fn consume_buffered(&mut self, bytes: usize) {
        self.consume(bytes);
    }
}

macro_rules! stdin {
    ($($name:ty),*) => { $(
        impl Source for $name {
            fn fd(&self) -> Option<BorrowedFd<'_>> {
                self.fd_to_copy()
            }

            fn is_shared(&self) -> bool {
                true
            }

            fn alone(&self, f: Alone<'_>) -> io::Result<Step> {
                let lock = self.lock();
                if lock.left().is_empty() { f() } else { Ok(Step::Refused) }
            }
        }
    )* };
}

macro_rules! output {
    ($name:ident, $lock:ident) => {
        impl Sink for $lock<'_> {
            fn fd(&self) -> Option<BorrowedFd<'_>> {
                self.fd_to_copy()
            }

            fn empty(&mut self) -> io::Result<()> {
                self.flush()
            }
        }

        output!(shared $name);
        output!(shared &$name);
    };
    (shared $name:ty) => {
        impl Sink for $name {
            fn fd(&self) -> Option<BorrowedFd<'_>> {
                self.fd_to_copy()
            }

            fn is_shared(&self) -> bool {
                true
            }

            fn alone(&self, f: Alone<'_>) -> io::Result<Step> {
                let mut lock = self.lock();
                if lock.fd_to_copy().is_none() {
                    return Ok(Step::Refused);
                }
                lock.flush()?;
                f()
            }
        }
    };
}

stdin!(Stdin, &Stdin);
output!(Stdout, StdoutLock);
output!(Stderr, StderrLock);
