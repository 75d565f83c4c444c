//! `ramie::sync` beyond std: what only fibers bring up (cancelling, unwinding, shutting down), and
//! the types that std has not.

mod common;

use common::{eventually, runtime, watch};
use ramie::sync::{Condvar, Event, Mutex, RwLock, Semaphore, WaitGroup, futex};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Starts a fiber if there is a runtime, else a thread; gives what waits for its end.
fn go<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Box<dyn FnOnce() -> T> {
    if ramie::is_fiber() {
        let fiber = ramie::spawn(f);
        Box::new(move || fiber.join().unwrap())
    } else {
        let thread = std::thread::spawn(f);
        Box::new(move || thread.join().unwrap())
    }
}

fn quiet_panic() -> ! {
    std::panic::resume_unwind(Box::new("deliberate"))
}

contract! {
    fn semaphore_alone() {
        let semaphore = Arc::new(Semaphore::new(3));
        let two = semaphore.acquire_many(2).unwrap();
        let one = Arc::clone(&semaphore).acquire_owned().unwrap();
        assert_eq!((two.num_permits(), one.num_permits()), (2, 1));
        assert_eq!(semaphore.available_permits(), 0);
        assert_eq!(semaphore.try_acquire().unwrap_err(), ramie::sync::TryAcquireError::NoPermits);
        assert!(Arc::clone(&semaphore).try_acquire_owned().is_err());
        let late = semaphore.acquire_timeout(MS).unwrap_err();
        assert!(late.is_timed_out() && !late.is_closed() && !late.is_cancelled());
        assert_eq!(io::Error::from(late).kind(), io::ErrorKind::TimedOut);
        drop(two);
        one.forget();
        assert_eq!(semaphore.available_permits(), 2);
        semaphore.try_acquire_many(0).unwrap().forget();
        semaphore.try_acquire().unwrap().forget();
        assert_eq!(semaphore.available_permits(), 1);
        semaphore.add_permits(4);
        assert_eq!(semaphore.available_permits(), 5);
        let shown = format!("{semaphore:?}");
        assert_eq!(shown, "Semaphore { permits: 5, closed: false, .. }");
        let all = Arc::clone(&semaphore).acquire_many_owned(5).unwrap();
        assert_eq!(all.semaphore().available_permits(), 0);
        drop(all);
        semaphore.close();
        assert!(semaphore.is_closed() && semaphore.acquire().unwrap_err().is_closed());
        let many = semaphore.try_acquire_many(1).unwrap_err();
        assert_eq!(many, ramie::sync::TryAcquireError::Closed);
        let much = catch_unwind(AssertUnwindSafe(|| semaphore.add_permits(usize::MAX)));
        assert!(much.is_err());
        assert_eq!(semaphore.available_permits(), 5);
    }

    /// One that wants many is not passed by one that wants few; when it gives up, that one goes on.
    fn semaphore_is_fair() {
        let semaphore = Arc::new(Semaphore::new(2));
        let held = semaphore.acquire().unwrap();
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let start = |many: usize| {
            let (semaphore, order) = (Arc::clone(&semaphore), Arc::clone(&order));
            go(move || {
                let got = semaphore.acquire_many(many).unwrap();
                order.lock().unwrap().push(many);
                drop(got);
            })
        };
        let many = start(2);
        // One permit is there, so only who waits for two is in the way.
        eventually("it waits", || semaphore.try_acquire().is_err());
        let few = start(1);
        ramie::sleep(5 * MS);
        assert!(order.lock().unwrap().is_empty(), "it passed the one that waits");
        drop(held);
        many();
        few();
        assert_eq!(*order.lock().unwrap(), [2, 1]);
    }

    fn semaphore_closed_under_waiters() {
        let semaphore = Arc::new(Semaphore::new(0));
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let semaphore = Arc::clone(&semaphore);
                go(move || semaphore.acquire().map(drop).unwrap_err().is_closed())
            })
            .collect();
        ramie::sleep(2 * MS);
        semaphore.close();
        assert!(waiters.into_iter().all(|waiter| waiter()));
    }

    fn event() {
        let event = Arc::new(Event::new());
        assert!(!event.is_set() && !event.wait_timeout(MS) && !event.reset());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let event = Arc::clone(&event);
                go(move || event.wait())
            })
            .collect();
        ramie::sleep(2 * MS);
        event.set();
        assert!(event.is_set() && event.wait() && event.wait_timeout(HOUR));
        assert!(waiters.into_iter().all(|waiter| waiter()));
        assert_eq!(format!("{event:?}"), "Event { is_set: true, .. }");
        assert!(event.reset() && !event.is_set() && !event.wait_timeout(MS));
    }

    fn wait_group() {
        let group = WaitGroup::new();
        let done = Arc::new(AtomicUsize::new(0));
        let parts: Vec<_> = (0..5)
            .map(|index| {
                let (part, done) = (group.clone(), Arc::clone(&done));
                go(move || {
                    _ = catch_unwind(AssertUnwindSafe(|| {
                        let _part = part;
                        ramie::sleep(MS);
                        done.fetch_add(1, Ordering::Relaxed);
                        if index == 3 {
                            quiet_panic();
                        }
                    }));
                })
            })
            .collect();
        let (another, shown) = (group.clone(), format!("{group:?}"));
        assert!(shown.starts_with("WaitGroup { members: "), "{shown}");
        let other = go(move || another.wait());
        group.wait();
        assert_eq!(done.load(Ordering::Relaxed), 5);
        other();
        parts.into_iter().for_each(|part| part());
        WaitGroup::default().wait();
    }

    fn futexes() {
        let word = Arc::new(AtomicU32::new(0));
        futex::wait(&word, 1); // it holds 0
        assert!(futex::wait_timeout(&word, 1, HOUR));
        assert!(!futex::wait_timeout(&word, 0, MS));
        assert!(!futex::wake_one(&*word) && futex::wake_all(&*word) == 0);
        let woken = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let (word, woken) = (Arc::clone(&word), Arc::clone(&woken));
                go(move || {
                    futex::wait(&word, 0);
                    woken.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        let mut all = 0;
        while all < 2 {
            all += usize::from(futex::wake_one(&*word));
            ramie::sleep(MS);
        }
        while all < 4 {
            all += futex::wake_all(&*word);
            ramie::sleep(MS);
        }
        waiters.into_iter().for_each(|waiter| waiter());
        assert_eq!(woken.load(Ordering::Relaxed), 4);
    }

    /// Many words share few queues: each wake goes to its own.
    fn futexes_of_many_words() {
        let words: Arc<Vec<AtomicU32>> = Arc::new((0..600).map(|_| AtomicU32::new(0)).collect());
        let waiters: Vec<_> = (0..40)
            .map(|index| {
                let words = Arc::clone(&words);
                go(move || {
                    let word = &words[index * 15];
                    while word.load(Ordering::Acquire) == 0 {
                        futex::wait(word, 0);
                    }
                })
            })
            .collect();
        ramie::sleep(MS);
        for word in words.iter().rev() {
            word.store(1, Ordering::Release);
            futex::wake_one(word);
        }
        waiters.into_iter().for_each(|waiter| waiter());
    }

    /// Destructors may use locks that are free, or that somebody lets go of who can.
    fn locks_in_destructors() {
        let shared = Arc::new((Mutex::new(0), RwLock::new(0), Event::new(), Semaphore::new(0)));
        let (free, busy) = (Arc::clone(&shared), Arc::clone(&shared));
        struct Simple(Arc<(Mutex<u32>, RwLock<u32>, Event, Semaphore)>);
        impl Drop for Simple {
            fn drop(&mut self) {
                *self.0.0.lock().unwrap() += 1;
                let now = *self.0.1.read().unwrap();
                *self.0.1.write().unwrap() = now + 1;
                assert!(!self.0.2.wait_timeout(MS));
                assert!(self.0.3.acquire_timeout(MS).is_err());
            }
        }
        let ended = catch_unwind(AssertUnwindSafe(move || {
            let _locks = Simple(free);
            quiet_panic();
        }));
        assert!(ended.is_err());
        // Held by a thread, which lets go of it in a while.
        let held = Arc::new(Event::new());
        let thread = {
            let (shared, held) = (Arc::clone(&shared), Arc::clone(&held));
            std::thread::spawn(move || {
                let (_one, _two) = (shared.0.lock().unwrap(), shared.1.write().unwrap());
                held.set();
                std::thread::sleep(5 * MS);
            })
        };
        assert!(held.wait());
        let ended = catch_unwind(AssertUnwindSafe(move || {
            let _locks = Simple(busy);
            quiet_panic();
        }));
        assert!(ended.is_err());
        thread.join().unwrap();
        assert_eq!((*shared.0.lock().unwrap(), *shared.1.read().unwrap()), (2, 2));
    }

    /// What is let go of by a panic wakes those who wait.
    fn unlocked_by_a_panic() {
        let shared = Arc::new((Mutex::new(0), RwLock::new(0)));
        let other = Arc::clone(&shared);
        let held = Arc::new(Event::new());
        let holds = {
            let held = Arc::clone(&held);
            go(move || {
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    let (_one, _two) = (other.0.lock().unwrap(), other.1.write().unwrap());
                    held.set();
                    ramie::sleep(3 * MS);
                    quiet_panic();
                }));
                assert!(caught.is_err());
            })
        };
        assert!(held.wait());
        assert!(shared.0.lock().is_err() && shared.1.read().is_err());
        holds();
    }
}

