//! Seeded stress: fibers that do everything at once, in runtimes of random shape, round after
//! round.
//!
//! | variable               | what                                                  | default       |
//! |------------------------|-------------------------------------------------------|---------------|
//! | `RAMIE_SEED`           | the first round's seed; each round prints its own     | from the time |
//! | `RAMIE_STRESS`         | seconds to go on for; set, the rounds are large       | 4, small ones |
//! | `RAMIE_STRESS_WORKERS` | the number of workers                                 | random        |
//! | `RAMIE_STRESS_RING`    | the rings' entries                                    | random        |
//! | `RAMIE_STRESS_WAKE`    | `Futex`, `MsgRing` or `EventFd`                       | random        |
//!
//! What must hold: every fiber runs exactly once, on one thread, and on no two stacks at a time;
//! results and panics are the right ones; bytes read are the bytes written; and when a round is
//! over no fiber, no thread and no descriptor is left, and memory does not grow without bounds.
//!
//! A seed fixes what the fibers do, not the order in which the machine lets them.

mod common;

use common::process::{fds, resident, threads};
use common::rng::Rng;
use common::{eventually, watch};
use ramie::{Handle, JoinHandle, Runtime, WakeMethod};
use std::any::Any;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

impl Rng {
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len() as u64) as usize]
    }
}

/// What a fiber that is to panic panics with.
struct Deliberate(usize);

/// What is known of one fiber.
#[derive(Default)]
struct Entry {
    runs: AtomicU8,
    on_a_stack: AtomicBool,
}

/// What all fibers of a round share.
struct World {
    entries: Vec<Entry>,
    next: AtomicUsize,
    ended: AtomicUsize,
    file: ramie::fs::File,
    /// To a thread that unparks who asks for it.
    unparker: mpsc::Sender<(ramie::Fiber, Arc<AtomicBool>)>,
}

impl World {
    /// A number for one more fiber, if the round has room for it.
    fn admit(&self) -> Option<usize> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        (id < self.entries.len()).then_some(id)
    }
}

fn result_of(id: usize) -> u64 {
    Rng(id as u64).next()
}

/// The life of one fiber.
struct Life {
    id: usize,
    depth: u32,
    world: Arc<World>,
    rng: Rng,
    thread: thread::ThreadId,
}

/// What a fiber of this test returns.
type Outcome = u64;

fn life(id: usize, depth: u32, world: Arc<World>, seed: u64) -> Outcome {
    let entry = &world.entries[id];
    assert_eq!(entry.runs.fetch_add(1, Ordering::SeqCst), 0, "fiber {id} runs twice");
    assert!(!entry.on_a_stack.swap(true, Ordering::SeqCst), "fiber {id} is on two stacks");
    /// Counts the end, however it comes.
    struct End(Arc<World>, usize);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.entries[self.1].on_a_stack.store(false, Ordering::SeqCst);
            self.0.ended.fetch_add(1, Ordering::SeqCst);
        }
    }
    let _end = End(Arc::clone(&world), id);
    let mut life = Life { id, depth, world, rng: Rng(seed), thread: thread::current().id() };
    for _ in 0..life.rng.below(7) {
        life.act();
    }
    if life.rng.one_in(20) {
        panic_any(Deliberate(id));
    }
    result_of(id)
}

impl Life {
    /// Does something that may suspend; before and after, the fiber is where it should be.
    fn suspending<T>(&self, f: impl FnOnce() -> T) -> T {
        let on_a_stack = &self.world.entries[self.id].on_a_stack;
        assert!(on_a_stack.swap(false, Ordering::SeqCst), "fiber {} ran elsewhere", self.id);
        let value = f();
        assert!(!on_a_stack.swap(true, Ordering::SeqCst), "fiber {} is on two stacks", self.id);
        assert_eq!(thread::current().id(), self.thread, "fiber {} has moved", self.id);
        assert!(!thread::panicking());
        value
    }

