//! `coro/children.rs`: the owner of a scope leaves when the last child has ended, and not before.

use super::{check, must_fail};
use crate::coro::{Children, Waiter};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

/// What a scope's frame holds: the count, and what the children borrow.
struct Frame {
    children: Children,
    borrowed: AtomicUsize,
}

/// Two children, one of which adds a third, and their owner, who leaves as `may_leave` says.
fn two_and_their_child(may_leave: impl Fn(&Frame) -> bool) {
    let frame = Arc::new(Frame { children: Children::new(), borrowed: AtomicUsize::new(0) });
    let child = |frame: &Arc<Frame>, has_child: bool| {
        let frame = Arc::clone(frame);
        frame.children.add();
        thread::spawn(move || {
            frame.borrowed.fetch_add(1, Relaxed);
            if has_child {
                frame.children.add();
                frame.borrowed.fetch_add(1, Relaxed);
                assert_eq!(frame.children.ended(), Waiter::None);
            }
            let waiter = frame.children.ended();
            assert!(matches!(waiter, Waiter::None | Waiter::Fiber(_)));
        })
    };
    let children = [child(&frame, true), child(&frame, false)];
    if may_leave(&frame) {
        assert_eq!(frame.borrowed.load(Relaxed), 3, "the frame is left too early");
    }
    for child in children {
        child.join().unwrap();
    }
}

/// Waits as `scope` does, by the signal alone.
#[test]
fn the_owner_leaves_after_all_children() {
    check(3, || {
        two_and_their_child(|frame| match frame.children.leave() {
            None => true,
            // Registered, it would be woken; loom needs no sleeping here.
            Some(all_ended) => !all_ended.register(Waiter::Fiber(64)),
        });
    });
}

/// It wakes up once: the last child finds it, unless it finds the signal set.
#[test]
fn the_owner_is_woken_once() {
    check(3, || {
        let children = Arc::new(Children::new());
        children.add();
        children.add();
        let ends = || {
            let children = Arc::clone(&children);
            thread::spawn(move || children.ended())
        };
        let threads = [ends(), ends()];
        let waits = children.leave().is_some_and(|signal| signal.register(Waiter::Fiber(64)));
        let wakers = threads.map(|thread| thread.join().unwrap());
        let woken = wakers.iter().filter(|waiter| **waiter == Waiter::Fiber(64)).count();
        assert_eq!(woken, usize::from(waits), "a wake-up is lost or doubled");
    });
}

/// An owner who went by the count could free the frame before the last child has set the signal.
#[test]
fn canary_the_count_is_not_enough() {
    must_fail(3, "the signal is touched after the frame is left", || {
        let frame = Arc::new(Frame { children: Children::new(), borrowed: AtomicUsize::new(0) });
        frame.children.add();
        let theirs = Arc::clone(&frame);
        let child = thread::spawn(move || {
            _ = theirs.children.ended();
        });
        if let Some(all_ended) = frame.children.leave()
            && frame.children.alive() == 0
        {
            assert!(all_ended.is_set(), "the signal is touched after the frame is left");
        }
        child.join().unwrap();
    });
}

/// A child that counts itself out before it is done with what it borrows.
#[test]
fn canary_counted_out_too_early() {
    must_fail(3, "the frame is left too early", || {
        let frame = Arc::new(Frame { children: Children::new(), borrowed: AtomicUsize::new(0) });
        frame.children.add();
        let theirs = Arc::clone(&frame);
        let child = thread::spawn(move || {
            _ = theirs.children.ended();
            theirs.borrowed.fetch_add(1, Relaxed);
        });
        if frame.children.leave().is_none_or(|all_ended| all_ended.is_set()) {
            assert_eq!(frame.borrowed.load(Relaxed), 1, "the frame is left too early");
        }
        child.join().unwrap();
    });
}