/// A lock that is held across a suspension keeps others out, and wakes them.
#[test]
fn held_across_suspensions() {
    let _dog = watch::dog();
    runtime(1).run(|| {
        let mutex = Arc::new(Mutex::new(0_u32));
        let fibers: Vec<_> = (0..50)
            .map(|_| {
                let mutex = Arc::clone(&mutex);
                ramie::spawn(move || {
                    let mut guard = mutex.lock().unwrap();
                    let before = *guard;
                    ramie::yield_now();
                    ramie::fs::metadata("Cargo.toml").unwrap();
                    *guard = before + 1;
                })
            })
            .collect();
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
        assert_eq!(*mutex.lock().unwrap(), 50);
    });
}

/// Somebody who takes the lock again and again at once does not keep it from the others.
#[test]
fn nobody_starves() {
    let _dog = watch::dog();
    let mutex = Arc::new(Mutex::new(0_u64));
    let stop = Arc::new(AtomicBool::new(false));
    let hog = {
        let (mutex, stop) = (Arc::clone(&mutex), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let mut guard = mutex.lock().unwrap();
                // Nearly all of the time it is locked.
                (0..1000).for_each(|_| *guard = std::hint::black_box(*guard + 1));
            }
        })
    };
    runtime(2).run(|| {
        let fibers: Vec<_> = (0..4)
            .map(|_| {
                let mutex = Arc::clone(&mutex);
                ramie::spawn(move || (0..50).for_each(|_| drop(mutex.lock().unwrap())))
            })
            .collect();
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    });
    stop.store(true, Ordering::Relaxed);
    hog.join().unwrap();
}