    /// An operation that is tried again when it was cancelled, though not for ever: if the runtime
    /// ends, all of them are.
    fn io<T>(&self, mut f: impl FnMut() -> io::Result<T>) -> Option<T> {
        for _ in 0..3 {
            match self.suspending(&mut f) {
                Ok(value) => return Some(value),
                Err(error) => assert!(ramie::is_cancelled(&error), "{error}"),
            }
        }
        None
    }

    fn act(&mut self) {
        match self.rng.below(12) {
            0 | 1 => self.suspending(ramie::yield_now),
            2 => {
                let micros = self.rng.below(300);
                self.suspending(|| ramie::sleep(Duration::from_micros(micros)));
            }
            3 => self.file(),
            4 => self.wait_for_a_thread(),
            5 => self.wait_for_a_fiber(),
            6 => {
                let id = self.id;
                assert_eq!(self.suspending(|| ramie::unblock(|| result_of(id))), result_of(id));
            }
            7 => self.pipe(),
            8 => self.cancel_a_wait(),
            _ => self.children(),
        }
    }

    /// Writes a block of its own, and reads it back.
    fn file(&mut self) {
        let block: [u8; 64] = std::array::from_fn(|n| (self.id + n) as u8);
        let offset = self.id as u64 * 64;
        let file = &self.world.file;
        if self.io(|| file.write_all_at(&block, offset)).is_some() {
            let mut read = [0; 64];
            if self.io(|| file.read_exact_at(&mut read, offset)).is_some() {
                assert_eq!(read, block, "fiber {}", self.id);
            }
        }
    }

    fn wait_for_a_thread(&mut self) {
        let set = Arc::new(AtomicBool::new(false));
        self.world.unparker.send((ramie::current(), Arc::clone(&set))).expect("the thread lives");
        while !set.load(Ordering::SeqCst) {
            self.suspending(ramie::park);
        }
    }

    fn wait_for_a_fiber(&mut self) {
        let set = Arc::new(AtomicBool::new(false));
        let (me, theirs) = (ramie::current(), Arc::clone(&set));
        drop(ramie::spawn(move || {
            theirs.store(true, Ordering::SeqCst);
            me.unpark();
        }));
        let timeout = Duration::from_micros(self.rng.below(200));
        while !set.load(Ordering::SeqCst) {
            if self.rng.one_in(2) {
                self.suspending(|| ramie::park_timeout(timeout));
            } else {
                self.suspending(ramie::park);
            }
        }
    }

    /// A byte through a pipe, from a child.
    fn pipe(&mut self) {
        let Ok((reader, writer)) = io::pipe() else { return }; // so many are open
        let mut reader = ramie::fs::File::from(OwnedFd::from(reader));
        let mut writer = ramie::fs::File::from(OwnedFd::from(writer));
        let byte = self.id as u8;
        let child = ramie::spawn(move || writer.write(&[byte]).is_ok());
        let mut read = [0];
        let count = self.io(|| reader.read(&mut read));
        let written = self.suspending(|| child.join().expect("it does not panic"));
        if written && let Some(count) = count {
            assert_eq!((count, read[0]), (1, byte));
        }
    }

    /// A child that waits for ever, until it is cancelled.
    fn cancel_a_wait(&mut self) {
        let Ok((reader, _writer)) = io::pipe() else { return };
        let mut reader = ramie::fs::File::from(OwnedFd::from(reader));
        let kind = self.rng.below(3);
        let child = ramie::spawn(move || match kind {
            0 => ramie::sleep(Duration::from_secs(3600)),
            1 => ramie::park(),
            _ => assert!(ramie::is_cancelled(&reader.read(&mut [0]).unwrap_err())),
        });
        for _ in 0..self.rng.below(3) {
            self.suspending(ramie::yield_now);
        }
        child.cancel();
        self.suspending(|| child.join().expect("it ends"));
    }

