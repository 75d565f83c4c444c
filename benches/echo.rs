//! A TCP echo server on one core: messages of 64 bytes over 1, 64, 512 and 4096 connections.
//!
//! Loopback costs the kernel some 4 us per request and side, whoever serves: the rate hides what
//! the server spends. So its processor time per request is reported too. The limit is a server that
//! does nothing but drive an io_uring: one accept and one receive per connection that stay armed,
//! buffers that the kernel picks, and sends handed over in batches.
//!
//! A server that reads, writes what it has read, and then reads again cannot have all of that: its
//! receive is an operation of its own each time, and begins when the send has ended. The second
//! limit, "in turn", is a bare ring that does just this, with 64 bytes of memory per connection.
//! What lies between the two limits is the price of `read` and `write`. The third, "a page each",
//! is the second with each connection's 64 bytes where a stack would have them: on a page of their
//! own, as far apart as stacks. What lies between these two is the least that a stack for each
//! connection costs, in address translation and caches; the rest is the scheduler's.
//!
//! Without io_uring, on epoll, the peer is tokio on its `current_thread` runtime: metrics of their
//! own, in which all may use epoll only. The limit is a bare loop: for each event one receive and
//! one send. A message fills the buffer it is read into, so that a reader does not know whether
//! that was all, and the call that finds out is a tenth of what a request costs. The bare loop has
//! the kernel look (its sockets are watched by level), tokio makes the call, ramie has learnt that
//! it need not.
//!
//! Each server is a process of its own on core 0; the load comes from core 1.

mod common;
#[path = "common/load.rs"]
mod load;

use common::{Bench, Metric, OURS};
use io_uring::{SubmissionQueue, Submitter, cqueue, opcode, squeue, types};
use load::{Buffers, Client, MESSAGE, Server};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::time::Duration;

/// Who serves, by what name this program knows it, and how.
type Contender = (&'static str, &'static str, fn());
const BY_RING: &[Contender] = &[
    (OURS, "ramie", ours),
    ("io_uring", "raw", raw),
    ("io_uring, in turn", "turn", in_turn),
    ("in turn, a page each", "pages", in_turn_a_page_each),
];
const BY_EPOLL: &[Contender] =
    &[(OURS, "poll", ours_by_epoll), ("tokio", "tokio", on_tokio), ("epoll", "bare", bare)];

struct Metrics {
    connections: usize,
    servers: &'static [Contender],
    rate: Metric,
    cpu: Metric,
    median: Metric,
    late: Metric,
}

macro_rules! metrics {
    ($what:literal $servers:expr, $($connections:literal)*) => {
        [$(Metrics {
            connections: $connections,
            servers: $servers,
            rate: Metric::rate(concat!($what, ", ", $connections, " connections"), "k/s"),
            cpu: Metric::time(concat!($what, ", ", $connections, ": CPU per request"), "us"),
            median: Metric::time(concat!($what, ", ", $connections, ": latency, median"), "us"),
            late: Metric::time(concat!($what, ", ", $connections, ": latency, 99 %"), "us"),
        }),*]
    };
}

fn main() {
    let mut bench = Bench::from_args();
    if let Some(at) = bench.args.iter().position(|arg| arg == "serve") {
        let name = bench.args.get(at + 1).expect("a name");
        let mut servers = BY_RING.iter().chain(BY_EPOLL);
        return servers.find(|(_, known, _)| known == name).expect("a server's name").2();
    }
    let slice = Duration::from_millis(if bench.quick { 10 } else { 100 });
    let by_ring = metrics!("echo" BY_RING, 1 64 512 4096);
    for metrics in by_ring.into_iter().chain(metrics!("echo by epoll" BY_EPOLL, 1 64 512)) {
        let wanted = [metrics.rate, metrics.cpu, metrics.median, metrics.late];
        if !wanted.into_iter().any(|metric| bench.wants(metric)) {
            continue;
        }
        let connections = metrics.connections.min(bench.amount(usize::MAX, 64));
        // All are there, and take turns in short slices: then what slows the machine down for a
        // while does so to all.
        let start = |(who, name, _): &Contender| {
            let server = Server::of_this_program(name)?;
            let mut client = Client::new(&server, connections);
            client.run(&server, slice);
            Some((*who, server, client))
        };
        let mut servers: Vec<_> = metrics.servers.iter().filter_map(start).collect();
        for _ in bench.rounds(20) {
            for (name, server, client) in &mut servers {
                let reached = client.run(server, slice);
                bench.record(metrics.rate, name, Some(reached.k_per_s));
                bench.record(metrics.cpu, name, Some(reached.cpu_us));
                bench.record(metrics.median, name, Some(reached.p50_us));
                bench.record(metrics.late, name, Some(reached.p99_us));
            }
        }
    }
    bench.print();
}

