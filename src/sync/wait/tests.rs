//! Queues of waiters, on threads.

use super::*;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

/// What is handed over goes to the one who waits longest, and arrives.
#[test]
fn first_come_first_served() {
    let queue = Arc::new(Locked::new(Queue::new()));
    let mut threads = Vec::new();
    for index in 0..3 {
        let shared = Arc::clone(&queue);
        threads.push(std::thread::spawn(move || {
            let slot = Cell::new(0_usize);
            let waiter = pin!(Waiter::new());
            let node = pin!(Node::new(waiter.as_ref(), 7, (&raw const slot).cast_mut().cast()));
            shared.lock().push(node.as_ref());
            assert_eq!(waiter.as_ref().wait(None, OnCancel::Ignore), Some(7));
            assert_eq!(slot.get(), index);
        }));
        while length(&queue) != index + 1 {
            std::thread::yield_now();
        }
    }
    for index in 0..3 {
        let claimed = queue.lock().claim_first().unwrap();
        assert_eq!(claimed.token(), 7);
        // SAFETY: the waiter's `slot`, until it is woken.
        unsafe { (*claimed.slot().cast::<Cell<usize>>()).set(index) };
        claimed.wake();
    }
    assert!(queue.lock().claim_first().is_none());
    for thread in threads {
        thread.join().unwrap();
    }
}

fn length(queue: &Locked<Queue>) -> usize {
    let queue = queue.lock();
    let mut length = 0;
    let mut at = queue.head;
    // SAFETY: nodes in a locked queue are alive.
    while let Some(node) = unsafe { at.as_ref() } {
        length += 1;
        at = node.next.get();
    }
    length
}

/// One waiter in two queues: the first claim wins, in the other queue it is passed over.
#[test]
fn claimed_once() {
    let (one, two) = (Locked::new(Queue::new()), Locked::new(Queue::new()));
    let waiter = pin!(Waiter::new());
    let first = pin!(Node::new(waiter.as_ref(), 1, ptr::null_mut()));
    let second = pin!(Node::new(waiter.as_ref(), 2, ptr::null_mut()));
    one.lock().push(first.as_ref());
    two.lock().push(second.as_ref());
    assert!(!one.lock().remove(second.as_ref()), "it is in the other one");
    two.lock().claim_first().unwrap().wake();
    assert!(one.lock().claim_first().is_none());
    assert_eq!(waiter.as_ref().wait(None, OnCancel::Ignore), Some(2));
    assert!(!one.lock().remove(first.as_ref()) && !two.lock().remove(second.as_ref()));
}

/// One that gives up is not handed anything, from whichever place it leaves.
#[test]
fn withdrawn_is_passed_over() {
    let queue = Locked::new(Queue::new());
    for leaves in 0..3 {
        let waiters = [pin!(Waiter::new()), pin!(Waiter::new()), pin!(Waiter::new())];
        let [a, b, c] = &waiters;
        let a_node = pin!(Node::new(a.as_ref(), 1, ptr::null_mut()));
        let b_node = pin!(Node::new(b.as_ref(), 2, ptr::null_mut()));
        let c_node = pin!(Node::new(c.as_ref(), 3, ptr::null_mut()));
        let nodes = [a_node.as_ref(), b_node.as_ref(), c_node.as_ref()];
        for node in nodes {
            queue.lock().push(node);
        }
        let soon = clock::deadline_ns(Duration::from_millis(1));
        assert_eq!(waiters[leaves].as_ref().wait(Some(soon), OnCancel::Ignore), None);
        assert!(queue.lock().remove(nodes[leaves]));
        assert!(!queue.lock().remove(nodes[leaves]));
        let all = queue.lock().claim_all();
        assert_eq!(all.len(), 2);
        let tokens: Vec<_> = all.map(|claimed| claimed.token()).collect();
        let expected: Vec<_> = (0..3).filter(|at| *at != leaves).map(|at| at + 1).collect();
        assert_eq!(tokens, expected);
        assert!(queue.lock().is_empty());
    }
}

#[test]
fn a_wait_that_is_not_begun() {
    let queue = Locked::new(Queue::new());
    assert_eq!(wait_in(&queue, |q| q, None, OnCancel::Ignore, |_| false), Waited::Not);
    let soon = Some(clock::deadline_ns(Duration::from_millis(1)));
    assert_eq!(wait_in(&queue, |q| q, soon, OnCancel::Ignore, |_| true), Waited::GaveUp);
    assert!(queue.lock().is_empty());
}
