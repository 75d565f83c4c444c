//! `ramie::sync::mpsc` against `std::sync::mpsc`: what std documents, call by call.

mod common;

use common::times;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(2);
const LONG: Duration = Duration::from_secs(20);

/// Runs a body with std's `mpsc`, and with ours twice: once beside threads, once beside what a
/// program of ours would use. The outcomes must look the same.
macro_rules! both {
    ($body:block) => {{
        let expected = {
            #[allow(unused_imports)]
            use std::sync::mpsc;
            #[allow(unused_imports)]
            use std::thread::spawn as go;
            format!("{:?}", $body)
        };
        let beside_threads = {
            #[allow(unused_imports)]
            use ramie::sync::mpsc;
            #[allow(unused_imports)]
            use std::thread::spawn as go;
            format!("{:?}", $body)
        };
        assert_eq!(beside_threads, expected, "beside threads");
        let ours = {
            #[allow(unused_imports)]
            use crate::go;
            #[allow(unused_imports)]
            use ramie::sync::mpsc;
            format!("{:?}", $body)
        };
        assert_eq!(ours, expected);
    }};
}

/// A fiber where there are fibers, or else a thread.
enum Other<T> {
    Fiber(ramie::JoinHandle<T>),
    Thread(std::thread::JoinHandle<T>),
}

impl<T> Other<T> {
    fn join(self) -> std::thread::Result<T> {
        match self {
            Other::Fiber(handle) => handle.join(),
            Other::Thread(handle) => handle.join(),
        }
    }
}

fn go<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Other<T> {
    if ramie::is_fiber() {
        Other::Fiber(ramie::spawn(f))
    } else {
        Other::Thread(std::thread::spawn(f))
    }
}

/// Counts how many of it are alive.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(alive))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counted")
    }
}

