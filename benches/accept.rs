//! Accepting connections: microseconds for each, on one core.
//!
//! The connections are made first, and wait in the listener's line, one alone or a hundred; then
//! the time is taken until the last one is accepted. The limits are bare rings: one accept at a
//! time, as long as nothing more is known; and accepts that the kernel repeats by itself
//! (multishot), armed for good, or for what is in line only, followed by a request to end.

mod common;

use common::{Bench, Metric, OURS};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

const ONE: Metric = Metric::time("a connection that comes alone", "us");
const MANY: Metric = Metric::time("each of a hundred in line", "us");
const SINGLE: &str = "one by one, bare io_uring";
const MULTI: &str = "multishot, armed for good";
const BURST: &str = "multishot, for what is there";
const SYSTEM: &str = "accept4";

fn main() {
    let mut bench = Bench::from_args();
    let total = bench.amount(1000, 100);
    for _ in bench.rounds(10) {
        for (metric, line) in [(ONE, 1), (MANY, 100)] {
            bench.run(metric, OURS, || ours(total, line));
            bench.run(metric, SYSTEM, || system(total, line));
            bench.run(metric, SINGLE, || single(total, line));
            bench.run(metric, MULTI, || multishot(total, line));
            bench.run(metric, BURST, || burst(total, line));
        }
    }
    bench.print();
}

/// Calls `accept` for `line` connections that wait, again and again, until there were `total`.
fn timed(
    total: usize,
    line: usize,
    addr: SocketAddr,
    mut accept: impl FnMut(usize) -> Vec<OwnedFd>,
) -> Option<f64> {
    let mut spent = 0.0;
    for _ in 0..total / line {
        let connect = |_| TcpStream::connect(addr).expect("a connection");
        let clients: Vec<_> = (0..line).map(connect).collect();
        let start = Instant::now();
        let accepted = accept(line);
        spent += start.elapsed().as_secs_f64();
        assert_eq!(accepted.len(), line);
        drop(clients);
        // Closed second: this side's ports are not the ones that stay in use for a while.
        drop(accepted);
    }
    Some(spent * 1e6 / total as f64)
}

fn ours(total: usize, line: usize) -> Option<f64> {
    common::runtime(1)?.run(|| {
        let listener = ramie::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("it is bound");
        let mut incoming = listener.incoming();
        timed(total, line, addr, |line| {
            let streams = incoming.by_ref().take(line);
            streams.map(|stream| stream.expect("a connection").into()).collect()
        })
    })
}

fn bound() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("it is bound");
    (listener, addr)
}

fn system(total: usize, line: usize) -> Option<f64> {
    let (listener, addr) = bound();
    timed(total, line, addr, |line| {
        (0..line).map(|_| listener.accept().expect("a connection").0.into()).collect()
    })
}

fn ring() -> IoUring {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_no_sqarray()
        .build(256)
        .expect("a ring")
}

fn owned(fd: RawFd) -> OwnedFd {
    assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
    // SAFETY: the kernel's answer to an accept, seen by nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn push(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: it points to nothing.
    unsafe { ring.submission().push(entry) }.expect("room");
}

fn single(total: usize, line: usize) -> Option<f64> {
    let (listener, addr) = bound();
    let mut ring = ring();
    let fd = types::Fd(listener.as_raw_fd());
    timed(total, line, addr, |line| {
        let mut accept = |_| {
            push(
                &mut ring,
                &opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build(),
            );
            ring.submit_and_wait(1).expect("something happens");
            owned(ring.completion().next().expect("it has").result())
        };
        (0..line).map(&mut accept).collect()
    })
}

fn multishot(total: usize, line: usize) -> Option<f64> {
    let (listener, addr) = bound();
    let mut ring = ring();
    push(&mut ring, &opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).build());
    timed(total, line, addr, |line| {
        let mut taken = Vec::new();
        while taken.len() < line {
            ring.submit_and_wait(1).expect("something happens");
            taken.extend(ring.completion().map(|entry| owned(entry.result())));
        }
        taken
    })
}

fn burst(total: usize, line: usize) -> Option<f64> {
    let (listener, addr) = bound();
    let mut ring = ring();
    let fd = types::Fd(listener.as_raw_fd());
    timed(total, line, addr, |line| {
        let mut taken = Vec::new();
        while taken.len() < line {
            push(&mut ring, &opcode::AcceptMulti::new(fd).build().user_data(1));
            push(&mut ring, &opcode::AsyncCancel::new(1).build().user_data(2));
            let mut owed = 2;
            while owed != 0 {
                ring.submit_and_wait(1).expect("something happens");
                for entry in ring.completion() {
                    if !cqueue::more(entry.flags()) {
                        owed -= 1;
                    }
                    if entry.user_data() == 1 && entry.result() != -libc::ECANCELED {
                        taken.push(owned(entry.result()));
                    }
                }
            }
        }
        taken
    })
}
