//! One script on every switch: the traces must be equal.

use super::{Fiber, Stack, Suspender, Switch};
use crate::arch::Entry;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

/// What happened: (who, what, word).
type Trace = Rc<RefCell<Vec<(usize, &'static str, usize)>>>;

fn note(trace: &Trace, who: usize, what: &'static str, word: usize) {
    trace.borrow_mut().push((who, what, word));
}

/// A small generator (an LCG with its high bits mixed down), so that a seed tells the whole script.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        ((self.0 >> 33) ^ (self.0 >> 20)) as usize
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() % n
    }
}

/// A unit that says when it is dropped, to see that unwinding on a fiber runs destructors.
struct Dropped(Trace, usize);

impl Drop for Dropped {
    fn drop(&mut self) {
        note(&self.0, self.1, "dropped", 0);
    }
}

/// What fiber `who` does, decided by its own generator: suspends, recurses with suspensions on the
/// way, panics (without the hook) and catches it, resumes children of its own, changes the slot.
fn act<S: Switch>(me: &Suspender<S>, who: usize, trace: &Trace, rng: &mut Rng, depth: usize) {
    let mut child: Option<Fiber<S>> = None;
    for _ in 0..rng.below(6) {
        match rng.below(6) {
            0 | 1 => {
                let out = rng.next();
                let word = me.suspend(out);
                note(trace, who, "resumed with", word);
            }
            2 if depth < 12 => {
                note(trace, who, "deeper", depth);
                act(me, who, trace, rng, depth + 1);
                note(trace, who, "back", depth);
            }
            3 => {
                let thrown = rng.next();
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    let _guard = Dropped(trace.clone(), who);
                    let word = me.suspend(thrown);
                    note(trace, who, "about to panic", word);
                    resume_unwind(Box::new(thrown));
                }));
                let payload = *caught.unwrap_err().downcast::<usize>().unwrap();
                note(trace, who, "caught", payload);
            }
            4 if depth < 4 && who < 1 << 20 => {
                let fiber = child.get_or_insert_with(|| fiber(who * 8 + 1, trace, rng.next()));
                let word = fiber.resume(rng.next());
                note(trace, who, "child gave", word);
                if fiber.done() {
                    note(trace, who, "child ended", 0);
                    child = None;
                }
            }
            _ => {
                note(trace, who, "slot", S::get_current());
                S::set_current(rng.next());
            }
        }
    }
    // A stack is not freed while something runs on it: finish what was started.
    while let Some(fiber) = child.take_if(|fiber| !fiber.done()) {
        note(trace, who, "child finishes", fiber.resume(0));
        child = (!fiber.done()).then_some(fiber);
    }
}

fn fiber<S: Switch>(who: usize, trace: &Trace, seed: usize) -> Fiber<S> {
    let trace = trace.clone();
    Fiber::new(move |me, word| {
        note(&trace, who, "began with", word);
        let mut rng = Rng(seed as u64);
        let panics = rng.below(4) == 0;
        // Panics are caught at the base, as the layers above do.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let _guard = Dropped(trace.clone(), who);
            act(&me, who, &trace, &mut rng, 0);
            if panics {
                resume_unwind(Box::new(who));
            }
        }));
        note(&trace, who, if ended.is_ok() { "ends" } else { "ends by a panic" }, 0);
        rng.next()
    })
}

/// Resumes fibers in a random order until all have ended, replacing some by new ones on the way.
fn script<S: Switch>(seed: u64) -> Vec<(usize, &'static str, usize)> {
    let trace = Trace::default();
    let mut rng = Rng(seed);
    S::set_current(0);
    let mut fibers: Vec<Fiber<S>> = Vec::new();
    let mut started = 0;
    while started < 200 || !fibers.is_empty() {
        if started < 200 && (fibers.len() < 4 || (fibers.len() < 40 && rng.below(3) == 0)) {
            fibers.push(fiber(started, &trace, rng.next()));
            started += 1;
        }
        let index = rng.below(fibers.len());
        let word = fibers[index].resume(rng.next());
        note(&trace, usize::MAX, "got", word);
        if fibers[index].done() {
            fibers.swap_remove(index);
        }
    }
    trace.take()
}

