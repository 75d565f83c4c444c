//! Copying, in gigabytes per second: `io::copy` on one worker, and `std::io::copy` on a thread.
//!
//! Files are cached, sockets are local TCP connections; their other ends are threads that write
//! from, and read into, a buffer of 256 KiB. Both sides compete for the same cores, and how the
//! kernel spreads them makes much of the noise.
//!
//! An argument is the number of megabytes.

mod common;

use common::{Bench, Metric, OURS, TempDir};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Instant;

const FILES: Metric = Metric::rate("file to file", "GB/s");
const SERVE: Metric = Metric::rate("file to socket", "GB/s");
const PROXY: Metric = Metric::rate("socket to socket", "GB/s");
const SMALL: Metric = Metric::rate("file of 16 KiB to socket", "GB/s");
const STD: &str = "std::io::copy";

fn main() {
    let mut bench = Bench::from_args();
    let given = bench.args.first().and_then(|text| text.parse().ok());
    let bytes = given.unwrap_or(bench.amount(256, 4)) << 20;
    let dir = TempDir::new("copy");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::write(&from, vec![7; bytes]).expect("there is room");
    let small = dir.path().join("small");
    std::fs::write(&small, vec![7; 16 << 10]).expect("there is room");
    for _ in bench.rounds(5) {
        bench.run(FILES, OURS, || ours(|| to_file::<ramie::fs::File>(&from, &to, ramie_copy)));
        bench.run(FILES, STD, || to_file::<File>(&from, &to, std_copy));
        bench.run(SERVE, OURS, || ours(|| serve(&from, 1, true)));
        bench.run(SERVE, STD, || serve(&from, 1, false));
        bench.run(SMALL, OURS, || ours(|| serve(&small, bytes >> 16, true)));
        bench.run(SMALL, STD, || serve(&small, bytes >> 16, false));
        bench.run(PROXY, OURS, || ours(|| proxy(bytes, true)));
        bench.run(PROXY, STD, || proxy(bytes, false));
    }
    bench.print();
}

fn ours(f: impl FnOnce() -> Option<f64>) -> Option<f64> {
    let runtime = ramie::Runtime::builder().workers(1).build().expect("a runtime");
    runtime.run(f)
}

fn ramie_copy(from: &mut ramie::fs::File, to: &mut ramie::fs::File) -> u64 {
    ramie::io::copy(from, to).expect("it can be copied")
}

fn std_copy(from: &mut File, to: &mut File) -> u64 {
    std::io::copy(from, to).expect("it can be copied")
}

fn rate(bytes: u64, start: Instant) -> Option<f64> {
    Some(bytes as f64 / start.elapsed().as_secs_f64() / 1e9)
}

fn to_file<F: From<File>>(from: &Path, to: &Path, copy: fn(&mut F, &mut F) -> u64) -> Option<f64> {
    let mut from = File::open(from).expect("it is there").into();
    let mut to = File::create(to).expect("there is room").into();
    let start = Instant::now();
    rate(copy(&mut from, &mut to), start)
}

/// A connection, and a thread that reads all that comes from its other end.
fn drained() -> (TcpStream, JoinHandle<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let stream = TcpStream::connect(listener.local_addr().expect("it is bound"));
    let mut other = listener.accept().expect("a connection").0;
    let drain = thread::spawn(move || {
        let (mut buf, mut total) = (vec![0; 256 << 10], 0);
        loop {
            match other.read(&mut buf).expect("it can be read") {
                0 => return total,
                n => total += n as u64,
            }
        }
    });
    (stream.expect("a connection"), drain)
}

fn serve(path: &Path, times: usize, ours: bool) -> Option<f64> {
    let (stream, drain) = drained();
    let start = Instant::now();
    if ours {
        let mut stream = ramie::net::TcpStream::from(stream);
        for _ in 0..times {
            let mut file = ramie::fs::File::open(path).expect("it is there");
            ramie::io::copy(&mut file, &mut stream).expect("it can be copied");
        }
    } else {
        let mut stream = stream;
        for _ in 0..times {
            let mut file = File::open(path).expect("it is there");
            std::io::copy(&mut file, &mut stream).expect("it can be copied");
        }
    }
    rate(drain.join().expect("it does not panic"), start)
}

fn proxy(bytes: usize, ours: bool) -> Option<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let addr = listener.local_addr().expect("it is bound");
    let feed = thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        let buf = vec![7; 256 << 10];
        for _ in 0..bytes / buf.len() {
            stream.write_all(&buf).expect("it can be written");
        }
    });
    let mut from = listener.accept().expect("a connection").0;
    let (mut stream, drain) = drained();
    let start = Instant::now();
    if ours {
        let mut from = ramie::net::TcpStream::from(from);
        let mut stream = ramie::net::TcpStream::from(stream);
        ramie::io::copy(&mut from, &mut stream).expect("it can be copied");
    } else {
        std::io::copy(&mut from, &mut stream).expect("it can be copied");
        drop(stream);
    }
    feed.join().expect("it does not panic");
    rate(drain.join().expect("it does not panic"), start)
}