#[test]
fn no_suspend_forbids_waiting_only() {
    let _dog = watch::dog();
    runtime(1).run(|| {
        let shared = Arc::new((Mutex::new(0), RwLock::new(0), Condvar::new(), Semaphore::new(1)));
        ramie::no_suspend(|| {
            *shared.0.lock().unwrap() += 1;
            *shared.1.write().unwrap() += *shared.0.lock().unwrap();
            shared.2.notify_all();
            drop(shared.3.acquire().unwrap());
        });
        let other = Arc::clone(&shared);
        let holder = ramie::spawn(move || {
            let _mutex = other.0.lock().unwrap();
            let _lock = other.1.write().unwrap();
            let _permit = other.3.acquire().unwrap();
            ramie::sleep(20 * MS);
        });
        ramie::yield_now();
        let panics = |f: &dyn Fn()| {
            catch_unwind(AssertUnwindSafe(|| ramie::no_suspend(f))).expect_err("it waited");
        };
        panics(&|| drop(shared.0.lock()));
        panics(&|| drop(shared.1.read()));
        panics(&|| drop(shared.1.write()));
        panics(&|| drop(shared.3.acquire()));
        assert!(shared.0.try_lock().is_err());
        holder.join().unwrap();
        // Nothing of these attempts is left.
        drop(shared.0.try_lock().unwrap());
        drop(shared.1.try_write().unwrap());
        drop(shared.3.try_acquire().unwrap());
        let guard = shared.0.lock().unwrap();
        let waits = AssertUnwindSafe(|| ramie::no_suspend(|| drop(shared.2.wait(guard))));
        assert!(catch_unwind(waits).is_err());
        assert!(shared.0.is_poisoned(), "the guard was dropped by the panic");
    });
}

/// A semaphore and an event report a request, once.
#[test]
fn cancelled_waits_that_report() {
    let _dog = watch::dog();
    runtime(2).run(|| {
        let semaphore = Arc::new(Semaphore::new(0));
        let other = Arc::clone(&semaphore);
        let fiber = ramie::spawn(move || {
            let error = io::Error::from(other.acquire().unwrap_err());
            assert!(ramie::is_cancelled(&error));
            let again = other.acquire_timeout(MS).unwrap_err();
            assert!(again.is_timed_out(), "it was reported twice");
        });
        ramie::sleep(2 * MS);
        fiber.cancel();
        fiber.join().unwrap();
        let event = Arc::new(Event::new());
        let other = Arc::clone(&event);
        let fiber = ramie::spawn(move || {
            assert!(!other.wait());
            ramie::fs::metadata("Cargo.toml").unwrap(); // not reported twice
            other.wait()
        });
        ramie::sleep(2 * MS);
        fiber.cancel();
        ramie::sleep(2 * MS);
        event.set();
        assert!(fiber.join().unwrap());
    });
}

