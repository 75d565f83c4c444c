//! `coro/cancel.rs`: a request meets a fiber that starts at the same moment.

use super::{check, must_fail};
use crate::coro::Cancel;
use loom::sync::Arc;
use loom::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire, Release},
};
use loom::thread;

fn request_and_start(fence: bool) {
    let cancel = Arc::new(Cancel::new());
    let home = Arc::new(AtomicUsize::new(0));
    let asker = {
        let (cancel, home) = (Arc::clone(&cancel), Arc::clone(&home));
        // Whether the home is told.
        thread::spawn(move || cancel.request() && home.load(Acquire) != 0 && cancel.list())
    };
    // The worker starts the fiber, which waits at once.
    home.store(1, Release);
    let seen = if fence { cancel.is_requested_before_wait() } else { cancel.is_requested() };
    let told = asker.join().unwrap();
    assert!(seen || told, "the request is lost");
}

#[test]
fn no_cancel_request_is_lost() {
    check(3, || request_and_start(true));
}

#[test]
fn canary_no_fence_before_the_first_wait() {
    must_fail(3, "the request is lost", || request_and_start(false));
}

/// Two requests, the first of which may be reported between them: the second finds the fiber
/// listed, or lists it.
#[test]
fn a_second_request_is_not_lost() {
    check(3, || {
        let cancel = Arc::new(Cancel::new());
        assert!(cancel.request() && cancel.list());
        let asker = {
            let cancel = Arc::clone(&cancel);
            thread::spawn(move || {
                let first = cancel.request();
                (first, first && cancel.list())
            })
        };
        // The owner reports the first one by the way, then comes to its list.
        cancel.reported();
        cancel.unlist();
        let seen = cancel.is_requested();
        let (asked, listed) = asker.join().unwrap();
        assert!(!asked || listed || seen, "a request in no list that nobody has seen");
    });
}

/// A deadline of the fiber's own expires, and an op reports it, while somebody asks: the request
/// stays for the next op, unless it is what the op reports.
fn report_a_deadline(looks: bool) {
    let cancel = Arc::new(Cancel::new());
    assert!(!cancel.is_requested_before_wait());
    let asker = {
        let cancel = Arc::clone(&cancel);
        thread::spawn(move || assert!(cancel.request() && cancel.list()))
    };
    // The timer fires; the op is cancelled, and its fiber reports (`sched::cancel::report`).
    cancel.set_bounds(false, true);
    assert!(cancel.is_requested());
    let reported = if looks && !cancel.has_visible_request() {
        cancel.reported_other();
        cancel.set_bounds(false, false);
        false
    } else {
        let there = cancel.has_visible_request();
        cancel.reported();
        there
    };
    asker.join().unwrap();
    assert!(reported || cancel.has_visible_request(), "the request is lost");
    assert!(!reported || cancel.take_reported_last());
}

#[test]
fn a_deadline_takes_no_request_with_it() {
    check(3, || report_a_deadline(true));
}

#[test]
fn canary_a_report_of_anything_clears_the_request() {
    must_fail(3, "the request is lost", || report_a_deadline(false));
}

/// A fiber that starts waits inside a shield first, leaves it and waits again, while somebody asks:
/// the second wait sees the request, or its home is told and finds no shield.
fn request_and_shield(fence: bool) {
    let cancel = Arc::new(Cancel::new());
    let home = Arc::new(AtomicUsize::new(0));
    let inbox = Arc::new(AtomicUsize::new(0));
    let asker = {
        let (cancel, home, inbox) = (Arc::clone(&cancel), Arc::clone(&home), Arc::clone(&inbox));
        thread::spawn(move || {
            if cancel.request() && home.load(Acquire) != 0 && cancel.list() {
                inbox.fetch_add(1, Release);
            }
        })
    };
    let take_inbox = || {
        if inbox.swap(0, AcqRel) == 1 {
            cancel.unlist();
            return cancel.is_requested();
        }
        false
    };
    home.store(1, Release);
    cancel.set_bounds(true, false);
    let look = || if fence { cancel.is_requested_before_wait() } else { cancel.is_requested() };
    assert!(!look() && !take_inbox(), "delivered inside a shield");
    cancel.set_bounds(false, false);
    let seen = look();
    asker.join().unwrap();
    assert!(seen || take_inbox(), "the request is lost");
}

#[test]
fn a_shield_keeps_requests_for_later() {
    check(3, || request_and_shield(true));
}

#[test]
fn canary_no_fence_before_the_wait_in_the_shield() {
    must_fail(3, "the request is lost", || request_and_shield(false));
}