contract! {
    fn messages_arrive_in_order() {
        both!({
            let (tx, rx) = mpsc::channel();
            let sender = go(move || (0..times(1000)).all(|n| tx.send(n).is_ok()));
            let received: Vec<usize> = rx.iter().collect();
            (sender.join().unwrap(), received, rx.recv(), rx.try_recv())
        });
    }

    fn bounded_messages_arrive_in_order() {
        for bound in [0, 1, 2, 31, 32, 33, 100] {
            both!({
                let (tx, rx) = mpsc::sync_channel(bound);
                let sender = go(move || (0..times(1000)).all(|n| tx.send(n).is_ok()));
                let received: Vec<usize> = rx.iter().collect();
                (sender.join().unwrap(), received, rx.recv(), rx.try_recv())
            });
        }
    }

    fn each_senders_messages_keep_their_order() {
        both!({
            let (tx, rx) = mpsc::sync_channel(3);
            let senders: Vec<_> = (0..4).map(|sender| {
                let tx = tx.clone();
                go(move || (0..times(200)).for_each(|n| tx.send((sender, n)).unwrap()))
            }).collect();
            drop(tx);
            let mut received: Vec<(i32, usize)> = rx.iter().collect();
            received.sort_by_key(|(sender, _)| *sender); // stable
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            received
        });
    }

    fn trying_to_receive() {
        both!({
            let (tx, rx) = mpsc::channel();
            let empty = rx.try_recv();
            tx.send(1).unwrap();
            tx.send(2).unwrap();
            drop(tx);
            (empty, rx.try_recv(), rx.recv(), rx.try_recv(), rx.recv(), rx.recv_timeout(SHORT))
        });
    }

    fn trying_to_send() {
        both!({
            let (tx, rx) = mpsc::sync_channel(2);
            let sent = [tx.try_send(1), tx.try_send(2), tx.try_send(3)];
            let received = rx.recv();
            let more = tx.try_send(4);
            let all: Vec<i32> = rx.try_iter().collect();
            drop(rx);
            (sent, received, more, all, tx.try_send(5), tx.send(6))
        });
    }

    fn a_channel_without_room() {
        both!({
            let (tx, rx) = mpsc::sync_channel(0);
            let nobody = (tx.try_send(1), rx.try_recv());
            let receiver = go(move || (rx.recv(), rx));
            let sent = tx.send(2);
            let (received, rx) = receiver.join().unwrap();
            let sender = go(move || (tx.send(3), tx));
            let second = rx.recv();
            let (also_sent, tx) = sender.join().unwrap();
            drop(rx);
            (nobody, sent, received, second, also_sent, tx.try_send(4))
        });
    }

    /// On a channel without room, `try_send` and `try_recv` succeed when the other side waits.
    fn trying_without_room() {
        both!({
            let (tx, rx) = mpsc::sync_channel(0);
            let receiver = go(move || (rx.recv(), rx));
            let mut tries = tx.try_send(1);
            while tries.is_err() {
                std::thread::sleep(Duration::from_micros(100));
                ramie::yield_now();
                tries = tx.try_send(1);
            }
            let (received, rx) = receiver.join().unwrap();
            let sender = go(move || tx.send(2));
            let mut got = rx.try_recv();
            while got == Err(mpsc::TryRecvError::Empty) {
                std::thread::sleep(Duration::from_micros(100));
                ramie::yield_now();
                got = rx.try_recv();
            }
            (received, got, sender.join().unwrap())
        });
    }

    fn the_last_sender_goes_while_the_receiver_waits() {
        both!({
            let (tx, rx) = mpsc::channel::<i32>();
            let other = tx.clone();
            let sender = go(move || {
                drop(other);
                std::thread::sleep(SHORT);
                drop(tx);
            });
            let received = (rx.recv(), rx.recv_timeout(LONG), rx.iter().next());
            sender.join().unwrap();
            received
        });
    }

    fn the_receiver_goes_while_senders_wait() {
        both!({
            let (tx, rx) = mpsc::sync_channel(1);
            tx.send(0).unwrap();
            let senders: Vec<_> = (1..4).map(|n| {
                let tx = tx.clone();
                go(move || tx.send(n))
            }).collect();
            std::thread::sleep(SHORT);
            ramie::sleep(SHORT);
            drop(rx);
            let sent: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
            (sent, tx.send(4))
        });
    }

    fn receiving_with_a_timeout() {
        both!({
            let (tx, rx) = mpsc::channel();
            let start = Instant::now();
            let nothing = rx.recv_timeout(SHORT);
            assert!(start.elapsed() >= SHORT);
            let at_once = rx.recv_timeout(Duration::ZERO);
            tx.send(1).unwrap();
            let there = rx.recv_timeout(Duration::ZERO);
            let sender = go(move || {
                std::thread::sleep(SHORT);
                tx.send(2)
            });
            let later = rx.recv_timeout(LONG);
            let sent = sender.join().unwrap();
            (nothing, at_once, there, later, sent, rx.recv_timeout(Duration::MAX))
        });
    }

    fn iterators() {
        both!({
            let (tx, rx) = mpsc::channel();
            (0..5).for_each(|n| tx.send(n).unwrap());
            let two: Vec<i32> = rx.iter().take(2).collect();
            let tried: Vec<i32> = rx.try_iter().collect();
            (5..8).for_each(|n| tx.send(n).unwrap());
            drop(tx);
            let mut borrowed = vec![];
            for n in &rx {
                borrowed.push(n);
                if n == 6 {
                    break;
                }
            }
            (two, tried, borrowed, rx.into_iter().collect::<Vec<_>>())
        });
    }

    /// What was not received is dropped with the receiver, at once, not with the last sender.
    fn messages_are_dropped_with_the_receiver() {
        both!({
            let alive = Arc::new(AtomicUsize::new(0));
            let (tx, rx) = mpsc::channel();
            for _ in 0..100 {
                tx.send(Counted::new(&alive)).unwrap();
            }
            drop(rx.recv());
            let before = alive.load(Ordering::SeqCst);
            drop(rx);
            let after = alive.load(Ordering::SeqCst);
            let refused = tx.send(Counted::new(&alive));
            let kept = alive.load(Ordering::SeqCst);
            drop(refused);
            (before, after, kept, alive.load(Ordering::SeqCst))
        });
    }

    /// A message may hold a sender of its own channel, even the last one: it is dropped with the
    /// receiver, which runs the channel's code once more.
    fn a_message_with_its_own_sender() {
        both!({
            struct Message(Option<Box<dyn Send>>, Arc<AtomicUsize>);
            impl Drop for Message {
                fn drop(&mut self) {
                    self.0.take();
                    self.1.fetch_add(1, Ordering::SeqCst);
                }
            }
            let drops = Arc::new(AtomicUsize::new(0));
            let (tx, rx) = mpsc::channel();
            for _ in 0..2 {
                tx.send(Message(Some(Box::new(tx.clone())), Arc::clone(&drops))).unwrap();
            }
            drop(tx);
            let first = rx.recv().is_ok();
            drop(rx);
            (first, drops.load(Ordering::SeqCst))
        });
    }

    /// The rest is dropped too when one destructor panics.
    fn a_message_whose_destructor_panics() {
        both!({
            struct Bad(u32, Arc<AtomicUsize>);
            impl Drop for Bad {
                fn drop(&mut self) {
                    self.1.fetch_add(1, Ordering::SeqCst);
                    if self.0 == 1 {
                        std::panic::resume_unwind(Box::new("deliberate"));
                    }
                }
            }
            let drops = Arc::new(AtomicUsize::new(0));
            let (tx, rx) = mpsc::channel();
            (0..2).for_each(|n| tx.send(Bad(n, Arc::clone(&drops))).unwrap());
            let outcome =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(rx))).is_err();
            let refused = tx.send(Bad(5, Arc::clone(&drops))).is_err();
            (outcome, refused, drops.load(Ordering::SeqCst))
        });
    }

    fn messages_of_any_size() {
        both!({
            let (tx, rx) = mpsc::sync_channel(200);
            (0..200).for_each(|_| tx.send(()).unwrap());
            let full = tx.try_send(());
            drop(tx);
            let (large, large_rx) = mpsc::sync_channel(5);
            (0..5).for_each(|n| large.send([n; 500]).unwrap());
            let first: Vec<u64> = large_rx.try_iter().map(|message| message[499]).collect();
            (full, rx.iter().count(), first)
        });
    }

    fn debug_and_display() {
        both!({
            let (tx, rx) = mpsc::channel::<i32>();
            let (sync_tx, _sync_rx) = mpsc::sync_channel::<i32>(1);
            let text = format!("{tx:?} {rx:?} {sync_tx:?} {:?} {:?}", rx.iter(), rx.try_iter());
            let errors = [
                mpsc::SendError(1).to_string(),
                mpsc::RecvError.to_string(),
                mpsc::TryRecvError::Empty.to_string(),
                mpsc::RecvTimeoutError::Timeout.to_string(),
                mpsc::TrySendError::Full(1).to_string(),
            ];
            (text, errors)
        });
    }

    /// One `SyncSender` may be shared, and its clones sent elsewhere.
    fn senders_are_shared() {
        both!({
            let (tx, rx) = mpsc::sync_channel(1);
            let tx = Arc::new(tx);
            let senders: Vec<_> = (0..3).map(|n| {
                let tx = Arc::clone(&tx);
                go(move || tx.send(n))
            }).collect();
            drop(tx);
            let mut received: Vec<i32> = rx.iter().collect();
            received.sort_unstable();
            let sent: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
            (received, sent)
        });
    }

    fn waiting_for_a_deadline() {
        use ramie::sync::mpsc::{self, RecvTimeoutError, SendTimeoutError};
        let (tx, rx) = mpsc::sync_channel(1);
        let start = Instant::now();
        assert_eq!(rx.recv_deadline(start + SHORT), Err(RecvTimeoutError::Timeout));
        assert!(start.elapsed() >= SHORT);
        assert_eq!(rx.recv_deadline(start), Err(RecvTimeoutError::Timeout));
        assert_eq!(tx.send_timeout(1, SHORT), Ok(()));
        let start = Instant::now();
        assert_eq!(tx.send_timeout(2, SHORT), Err(SendTimeoutError::Timeout(2)));
        assert!(start.elapsed() >= SHORT);
        assert_eq!(tx.send_timeout(3, Duration::ZERO), Err(SendTimeoutError::Timeout(3)));
        assert_eq!(rx.recv_deadline(start), Ok(1));
        drop(rx);
        assert_eq!(tx.send_timeout(4, LONG), Err(SendTimeoutError::Disconnected(4)));
    }
}

