//! `ramie::select!`.

mod common;

use common::go;
use ramie::select;
use ramie::sync::mpsc::{RecvError, SendError, TryRecvError};
use ramie::sync::{broadcast, mpmc, mpsc, oneshot, watch};
use ramie::time;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(2);
const LONG: Duration = Duration::from_secs(20);

contract! {
    fn what_is_there_is_taken() {
        let (tx, rx) = mpsc::channel();
        let (_never, nothing) = mpsc::channel::<i32>();
        tx.send(1).unwrap();
        let got = select! {
            recv(&nothing) -> _ => None,
            recv(&rx) -> message => Some(message),
        };
        assert_eq!(got, Some(Ok(1)));
        let (full, _rx) = mpsc::sync_channel(1);
        full.send(0).unwrap();
        let (room, taken) = mpsc::sync_channel(1);
        select! {
            send(&full, 1) -> _ => panic!("there is no room"),
            send(&room, 2) -> sent => assert_eq!(sent, Ok(())),
        }
        assert_eq!(taken.try_recv(), Ok(2));
    }

    fn the_default() {
        let (tx, rx) = mpmc::bounded(1);
        let mut passed = 0;
        loop {
            select! {
                recv(&rx) -> message => { assert_eq!(message, Ok(5)); break }
                default => passed += 1,
            }
            tx.send(5).unwrap();
        }
        assert_eq!(passed, 1);
        tx.send(6).unwrap();
        let sent = select! { send(&tx, 7) => true, default => false };
        assert!(!sent);
    }

    fn waiting_for_the_first() {
        let (tx, rx) = mpmc::bounded(0);
        let (done_tx, done) = mpsc::channel::<()>();
        let sender = go(move || {
            for n in 0..100 {
                tx.send(n).unwrap();
            }
            drop(done_tx);
        });
        let mut received = vec![];
        loop {
            select! {
                recv(&rx) -> message => match message {
                    Ok(n) => received.push(n),
                    Err(RecvError) => break,
                },
                recv(&done) -> end => { assert_eq!(end, Err(RecvError)); break }
            }
        }
        sender();
        assert_eq!(received, (0..100).collect::<Vec<_>>());
    }

    /// A message that was not sent stays with its owner.
    fn a_message_is_kept() {
        let (tx, rx) = mpmc::bounded(0);
        let value = Arc::new(());
        let mut message = Some(Arc::clone(&value));
        for _ in 0..3 {
            select! {
                send(&tx, &mut message) -> _ => panic!("nobody receives"),
                after(SHORT) => {}
            }
        }
        assert!(message.is_some());
        let receiver = go(move || drop(rx.recv().unwrap()));
        select! {
            send(&tx, &mut message) -> sent => sent.unwrap(),
            after(LONG) => panic!("somebody receives"),
        }
        receiver();
        assert!(message.is_none() && Arc::strong_count(&value) == 1);
        message = Some(Arc::clone(&value));
        let back = select! { send(&tx, &mut message) -> sent => sent.unwrap_err() };
        assert!(message.is_none() && Arc::strong_count(&back.0) == 2);
    }

    fn time_passes() {
        let (_tx, rx) = mpsc::channel::<i32>();
        let start = Instant::now();
        let first = select! {
            recv(&rx) => 0,
            after(LONG) => 1,
            at(start + SHORT) => 2,
        };
        assert!(first == 2 && start.elapsed() >= SHORT);
        let mut interval = time::interval(SHORT);
        let mut ticks = 0;
        while ticks < 3 {
            select! {
                tick(&mut interval) -> _now => ticks += 1,
                recv(&rx) => panic!("nothing is sent"),
            }
        }
        assert!(start.elapsed() >= SHORT * 3);
    }

    fn other_channels() {
        let (tx, mut rx) = oneshot::channel();
        let (cast, mut heard) = broadcast::channel(4);
        let (set, mut watched) = watch::channel(0);
        let sender = go(move || {
            ramie::sleep(SHORT);
            tx.send(1).unwrap();
            ramie::sleep(SHORT);
            cast.send(2).unwrap();
            ramie::sleep(SHORT);
            set.send(3).unwrap();
        });
        let mut seen = vec![];
        let (mut shot, mut casts, mut sets) = (false, false, false);
        while !(shot && casts && sets) {
            select! {
                recv(&mut rx) -> n => if let Ok(n) = n { shot = true; seen.push(n) },
                recv(&mut heard) -> n => if let Ok(n) = n { casts = true; seen.push(n) },
                recv(&mut watched) -> n => if let Ok(n) = n { sets = true; seen.push(*n) },
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
        sender();
    }

    /// Two of them meet on a channel without room.
    fn two_selects_meet() {
        for _ in 0..50 {
            let (a, b) = (mpmc::bounded(0), mpmc::bounded(0));
            let ((a_tx, a_rx), (b_tx, b_rx)) = (a, b);
            let other = go(move || {
                select! {
                    send(&a_tx, 1) -> sent => sent.unwrap(),
                    recv(&b_rx) -> got => assert_eq!(got, Ok(2)),
                }
            });
            select! {
                recv(&a_rx) -> got => assert_eq!(got, Ok(1)),
                send(&b_tx, 2) -> sent => sent.unwrap(),
            }
            other();
        }
    }

    /// It does not meet itself.
    fn both_ends_of_one_channel() {
        let (tx, rx) = mpmc::bounded(0);
        let met = select! {
            send(&tx, 1) => true,
            recv(&rx) => true,
            after(SHORT) => false,
        };
        assert!(!met);
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
    }

    fn every_arm_has_its_turn() {
        let (a_tx, a_rx) = mpsc::channel();
        let (b_tx, b_rx) = mpsc::channel();
        (0..100).for_each(|n| { a_tx.send(n).unwrap(); b_tx.send(n).unwrap(); });
        let mut counts = [0, 0];
        for _ in 0..100 {
            select! {
                recv(&a_rx) => counts[0] += 1,
                recv(&b_rx) => counts[1] += 1,
            }
        }
        assert_eq!(counts, [50, 50]);
    }

    /// Bodies are part of what is around them.
    fn control_flow() {
        fn question(rx: &mpsc::Receiver<i32>) -> Result<i32, RecvError> {
            loop {
                let n = select! {
                    recv(rx) -> n => n?,
                    default => return Ok(-1),
                };
                if n == 0 {
                    continue;
                }
                return Ok(n);
            }
        }
        let (tx, rx) = mpsc::channel();
        assert_eq!(question(&rx), Ok(-1));
        tx.send(0).unwrap();
        tx.send(1).unwrap();
        drop(tx);
        assert_eq!((question(&rx), question(&rx)), (Ok(1), Err(RecvError)));
    }
}

/// A fiber's end; one that is not chosen goes on, and keeps its result.
#[test]
fn fibers() {
    let _watchdog = common::watch::dog();
    common::runtime(2).run(|| {
        let (tx, rx) = mpsc::channel();
        let mut slow = ramie::spawn(move || {
            ramie::sleep(SHORT * 3);
            tx.send("first").unwrap();
            ramie::sleep(SHORT);
            vec![1, 2, 3]
        });
        let mut quick = ramie::spawn(|| 7);
        let mut order = vec![];
        let mut joined = false;
        loop {
            select! {
                join(&mut slow) -> result => {
                    assert_eq!(result.unwrap(), [1, 2, 3]);
                    break;
                }
                recv(&rx) -> message => if message.is_ok() { order.push("message") } else {
                    assert_eq!((&mut slow).join_slow(), ());
                },
                after(SHORT * 2) => if !joined {
                    select! { join(&mut quick) -> seven => assert_eq!(seven.unwrap(), 7) }
                    joined = true;
                },
            }
        }
        assert_eq!(order, ["message"]);
        let mut panics = ramie::spawn(|| std::panic::resume_unwind(Box::new("deliberate")));
        select! { join(&mut panics) -> result => assert!(result.is_err()) }
    });
}

/// Nothing to do but to let the fiber end.
trait JoinSlow {
    fn join_slow(self);
}

impl<T> JoinSlow for &mut ramie::JoinHandle<T> {
    fn join_slow(self) {
        while !self.is_finished() {
            ramie::yield_now();
        }
    }
}

#[test]
fn cancelled() {
    let _watchdog = common::watch::dog();
    common::runtime(2).run(|| {
        let (tx, rx) = mpmc::bounded(0);
        let (tx, rx) = (tx, rx);
        let other = tx.clone();
        let fiber = ramie::spawn(move || {
            let mut message = Some(1);
            select! {
                send(&other, &mut message) -> sent => assert_eq!(sent, Err(SendError(1))),
                after(LONG) => panic!("it is cancelled before"),
            }
            // Still unreported. Nothing here can say so: it is waited for.
            select! { after(SHORT) => {} }
        });
        ramie::sleep(SHORT);
        fiber.cancel_join().unwrap();
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        let fiber = ramie::spawn(move || select! { recv(&rx) -> got => got });
        ramie::sleep(SHORT);
        assert_eq!(fiber.cancel_join().unwrap(), Err(RecvError));
        drop(tx);
    });
}

#[test]
fn inside_no_suspend() {
    let _watchdog = common::watch::dog();
    common::runtime(1).run(|| {
        let (tx, rx) = mpmc::bounded(1);
        ramie::no_suspend(|| {
            select! { send(&tx, 1) -> sent => sent.unwrap() }
            select! { recv(&rx) -> got => assert_eq!(got, Ok(1)) }
        });
        let waits = std::panic::AssertUnwindSafe(|| {
            ramie::no_suspend(|| select! { recv(&rx) -> _got => {} });
        });
        assert!(std::panic::catch_unwind(waits).is_err());
        tx.send(2).unwrap();
        assert_eq!(rx.recv(), Ok(2));
    });
}

/// The waits of a runtime that is dropped end.
#[test]
fn shutting_down() {
    let _watchdog = common::watch::dog();
    let (_tx, rx) = mpmc::bounded::<i32>(0);
    let ended = Arc::new(AtomicUsize::new(0));
    let runtime = common::runtime(2);
    runtime.run(|| {
        let (rx, counted) = (rx.clone(), Arc::clone(&ended));
        ramie::spawn(move || {
            select! {
                recv(&rx) -> got => assert_eq!(got, Err(RecvError)),
                after(LONG) => panic!("the other one answers"),
            }
            select! { after(LONG) => {} }
            counted.fetch_add(1, Ordering::SeqCst);
        });
        ramie::sleep(SHORT);
    });
    drop(runtime);
    assert_eq!(ended.load(Ordering::SeqCst), 1);
}

/// Many selects on the same channels, fibers of two workers and threads: each message arrives once.
#[test]
fn stress() {
    let _watchdog = common::watch::dog();
    const EACH: usize = 3000;
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < Duration::from_secs(2) {
        rounds += 1;
        let (a_tx, a_rx) = mpmc::bounded([0, 1, 8][rounds % 3]);
        let (b_tx, b_rx) = mpmc::bounded([0, 0, 2][rounds % 3]);
        let (sent, received) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        common::runtime(2).run(|| {
            let mut all = vec![];
            let mut threads = vec![];
            for index in 0..4 {
                let (a, b, sent) = (a_tx.clone(), b_tx.clone(), Arc::clone(&sent));
                let produce = move || {
                    for n in 0..EACH / 10 {
                        let (mut one, mut two) = (Some(n), Some(n + 1));
                        // Until one of them is gone; the other one stays.
                        while one.is_some() && two.is_some() {
                            select! {
                                send(&a, &mut one) -> done => done.unwrap(),
                                send(&b, &mut two) -> done => done.unwrap(),
                                after(Duration::from_micros((n % 50) as u64)) => {}
                            }
                        }
                        sent.fetch_add(if one.is_some() { n + 1 } else { n }, Ordering::Relaxed);
                    }
                };
                let (a, b, received) = (a_rx.clone(), b_rx.clone(), Arc::clone(&received));
                let consume = move || {
                    let (mut a_ends, mut b_ends) = (false, false);
                    while !(a_ends && b_ends) {
                        select! {
                            recv(&a) -> got => match got {
                                Ok(n) => _ = received.fetch_add(n, Ordering::Relaxed),
                                Err(_) => a_ends = true,
                            },
                            recv(&b) -> got => match got {
                                Ok(n) => _ = received.fetch_add(n, Ordering::Relaxed),
                                Err(_) => b_ends = true,
                            },
                        }
                    }
                };
                if index == 3 {
                    threads.push(std::thread::spawn(produce));
                    threads.push(std::thread::spawn(consume));
                } else {
                    let worker = || ramie::Builder::new().worker(index % 2);
                    all.push(worker().spawn(produce).unwrap());
                    all.push(worker().spawn(consume).unwrap());
                }
            }
            drop((a_tx, b_tx, a_rx, b_rx));
            all.into_iter().for_each(|fiber| fiber.join().unwrap());
            threads.into_iter().for_each(|thread| ramie::unblock(|| thread.join().unwrap()));
        });
        assert_eq!(sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed));
    }
}
