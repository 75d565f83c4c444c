//! Load for servers, and what they spend on it: a server is a process of its own on core 0, the
//! load comes from a ring on core 1, and the server's time is the kernel's account of its process.
#![allow(dead_code, reason = "each program uses some of it")]

#[path = "buffers.rs"]
mod buffers;

pub use buffers::Buffers;

use crate::common;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The length of a message and of its echo.
pub const MESSAGE: usize = 64;

/// A server in another process; killed when dropped.
pub struct Server {
    child: Child,
    pub addr: SocketAddr,
}

impl Server {
    /// Runs a program that prints its port. It gets core 0, the caller core 1.
    pub fn start(mut command: Command) -> Option<Server> {
        common::pin(0);
        let child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn();
        common::pin(1);
        let mut child = child.ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
        match line.trim().parse::<u16>() {
            Ok(port) => Some(Server { child, addr: SocketAddr::from(([127, 0, 0, 1], port)) }),
            Err(_) => {
                eprintln!("no server: {command:?}");
                _ = child.kill();
                _ = child.wait();
                None
            }
        }
    }

    /// This program again, as a server.
    pub fn of_this_program(name: &str) -> Option<Server> {
        let mut command = Command::new(std::env::current_exe().ok()?);
        command.args(["serve", name]);
        Server::start(command)
    }

    /// The processor time that it has used.
    pub fn cpu(&self) -> Duration {
        let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: both are ours to write.
        let failed = unsafe {
            libc::clock_getcpuclockid(self.child.id() as i32, &mut clock) != 0
                || libc::clock_gettime(clock, &mut time) != 0
        };
        assert!(!failed, "the server has ended");
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// What a server has reached.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    pub k_per_s: f64,
    /// The server's processor time for each request.
    pub cpu_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// A client with so many connections to a server. Each sends a message, and the next when its echo
/// has come.
pub struct Client {
    ring: IoUring,
    buffers: Buffers,
    streams: Vec<TcpStream>,
    /// Per connection: when its message was sent, and how much of the echo has come.
    sent: Vec<(Instant, usize)>,
    /// Messages whose echo has not come.
    in_flight: usize,
    /// Connections to receive from.
    receive: Vec<usize>,
    /// In nanoseconds.
    latencies: Vec<u32>,
}

static TEXT: [u8; MESSAGE] = [b'x'; MESSAGE];

impl Client {
    pub fn new(server: &Server, connections: usize) -> Client {
        let connect = |_| TcpStream::connect(server.addr).expect("the server accepts");
        let streams: Vec<_> = (0..connections).map(connect).collect();
        streams.iter().for_each(|stream| stream.set_nodelay(true).expect("an option of TCP"));
        let ring = ring(4096);
        let buffers = Buffers::new(&ring, 8192, MESSAGE).expect("rings of buffers");
        let sent = vec![(Instant::now(), 0); connections];
        let receive = (0..connections).collect();
        Client { ring, buffers, streams, sent, in_flight: 0, receive, latencies: Vec::new() }
    }

    /// Sends for so long, and waits for all echoes.
    pub fn run(&mut self, server: &Server, span: Duration) -> Reached {
        self.latencies.clear();
        let (start, cpu) = (Instant::now(), server.cpu());
        self.send_until(start + span);
        let (span, cpu) = (start.elapsed(), server.cpu() - cpu);
        self.latencies.sort_unstable();
        let count = self.latencies.len() as f64;
        let at = |part: f64| f64::from(self.latencies[(part * (count - 1.0)) as usize]) / 1e3;
        Reached {
            k_per_s: count / span.as_secs_f64() / 1e3,
            cpu_us: cpu.as_secs_f64() * 1e6 / count,
            p50_us: at(0.5),
            p99_us: at(0.99),
        }
    }

    fn send_until(&mut self, end: Instant) {
        let (mut submitter, mut sq, mut cq) = self.ring.split();
        submitter.register_ring_fd().expect("a ring that can be registered");
        let fd = |i: usize| types::Fd(self.streams[i].as_raw_fd());
        let send = |i: usize| {
            // What fails says so, and nothing else matters: the text is never freed.
            opcode::Send::new(fd(i), TEXT.as_ptr(), MESSAGE as u32)
                .flags(libc::MSG_NOSIGNAL)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(u64::MAX)
        };
        let receive = |i: usize| opcode::RecvMulti::new(fd(i), 0).build().user_data(i as u64);
        let mut queue: Vec<_> = self.receive.drain(..).map(receive).collect();
        queue.extend((0..self.streams.len()).map(send));
        self.sent.fill((Instant::now(), 0));
        self.in_flight = self.streams.len();
        while self.in_flight > 0 {
            for entry in queue.drain(..) {
                // SAFETY: the text and the buffers are never freed.
                while unsafe { sq.push(&entry) }.is_err() {
                    sq.sync();
                    submitter.submit().expect("room for more");
                    sq.sync();
                }
            }
            sq.sync();
            submitter.submit_and_wait(1).expect("something happens");
            sq.sync();
            cq.sync();
            let now = Instant::now();
            for entry in &mut cq {
                assert_ne!(entry.user_data(), u64::MAX, "a send failed: {}", entry.result());
                let i = entry.user_data() as usize;
                if let Some(id) = cqueue::buffer_select(entry.flags()) {
                    self.buffers.give(id);
                }
                if !cqueue::more(entry.flags()) {
                    assert!(entry.result() > 0 || entry.result() == -libc::ENOBUFS, "hung up");
                    queue.push(receive(i));
                }
                let (sent, count) = &mut self.sent[i];
                *count += entry.result().max(0) as usize;
                if *count == MESSAGE {
                    self.latencies.push((now - *sent).as_nanos() as u32);
                    (*sent, *count) = (now, 0);
                    if now < end {
                        queue.push(send(i));
                    } else {
                        self.in_flight -= 1;
                    }
                }
            }
            self.buffers.publish();
        }
        let receiving = queue.iter().map(|entry| entry.get_user_data() as usize);
        self.receive = receiving.collect();
        drop((sq, cq));
        submitter.unregister_ring_fd().expect("it was registered");
    }
}

/// A ring as fast as the kernel makes them.
pub fn ring(entries: u32) -> IoUring {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_no_sqarray()
        .setup_cqsize(4 * entries)
        .build(entries)
        .expect("a ring")
}
