//! Messages between fibers, beside std's and crossbeam's channels between threads.
//!
//! "ping-pong" sends one message there and one back, each over a channel of its own with room for
//! one, and waits for each; in nanoseconds per round trip. "stream" sends messages from two
//! producers to two consumers over one channel with room for 128; in millions of messages a second.
//! Its limit is two threads that answer each other through bare words, each in a cache line of its
//! own: a message takes about twice the lines that a word does. In "asleep" the other side has had
//! nothing to do for so long that its worker sleeps in the kernel; the peer there is `park` and
//! `unpark` of two threads.
//! In "mixed", one of either kind is on each worker, in "apart" both producers are on one. "pipe"
//! has one producer and one consumer, without a limit. Other runtimes are in `benches/peers`.

mod common;

use common::{Bench, Metric, OURS, ns_per, spawn_on};
use crossbeam_channel as crossbeam;
use ramie::sync::{mpmc, mpsc};
use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PING_1: Metric = Metric::time("ping-pong, 1 worker", "ns");
const PING_0: Metric = Metric::time("ping-pong, no room, 1 worker", "ns");
const PING_2: Metric = Metric::time("ping-pong, 2 workers", "ns");
const ASLEEP: Metric = Metric::time("ping-pong, 2 workers, asleep", "us");
const STREAM_1: Metric = Metric::rate("stream of 128, 2p2c, 1 worker", "M/s");
const STREAM_MIXED: Metric = Metric::rate("stream of 128, 2p2c, mixed", "M/s");
const STREAM_APART: Metric = Metric::rate("stream of 128, 2p2c, apart", "M/s");
const PIPE_1: Metric = Metric::rate("pipe, unbounded, 1 worker", "M/s");
const PIPE_2: Metric = Metric::rate("pipe, unbounded, 2 workers", "M/s");
const ALONE: Metric = Metric::time("send and receive, nobody waits", "ns");

const ROOM: usize = 128;
/// Time enough for a worker to fall asleep.
const QUIET: Duration = Duration::from_micros(500);

fn main() {
    let mut bench = Bench::from_args();
    let trips = bench.amount(1_000_000, 1000);
    let slow_trips = bench.amount(20_000, 500);
    let naps = bench.amount(500, 10);
    let messages = bench.amount(4_000_000, 10_000);
    for _ in bench.rounds(5) {
        common::pin(0);
        bench.run(ALONE, OURS, || alone(messages));
        bench.run(ALONE, "crossbeam", || crossbeam_alone(messages));
        bench.run(PING_1, OURS, || ping(1, 1, trips));
        bench.run(PING_0, OURS, || ping(1, 0, trips));
        bench.run(STREAM_1, OURS, || stream(1, |_| 0, |_| 0, messages));
        bench.run(PIPE_1, OURS, || pipe(1, messages));
        common::unpin();
        bench.run(PING_2, OURS, || ping(2, 1, trips));
        bench.run(PING_2, "bare words", || bare_ping(trips));
        bench.run(PING_2, "crossbeam, threads", || crossbeam_ping(slow_trips));
        bench.run(PING_2, "std, threads", || std_ping(slow_trips));
        bench.run(ASLEEP, OURS, || ping_asleep(naps));
        bench.run(ASLEEP, "park, unpark", || park_asleep(naps));
        bench.run(STREAM_MIXED, OURS, || stream(2, |i| i, |i| i, messages));
        bench.run(STREAM_MIXED, "crossbeam, threads", || crossbeam_stream(messages));
        bench.run(STREAM_APART, OURS, || stream(2, |_| 0, |_| 1, messages));
        bench.run(PIPE_2, OURS, || pipe(2, messages));
        bench.run(PIPE_2, "std, threads", || std_pipe(messages));
    }
    bench.print();
}

fn alone(messages: usize) -> Option<f64> {
    let (sender, receiver) = mpmc::bounded(ROOM);
    let runtime = common::runtime(1)?;
    Some(runtime.run(|| {
        ns_per(messages, || {
            for n in 0..messages {
                sender.send(n).expect("the receiver is here");
                black_box(receiver.recv()).expect("a message");
            }
        })
    }))
}

