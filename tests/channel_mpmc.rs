//! `ramie::sync::mpmc`: what it adds to `mpsc`; cancelling; and everything at once, from a seed.

mod common;

use common::rng::Rng;
use ramie::sync::mpmc::{
    self, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(2);

contract! {
    fn lengths() {
        let (tx, rx) = mpmc::bounded(2);
        assert_eq!((tx.capacity(), rx.capacity()), (Some(2), Some(2)));
        assert!(tx.is_empty() && rx.is_empty() && !tx.is_full() && !rx.is_full());
        tx.send(1).unwrap();
        assert_eq!((tx.len(), rx.len()), (1, 1));
        tx.send(2).unwrap();
        assert!(tx.is_full() && rx.is_full() && !rx.is_empty());
        assert_eq!(tx.try_send(3), Err(TrySendError::Full(3)));
        assert_eq!(rx.clone().recv(), Ok(1));
        assert_eq!(rx.len(), 1);
        let (tx, rx) = mpmc::bounded::<()>(0);
        assert!(tx.is_empty() && tx.is_full() && rx.capacity() == Some(0));
        let (tx, rx) = mpmc::unbounded();
        (0..100).for_each(|n| tx.send(n).unwrap());
        assert_eq!((tx.len(), tx.capacity(), tx.is_full()), (100, None, false));
        assert_eq!(rx.iter().take(100).sum::<i32>(), 4950);
        assert!(tx.same_channel(&tx.clone()) && rx.same_channel(&rx.clone()));
        assert!(!rx.same_channel(&mpmc::unbounded().1));
    }

    /// The channel is connected as long as one of either side is there.
    fn clones() {
        let (tx, rx) = mpmc::bounded(1);
        let (tx2, rx2) = (tx.clone(), rx.clone());
        drop((tx, rx));
        tx2.send(1).unwrap();
        let tx3 = tx2.clone();
        drop(tx2);
        assert_eq!(rx2.recv(), Ok(1));
        assert_eq!(rx2.try_recv(), Err(TryRecvError::Empty));
        drop(tx3);
        assert_eq!(rx2.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(rx2.recv(), Err(RecvError));
        assert_eq!(rx2.recv_timeout(SHORT), Err(RecvTimeoutError::Disconnected));
        let (tx, rx) = mpmc::unbounded();
        drop(rx);
        assert_eq!(tx.send(7), Err(SendError(7)));
        assert_eq!(tx.try_send(8), Err(TrySendError::Disconnected(8)));
        assert_eq!(tx.send_timeout(9, SHORT), Err(SendTimeoutError::Disconnected(9)));
    }
}

/// Those who wait are served in the order in which they came.
#[test]
fn first_come_first_served() {
    let _watchdog = common::watch::dog();
    common::runtime(1).run(|| {
        let (tx, rx) = mpmc::bounded(0);
        let receivers: Vec<_> = (0..5)
            .map(|_| {
                let rx = rx.clone();
                ramie::spawn_local(move || rx.recv())
            })
            .collect();
        ramie::sleep(SHORT);
        (0..5).for_each(|n| tx.send(n).unwrap());
        let received: Vec<_> =
            receivers.into_iter().map(|fiber| fiber.join().unwrap().unwrap()).collect();
        let mut sorted = received.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4]);

        // The senders of a full channel: their messages come in the order in which they waited.
        let (tx, rx) = mpmc::bounded(1);
        tx.send(0).unwrap();
        let senders: Vec<_> = (1..5)
            .map(|n| {
                let tx = tx.clone();
                let sender = ramie::spawn_local(move || tx.send(n));
                ramie::sleep(SHORT);
                sender
            })
            .collect();
        assert_eq!(rx.iter().take(5).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        senders.into_iter().for_each(|sender| sender.join().unwrap().unwrap());
    });
}

/// A cancel request ends a wait as if the other side had gone, until it has been reported.
#[test]
fn cancelled_waits() {
    let _watchdog = common::watch::dog();
    for workers in [1, 2] {
        common::runtime(workers).run(|| {
            let (tx, rx) = mpmc::bounded::<i32>(1);
            let receiver = {
                let rx = rx.clone();
                ramie::spawn(move || {
                    let waited = (rx.recv(), rx.recv(), rx.recv_timeout(Duration::MAX));
                    // What is there is still received.
                    while rx.is_empty() {
                        ramie::yield_now();
                    }
                    (waited, rx.recv())
                })
            };
            ramie::sleep(SHORT);
            receiver.cancel();
            ramie::sleep(SHORT);
            tx.send(1).unwrap();
            let (waited, received) = receiver.join().unwrap();
            let disconnected = Err(RecvTimeoutError::Disconnected);
            assert_eq!(waited, (Err(RecvError), Err(RecvError), disconnected));
            assert_eq!(received, Ok(1));

            let sender = {
                let tx = tx.clone();
                ramie::spawn(move || {
                    (tx.send(1), tx.send(2), tx.send_timeout(3, Duration::MAX), tx.try_send(4))
                })
            };
            ramie::sleep(SHORT);
            sender.cancel();
            let sent = sender.join().unwrap();
            assert_eq!((sent.0, sent.1), (Ok(()), Err(SendError(2))));
            assert_eq!(sent.2, Err(SendTimeoutError::Disconnected(3)));
            assert_eq!(sent.3, Err(TrySendError::Full(4)));
            assert_eq!((rx.recv(), rx.try_recv()), (Ok(1), Err(TryRecvError::Empty)));
        });
    }
}

/// Only a wait suspends: inside `no_suspend` the rest works.
/// Used by one worker for a while, then by another one and by a thread at the same time, at any
/// moment: nothing is lost, nothing doubled, and each sender's messages stay in order.
#[test]
fn a_channel_of_one_worker_becomes_that_of_others() {
    const ALONE: u64 = 200;
    const EACH: u64 = 500;
    let runtime = ramie::Runtime::builder().workers(2).build().unwrap();
    for round in 0..50 {
        let (tx, rx) = mpmc::bounded(1 + round % 7);
        let send = |of: u64, tx: mpmc::Sender<u64>| {
            move || (0..EACH).for_each(|n| tx.send(of * EACH + n).unwrap())
        };
        let mut received = runtime.run(|| {
            for n in 0..ALONE {
                tx.send(n).unwrap();
                assert_eq!(rx.recv(), Ok(n));
            }
            let thread = std::thread::spawn(send(0, tx.clone()));
            let fibers = [1, 2, 3].map(|of| ramie::spawn(send(of, tx.clone())));
            let other = rx.clone();
            let other = ramie::spawn(move || other.iter().collect::<Vec<_>>());
            drop(tx);
            let mine: Vec<_> = rx.iter().collect();
            fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
            thread.join().unwrap();
            [mine, other.join().unwrap()]
        });
        for received in &received {
            for of in 0..4 {
                let from = received.iter().filter(|n| *n / EACH == of);
                assert!(from.is_sorted(), "out of order");
            }
        }
        let [mut all, other] = std::mem::take(&mut received);
        all.extend(other);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..4 * EACH), "lost or doubled");
    }
}

