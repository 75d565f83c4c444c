//! `coro/cancel.rs`: a request meets a fiber that starts at the same moment.

use super::{check, must_fail};
use crate::coro::Cancel;
use loom::sync::Arc;
use loom::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Release},
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