fn crossbeam_alone(messages: usize) -> Option<f64> {
    let (sender, receiver) = crossbeam::bounded(ROOM);
    Some(ns_per(messages, || {
        for n in 0..messages {
            sender.send(n).expect("the receiver is here");
            black_box(receiver.recv()).expect("a message");
        }
    }))
}

fn ping(workers: usize, room: usize, trips: usize) -> Option<f64> {
    let runtime = common::runtime(workers)?;
    Some(runtime.run(|| {
        let (there, here) = (mpsc::sync_channel(room), mpsc::sync_channel(room));
        let (sender, echo_receiver) = there;
        let (echo_sender, receiver) = here;
        let echo = spawn_on(workers - 1, move || {
            for n in echo_receiver {
                if echo_sender.send(n).is_err() {
                    break;
                }
            }
        });
        let main = spawn_on(0, move || {
            ns_per(trips, || {
                for n in 0..trips {
                    sender.send(n).expect("the echo is there");
                    assert_eq!(receiver.recv(), Ok(n));
                }
            })
        });
        let ns = main.join().expect("no panic");
        echo.join().expect("no panic");
        ns
    }))
}

/// The mean of so many round trips, each after a while of doing nothing, in microseconds.
fn after_quiet(trips: usize, mut trip: impl FnMut(usize)) -> f64 {
    let mut sum = Duration::ZERO;
    for n in 0..trips {
        let quiet = Instant::now();
        while quiet.elapsed() < QUIET {
            spin_loop();
        }
        let start = Instant::now();
        trip(n);
        sum += start.elapsed();
    }
    sum.as_secs_f64() * 1e6 / trips as f64
}

fn ping_asleep(trips: usize) -> Option<f64> {
    let runtime = common::runtime(2)?;
    Some(runtime.run(|| {
        let (sender, echo_receiver) = mpsc::sync_channel(1);
        let (echo_sender, receiver) = mpsc::sync_channel(1);
        let echo =
            spawn_on(1, move || echo_receiver.into_iter().all(|n| echo_sender.send(n).is_ok()));
        let main = spawn_on(0, move || {
            after_quiet(trips, |n| {
                sender.send(n).expect("the echo is there");
                assert_eq!(receiver.recv(), Ok(n));
            })
        });
        let us = main.join().expect("no panic");
        assert!(echo.join().expect("no panic"));
        us
    }))
}

fn park_asleep(trips: usize) -> Option<f64> {
    let (there, back) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let wait = |word: &AtomicUsize, n| {
        while word.load(Ordering::Acquire) != n {
            thread::park();
        }
    };
    let main = thread::current();
    let echo = {
        let (there, back) = (Arc::clone(&there), Arc::clone(&back));
        thread::spawn(move || {
            for n in 1..=trips {
                wait(&there, n);
                back.store(n, Ordering::Release);
                main.unpark();
            }
        })
    };
    let us = after_quiet(trips, |n| {
        there.store(n + 1, Ordering::Release);
        echo.thread().unpark();
        wait(&back, n + 1);
    });
    echo.join().expect("no panic");
    Some(us)
}

/// A word, in a line of its own.
#[repr(align(128))]
struct Word(AtomicUsize);

fn bare_ping(trips: usize) -> Option<f64> {
    let (there, back) = (Word(AtomicUsize::new(0)), Word(AtomicUsize::new(0)));
    let wait = |word: &Word, n| {
        while word.0.load(Ordering::Acquire) != n {
            spin_loop();
        }
    };
    Some(thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=trips {
                wait(&there, n);
                back.0.store(n, Ordering::Release);
            }
        });
        ns_per(trips, || {
            for n in 1..=trips {
                there.0.store(n, Ordering::Release);
                wait(&back, n);
            }
        })
    }))
}