#[test]
fn inside_no_suspend() {
    let _watchdog = common::watch::dog();
    common::runtime(1).run(|| {
        let (tx, rx) = mpmc::bounded(1);
        ramie::no_suspend(|| {
            tx.send(1).unwrap();
            assert_eq!(tx.try_send(2), Err(TrySendError::Full(2)));
            assert_eq!(rx.recv(), Ok(1));
        });
        let waits = std::panic::AssertUnwindSafe(|| ramie::no_suspend(|| rx.recv()));
        assert!(std::panic::catch_unwind(waits).is_err());
        tx.send(3).unwrap();
        let waits = std::panic::AssertUnwindSafe(|| ramie::no_suspend(|| tx.send(4)));
        assert!(std::panic::catch_unwind(waits).is_err());
        assert_eq!((rx.recv(), rx.try_recv()), (Ok(3), Err(TryRecvError::Empty)));
    });
}

/// A runtime that shuts down waits for no deadline any more.
#[test]
fn shutting_down() {
    let _watchdog = common::watch::dog();
    let (tx, rx) = mpmc::bounded::<i32>(0);
    let ended = Arc::new(AtomicUsize::new(0));
    let runtime = common::runtime(2);
    runtime.run(|| {
        for _ in 0..4 {
            let (rx, ended) = (rx.clone(), Arc::clone(&ended));
            ramie::spawn(move || {
                let hour = Duration::from_secs(3600);
                assert_eq!(rx.recv_timeout(hour), Err(RecvTimeoutError::Disconnected));
                assert_eq!(rx.recv(), Err(RecvError));
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        ramie::sleep(SHORT);
    });
    drop(runtime);
    assert_eq!(ended.load(Ordering::SeqCst), 4);
    assert_eq!(tx.try_send(1), Err(TrySendError::Full(1)));
}

/// A message with its sender and its number, which counts itself.
#[derive(Debug)]
struct Message(u64, u64, Arc<AtomicUsize>);

impl Message {
    fn new(sender: u64, number: u64, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(sender, number, Arc::clone(alive))
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.2.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sends until `count` messages are gone, or nobody receives any more. Returns those that were.
fn produce(
    tx: &mpmc::Sender<Message>,
    me: u64,
    count: u64,
    alive: &Arc<AtomicUsize>,
    mut rng: Rng,
) -> Vec<(u64, u64)> {
    let mut sent = vec![];
    let mut message = None;
    let mut number = 0;
    loop {
        let next = match message.take() {
            Some(message) => message,
            None if number == count => return sent,
            None => {
                number += 1;
                Message::new(me, number, alive)
            }
        };
        let back = match rng.below(4) {
            0 => match tx.try_send(next) {
                Ok(()) => None,
                Err(TrySendError::Full(back)) => {
                    ramie::yield_now();
                    Some(back)
                }
                Err(TrySendError::Disconnected(_)) => return sent,
            },
            1 => match tx.send_timeout(next, Duration::from_micros(rng.below(200))) {
                Ok(()) => None,
                Err(SendTimeoutError::Timeout(back) | SendTimeoutError::Disconnected(back)) => {
                    // Cancelled perhaps, so it may not mean what it says.
                    ramie::yield_now();
                    Some(back)
                }
            },
            _ => match tx.send(next) {
                Ok(()) => None,
                Err(SendError(back)) => {
                    ramie::yield_now();
                    match tx.try_send(back) {
                        Ok(()) => None,
                        Err(TrySendError::Full(back)) => Some(back),
                        Err(TrySendError::Disconnected(_)) => return sent,
                    }
                }
            },
        };
        match back {
            None => sent.push((me, number)),
            back => message = back,
        }
    }
}

/// Receives until nobody sends any more, or `most` messages have come.
fn consume(rx: &mpmc::Receiver<Message>, most: u64, mut rng: Rng) -> Vec<(u64, u64)> {
    let mut received: Vec<(u64, u64)> = vec![];
    while (received.len() as u64) < most {
        let message = match rng.below(4) {
            0 => rx.try_recv().ok(),
            1 => rx.recv_timeout(Duration::from_micros(rng.below(200))).ok(),
            _ => rx.recv().ok(),
        };
        match message {
            Some(message) => received.push((message.0, message.1)),
            None => match rx.try_recv() {
                Ok(message) => received.push((message.0, message.1)),
                Err(TryRecvError::Empty) => ramie::yield_now(),
                Err(TryRecvError::Disconnected) => break,
            },
        }
    }
    received
}

/// One round: producers and consumers on fibers of two workers and on threads, some of them
/// cancelled, some leaving early.
fn round(seed: u64, messages: u64) {
    let mut rng = Rng(seed);
    let capacity = [0, 1, 2, 7, 64, usize::MAX][rng.below(6) as usize];
    let leaves_early = rng.below(4) == 0;
    let (tx, rx) = mpmc::bounded(capacity);
    let alive = Arc::new(AtomicUsize::new(0));
    let (mut fibers, mut threads) = (vec![], vec![]);
    let kinds = 2 + rng.below(6);
    for index in 0..kinds {
        let (tx, rx, alive, own) = (tx.clone(), rx.clone(), Arc::clone(&alive), Rng(rng.next()));
        let most = if leaves_early { rng.below(messages + 1) } else { u64::MAX };
        let work = move || {
            if index % 2 == 0 {
                drop(rx);
                (produce(&tx, index, messages, &alive, own), vec![])
            } else {
                drop(tx);
                (vec![], consume(&rx, most, own))
            }
        };
        match rng.below(4) {
            0 => threads.push(std::thread::spawn(work)),
            other => {
                let worker = (other % 2) as usize;
                fibers.push(ramie::Builder::new().worker(worker).spawn(work).unwrap());
            }
        }
    }
    drop((tx, rx));
    for _ in 0..rng.below(8) {
        ramie::sleep(Duration::from_micros(rng.below(300)));
        fibers.get(rng.below(8) as usize).inspect(|fiber| fiber.cancel());
    }
    let (mut sent, mut received) = (vec![], vec![]);
    let fibers = fibers.into_iter().map(|fiber| fiber.join().unwrap());
    for outcome in fibers.collect::<Vec<_>>() {
        sent.extend(outcome.0);
        received.extend(outcome.1);
    }
    for thread in threads {
        let outcome = ramie::unblock(|| thread.join().unwrap());
        sent.extend(outcome.0);
        received.extend(outcome.1);
    }
    assert_eq!(alive.load(Ordering::SeqCst), 0, "seed {seed}: messages leak");
    let mut times = HashMap::new();
    for message in &received {
        *times.entry(*message).or_insert(0) += 1;
    }
    assert!(times.values().all(|times| *times == 1), "seed {seed}: received twice");
    if leaves_early {
        let sent: std::collections::HashSet<_> = sent.into_iter().collect();
        assert!(received.iter().all(|message| sent.contains(message)), "seed {seed}: not sent");
    } else {
        sent.sort_unstable();
        received.sort_unstable();
        assert!(sent == received, "seed {seed}: {} sent, {} received", sent.len(), received.len());
    }
}

#[test]
fn stress() {
    let _watchdog = common::watch::dog();
    let seed = std::env::var("RAMIE_SEED").ok().and_then(|text| text.parse().ok());
    let first = seed.unwrap_or_else(|| {
        Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()) << 16
    });
    println!("RAMIE_SEED={first}");
    let start = Instant::now();
    common::runtime(2).run(|| {
        for seed in first.. {
            round(seed, 300);
            if start.elapsed() > Duration::from_secs(3) {
                break;
            }
        }
    });
}
