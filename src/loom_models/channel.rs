//! `sync/chan`: every message arrives once or comes back, and nobody waits for ever.

use super::{check, must_fail};
use crate::coro::OnCancel;
use crate::sync::chan::{self, NotReceived, NotSent, Receiving, Sending, Until};
use crate::sync::lock::Locked;
use crate::sync::wait::{Node, Queue, Waiter};
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

/// A receiver that looks, lets go of the lock, and then queues.
#[test]
fn canary_look_then_queue() {
    must_fail(3, "deadlock", || {
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
}