fn ours() {
    serve(common::runtime(1));
}

fn ours_by_epoll() {
    serve(ramie::Runtime::builder().workers(1).driver(ramie::DriverKind::Poll).build().ok());
}

fn on_tokio() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.expect("a runtime").block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("it is bound").port());
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let mut buf = [0; MESSAGE];
                loop {
                    match stream.read(&mut buf).await {
                        Ok(0) | Err(_) => return,
                        Ok(n) => stream.write_all(&buf[..n]).await.unwrap_or(()),
                    }
                }
            });
        }
    });
}

fn serve(runtime: Option<ramie::Runtime>) {
    let Some(runtime) = runtime else { return };
    runtime.run(|| {
        let listener = ramie::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        println!("{}", listener.local_addr().expect("it is bound").port());
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            ramie::spawn(move || {
                let mut buf = [0; MESSAGE];
                loop {
                    match stream.read(&mut buf) {
                        Ok(0) | Err(_) => return,
                        Ok(n) => stream.write_all(&buf[..n]).unwrap_or(()),
                    }
                }
            });
        }
    });
}

fn bare() {
    let listener = listener();
    // SAFETY: numbers only.
    let set = unsafe { libc::epoll_create1(0) };
    let watch = |fd: RawFd| {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
        // SAFETY: reads a live local.
        let failed = unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        assert_eq!(failed, 0, "epoll knows sockets");
    };
    watch(listener.as_raw_fd());
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
    let mut text = [0_u8; MESSAGE];
    loop {
        // SAFETY: the events are ours to write.
        let count = unsafe { libc::epoll_wait(set, events.as_mut_ptr(), 256, -1) };
        for event in &events[..usize::try_from(count).unwrap_or(0)] {
            let fd = event.u64 as RawFd;
            if fd == listener.as_raw_fd() {
                watch(listener.accept().expect("a connection").0.into_raw_fd());
                continue;
            }
            // SAFETY: the text is ours, and the descriptor nobody else's.
            unsafe {
                let len = libc::recv(fd, text.as_mut_ptr().cast(), MESSAGE, libc::MSG_DONTWAIT);
                if let Ok(len @ 1..) = usize::try_from(len) {
                    libc::send(fd, text.as_ptr().cast(), len, libc::MSG_NOSIGNAL);
                } else {
                    libc::close(fd);
                }
            }
        }
    }
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("it is bound").port());
    listener
}

/// Hands the entries over and waits for a completion.
///
/// # Safety
/// What the entries point to stays valid until they complete.
unsafe fn enter(
    submitter: &Submitter<'_>,
    sq: &mut SubmissionQueue<'_>,
    queue: &mut Vec<squeue::Entry>,
) {
    for entry in queue.drain(..) {
        // SAFETY: the caller's promise.
        while unsafe { sq.push(&entry) }.is_err() {
            sq.sync();
            submitter.submit().expect("room for more");
            sq.sync();
        }
    }
    sq.sync();
    submitter.submit_and_wait(1).expect("something happens");
    sq.sync();
}

const ACCEPT: u64 = 1 << 32;
const RECEIVE: u64 = 2 << 32;
const SEND: u64 = 3 << 32;

