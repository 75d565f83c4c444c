//! `sync/chan`: every message arrives once or comes back, and nobody waits for ever.

use super::{check, must_fail};
use crate::coro::OnCancel;
use crate::sync::chan::{self, NotReceived, NotSent, Receiving, Sending, Until};
use crate::sync::lock::Locked;
use crate::sync::mpmc;
use crate::sync::wait::{Node, Queue, Waiter};
use crate::sync::{GOES_BLINDLY, IS_CANARY, LETS_GO_EARLY, LINGERS};
use loom::thread;
use std::pin::Pin;
use std::sync::Arc;

/// A deadline that comes at any time.
const SOON: Until = Until::Deadline(1);

/// Sends one message; whether it is gone.
fn send(sender: &Sending<u32>, message: u32, until: Until) -> bool {
    match sender.send(message, until) {
        Ok(()) => true,
        Err(NotSent::Full(back) | NotSent::Disconnected(back)) => {
            assert_eq!(back, message);
            false
        }
    }
}

/// Receives until nobody sends any more.
fn all(receiver: &Receiving<u32>) -> Vec<u32> {
    std::iter::from_fn(|| receiver.recv(Until::Forever).ok()).collect()
}

/// Two senders with a message each, and a receiver who takes all.
fn two_senders(capacity: usize, until: Until) {
    let (sender, receiver) = chan::pair(capacity);
    let other = sender.clone();
    let thread = thread::spawn(move || send(&other, 1, until));
    let second = thread::spawn(move || send(&sender, 2, until));
    let mut received = all(&receiver);
    received.sort_unstable();
    let sent = [thread.join().unwrap(), second.join().unwrap()];
    let expected: Vec<u32> = [1, 2].into_iter().filter(|n| sent[*n as usize - 1]).collect();
    assert_eq!(received, expected);
}

#[test]
fn senders_that_wait_for_room() {
    check(2, || two_senders(1, Until::Forever));
}

#[test]
fn senders_that_meet_the_receiver() {
    check(2, || two_senders(0, Until::Forever));
}

#[test]
fn senders_that_give_up() {
    check(2, || two_senders(0, SOON));
}

/// A receiver that gives up has the message, or it is still there.
#[test]
fn a_receiver_that_gives_up() {
    check(3, || {
        let (sender, receiver) = chan::pair(0);
        let thread = thread::spawn(move || send(&sender, 1, SOON));
        let received = receiver.recv(SOON);
        let sent = thread.join().unwrap();
        match received {
            Ok(1) => assert!(sent),
            Ok(_) => unreachable!(),
            Err(NotReceived::Empty | NotReceived::Disconnected) => assert!(!sent),
        }
    });
}

/// Two receivers, and senders that go: each message has one receiver, and both learn the end.
#[test]
fn two_receivers() {
    check(2, || {
        let (sender, receiver) = chan::pair(1);
        let other = receiver.clone();
        let thread = thread::spawn(move || all(&other));
        let second = thread::spawn(move || {
            assert!(send(&sender, 1, Until::Forever) && send(&sender, 2, Until::Forever));
        });
        let mut received = all(&receiver);
        received.extend(thread.join().unwrap());
        second.join().unwrap();
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
    });
}

/// A sender with two messages, and a receiver who takes all; each side lingers.
fn two_that_linger() {
    let (sender, receiver) = chan::pair(1);
    let thread = thread::spawn(move || {
        assert!(send(&sender, 1, Until::Forever) && send(&sender, 2, Until::Forever));
    });
    assert_eq!(all(&receiver), [1, 2]);
    thread.join().unwrap();
}

#[test]
fn a_receiver_that_lingers() {
    LINGERS.set(true);
    check(3, two_that_linger);
    LINGERS.set(false);
}

/// Only one of them can be handed a message while it lingers.
#[test]
fn two_receivers_that_linger() {
    LINGERS.set(true);
    check(2, || {
        let (sender, receiver) = chan::pair(1);
        let other = receiver.clone();
        let thread = thread::spawn(move || all(&other));
        let second = thread::spawn(move || assert!(send(&sender, 1, Until::Forever)));
        let mut received = all(&receiver);
        received.extend(thread.join().unwrap());
        second.join().unwrap();
        assert_eq!(received, [1]);
    });
    LINGERS.set(false);
}

