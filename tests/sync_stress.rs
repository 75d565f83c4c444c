//! Seeded stress of `ramie::sync`: fibers on two workers and plain threads at the same locks,
//! conditions, semaphores, events and futexes, with deadlines and cancel requests.
//!
//! | variable       | what                                              | default       |
//! |----------------|---------------------------------------------------|---------------|
//! | `RAMIE_SEED`   | the first round's seed; each round prints its own | from the time |
//! | `RAMIE_STRESS` | seconds to go on for                              | 3             |
//!
//! What must hold: one writer at a time, readers see no half of a change, no more permits in use
//! than there are, nothing put into a queue is lost or doubled; and everybody comes to an end.

mod common;

use common::rng::Rng;
use common::{runtime, watch};
use ramie::sync::{Condvar, Event, Mutex, RwLock, Semaphore, WaitGroup, futex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

const PERMITS: usize = 3;
const ROOM: usize = 4;

impl Rng {
    /// Waits for something else, or not.
    fn dawdle(&mut self) {
        match self.below(12) {
            0 => ramie::sleep(self.micros(200)),
            1 | 2 => ramie::yield_now(),
            _ => {}
        }
    }
}

/// What all share.
struct World {
    sum: Mutex<u64>,
    added: AtomicU64,
    pair: RwLock<(u64, u64)>,
    permits: Arc<Semaphore>,
    in_use: AtomicUsize,
    queue: Mutex<VecDeque<u64>>,
    changed: Condvar,
    put: AtomicU64,
    taken: AtomicU64,
    event: Event,
    /// A lock by futex: free, taken, taken with waiters.
    word: AtomicU32,
    inside: AtomicU32,
}

impl World {
    fn new() -> Self {
        Self {
            sum: Mutex::new(0),
            added: AtomicU64::new(0),
            pair: RwLock::new((0, 0)),
            permits: Arc::new(Semaphore::new(PERMITS)),
            in_use: AtomicUsize::new(0),
            queue: Mutex::new(VecDeque::new()),
            changed: Condvar::new(),
            put: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            event: Event::new(),
            word: AtomicU32::new(0),
            inside: AtomicU32::new(0),
        }
    }

    fn act(&self, rng: &mut Rng) {
        match rng.below(10) {
            0 | 1 => self.add(rng),
            2 => self.write(rng),
            3 => self.read(rng),
            4 => self.use_permits(rng),
            5 | 6 => self.put(rng),
            7 | 8 => self.take(rng),
            _ if rng.below(3) == 0 => self.lock_by_futex(rng),
            _ => self.signal(rng),
        }
    }

    fn add(&self, rng: &mut Rng) {
        let mut sum = match rng.below(4) {
            0 => match self.sum.try_lock() {
                Ok(sum) => sum,
                Err(_) => return,
            },
            _ => self.sum.lock().unwrap(),
        };
        let before = *sum;
        rng.dawdle();
        *sum = before + 1;
        self.added.fetch_add(1, Ordering::Relaxed);
    }

    fn write(&self, rng: &mut Rng) {
        let mut pair = self.pair.write().unwrap();
        pair.0 += 1;
        rng.dawdle();
        pair.1 += 1;
        if rng.below(3) == 0 {
            let both = (pair.0, pair.1);
            let pair = ramie::sync::RwLockWriteGuard::downgrade(pair);
            rng.dawdle();
            assert_eq!(*pair, both, "somebody wrote while this one reads");
        }
    }

    fn read(&self, rng: &mut Rng) {
        let pair = self.pair.read().unwrap();
        let first = pair.0;
        rng.dawdle();
        assert_eq!((first, first), *pair, "half of a change");
    }

    fn use_permits(&self, rng: &mut Rng) {
        let many = 1 + rng.below(PERMITS as u64) as usize;
        let permit = match rng.below(3) {
            0 => self.permits.acquire_timeout(rng.micros(100)).ok(),
            1 => self.permits.acquire_many(many).ok(),
            _ => self.permits.try_acquire_many(many).ok(),
        };
        let Some(permit) = permit else { return };
        let in_use = self.in_use.fetch_add(permit.num_permits(), Ordering::Relaxed);
        assert!(in_use + permit.num_permits() <= PERMITS, "more permits than there are");
        rng.dawdle();
        self.in_use.fetch_sub(permit.num_permits(), Ordering::Relaxed);
    }

    fn put(&self, rng: &mut Rng) {
        let timeout = rng.micros(300);
        let queue = self.queue.lock().unwrap();
        let full = |queue: &mut VecDeque<u64>| queue.len() >= ROOM;
        let (mut queue, late) = self.changed.wait_timeout_while(queue, timeout, full).unwrap();
        if !late.timed_out() {
            let value = rng.below(1000);
            self.put.fetch_add(value, Ordering::Relaxed);
            queue.push_back(value);
            assert!(queue.len() <= ROOM);
            self.changed.notify_all();
        }
    }

    fn take(&self, rng: &mut Rng) {
        let timeout = rng.micros(300);
        let queue = self.queue.lock().unwrap();
        let empty = |queue: &mut VecDeque<u64>| queue.is_empty();
        let (mut queue, late) = self.changed.wait_timeout_while(queue, timeout, empty).unwrap();
        if !late.timed_out() {
            self.taken.fetch_add(queue.pop_front().unwrap(), Ordering::Relaxed);
            self.changed.notify_one();
            self.changed.notify_all();
        }
    }

    fn lock_by_futex(&self, rng: &mut Rng) {
        if self.word.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.word.swap(2, Ordering::Acquire) != 0 {
                match rng.below(2) {
                    0 => futex::wait(&self.word, 2),
                    _ => _ = futex::wait_timeout(&self.word, 2, rng.micros(100)),
                }
            }
        }
        assert_eq!(self.inside.fetch_add(1, Ordering::Relaxed), 0, "two inside");
        rng.dawdle();
        self.inside.fetch_sub(1, Ordering::Relaxed);
        if self.word.swap(0, Ordering::Release) == 2 {
            futex::wake_one(&self.word);
        }
    }

    fn signal(&self, rng: &mut Rng) {
        match rng.below(4) {
            0 => self.event.set(),
            1 => _ = self.event.reset(),
            _ => _ = self.event.wait_timeout(rng.micros(200)),
        }
    }
}

