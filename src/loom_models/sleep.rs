//! `driver/wake.rs` with `sched/inbox.rs`: a worker that sleeps while others queue for it.

use super::{check, must_fail};
use crate::driver::SleepWord;
use loom::sync::Arc;
use loom::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use loom::thread;

/// What is left out of the protocol.
#[derive(Clone, Copy, PartialEq)]
enum Without {
    Nothing,
    /// The second look, after the announcement.
    SecondLook,
    /// The fence between queueing and looking at the word.
    GiverFence,
    /// The waiting of `retire`.
    Retire,
}

struct Scene {
    word: SleepWord,
    /// Pokes that the kernel keeps for the sleeper.
    kernel: AtomicUsize,
    pokes: AtomicUsize,
    sleeps: AtomicUsize,
    /// The inbox: its length is all that matters here (`inbox.rs` models the rest).
    inbox: AtomicUsize,
    /// What a poke needs is still there.
    open: AtomicUsize,
}

impl Scene {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            word: SleepWord::new(),
            kernel: AtomicUsize::new(0),
            pokes: AtomicUsize::new(0),
            sleeps: AtomicUsize::new(0),
            inbox: AtomicUsize::new(0),
            open: AtomicUsize::new(1),
        })
    }

    fn notify(&self) -> bool {
        self.word.notify(|_| {
            assert_eq!(self.open.load(Relaxed), 1, "poked after it had retired");
            self.pokes.fetch_add(1, Relaxed);
            self.kernel.fetch_add(1, Release);
        })
    }

    fn give(&self, without: Without) {
        self.inbox.fetch_add(1, Release);
        if without == Without::GiverFence && !self.word.is_asleep() {
            return;
        }
        self.notify();
    }
}

fn sleeper_and_givers(without: Without, givers: usize) {
    let scene = Scene::new();
    let spawn = |_| {
        let scene = Arc::clone(&scene);
        thread::spawn(move || scene.give(without))
    };
    let mut threads: Vec<_> = (0..givers).map(spawn).collect();
    let mut got = 0;
    loop {
        if scene.inbox.load(Relaxed) != 0 {
            got += scene.inbox.swap(0, AcqRel);
        }
        if got == givers {
            break;
        }
        scene.sleeps.fetch_add(1, Relaxed);
        scene.word.announce();
        // As `Worker::sleep`.
        if without == Without::SecondLook || scene.inbox.load(Relaxed) == 0 {
            while scene.kernel.swap(0, Acquire) == 0 {
                match threads.pop() {
                    Some(giver) => giver.join().unwrap(),
                    None => panic!("a wake-up is lost"),
                }
            }
        }
        scene.word.awake();
    }
    let (pokes, sleeps) = (scene.pokes.load(Acquire), scene.sleeps.load(Relaxed));
    assert!(pokes <= sleeps, "{pokes} pokes for {sleeps} sleeps");
}

#[test]
fn no_wake_up_is_lost_and_none_is_doubled() {
    check(3, || sleeper_and_givers(Without::Nothing, 2));
}

#[test]
fn canary_no_second_look() {
    must_fail(3, "a wake-up is lost", || sleeper_and_givers(Without::SecondLook, 1));
}

#[test]
fn canary_no_fence_before_the_word() {
    must_fail(3, "a wake-up is lost", || sleeper_and_givers(Without::GiverFence, 1));
}

fn retire_and_late_notify(without: Without) {
    let scene = Scene::new();
    let pokers: Vec<_> = (0..2)
        .map(|_| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.notify())
        })
        .collect();
    scene.word.announce();
    if without == Without::Retire {
        scene.word.awake();
    } else {
        scene.word.retire();
    }
    scene.open.store(0, Relaxed);
    let pokes = pokers.into_iter().map(|poker| poker.join().unwrap());
    assert!(pokes.filter(|&poked| poked).count() <= 1, "one sleep, two pokes");
}

#[test]
fn nobody_is_poked_after_it_has_retired() {
    check(3, || retire_and_late_notify(Without::Nothing));
}

#[test]
fn canary_retire_does_not_wait() {
    must_fail(3, "poked after", || retire_and_late_notify(Without::Retire));
}