/// The first place where two traces differ.
fn difference(
    a: &[(usize, &'static str, usize)],
    b: &[(usize, &'static str, usize)],
) -> Option<usize> {
    let common = a.iter().zip(b).position(|(a, b)| a != b);
    common.or_else(|| (a.len() != b.len()).then(|| a.len().min(b.len())))
}

fn compare<A: Switch, B: Switch>(seed: u64) -> Result<usize, String> {
    let (a, b) = (script::<A>(seed), script::<B>(seed));
    match difference(&a, &b) {
        None => Ok(a.len()),
        Some(at) => Err(format!(
            "seed {seed}, event {at}: {} did {:?}, {} did {:?}",
            A::NAME,
            a.get(at),
            B::NAME,
            b.get(at)
        )),
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("RAMIE_SEED") {
        Ok(seed) => vec![seed.parse().expect("RAMIE_SEED is a number")],
        Err(_) => {
            let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
            (1..=8).chain([now]).collect()
        }
    }
}

#[test]
#[cfg(native)]
fn both_switches_leave_the_same_trace() {
    for seed in seeds() {
        println!("RAMIE_SEED={seed}");
        let events = compare::<super::Native, super::Portable>(seed).unwrap();
        assert!(events > 1000 || std::env::var("RAMIE_SEED").is_ok(), "{events} events: too few");
    }
}

#[test]
fn a_script_is_repeatable() {
    for seed in seeds() {
        println!("RAMIE_SEED={seed}");
        compare::<super::Portable, super::Portable>(seed).unwrap();
    }
}

/// A switch with a mistake: every so often it hands over a wrong word.
struct Wrong;

impl Switch for Wrong {
    const NAME: &'static str = "wrong";
    type Context = <super::Portable as Switch>::Context;

    unsafe fn init<E: Entry>(this: *mut Self::Context, stack: &Stack, arg: *mut ()) {
        // SAFETY: passed on to our caller.
        unsafe { super::Portable::init::<E>(this, stack, arg) }
    }

    unsafe fn resume(this: *mut Self::Context, word: usize) -> usize {
        let word = if word % 1024 == 1 { word ^ 1 } else { word };
        // SAFETY: passed on to our caller.
        unsafe { super::Portable::resume(this, word) }
    }

    unsafe fn suspend(this: *mut Self::Context, word: usize) -> usize {
        // SAFETY: passed on to our caller.
        unsafe { super::Portable::suspend(this, word) }
    }

    fn get_current() -> usize {
        super::Portable::get_current()
    }

    fn set_current(word: usize) {
        super::Portable::set_current(word);
    }
}

#[test]
fn canary_a_wrong_switch_is_found() {
    let found = (1..=8).filter(|&seed| compare::<super::Portable, Wrong>(seed).is_err()).count();
    assert!(found > 0, "the oracle would not notice a wrong word");
}

#[test]
fn canary_a_missing_event_is_found() {
    let a = script::<super::Portable>(1);
    let mut b = a.clone();
    b.pop();
    assert_eq!(difference(&a, &b), Some(b.len()));
    assert_eq!(difference(&a, &a), None);
}

fn words_go_both_ways<S: Switch>() {
    let fiber = Fiber::<S>::new(|me, first| {
        assert_eq!(first, usize::MAX);
        let mut word = me.suspend(0);
        while word != 7 {
            word = me.suspend(word.wrapping_mul(3));
        }
        !7
    });
    assert_eq!(fiber.resume(usize::MAX), 0);
    for word in [0, 1, usize::MAX, 1 << 63, 0x0123_4567_89ab_cdef] {
        assert_eq!(fiber.resume(word), word.wrapping_mul(3));
    }
    assert_eq!(fiber.resume(7), !7);
    assert!(fiber.done());
}

fn deep_recursion<S: Switch>() {
    fn down<S: Switch>(me: &Suspender<S>, depth: usize) -> usize {
        if depth == 0 {
            return me.suspend(0);
        }
        let below = down(me, depth - 1);
        me.suspend(depth) + below
    }
    let fiber = Fiber::<S>::new(|me, word| down(&me, 500) + word);
    for depth in 0..=500 {
        assert_eq!(fiber.resume(depth), depth);
    }
    // The words that the 501 suspensions returned were 1, 2, ..., 500 and 1000.
    assert_eq!(fiber.resume(1000), (1..=500).sum::<usize>() + 1000);
}

fn nested<S: Switch>() {
    // Each fiber is the idle context of the next; all suspend and end from the inside out.
    fn level<S: Switch>(depth: usize) -> Fiber<S> {
        Fiber::new(move |me, word| {
            let mut word = word;
            if depth > 0 {
                let inner = level::<S>(depth - 1);
                while !inner.done() {
                    let got = inner.resume(word + 1);
                    word = me.suspend(got);
                }
                return word;
            }
            word = me.suspend(word);
            me.suspend(word);
            0
        })
    }
    let outer = level::<S>(10);
    let mut seen = Vec::new();
    while !outer.done() {
        seen.push(outer.resume(seen.len() * 100));
    }
    assert_eq!(seen[..3], [10, 110, 0]);
    assert_eq!(seen.len(), 13, "each of the ten outer fibers ends one resume after its inner one");
}

fn one_context_many_threads<S: Switch>() {
    // A fiber that keeps nothing thread-bound may be resumed by another thread; the slot is the
    // thread's, not the fiber's.
    struct Moved<S: Switch>(Fiber<S>);
    // SAFETY: the body below holds nothing that is bound to a thread.
    unsafe impl<S: Switch> Send for Moved<S> {}

    let fiber = Fiber::<S>::new(|me, _| {
        loop {
            let before = S::get_current();
            if me.suspend(before) == 0 {
                return S::get_current();
            }
        }
    });
    S::set_current(1);
    assert_eq!(fiber.resume(9), 1);
    let mut moved = Moved(fiber);
    for thread in 2..6 {
        moved = std::thread::spawn(move || {
            let moved = moved;
            assert_eq!(S::get_current(), 0, "a new thread's slot is 0");
            S::set_current(thread);
            assert_eq!(moved.0.resume(9), thread);
            moved
        })
        .join()
        .unwrap();
    }
    assert_eq!(S::get_current(), 1);
    assert_eq!(moved.0.resume(0), 1);
}

fn a_million_round_trips<S: Switch>() {
    let fiber = Fiber::<S>::new(|me, mut word| {
        while word != 0 {
            word = me.suspend(word + 1);
        }
        0
    });
    for word in 1..=1_000_000 {
        assert_eq!(fiber.resume(word), word + 1);
    }
    assert_eq!(fiber.resume(0), 0);
}

fn a_context_can_be_used_again<S: Switch>() {
    struct Double;
    impl Entry for Double {
        unsafe fn enter(arg: *mut (), word: usize) -> usize {
            arg.addr() + word * 2
        }
    }
    let stack = Stack::new();
    let mut context = std::mem::MaybeUninit::<S::Context>::uninit();
    for round in 0..1000 {
        let arg = std::ptr::without_provenance_mut(round);
        // SAFETY: the fiber of the round before has ended; nothing lies on the stack.
        let last = unsafe {
            S::init::<Double>(context.as_mut_ptr(), &stack, arg);
            S::resume(context.as_mut_ptr(), 5)
        };
        assert_eq!(last, round + 10);
    }
}

macro_rules! on_each_switch {
    ($($test:ident),* $(,)?) => {
        #[cfg(native)]
        mod native {
            $(#[test] fn $test() { super::$test::<super::super::Native>(); })*
        }
        mod portable {
            $(#[test] fn $test() { super::$test::<super::super::Portable>(); })*
        }
    };
}

on_each_switch!(
    a_context_can_be_used_again,
    a_million_round_trips,
    deep_recursion,
    nested,
    one_context_many_threads,
    words_go_both_ways,
);