fn round(seed: u64) {
    let mut rng = Rng(seed);
    let world = Arc::new(World::new());
    let workers = 1 + rng.below(2) as usize;
    let (fibers, steps) = (2 + rng.below(30), 20 + rng.below(200));
    let start = |seed: u64| {
        let world = Arc::clone(&world);
        move || {
            let mut rng = Rng(seed);
            (0..steps).for_each(|_| world.act(&mut rng));
        }
    };
    let threads: Vec<_> =
        (0..rng.below(4)).map(|_| std::thread::spawn(start(rng.next()))).collect();
    runtime(workers).run(|| {
        let group = WaitGroup::new();
        let fibers: Vec<_> = (0..fibers)
            .map(|_| {
                let (work, part) = (start(rng.next()), group.clone());
                ramie::spawn(move || {
                    work();
                    drop(part);
                })
            })
            .collect();
        for fiber in &fibers {
            if rng.below(3) == 0 {
                ramie::sleep(rng.micros(100));
                fiber.cancel();
            }
        }
        group.wait();
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(*world.sum.lock().unwrap(), world.added.load(Ordering::Relaxed));
    assert_eq!(world.permits.available_permits(), PERMITS);
    let left: u64 = world.queue.lock().unwrap().iter().sum();
    let (put, taken) = (world.put.load(Ordering::Relaxed), world.taken.load(Ordering::Relaxed));
    assert_eq!(put, taken + left, "what was put into the queue");
    let pair = world.pair.try_read().unwrap();
    assert_eq!(pair.0, pair.1);
}

#[test]
fn fibers_and_threads_mixed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let from_time = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(1, |since| since.as_nanos() as u64)
    };
    let mut seed: u64 = number("RAMIE_SEED").unwrap_or_else(from_time);
    let end = Instant::now() + Duration::from_secs(number("RAMIE_STRESS").unwrap_or(3));
    while Instant::now() < end {
        println!("RAMIE_SEED={seed}");
        let _dog = watch::dog();
        round(seed);
        seed = seed.wrapping_add(1);
    }
}
