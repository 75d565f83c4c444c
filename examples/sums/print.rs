//! Printing in order what is finished in any order, with bounded memory.
//!
//! The outcomes wait in a ring of slots, `slots[file % slots.len()]`. `head` is the first file that
//! has not been taken from its slot. Whoever puts an outcome into the head's slot while nobody is
//! printing becomes the printer: it takes outcomes from the head on, formats and writes them
//! without holding the lock, and goes on until the head's slot is empty.
//!
//! Invariants.  1. If nobody is printing, the head's slot is empty.  2. A slot is empty, or belongs
//! to one file in `head..head + slots.len()`: a job waits in `admit` until its file is among these.
//! 3. The job that works on the head never waits there, so the head moves on.
//!
//! The lock is held for a few loads and stores, never across a call that may block.

use crate::plan::Plan;
use crate::report::Report;
use crate::seam::{self, Parked, fs::File};
use sha2::{Digest as _, Sha256};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Outcomes that may wait for an earlier file: while one core hashes a huge file, the others go on.
const SLOTS: usize = 1 << 16;

/// Outcomes that the printer takes at once.
const BATCH: usize = 256;

/// The output is written when there is this much of it.
const FLUSH: usize = 64 * 1024;

pub(crate) enum Outcome {
    Digest([u8; 32]),
    Failed(io::Error),
}

pub(crate) struct Printer {
    plan: Arc<Plan>,
    report: Arc<Report>,
    stopped: AtomicBool,
    state: Mutex<State>,
}

struct State {
    slots: Box<[Option<Outcome>]>,
    head: usize,
    waiting: Vec<Parked>,
    /// `None` while somebody is printing.
    output: Option<Box<Output>>,
}

/// What the printer writes with.
struct Output {
    file: File,
    text: Vec<u8>,
    path: Vec<u8>,
    batch: Vec<Outcome>,
    /// Write after each batch: somebody is watching.
    eager: bool,
    error: Option<io::Error>,
}

impl Printer {
    pub(crate) fn new(plan: &Arc<Plan>, report: &Arc<Report>) -> io::Result<Printer> {
        let stdout = io::stdout();
        let output = Output {
            eager: io::IsTerminal::is_terminal(&stdout),
            file: File::from(stdout.as_fd().try_clone_to_owned()?),
            text: Vec::with_capacity(FLUSH + 8192),
            path: Vec::new(),
            batch: Vec::with_capacity(BATCH),
            error: None,
        };
        let slots = std::iter::repeat_with(|| None).take(plan.len().clamp(1, SLOTS)).collect();
        Ok(Printer {
            plan: plan.clone(),
            report: report.clone(),
            stopped: AtomicBool::new(false),
            state: Mutex::new(State {
                slots,
                head: 0,
                waiting: Vec::new(),
                output: Some(Box::new(output)),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the output has failed, so that nothing more needs to be hashed.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Ends it all early: no job is admitted any more, and those that wait are sent home.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        let waiting = std::mem::take(&mut self.state().waiting);
        waiting.iter().for_each(Parked::unpark);
    }

    /// Waits until there is a slot for `file`; false if the output has failed.
    pub(crate) fn admit(&self, file: usize) -> bool {
        loop {
            {
                let mut state = self.state();
                if self.stopped() {
                    return false;
                }
                if file - state.head < state.slots.len() {
                    return true;
                }
                state.waiting.push(seam::current());
            }
            seam::park();
        }
    }

    /// Hands over the outcome of an admitted file.
    pub(crate) fn put(&self, file: usize, outcome: Outcome) {
        let mut state = self.state();
        let slot = file % state.slots.len();
        state.slots[slot] = Some(outcome);
        if file == state.head
            && let Some(output) = state.output.take()
        {
            drop(state);
            self.print_ready(output);
        }
    }

    /// The printer: prints from the head on until the head's slot is empty, then puts the output
    /// back, in the same critical section (invariant 1).
    fn print_ready(&self, mut output: Box<Output>) {
        loop {
            let mut state = self.state();
            let State { slots, head, .. } = &mut *state;
            let (first, len) = (*head, slots.len());
            while output.batch.len() < BATCH
                && let Some(outcome) = slots[*head % len].take()
            {
                output.batch.push(outcome);
                *head += 1;
            }
            if output.batch.is_empty() {
                state.output = Some(output);
                return;
            }
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            waiting.iter().for_each(Parked::unpark);
            self.print(first, &mut output);
        }
    }

    /// Formats a batch of lines, and writes them if there is enough.
    fn print(&self, first: usize, output: &mut Output) {
        self.report.printed(output.batch.len());
        let mut batch = std::mem::take(&mut output.batch);
        for (file, outcome) in (first..).zip(batch.drain(..)) {
            self.plan.path(file, &mut output.path);
            match outcome {
                Outcome::Digest(digest) => line(&mut output.text, &digest, &output.path),
                Outcome::Failed(error) => self.report.unreadable(&output.path, &error),
            }
        }
        output.batch = batch;
        if output.eager || output.text.len() >= FLUSH {
            self.flush(output);
        }
    }

    fn flush(&self, output: &mut Output) {
        if output.error.is_none() && !output.text.is_empty() {
            if output.eager {
                self.report.clear();
            }
            if let Err(error) = output.file.write_all(&output.text) {
                output.error = Some(error);
                self.stop();
            }
        }
        output.text.clear();
    }

    /// Writes what is left, when all jobs have ended. If there was no file at all, that is what the
    /// pipeline prints then: the line of empty input.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let Some(mut output) = self.state().output.take() else {
            return Ok(()); // The printer panicked, and whoever joins it does too.
        };
        if self.plan.len() == 0 {
            line(&mut output.text, &Sha256::digest(b"").into(), b"-");
        }
        self.flush(&mut output);
        output.error.take().map_or(Ok(()), Err)
    }
}

/// One line as sha256sum writes it: a name with a backslash, a line feed or a carriage return is
/// escaped, and a backslash at the start of the line says so.
fn line(text: &mut Vec<u8>, digest: &[u8; 32], path: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let odd = path.iter().any(|byte| matches!(byte, b'\\' | b'\n' | b'\r'));
    if odd {
        text.push(b'\\');
    }
    for byte in digest {
        text.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    text.extend(b"  ");
    if !odd {
        text.extend(path);
    } else {
        for byte in path {
            match byte {
                b'\\' => text.extend(b"\\\\"),
                b'\n' => text.extend(b"\\n"),
                b'\r' => text.extend(b"\\r"),
                _ => text.push(*byte),
            }
        }
    }
    text.push(b'\n');
}
