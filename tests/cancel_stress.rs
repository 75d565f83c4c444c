//! Requests and deadlines at random moments, at every kind of suspension: nothing is lost, nothing
//! is delivered twice, nothing goes to the wrong one.

mod common;

use common::rng::Rng;
use common::scopes::pipe;
use common::{eventually, watch};
use ramie::time::{Duration, Instant, timeout};
use ramie::{cancel, is_cancelled};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One fiber that is being cancelled, and what it has seen.
struct Victim {
    rng: Rng,
    reader: ramie::fs::File,
    writer: ramie::fs::File,
    /// Reports of requests so far.
    reports: Arc<AtomicU64>,
    wrote: u64,
    read: u64,
}

impl Victim {
    /// Some call that suspends. Those that report return the error.
    fn step(&mut self, depth: u32) -> io::Result<()> {
        match self.rng.below(12) {
            0 => ramie::yield_now(),
            1 => ramie::sleep(self.rng.micros(200)),
            2 => ramie::park_timeout(self.rng.micros(200)),
            3 => _ = ramie::fs::metadata("Cargo.toml")?,
            4 => {
                let n = self.writer.write(&[self.wrote as u8])?;
                self.wrote += n as u64;
            }
            // There may be nothing to read: then only somebody else can end it.
            5 if self.wrote > self.read || depth > 0 => {
                let mut byte = [0];
                let n = self.reader.read(&mut byte)?;
                assert_eq!((n, byte[0]), (1, self.read as u8), "a byte was lost");
                self.read += 1;
            }
            6 => {
                let child = ramie::spawn(|| {
                    ramie::yield_now();
                    cancel::check().unwrap(); // it is not the child's
                    7
                });
                assert_eq!(child.join().unwrap(), 7);
            }
            7 => assert_eq!(ramie::unblock(|| 8), 8),
            8 => cancel::check()?,
            9 if depth < 4 => cancel::shield(|| self.shielded(depth + 1)),
            _ if depth < 4 => return self.timed(depth + 1),
            _ => {}
        }
        Ok(())
    }

    /// A few steps under a deadline. `TimedOut` is its own, and ends here.
    fn timed(&mut self, depth: u32) -> io::Result<()> {
        let limit = self.rng.micros(300);
        let start = Instant::now();
        let result = timeout(limit, || {
            for _ in 0..self.rng.below(4) {
                self.step(depth)?;
            }
            Ok(())
        });
        match result {
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                assert!(start.elapsed() >= limit, "too early");
                Ok(())
            }
            result => result,
        }
    }

    /// In a shield nothing from outside comes through.
    fn shielded(&mut self, depth: u32) {
        for _ in 0..self.rng.below(3) {
            match self.rng.below(3) {
                0 => cancel::check().expect("shielded"),
                1 => _ = ramie::fs::metadata("Cargo.toml").expect("shielded"),
                _ => self.timed(depth).expect("what comes out of it would be from outside"),
            }
        }
        assert!(!cancel::is_requested());
    }

    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = self.step(0) {
                // Outside all timeouts it can only be a request by the handle.
                assert!(is_cancelled(&error), "{error}");
                self.reports.fetch_add(1, Ordering::SeqCst);
                if self.rng.below(4) == 0 {
                    // Once more, and then it is over.
                    cancel::recancel();
                    assert!(is_cancelled(&cancel::check().unwrap_err()));
                }
            }
        }
        // What is in the pipe is what was written and not read.
        drop(self.writer);
        let rest = cancel::shield(|| {
            let mut rest = Vec::new();
            self.reader.read_to_end(&mut rest).map(|_| rest)
        });
        let rest = rest.expect("shielded");
        assert_eq!(rest.len() as u64, self.wrote - self.read);
        assert!(rest.iter().zip(self.read..).all(|(byte, n)| *byte == n as u8));
    }
}

/// Each canceller waits until its request has been reported before it makes the next one. So as
/// many reports come as there were requests, not one more and not one less.
#[test]
fn as_many_reports_as_requests() {
    let _watchdog = watch::dog();
    let seed = Rng::from_env().0;
    for (workers, entries) in [(1, 256), (2, 256), (2, 1)] {
        let rt = ramie::Runtime::builder().workers(workers).ring_entries(entries).build().unwrap();
        rt.run(|| {
            let stop = Arc::new(AtomicBool::new(false));
            let mut victims = Vec::new();
            for n in 0..8 {
                let (reader, writer) = pipe();
                let reports = Arc::new(AtomicU64::new(0));
                let victim = Victim {
                    rng: Rng(seed.wrapping_mul(31).wrapping_add(n)),
                    reader,
                    writer,
                    reports: Arc::clone(&reports),
                    wrote: 0,
                    read: 0,
                };
                let stop = Arc::clone(&stop);
                let fiber = ramie::Builder::new().worker(n as usize % workers);
                victims.push((fiber.spawn(move || victim.run(&stop)).unwrap(), reports));
            }
            let victims = Arc::new(victims);
            let rounds = 150;
            // By a thread if there is one worker, by a fiber if there are two.
            let cancel_all = move |victims: &[(ramie::JoinHandle<()>, Arc<AtomicU64>)],
                                   mut rng: Rng| {
                for round in 1..=rounds {
                    for (victim, _) in victims {
                        victim.cancel();
                        if rng.below(2) == 0 {
                            ramie::sleep(rng.micros(100));
                        }
                    }
                    for (_, reports) in victims {
                        eventually("the request is reported", || {
                            reports.load(Ordering::SeqCst) >= round
                        });
                    }
                    for (_, reports) in victims {
                        assert_eq!(reports.load(Ordering::SeqCst), round, "reported twice");
                    }
                }
            };
            let theirs = Arc::clone(&victims);
            if workers == 1 {
                let rng = Rng(seed);
                let thread = std::thread::spawn(move || cancel_all(&theirs, rng));
                eventually("all is asked", || thread.is_finished());
                thread.join().unwrap();
            } else {
                cancel_all(&theirs, Rng(seed));
                drop(theirs);
            }
            stop.store(true, Ordering::Relaxed);
            for (victim, _) in Arc::into_inner(victims).unwrap() {
                victim.join().unwrap();
            }
        });
    }
}

/// Deadlines at all times around the end of a read: each byte is either read or still there.
#[test]
fn no_byte_is_lost_to_a_timeout() {
    common::on_a_fiber(|| {
        let (mut reader, mut writer) = pipe();
        let writing = ramie::spawn(move || {
            for n in 0..2_000_u32 {
                let limit = Duration::from_micros(u64::from(n % 100));
                ramie::sleep(limit);
                writer.write_all(&[n as u8]).unwrap();
            }
        });
        let (mut next, mut late) = (0_u32, 0_u32);
        while next < 2_000 {
            let mut byte = [0];
            let limit = Duration::from_micros(u64::from((next * 7 + late * 13) % 150));
            match timeout(limit, || reader.read(&mut byte)) {
                Ok(n) => {
                    assert_eq!((n, byte[0]), (1, next as u8));
                    next += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut);
                    late += 1;
                }
            }
        }
        assert!(late > 0, "no read timed out: this tested nothing");
        writing.join().unwrap();
        cancel::check().unwrap();
    });
}