    /// Spawns some, and does all that can be done to their handles.
    fn children(&mut self) {
        if self.depth == 0 {
            return self.suspending(ramie::yield_now);
        }
        for _ in 0..self.rng.below(4) {
            let Some(id) = self.world.admit() else { return };
            let (world, depth, seed) = (Arc::clone(&self.world), self.depth - 1, self.rng.next());
            let body = move || life(id, depth, world, seed);
            let child =
                if self.rng.one_in(3) { ramie::spawn_local(body) } else { ramie::spawn(body) };
            if self.rng.one_in(6) {
                child.cancel();
            }
            match self.rng.below(5) {
                0 => drop(child),
                1 => match child.try_join() {
                    Ok(result) => check(id, result),
                    Err(child) => child.fiber().unpark(),
                },
                2 => {
                    let timeout = Duration::from_micros(self.rng.below(200));
                    match self.suspending(|| child.join_timeout(timeout)) {
                        Ok(result) => check(id, result),
                        Err(child) => check(id, self.suspending(|| child.join())),
                    }
                }
                _ => check(id, self.suspending(|| child.join())),
            }
        }
    }
}

fn check(id: usize, result: Result<Outcome, Box<dyn Any + Send>>) {
    match result {
        Ok(value) => assert_eq!(value, result_of(id), "fiber {id}"),
        Err(panic) => match panic.downcast::<Deliberate>() {
            Ok(deliberate) => assert_eq!(deliberate.0, id, "the panic of another fiber"),
            Err(panic) => std::panic::resume_unwind(panic),
        },
    }
}

/// Spawns from a plain thread until the round is full; joins some, detaches the rest.
fn spawn_from_outside(handle: &Handle, world: &Arc<World>, mut rng: Rng) {
    let mut children: Vec<(usize, JoinHandle<Outcome>)> = Vec::new();
    while let Some(id) = world.admit() {
        let (theirs, seed) = (Arc::clone(world), rng.next());
        match handle.spawn(move || life(id, 4, theirs, seed)) {
            Ok(child) => children.push((id, child)),
            Err(error) => panic!("{error}"),
        }
        if rng.one_in(10) {
            children.last().expect("just pushed").1.cancel();
        }
        if children.len() > 200 || rng.one_in(30) {
            for (id, child) in children.drain(..) {
                match rng.below(3) {
                    0 => drop(child),
                    _ => check(id, child.join()),
                }
            }
        }
    }
    for (id, child) in children {
        check(id, child.join());
    }
}

