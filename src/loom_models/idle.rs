//! `sched/idle.rs` with `driver/wake.rs`: fresh fibers are handed over, or somebody remembers them.
//!
//! One queue stands for the deque of a worker that computes for ever after its pushes, so that
//! nothing comes of its taking its own fibers. The other workers look for work and sleep by the
//! steps of `Worker::look_for_work` and `Worker::sleep`; one that finds a fiber runs it for ever.
//! When all threads are through, those that were notified take their turns until nothing moves.
//!
//! A fiber is *forgotten* if then a worker sleeps, un-notified, although two or more fibers are
//! queued; or although one is, and none of the sleepers is the sentry.

use super::{check, must_fail};
use crate::driver::SleepWord;
use crate::sched::idle::{Idle, PATIENCE, Sleeper, Summons, Tell};
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
    /// The fence between a push and the look at who searches.
    GiverFence,
    /// The look between the announcement and the sleep.
    SecondLook,
    /// The look of a claimant that found nobody to wake.
    LastLook,
    /// A searcher that found something gets another one to look.
    Chain,
    /// A searcher takes its count back.
    EndOfSearch,
    /// The nap of a sentry that leaves its post to sleep.
    Nap,
    /// The look of a sentry that leaves its post because it has work of its own.
    PartingLook,
}

struct Seat {
    word: SleepWord,
    summons: Summons,
}

impl Sleeper for Seat {
    fn is_asleep(&self) -> bool {
        self.word.is_asleep()
    }

    fn summons(&self) -> &Summons {
        &self.summons
    }

    fn notify(&self) -> bool {
        self.word.notify(|_| {})
    }
}

struct World {
    idle: Idle,
    seats: Vec<Seat>,
    queued: AtomicUsize,
    without: Without,
}

/// How a worker ends.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Busy,
    /// It was still looking when the model had seen enough.
    Looking {
        sentry: bool,
    },
    Asleep {
        sentry: bool,
    },
    /// Asleep for a short time: it looks once more.
    Napping,
}

impl World {
    /// A world with a giver, who is awake, and `workers` others, awake too.
    fn new(workers: usize, without: Without) -> Arc<Self> {
        let idle = Idle::new();
        for _ in 0..=workers {
            idle.enter();
        }
        let seats = (0..workers)
            .map(|_| Seat { word: SleepWord::new(), summons: Summons::new() })
            .collect();
        Arc::new(Self { idle, seats, queued: AtomicUsize::new(0), without })
    }

    fn give(&self) {
        let queued = self.queued.fetch_add(1, Release) + 1;
        let tells = if self.without == Without::GiverFence {
            !self.idle.is_left_to_sentry()
        } else {
            self.idle.offered(queued) == Tell::Somebody
        };
        if tells {
            self.wake_one();
        }
    }

    /// As `Shared::wake_one`.
    fn wake_one(&self) {
        if !self.idle.somebody_searches() && self.idle.somebody_sleeps() {
            let work = || self.without != Without::LastLook && self.work(1);
            self.idle.wake_one(&self.seats, || false, work);
        }
    }

    fn work(&self, least: usize) -> bool {
        self.queued.load(Acquire) >= least
    }

    /// As `Worker::steal`: one of several, or the last one if its owner does not run.
    fn steal(&self) -> bool {
        let least = if self.idle.others_awake() { 2 } else { 1 };
        self.queued
            .fetch_update(AcqRel, Acquire, |queued| (queued >= least).then(|| queued - 1))
            .is_ok()
    }

    /// The life of a worker from its looking for work to its sleep, or to its having found some.
    fn look_and_sleep(&self, seat: usize, mut summoned: bool, mut sentry: bool) -> End {
        let seat = &self.seats[seat];
        // Bounded, for the checker's sake. The second round comes after a second look that saw
        // work.
        for _ in 0..3 {
            summoned |= seat.summons.take();
            let counted = summoned || self.idle.start_search(1);
            summoned = false;
            let found = self.steal();
            if counted {
                if self.without != Without::EndOfSearch {
                    self.idle.end_search();
                }
                if found && self.work(1) && self.without != Without::Chain {
                    self.wake_one();
                }
            }
            if found {
                if sentry {
                    self.idle.sentry_leaves();
                    if self.work(1) {
                        self.wake_one();
                    }
                }
                return End::Busy;
            }
            let stays = self.idle.others_awake() && (sentry || self.idle.become_sentry());
            let leaves = sentry && !stays;
            if leaves {
                self.idle.sentry_leaves();
            }
            sentry = stays;
            self.idle.lie_down(&seat.word);
            let least = if self.idle.anybody_awake() { 2 } else { 1 };
            if self.without == Without::SecondLook || !self.work(least) {
                let naps = leaves && self.without != Without::Nap;
                return if naps { End::Napping } else { End::Asleep { sentry } };
            }
            self.idle.get_up(&seat.word);
        }
        End::Looking { sentry }
    }