/// A message is sent from the buffer that it came in, and the buffer is given back then.
fn raw() {
    let listener = listener();
    let mut ring = load::ring(4096);
    let mut buffers = Buffers::new(&ring, 8192, MESSAGE).expect("rings of buffers");
    let (mut submitter, mut sq, mut cq) = ring.split();
    submitter.register_ring_fd().expect("a ring that can be registered");
    let receive = |fd: RawFd| {
        let receive = opcode::RecvMulti::new(types::Fd(fd), 0).build();
        receive.user_data(RECEIVE | fd as u64)
    };
    let accept = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd()));
    let mut queue = vec![accept.build().user_data(ACCEPT)];
    loop {
        // SAFETY: the buffers are never freed.
        unsafe { enter(&submitter, &mut sq, &mut queue) };
        cq.sync();
        for entry in &mut cq {
            let (result, user_data) = (entry.result(), entry.user_data());
            let fd = user_data as u32 as RawFd;
            let id = cqueue::buffer_select(entry.flags());
            match (user_data & 7 << 32, result, id) {
                (ACCEPT, fd, _) => queue.push(receive(fd)),
                (RECEIVE, len @ 1.., Some(id)) => {
                    let text = buffers.get(id, len as usize);
                    queue.push(
                        opcode::Send::new(types::Fd(fd), text.as_ptr(), len as u32)
                            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                            .build()
                            .user_data(SEND | u64::from(id) << 40 | fd as u64),
                    );
                    if !cqueue::more(entry.flags()) {
                        queue.push(receive(fd));
                    }
                }
                (RECEIVE, error, _) if error == -libc::ENOBUFS => queue.push(receive(fd)),
                (RECEIVE, ..) => {
                    queue.push(opcode::Close::new(types::Fd(fd)).build().user_data(0));
                }
                (SEND, ..) => buffers.give((user_data >> 40) as u16),
                _ => {}
            }
        }
        buffers.publish();
    }
}

/// `IORING_RECVSEND_POLL_FIRST`: what has just been read empty is not read in vain.
const POLL_FIRST: u16 = 1;

fn in_turn() {
    serve_in_turn(|_| Box::into_raw(Box::new([0; MESSAGE])).cast());
}

fn in_turn_a_page_each() {
    serve_in_turn(page);
}

/// Room for a message near the top of what could be a stack of the default size, in one of 16
/// places, as ramie's are.
fn page(number: usize) -> *mut u8 {
    const STACK: usize = 256 << 10;
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
    let flags = flags | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: new memory, which is never freed.
    let stack = unsafe { libc::mmap(std::ptr::null_mut(), STACK, access, flags, -1, 0) };
    assert_ne!(stack, libc::MAP_FAILED, "no memory");
    // SAFETY: it is ours. Where the kernel knows no huge pages it refuses, and that is as well.
    unsafe { libc::madvise(stack, STACK, libc::MADV_NOHUGEPAGE) };
    stack.cast::<u8>().wrapping_add(STACK - (number % 16 + 2) * MESSAGE)
}

/// A message is received, sent, and only then is the next one received. `new` makes room for the
/// messages of a connection, which is never freed.
fn serve_in_turn(new: impl Fn(usize) -> *mut u8) {
    let listener = listener();
    let mut ring = load::ring(4096);
    let (mut submitter, mut sq, mut cq) = ring.split();
    submitter.register_ring_fd().expect("a ring that can be registered");
    // By descriptor; each has its place for ever.
    let mut texts: Vec<Option<*mut u8>> = Vec::new();
    let accept = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd()));
    let mut queue = vec![accept.build().user_data(ACCEPT)];
    loop {
        // SAFETY: the messages' places are never freed.
        unsafe { enter(&submitter, &mut sq, &mut queue) };
        cq.sync();
        for entry in &mut cq {
            let (result, user_data) = (entry.result(), entry.user_data());
            if result < 0 || user_data == 0 {
                continue;
            }
            let (kind, fd) = match user_data & 7 << 32 {
                ACCEPT => (SEND, result), // on to its first message
                kind => (kind, user_data as u32 as RawFd),
            };
            if texts.len() <= fd as usize {
                texts.resize_with(fd as usize + 1, || None);
            }
            let text = *texts[fd as usize].get_or_insert_with(|| new(fd as usize));
            queue.push(match (kind, result) {
                (SEND, _) => opcode::Recv::new(types::Fd(fd), text, MESSAGE as u32)
                    .ioprio(POLL_FIRST)
                    .build()
                    .user_data(RECEIVE | fd as u64),
                (_, 0) => opcode::Close::new(types::Fd(fd)).build().user_data(0),
                (_, len) => opcode::Send::new(types::Fd(fd), text, len as u32)
                    .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                    .build()
                    .user_data(SEND | fd as u64),
            });
        }
    }
}