fn crossbeam_ping(trips: usize) -> Option<f64> {
    let (sender, echo_receiver) = crossbeam::bounded(1);
    let (echo_sender, receiver) = crossbeam::bounded(1);
    let echo = thread::spawn(move || echo_receiver.iter().all(|n| echo_sender.send(n).is_ok()));
    let ns = ns_per(trips, || {
        for n in 0..trips {
            sender.send(n).expect("the echo is there");
            assert_eq!(receiver.recv(), Ok(n));
        }
    });
    drop(sender);
    echo.join().expect("no panic");
    Some(ns)
}

fn std_ping(trips: usize) -> Option<f64> {
    let (sender, echo_receiver) = std::sync::mpsc::sync_channel(1);
    let (echo_sender, receiver) = std::sync::mpsc::sync_channel(1);
    let echo = thread::spawn(move || echo_receiver.iter().all(|n| echo_sender.send(n).is_ok()));
    let ns = ns_per(trips, || {
        for n in 0..trips {
            sender.send(n).expect("the echo is there");
            assert_eq!(receiver.recv(), Ok(n));
        }
    });
    drop(sender);
    echo.join().expect("no panic");
    Some(ns)
}

/// Two producers and two consumers, each on the worker that `producer` and `consumer` say.
fn stream(
    workers: usize,
    producer: fn(usize) -> usize,
    consumer: fn(usize) -> usize,
    messages: usize,
) -> Option<f64> {
    let runtime = common::runtime(workers)?;
    let ns = runtime.run(|| {
        let (sender, receiver) = mpmc::bounded(ROOM);
        ns_per(messages, || {
            let consumers = [0, 1].map(|i| {
                let receiver = receiver.clone();
                spawn_on(consumer(i), move || receiver.iter().map(black_box).count())
            });
            let producers = [0, 1].map(|i| {
                let sender = sender.clone();
                spawn_on(producer(i), move || {
                    (0..messages / 2).for_each(|n| sender.send(n).expect("a consumer"));
                })
            });
            drop(sender);
            producers.into_iter().for_each(|fiber| fiber.join().expect("no panic"));
            let received = consumers.into_iter().map(|fiber| fiber.join().expect("no panic"));
            assert_eq!(received.sum::<usize>(), messages);
        })
    });
    Some(1e3 / ns)
}

fn crossbeam_stream(messages: usize) -> Option<f64> {
    let (sender, receiver) = crossbeam::bounded(ROOM);
    let ns = ns_per(messages, || {
        let consumers = [0, 1].map(|_| {
            let receiver = receiver.clone();
            thread::spawn(move || receiver.iter().map(black_box::<usize>).count())
        });
        let producers = [0, 1].map(|_| {
            let sender = sender.clone();
            thread::spawn(move || {
                (0..messages / 2).for_each(|n| sender.send(n).expect("a consumer"));
            })
        });
        drop(sender);
        producers.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let received = consumers.into_iter().map(|thread| thread.join().expect("no panic"));
        assert_eq!(received.sum::<usize>(), messages);
    });
    Some(1e3 / ns)
}

fn pipe(workers: usize, messages: usize) -> Option<f64> {
    let runtime = common::runtime(workers)?;
    let ns = runtime.run(|| {
        let (sender, receiver) = mpsc::channel();
        ns_per(messages, || {
            let consumer =
                spawn_on(workers - 1, move || receiver.iter().map(black_box::<usize>).count());
            let producer = spawn_on(0, move || {
                (0..messages).for_each(|n| sender.send(n).expect("a consumer"));
            });
            producer.join().expect("no panic");
            assert_eq!(consumer.join().expect("no panic"), messages);
        })
    });
    Some(1e3 / ns)
}

fn std_pipe(messages: usize) -> Option<f64> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let ns = ns_per(messages, || {
        let consumer = thread::spawn(move || receiver.iter().map(black_box::<usize>).count());
        (0..messages).for_each(|n| sender.send(n).expect("a consumer"));
        drop(sender);
        assert_eq!(consumer.join().expect("no panic"), messages);
    });
    Some(1e3 / ns)
}