    /// Those that were notified wake up, one after the other, until nothing moves. The ends of all.
    fn settle(&self, mut ends: Vec<End>) -> Vec<End> {
        loop {
            let mut moved = false;
            for (index, seat) in self.seats.iter().enumerate() {
                let sentry = match ends[index] {
                    End::Asleep { sentry } if !seat.word.is_asleep() => {
                        self.idle.get_up(&seat.word);
                        sentry
                    }
                    End::Napping => {
                        self.idle.get_up(&seat.word);
                        false
                    }
                    // A sentry does not sleep for long.
                    End::Asleep { sentry: true }
                        if self.idle.is_left_to_sentry() && self.work(2) =>
                    {
                        self.idle.get_up(&seat.word);
                        true
                    }
                    End::Looking { sentry } => sentry,
                    _ => continue,
                };
                ends[index] = self.look_and_sleep(index, seat.summons.take(), sentry);
                moved = true;
            }
            if !moved {
                return ends;
            }
        }
    }

    fn nothing_is_forgotten(&self, ends: &[End]) {
        let queued = self.queued.load(Relaxed);
        let asleep = ends.iter().any(|end| matches!(end, End::Asleep { .. }));
        let sentry = ends.iter().any(|end| matches!(end, End::Asleep { sentry: true }));
        assert!(!asleep || queued < 2, "{queued} fibers are queued, and nobody is told: {ends:?}");
        assert!(!asleep || sentry || queued == 0, "a lone fiber without a sentry: {ends:?}");
        // The counts are in balance: nobody passes for a searcher who is none.
        let left = self.seats.iter().filter(|seat| seat.summons.take()).count();
        assert_eq!(
            self.idle.searching(),
            0,
            "a searcher too many or too few: {ends:?} {left} {:?}",
            self.seats[0].word
        );
        assert!(self.seats.iter().all(|seat| !seat.summons.take()), "a summons that nobody read");
    }
}

/// A giver pushes `fibers` while `workers` look for work and fall asleep.
fn giver_and_workers(fibers: usize, workers: usize, without: Without) {
    let world = World::new(workers, without);
    let threads: Vec<_> = (0..workers)
        .map(|seat| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.look_and_sleep(seat, false, false))
        })
        .collect();
    for _ in 0..fibers {
        world.give();
    }
    let ends = threads.into_iter().map(|worker| worker.join().unwrap()).collect();
    let ends = world.settle(ends);
    world.nothing_is_forgotten(&ends);
}

/// Two givers at once, one of which may be scanning the seats while the worker falls asleep.
fn two_givers_and_a_worker(without: Without) {
    let world = World::new(1, without);
    world.queued.store(1, Relaxed);
    let worker = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.look_and_sleep(0, false, false))
    };
    let giver = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.give())
    };
    world.give();
    giver.join().unwrap();
    let ends = world.settle(vec![worker.join().unwrap()]);
    world.nothing_is_forgotten(&ends);
}

/// As above, when the worker sleeps already and wakes up by itself, for a timer, say: the summons
/// and its count must end up with exactly one of the two.
fn two_givers_and_a_sleeper_that_wakes(without: Without) {
    let world = World::new(1, without);
    world.idle.lie_down(&world.seats[0].word);
    let worker = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            let seat = &world.seats[0];
            world.idle.get_up(&seat.word);
            let summoned = seat.summons.take();
            world.look_and_sleep(0, summoned, false)
        })
    };
    let giver = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.give())
    };
    world.give();
    giver.join().unwrap();
    let ends = world.settle(vec![worker.join().unwrap()]);
    world.nothing_is_forgotten(&ends);
}