/// The receiver goes while a sender waits: the message comes back, or was received.
#[test]
fn the_receiver_goes() {
    check(3, || {
        let (sender, receiver) = chan::pair(1);
        assert!(send(&sender, 1, Until::Now));
        let thread = thread::spawn(move || {
            let received = receiver.recv(Until::Now);
            drop(receiver);
            matches!(received, Ok(1))
        });
        let second = send(&sender, 2, Until::Forever);
        assert!(thread.join().unwrap());
        // Gone into the room that the receipt made, and dropped with the receiver; or it came back.
        assert!(!send(&sender, 3, Until::Now) || second);
    });
}

/// Two `select!`s that each offer to send and to receive meet, once.
#[test]
fn two_selects_meet() {
    check(2, || {
        let (a_tx, a_rx) = mpmc::bounded(0);
        let (b_tx, b_rx) = mpmc::bounded(0);
        let other = thread::spawn(move || {
            crate::select! {
                send(&a_tx, 1) -> sent => { assert!(sent.is_ok()); 1 }
                recv(&b_rx) -> got => { assert_eq!(got, Ok(2)); 2 }
            }
        });
        let met = crate::select! {
            recv(&a_rx) -> got => { assert_eq!(got, Ok(1)); 1 }
            send(&b_tx, 2) -> sent => { assert!(sent.is_ok()); 2 }
        };
        assert_eq!(met, other.join().unwrap());
    });
}

/// A `select!` that is offered two messages takes one, and the other one stays.
#[test]
fn a_select_takes_one() {
    check(2, || {
        let (a_tx, a_rx) = mpmc::bounded(1);
        let (b_tx, b_rx) = mpmc::bounded(1);
        let one = thread::spawn(move || a_tx.send(1).unwrap());
        let two = thread::spawn(move || b_tx.send(2).unwrap());
        let got = crate::select! {
            recv(&a_rx) -> got => got,
            recv(&b_rx) -> got => got,
        };
        one.join().unwrap();
        two.join().unwrap();
        let left = (a_rx.try_recv().ok(), b_rx.try_recv().ok());
        match got {
            Ok(1) => assert_eq!(left, (None, Some(2))),
            _ => assert_eq!((got, left), (Ok(2), (Some(1), None))),
        }
    });
}

/// The lock is let go of before the waiter is registered, which is done without looking.
#[test]
fn canary_let_go_then_register() {
    IS_CANARY.set(true);
    LETS_GO_EARLY.set(true);
    must_fail(2, "a wake-up is lost", || two_senders(1, Until::Forever));
    LETS_GO_EARLY.set(false);
    IS_CANARY.set(false);
}

/// Who has lingered in vain goes, and a message has just come.
#[test]
fn canary_lingers_and_goes_blindly() {
    LINGERS.set(true);
    GOES_BLINDLY.set(true);
    must_fail(3, "left == right", two_that_linger);
    GOES_BLINDLY.set(false);
    LINGERS.set(false);
}

/// A receiver that looks, lets go of the lock, and then queues.
#[test]
fn canary_look_then_queue() {
    IS_CANARY.set(true);
    must_fail(3, "a wake-up is lost", || {
        let state = Arc::new(Locked::new((0, Queue::new())));
        let sender = {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                let mut state = state.lock();
                state.0 += 1;
                let receiver = state.1.claim_first();
                drop(state);
                drop(receiver);
            })
        };
        if state.lock().0 == 0 {
            // Leaked: when loom ends the wait, they are still in use.
            let waiter = Pin::static_ref(Box::leak(Box::new(Waiter::unchecked())));
            let node = Node::new(waiter, 1, std::ptr::null_mut());
            let node = Pin::static_ref(Box::leak(Box::new(node)));
            state.lock().1.push(node);
            waiter.wait(None, OnCancel::Ignore);
        }
        sender.join().unwrap();
    });
    IS_CANARY.set(false);
}