/// A request wakes a condition once, and one that goes on waiting does so without burning its core.
#[test]
fn cancelled_waits_that_do_not_report() {
    let _dog = watch::dog();
    runtime(1).run(|| {
        let shared = Arc::new((Mutex::new(false), Condvar::new(), AtomicU32::new(0)));
        let other = Arc::clone(&shared);
        let fiber = ramie::spawn(move || {
            let mut looks = 0;
            let mut guard = other.0.lock().unwrap();
            while !*guard {
                guard = other.1.wait(guard).unwrap();
                looks += 1;
            }
            drop(guard);
            while other.2.load(Ordering::Relaxed) == 0 {
                futex::wait(&other.2, 0);
                looks += 1;
            }
            // Still to be reported.
            let error = ramie::fs::metadata("Cargo.toml").unwrap_err();
            (looks, ramie::is_cancelled(&error))
        });
        ramie::sleep(2 * MS);
        fiber.cancel();
        ramie::sleep(5 * MS);
        *shared.0.lock().unwrap() = true;
        shared.1.notify_all();
        ramie::sleep(5 * MS);
        shared.2.store(1, Ordering::Relaxed);
        futex::wake_all(&shared.2);
        let (looks, cancelled) = fiber.join().unwrap();
        assert!(cancelled);
        assert!((2..=4).contains(&looks), "{looks} looks");
    });
}

/// The end of a runtime ends what can be ended, and what is left waits for nothing.
#[test]
fn shutdown_ends_waits() {
    let _dog = watch::dog();
    let start = Instant::now();
    let ended = Arc::new(AtomicUsize::new(0));
    let event = Arc::new(Event::new());
    let semaphore = Arc::new(Semaphore::new(0));
    let runtime = runtime(2);
    runtime.run(|| {
        for _ in 0..4 {
            let (ended, event) = (Arc::clone(&ended), Arc::clone(&event));
            let semaphore = Arc::clone(&semaphore);
            ramie::spawn(move || {
                assert!(!event.wait());
                assert!(semaphore.acquire().unwrap_err().is_cancelled());
                let (mutex, condvar) = (Mutex::new(()), Condvar::new());
                let guard = mutex.lock().unwrap();
                let wait = condvar.wait_timeout_while(guard, HOUR, |()| true).unwrap();
                assert!(wait.1.timed_out());
                assert!(!futex::wait_timeout(&AtomicU32::new(0), 0, HOUR));
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        ramie::sleep(5 * MS);
    });
    drop(runtime);
    assert_eq!(ended.load(Ordering::Relaxed), 4);
    assert!(start.elapsed() < Duration::from_secs(60));
}

/// A fiber that can never get the lock that a destructor on its worker waits for: no silent hang.
#[test]
fn deadlock_of_a_destructor() {
    let output = common::child("deadlock_of_a_destructor", || {
        struct Locks(Arc<Mutex<()>>);
        impl Drop for Locks {
            fn drop(&mut self) {
                drop(self.0.lock());
            }
        }
        runtime(1).run(|| {
            let mutex = Arc::new(Mutex::new(()));
            let other = Arc::clone(&mutex);
            ramie::spawn(move || {
                let _guard = other.lock().unwrap();
                ramie::sleep(HOUR);
            });
            ramie::sleep(MS);
            let _locks = Locks(mutex);
            quiet_panic();
        });
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("a deadlock, aborting. Use `try_lock` in destructors"), "{stderr}");
}

/// Threads and fibers of two runtimes at one lock.
#[test]
fn two_runtimes_and_threads() {
    let _dog = watch::dog();
    static SUM: Mutex<u64> = Mutex::new(0);
    let done = Arc::new(AtomicUsize::new(0));
    let add = || (0..2000).for_each(|_| *SUM.lock().unwrap() += 1);
    let threads: Vec<_> = (0..4)
        .map(|index| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                match index {
                    0 | 1 => runtime(2).run(|| {
                        let fibers: Vec<_> = (0..4).map(|_| ramie::spawn(add)).collect();
                        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
                    }),
                    _ => add(),
                }
                done.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    eventually("all have ended", || done.load(Ordering::Relaxed) == 4);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(*SUM.lock().unwrap(), 10 * 2000);
}