/// The sentry finds nobody else awake and leaves its post, while the last to have fallen asleep
/// wakes up and gives a fiber.
fn a_sentry_and_a_giver_that_wakes(without: Without) {
    let world = World::new(1, without);
    let giver = SleepWord::new();
    assert!(world.idle.become_sentry());
    world.idle.lie_down(&world.seats[0].word);
    world.idle.lie_down(&giver);
    let worker = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            world.idle.get_up(&world.seats[0].word);
            world.look_and_sleep(0, false, true)
        })
    };
    world.idle.get_up(&giver);
    world.give();
    let ends = world.settle(vec![worker.join().unwrap()]);
    world.nothing_is_forgotten(&ends);
}

/// Nothing has come of waking others lately, so two fibers are left to the sentry, which gets work
/// of its own meanwhile; a second worker sleeps.
fn a_patient_giver_and_a_sentry(without: Without) {
    let world = World::new(2, without);
    (0..PATIENCE).for_each(|_| world.idle.learn(false));
    assert!(world.idle.become_sentry());
    world.seats.iter().for_each(|seat| world.idle.lie_down(&seat.word));
    let worker = {
        let world = Arc::clone(&world);
        thread::spawn(move || {
            world.idle.get_up(&world.seats[0].word);
            world.idle.sentry_leaves();
            if world.without != Without::PartingLook && world.work(1) {
                world.wake_one();
            }
            End::Busy
        })
    };
    (0..2).for_each(|_| world.give());
    let ends = world.settle(vec![worker.join().unwrap(), End::Asleep { sentry: false }]);
    world.nothing_is_forgotten(&ends);
}

/// As `giver_and_workers`, and the giver is patient.
fn a_patient_giver_and_a_worker() {
    let world = World::new(1, Without::Nothing);
    (0..PATIENCE).for_each(|_| world.idle.learn(false));
    let worker = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.look_and_sleep(0, false, false))
    };
    (0..2).for_each(|_| world.give());
    let ends = world.settle(vec![worker.join().unwrap()]);
    world.nothing_is_forgotten(&ends);
}

#[test]
fn two_fibers_one_worker() {
    check(4, || giver_and_workers(2, 1, Without::Nothing));
}

#[test]
fn a_lone_fiber_has_its_owner_or_a_sentry() {
    check(4, || giver_and_workers(1, 1, Without::Nothing));
}

#[test]
fn three_fibers_two_workers() {
    check(2, || giver_and_workers(3, 2, Without::Nothing));
}

#[test]
fn a_worker_falls_asleep_behind_a_claimants_back() {
    check(3, || two_givers_and_a_worker(Without::Nothing));
}

#[test]
fn a_summons_meets_a_worker_that_wakes_by_itself() {
    check(3, || two_givers_and_a_sleeper_that_wakes(Without::Nothing));
}

#[test]
fn a_sentry_leaves_while_another_worker_wakes() {
    check(4, || a_sentry_and_a_giver_that_wakes(Without::Nothing));
}

#[test]
fn a_sentry_that_fibers_are_left_to_gets_work() {
    check(3, || a_patient_giver_and_a_sentry(Without::Nothing));
}

#[test]
fn a_worker_becomes_sentry_while_fibers_are_left_to_it() {
    check(4, a_patient_giver_and_a_worker);
}

#[test]
fn canary_left_to_the_sentry_without_a_fence() {
    must_fail(3, "nobody is told", || a_patient_giver_and_a_sentry(Without::GiverFence));
}

#[test]
fn canary_no_parting_look() {
    must_fail(3, "nobody is told", || a_patient_giver_and_a_sentry(Without::PartingLook));
}

#[test]
fn canary_no_nap() {
    must_fail(4, "a lone fiber without a sentry", || a_sentry_and_a_giver_that_wakes(Without::Nap));
}

#[test]
fn canary_no_fence_of_the_giver() {
    must_fail(4, "nobody is told", || giver_and_workers(2, 1, Without::GiverFence));
}

#[test]
fn canary_no_second_look() {
    must_fail(4, "nobody is told", || giver_and_workers(2, 1, Without::SecondLook));
}

#[test]
fn canary_no_last_look() {
    must_fail(4, "nobody is told", || two_givers_and_a_sleeper_that_wakes(Without::LastLook));
}

#[test]
fn canary_no_chain() {
    must_fail(3, "nobody is told", || giver_and_workers(3, 2, Without::Chain));
}

#[test]
fn canary_no_end_of_search() {
    must_fail(3, "", || giver_and_workers(2, 1, Without::EndOfSearch));
}