fn wake_named(name: &str) -> WakeMethod {
    match name {
        "Futex" => WakeMethod::Futex,
        "MsgRing" => WakeMethod::MsgRing,
        "EventFd" => WakeMethod::EventFd,
        _ => panic!("RAMIE_STRESS_WAKE={name} is none of Futex, MsgRing, EventFd"),
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// One runtime, from its start to its end.
fn round(seed: u64, size: usize, dir: &std::path::Path) {
    let mut rng = Rng(seed);
    let workers = rng.pick(&[1, 2, 2, 4, 8]);
    let ring = rng.pick(&[1, 2, 8, 64, 256, 1024]);
    let wake = rng.pick(&[WakeMethod::Futex, WakeMethod::MsgRing, WakeMethod::EventFd]);
    let workers = variable("RAMIE_STRESS_WORKERS").map_or(workers, |n| n as usize);
    let ring = variable("RAMIE_STRESS_RING").map_or(ring, |n| n as u32);
    let wake = std::env::var("RAMIE_STRESS_WAKE").map_or(wake, |name| wake_named(&name));
    let wait_for_all = rng.one_in(2);
    println!("seed {seed}: {size} fibers, {workers} workers, {ring} entries, {wake:?}");

    let builder = Runtime::builder().workers(workers).ring_entries(ring).blocking_threads(8);
    let rt = match builder.wake(wake).build() {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            return println!("skipped: {error}");
        }
        result => result.expect("a runtime can be built"),
    };
    let (unparker, requests) = mpsc::channel::<(ramie::Fiber, Arc<AtomicBool>)>();
    let unparking = thread::spawn(move || {
        for (fiber, set) in requests {
            set.store(true, Ordering::SeqCst);
            fiber.unpark();
        }
    });
    let path = dir.join("file");
    let mut options = ramie::fs::File::options();
    let file = options.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    let world = Arc::new(World {
        entries: (0..size).map(|_| Entry::default()).collect(),
        next: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
        file,
        unparker,
    });
    let spawners: Vec<_> = (0..2)
        .map(|n| {
            let (handle, world, rng) = (rt.handle(), Arc::clone(&world), Rng(seed ^ (n + 1)));
            thread::spawn(move || spawn_from_outside(&handle, &world, rng))
        })
        .collect();
    rt.run(|| {
        while let Some(id) = world.admit() {
            let (theirs, seed) = (Arc::clone(&world), rng.next());
            let fiber = ramie::spawn(move || life(id, 5, theirs, seed));
            if rng.one_in(2) {
                check(id, fiber.join());
            }
        }
        eventually_within(Duration::from_secs(300), "the spawners end", || {
            spawners.iter().all(thread::JoinHandle::is_finished)
        });
        if wait_for_all {
            eventually("all fibers end", || world.ended.load(Ordering::SeqCst) == size);
        }
    });
    for spawner in spawners {
        spawner.join().expect("a spawner's assertions hold");
    }
    if wait_for_all {
        rt.run(|| eventually("none is left", || rt_is_empty(&rt)));
    }
    let handle = rt.handle();
    assert_eq!(rt.shutdown_timeout(Duration::from_secs(60)), 0, "fibers that do not end");
    assert_eq!(handle.metrics().live_fibers, 0);
    assert_eq!(world.ended.load(Ordering::SeqCst), size);
    for (id, entry) in world.entries.iter().enumerate() {
        assert_eq!(entry.runs.load(Ordering::SeqCst), 1, "runs of fiber {id}");
        assert!(!entry.on_a_stack.load(Ordering::SeqCst));
    }
    let world = Arc::into_inner(world).expect("no fiber holds on to it");
    drop(world);
    unparking.join().unwrap();
}

/// Nothing but the main fiber.
fn rt_is_empty(rt: &Runtime) -> bool {
    rt.metrics().live_fibers == 1
}

#[track_caller]
fn eventually_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < patience, "this never came true: {what}");
        ramie::sleep(Duration::from_millis(1));
    }
}

#[test]
fn stress() {
    let long = variable("RAMIE_STRESS");
    let duration = Duration::from_secs(long.unwrap_or(4));
    let (size, patience) = if long.is_some() { (100_000, 900) } else { (1_500, 120) };
    let _watchdog = watch::dog_for(duration + Duration::from_secs(patience));
    let earlier_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Deliberate>() {
            earlier_hook(info);
        }
    }));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let first = variable("RAMIE_SEED").unwrap_or(now.as_millis() as u64);
    let dir = common::TempDir::new();
    let (start, mut rounds) = (Instant::now(), 0);
    let mut settled = (0, 0, 0);
    while rounds < 2 || start.elapsed() < duration {
        round(first + rounds, size, dir.path());
        if rounds == 0 {
            // The harness, this one, and the watchdog; ThreadSanitizer has one, too.
            let threads = 2 + 1 + usize::from(cfg!(sanitizer = "thread"));
            settled = (fds(), threads, resident());
        }
        rounds += 1;
        eventually("all threads end", || threads() <= settled.1);
        eventually("all descriptors are closed", || fds() <= settled.0);
        let grown = resident().saturating_sub(settled.2);
        assert!(grown < 512 << 20, "memory has grown by {} MiB", grown >> 20);
    }
    println!("{rounds} rounds");
}