/// The bounds of the handles are std's.
#[test]
fn bounds() {
    use std::panic::{RefUnwindSafe, UnwindSafe};
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    fn safe<T: UnwindSafe + RefUnwindSafe>() {}
    fn unpin<T: Unpin>() {}
    struct Any;
    macro_rules! all {
        ($($mpsc:ident)::+) => {{
            send::<$($mpsc)::+::Sender<std::cell::Cell<u8>>>();
            sync::<$($mpsc)::+::Sender<std::cell::Cell<u8>>>();
            send::<$($mpsc)::+::SyncSender<std::cell::Cell<u8>>>();
            sync::<$($mpsc)::+::SyncSender<std::cell::Cell<u8>>>();
            send::<$($mpsc)::+::Receiver<std::cell::Cell<u8>>>();
            send::<$($mpsc)::+::IntoIter<std::cell::Cell<u8>>>();
            unpin::<$($mpsc)::+::Receiver<std::marker::PhantomPinned>>();
            let _ = <$($mpsc)::+::Sender<Any> as Clone>::clone;
            let _ = <$($mpsc)::+::SyncSender<Any> as Clone>::clone;
        }};
    }
    all!(std::sync::mpsc);
    all!(ramie::sync::mpsc);
    safe::<ramie::sync::mpsc::Sender<Any>>();
    safe::<ramie::sync::mpsc::SyncSender<Any>>();
    safe::<ramie::sync::mpsc::Receiver<Any>>();
}
