//! `coro/children.rs`: the owner of a scope leaves when the last child has ended, and not before.

use super::{check, must_fail};
use crate::coro::{Children, Place, Waiter};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

const HOME: Place = Place(1);
const AWAY: Place = Place(2);

/// What a scope's frame holds: the count, and what the children borrow.
struct Frame {
    children: Children,
    borrowed: AtomicUsize,
}

impl Frame {
    fn new() -> Arc<Self> {
        Arc::new(Self { children: Children::new(HOME), borrowed: AtomicUsize::new(0) })
    }
}

/// Two children that end away, one of which adds a third, and one that ends at home.
#[test]
fn the_owner_leaves_after_all_children() {
    check(3, || {
        let frame = Frame::new();
        let child = |has_child: bool| {
            let frame = Arc::clone(&frame);
            frame.children.add(HOME);
            thread::spawn(move || {
                frame.borrowed.fetch_add(1, Relaxed);
                if has_child {
                    frame.children.add(AWAY);
                    frame.borrowed.fetch_add(1, Relaxed);
                    assert_eq!(frame.children.ended(AWAY), Waiter::None);
                }
                _ = frame.children.ended(AWAY);
            })
        };
        let children = [child(true), child(false)];
        frame.children.add(HOME);
        assert_eq!(frame.children.ended(HOME), Waiter::None);
        // Waits as `scope` does, by the signal alone. If it could be registered there would be a
        // waker; loom needs no sleeping here.
        let may_leave = match frame.children.leave() {
            None => true,
            Some(all_ended) => !all_ended.register(Waiter::Fiber(64)),
        };
        if may_leave {
            assert_eq!(frame.borrowed.load(Relaxed), 3, "the frame is left too early");
        }
        for child in children {
            child.join().unwrap();
        }
    });
}

/// It is woken once, if it waits. One child is away from its beginning to its end, one ends at home
/// when the owner has come to wait already.
#[test]
fn the_owner_is_woken_once() {
    check(3, || {
        let frame = Frame::new();
        frame.children.add(HOME);
        frame.children.add(HOME);
        let theirs = Arc::clone(&frame);
        let away = thread::spawn(move || theirs.children.ended(AWAY));
        let all_ended = frame.children.leave().expect("one is at home");
        let waits = all_ended.register(Waiter::Fiber(64));
        // What the owner's worker does while the owner is off its stack.
        let wakers = [frame.children.ended(HOME), away.join().unwrap()];
        let woken = wakers.iter().filter(|waiter| **waiter == Waiter::Fiber(64)).count();
        assert_eq!(woken, usize::from(waits), "a wake-up is lost or doubled");
    });
}

/// An owner who went by the count could free the frame before the last child has set the signal.
#[test]
fn canary_the_count_is_not_enough() {
    must_fail(3, "the signal is touched after the frame is left", || {
        let frame = Frame::new();
        frame.children.add(HOME);
        let theirs = Arc::clone(&frame);
        let child = thread::spawn(move || _ = theirs.children.ended(AWAY));
        if let Some(all_ended) = frame.children.leave()
            && frame.children.away() == 0
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
        let frame = Frame::new();
        frame.children.add(HOME);
        let theirs = Arc::clone(&frame);
        let child = thread::spawn(move || {
            _ = theirs.children.ended(AWAY);
            theirs.borrowed.fetch_add(1, Relaxed);
        });
        if frame.children.leave().is_none_or(|all_ended| all_ended.is_set()) {
            assert_eq!(frame.borrowed.load(Relaxed), 1, "the frame is left too early");
        }
        child.join().unwrap();
    });
}
