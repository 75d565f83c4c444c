//! `ramie::sync` against `std::sync`, call by call: the same body with either, on a thread, on a
//! fiber, among two workers.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Runs one body with std's `sync` on a thread, and with ours right here, and demands the same
/// outcome. `go` starts something beside the body, and gives what waits for its end.
macro_rules! same {
    ($body:expr) => {{
        let expected = std::thread::spawn(|| {
            #[allow(unused_imports)]
            use std::sync;
            #[allow(unused_imports)]
            use threads::go;
            format!("{:?}", $body)
        });
        let expected = expected.join().unwrap();
        let ours = {
            #[allow(unused_imports)]
            use beside::go;
            #[allow(unused_imports)]
            use ramie::sync;
            format!("{:?}", $body)
        };
        assert_eq!(ours, expected);
    }};
}

mod threads {
    pub fn go<T: Send + 'static>(
        f: impl FnOnce() -> T + Send + 'static,
    ) -> impl FnOnce() -> std::thread::Result<T> {
        let thread = std::thread::spawn(f);
        move || thread.join()
    }
}

mod beside {
    /// A fiber if there is a runtime, else a thread.
    pub fn go<T: Send + 'static>(
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Box<dyn FnOnce() -> std::thread::Result<T>> {
        if ramie::is_fiber() {
            let fiber = ramie::spawn(f);
            Box::new(move || fiber.join())
        } else {
            Box::new(super::threads::go(f))
        }
    }
}

/// Panics without the message on standard error.
fn quiet_panic() -> ! {
    std::panic::resume_unwind(Box::new("deliberate"))
}

fn text<E: std::fmt::Display + std::fmt::Debug>(error: E) -> (String, String) {
    (error.to_string(), format!("{error:?}"))
}

contract! {
    fn mutex_alone() {
        same!({
            let mut mutex = sync::Mutex::new(vec![1]);
            mutex.lock().unwrap().push(2);
            mutex.try_lock().unwrap().push(3);
            mutex.get_mut().unwrap().push(4);
            let shown = format!("{mutex:?} {mutex:#?}");
            let guard = mutex.lock().unwrap();
            let held = format!("{mutex:?} {guard:?}");
            let refused = mutex.try_lock().map(drop).map_err(text);
            drop(guard);
            (shown, held, refused, mutex.is_poisoned(), mutex.into_inner())
        });
        same!((sync::Mutex::<u8>::default(), sync::Mutex::from(3), sync::Mutex::new("x")));
        same!({
            let mutex: Box<sync::Mutex<[u8]>> = Box::new(sync::Mutex::new([1, 2, 3]));
            mutex.lock().unwrap()[0] = 7;
            let sum: u8 = mutex.lock().unwrap().iter().sum();
            (sum, mutex.lock().unwrap().len(), format!("{}", sync::Mutex::new(5).lock().unwrap()))
        });
    }

    fn mutex_poisoned() {
        same!({
            let mutex = sync::Arc::new(sync::Mutex::new(1));
            let other = sync::Arc::clone(&mutex);
            let ended = go(move || {
                let mut guard = other.lock().unwrap();
                *guard = 2;
                quiet_panic();
            })();
            let mut log = vec![format!("{} {}", ended.is_err(), mutex.is_poisoned())];
            log.push(format!("{mutex:?}"));
            let seen = mutex.lock().map(|guard| *guard).map_err(|error| *error.into_inner());
            log.push(format!("{seen:?}"));
            log.push(format!("{:?}", mutex.lock().map(drop).map_err(text)));
            log.push(format!("{:?}", mutex.try_lock().map(drop).map_err(text)));
            let guard = mutex.lock().unwrap_or_else(sync::PoisonError::into_inner);
            log.push(format!("{:?}", mutex.try_lock().map(drop).map_err(text)));
            drop(guard);
            mutex.clear_poison();
            log.push(format!("{} {:?}", mutex.is_poisoned(), mutex.lock().unwrap()));
            log
        });
        // A guard that is dropped by a panic which began before it was taken does not poison.
        same!({
            let mutex = sync::Mutex::new(0);
            struct Locks<'a>(&'a sync::Mutex<i32>);
            impl Drop for Locks<'_> {
                fn drop(&mut self) {
                    *self.0.lock().unwrap() += 1;
                }
            }
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let _locks = Locks(&mutex);
                quiet_panic();
            }));
            (caught.is_err(), mutex.is_poisoned(), mutex.into_inner())
        });
        same!({
            let mut mutex = sync::Mutex::new(1);
            _ = catch_unwind(AssertUnwindSafe(|| {
                let _guard = mutex.lock();
                quiet_panic();
            }));
            let seen = mutex.get_mut().map(|_| ()).map_err(|e| *e.into_inner());
            (seen, mutex.into_inner().map_err(|e| e.into_inner()))
        });
    }

    fn mutex_waits() {
        same!({
            let mutex = sync::Arc::new(sync::Mutex::new(0));
            let guard = mutex.lock().unwrap();
            let others: Vec<_> = (0..10)
                .map(|_| {
                    let mutex = sync::Arc::clone(&mutex);
                    go(move || *mutex.lock().unwrap() += 1)
                })
                .collect();
            ramie::sleep(2 * MS);
            let before = *guard;
            drop(guard);
            others.into_iter().for_each(|other| other().unwrap());
            (before, *mutex.lock().unwrap())
        });
    }

    fn rwlock_alone() {
        same!({
            let mut lock = sync::RwLock::new(vec![1]);
            lock.write().unwrap().push(2);
            lock.try_write().unwrap().push(3);
            lock.get_mut().unwrap().push(4);
            let mut log = vec![format!("{lock:?} {lock:#?}")];
            let (one, two) = (lock.read().unwrap(), lock.try_read().unwrap());
            log.push(format!("{lock:?} {one:?} {two:?}"));
            log.push(format!("{:?}", lock.try_write().map(drop).map_err(text)));
            drop((one, two));
            let guard = lock.write().unwrap();
            log.push(format!("{lock:?} {guard:?}"));
            log.push(format!("{:?}", lock.try_read().map(drop).map_err(text)));
            log.push(format!("{:?}", lock.try_write().map(drop).map_err(text)));
            let guard = sync::RwLockWriteGuard::downgrade(guard);
            log.push(format!("{:?} {:?}", lock.try_read().unwrap(), guard));
            log.push(format!("{:?}", lock.try_write().map(drop).map_err(text)));
            drop(guard);
            log.push(format!("{:?}", lock.try_write().is_ok()));
            (log, lock.is_poisoned(), lock.into_inner())
        });
        same!((sync::RwLock::<u8>::default(), sync::RwLock::from(3)));
    }

    fn rwlock_poisoned() {
        same!({
            let lock = sync::Arc::new(sync::RwLock::new(1));
            let other = sync::Arc::clone(&lock);
            _ = go(move || {
                let _guard = other.read().unwrap();
                quiet_panic();
            })();
            let after_a_reader = lock.is_poisoned();
            let other = sync::Arc::clone(&lock);
            _ = go(move || {
                let mut guard = other.write().unwrap();
                *guard = 2;
                quiet_panic();
            })();
            let mut log = vec![format!("{after_a_reader} {} {lock:?}", lock.is_poisoned())];
            log.push(format!("{:?}", lock.read().map(drop).map_err(text)));
            log.push(format!("{:?}", lock.write().map(drop).map_err(text)));
            log.push(format!("{:?}", lock.try_read().map(drop).map_err(text)));
            log.push(format!("{:?}", lock.try_write().map(drop).map_err(text)));
            lock.clear_poison();
            log.push(format!("{lock:?} {:?}", lock.write().unwrap()));
            log
        });
    }

    fn rwlock_waits() {
        same!({
            let lock = sync::Arc::new(sync::RwLock::new(0));
            let guard = lock.write().unwrap();
            let others: Vec<_> = (0..10)
                .map(|index| {
                    let lock = sync::Arc::clone(&lock);
                    go(move || match index % 2 {
                        0 => *lock.write().unwrap() += 1,
                        _ => assert!(*lock.read().unwrap() <= 5),
                    })
                })
                .collect();
            ramie::sleep(2 * MS);
            let before = *guard;
            drop(guard);
            others.into_iter().for_each(|other| other().unwrap());
            (before, *lock.read().unwrap())
        });
        same!({
            let lock = sync::Arc::new(sync::RwLock::new(0));
            let guard = lock.read().unwrap();
            let other = sync::Arc::clone(&lock);
            let other = go(move || *other.write().unwrap() += 1);
            ramie::sleep(2 * MS);
            let before = *guard;
            drop(guard);
            other().unwrap();
            (before, *lock.read().unwrap())
        });
    }

    fn condvar() {
        same!({
            let pair = sync::Arc::new((sync::Mutex::new(0), sync::Condvar::new()));
            let others: Vec<_> = (1..4)
                .map(|index| {
                    let pair = sync::Arc::clone(&pair);
                    go(move || {
                        let guard = pair.0.lock().unwrap();
                        let mut guard = pair.1.wait_while(guard, |n| *n != index).unwrap();
                        *guard += 1;
                        pair.1.notify_all();
                    })
                })
                .collect();
            ramie::sleep(MS);
            *pair.0.lock().unwrap() += 1;
            pair.1.notify_all();
            others.into_iter().for_each(|other| other().unwrap());
            let n = *pair.0.lock().unwrap();
            pair.1.notify_one(); // nobody waits
            (n, format!("{:?} {:?}", sync::Condvar::default(), pair.0))
        });
        same!({
            let pair = sync::Arc::new((sync::Mutex::new(false), sync::Condvar::new()));
            let other = sync::Arc::clone(&pair);
            let mut guard = pair.0.lock().unwrap();
            let other = go(move || {
                *other.0.lock().unwrap() = true;
                other.1.notify_one();
            });
            while !*guard {
                guard = pair.1.wait(guard).unwrap();
            }
            drop(guard);
            other().unwrap();
        });
    }

    fn condvar_with_a_timeout() {
        same!({
            let (mutex, condvar) = (sync::Mutex::new(5), sync::Condvar::new());
            let guard = mutex.lock().unwrap();
            let (guard, result) = condvar.wait_timeout_while(guard, 2 * MS, |n| *n == 5).unwrap();
            let mut log = vec![format!("{guard:?} {result:?} {}", result.timed_out())];
            let (guard, result) = condvar.wait_timeout_while(guard, HOUR, |n| *n != 5).unwrap();
            log.push(format!("{guard:?} {result:?}"));
            let zero = Duration::ZERO;
            let (guard, result) = condvar.wait_timeout_while(guard, zero, |n| *n == 5).unwrap();
            log.push(format!("{guard:?} {result:?} {:?}", mutex.try_lock().is_err()));
            log
        });
        let (mutex, condvar) = (ramie::sync::Mutex::new(()), ramie::sync::Condvar::new());
        let start = std::time::Instant::now();
        let (_, result) = condvar.wait_timeout(mutex.lock().unwrap(), 3 * MS).unwrap();
        assert!(result.timed_out() && start.elapsed() >= 3 * MS);
    }

    fn condvar_poisoned() {
        same!({
            let pair = sync::Arc::new((sync::Mutex::new(false), sync::Condvar::new()));
            let other = sync::Arc::clone(&pair);
            let guard = pair.0.lock().unwrap();
            let other = go(move || {
                let mut guard = other.0.lock().unwrap();
                *guard = true;
                other.1.notify_all();
                quiet_panic();
            });
            let result = pair.1.wait_while(guard, |ready| !*ready);
            let seen = result.map(|guard| *guard).map_err(|error| *error.into_inner());
            (seen, other().is_err())
        });
    }

    fn once() {
        same!({
            let once = sync::Once::new();
            let mut log = vec![format!("{once:?} {}", once.is_completed())];
            once.call_once(|| log.push("first".to_owned()));
            once.call_once(|| log.push("second".to_owned()));
            once.call_once_force(|_| log.push("third".to_owned()));
            once.wait();
            log.push(once.is_completed().to_string());
            log
        });
        same!({
            let once = sync::Once::new();
            let mut log = Vec::new();
            let call = |log: &mut Vec<String>, panics: bool| {
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    once.call_once_force(|state| {
                        log.push(format!("{} {state:?}", state.is_poisoned()));
                        if panics {
                            quiet_panic();
                        }
                    });
                }));
                log.push(format!("{} {}", caught.is_err(), once.is_completed()));
            };
            call(&mut log, true);
            call(&mut log, true);
            call(&mut log, false);
            call(&mut log, false);
            log
        });
        same!({
            let once = sync::Once::new();
            _ = catch_unwind(AssertUnwindSafe(|| once.call_once(|| quiet_panic())));
            let called = catch_unwind(AssertUnwindSafe(|| once.call_once(|| ())));
            let waited = catch_unwind(AssertUnwindSafe(|| once.wait()));
            (called.is_err(), waited.is_err(), once.is_completed())
        });
        same!({
            let once = sync::Arc::new(sync::Once::new());
            let others: Vec<_> = (0..4)
                .map(|index| {
                    let once = sync::Arc::clone(&once);
                    go(move || match index {
                        0 => once.wait(),
                        1 => once.wait_force(),
                        _ => once.call_once(|| ramie::sleep(2 * MS)),
                    })
                })
                .collect();
            others.into_iter().for_each(|other| other().unwrap());
            once.is_completed()
        });
    }

    fn once_lock() {
        same!({
            let mut cell = sync::OnceLock::new();
            let mut log = vec![format!("{cell:?} {:?}", cell.get())];
            log.push(format!("{:?}", cell.get_mut()));
            log.push(format!("{:?}", cell.set(1)));
            log.push(format!("{:?} {:?} {cell:?}", cell.set(2), cell.get()));
            log.push(format!("{:?} {:?}", cell.get_or_init(|| 3), cell.wait()));
            *cell.get_mut().unwrap() = 4;
            log.push(format!("{:?} {}", cell.clone(), cell == sync::OnceLock::from(4)));
            log.push(format!("{:?} {:?}", cell.take(), cell.take()));
            log.push(format!("{cell:?}"));
            _ = catch_unwind(AssertUnwindSafe(|| cell.get_or_init(|| quiet_panic())));
            log.push(format!("{:?}", cell.get()));
            log.push(format!("{}", cell.get_or_init(|| 5)));
            log.push(format!("{:?}", cell.into_inner()));
            log.push(format!("{:?}", sync::OnceLock::<u8>::default().into_inner()));
            log
        });
        same!({
            let cell = sync::Arc::new(sync::OnceLock::new());
            let others: Vec<_> = (0..4)
                .map(|index| {
                    let cell = sync::Arc::clone(&cell);
                    go(move || match index {
                        0 => *cell.wait(),
                        _ => *cell.get_or_init(|| {
                            ramie::sleep(2 * MS);
                            7
                        }),
                    })
                })
                .collect();
            others.into_iter().map(|other| other().unwrap()).collect::<Vec<_>>()
        });
    }

    fn lazy_lock() {
        same!({
            let lazy = sync::LazyLock::new(|| vec![1, 2]);
            let mut log = vec![format!("{lazy:?}")];
            log.push(format!("{} {:?} {lazy:?}", lazy.len(), sync::LazyLock::force(&lazy)));
            log.push(format!("{:?}", *sync::LazyLock::<u8>::default()));
            let bad = sync::LazyLock::<u8, _>::new(|| -> u8 { quiet_panic() });
            let force = || catch_unwind(AssertUnwindSafe(|| *bad)).is_err();
            log.push(format!("{} {} {bad:?}", force(), force()));
            let mut lazy = sync::LazyLock::new(|| vec![1]);
            log.push(format!("{:?}", sync::LazyLock::get(&lazy)));
            log.push(format!("{:?}", sync::LazyLock::get_mut(&mut lazy)));
            lazy.push(2);
            sync::LazyLock::force_mut(&mut lazy).push(3);
            sync::LazyLock::get_mut(&mut lazy).unwrap().push(4);
            log.push(format!("{:?} {lazy:?}", sync::LazyLock::get(&lazy)));
            let mut bad = sync::LazyLock::<u8, _>::new(|| -> u8 { quiet_panic() });
            for _ in 0..2 {
                let force = AssertUnwindSafe(|| *sync::LazyLock::force_mut(&mut bad) = 1);
                log.push(format!("{}", catch_unwind(force).is_err()));
            }
            log.push(format!("{:?}", sync::LazyLock::get_mut(&mut bad)));
            log
        });
    }

    fn barrier() {
        same!({
            let barrier = sync::Arc::new(sync::Barrier::new(4));
            let meet = |barrier: &sync::Barrier| {
                (0..3).filter(|_| barrier.wait().is_leader()).count()
            };
            let others: Vec<_> = (0..3)
                .map(|_| {
                    let barrier = sync::Arc::clone(&barrier);
                    go(move || meet(&barrier))
                })
                .collect();
            let own = meet(&barrier);
            let leaders = own + others.into_iter().map(|other| other().unwrap()).sum::<usize>();
            (leaders, format!("{barrier:?} {:?}", sync::Barrier::new(1).wait()))
        });
        same!((sync::Barrier::new(0).wait().is_leader(), sync::Barrier::new(1).wait().is_leader()));
    }
}

/// What a plain `use` of std's has to find.
#[test]
fn names_and_traits_of_std() {
    use std::panic::{RefUnwindSafe, UnwindSafe};
    fn is<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}
    fn guards<T: Sync + UnwindSafe + RefUnwindSafe>() {}
    is::<ramie::sync::Mutex<std::cell::Cell<u8>>>();
    is::<ramie::sync::RwLock<u8>>();
    is::<ramie::sync::Condvar>();
    is::<ramie::sync::Once>();
    is::<ramie::sync::OnceLock<u8>>();
    is::<ramie::sync::LazyLock<u8>>();
    is::<ramie::sync::Barrier>();
    is::<ramie::sync::Semaphore>();
    is::<ramie::sync::Event>();
    is::<ramie::sync::WaitGroup>();
    guards::<ramie::sync::MutexGuard<'_, u8>>();
    guards::<ramie::sync::RwLockReadGuard<'_, u8>>();
    guards::<ramie::sync::RwLockWriteGuard<'_, u8>>();

    static MUTEX: ramie::sync::Mutex<u8> = ramie::sync::Mutex::new(1);
    static LOCK: ramie::sync::RwLock<u8> = ramie::sync::RwLock::new(1);
    static CELL: ramie::sync::OnceLock<u8> = ramie::sync::OnceLock::new();
    static LAZY: ramie::sync::LazyLock<u8> = ramie::sync::LazyLock::new(|| 1);
    static CONDVAR: ramie::sync::Condvar = ramie::sync::Condvar::new();
    static ONCE: ramie::sync::Once = ramie::sync::Once::new();
    static BARRIER: ramie::sync::Barrier = ramie::sync::Barrier::new(1);
    static SEMAPHORE: ramie::sync::Semaphore = ramie::sync::Semaphore::new(1);
    static EVENT: ramie::sync::Event = ramie::sync::Event::new();
    let sum = *MUTEX.lock().unwrap() + *LOCK.read().unwrap() + CELL.get_or_init(|| 1) + *LAZY;
    assert_eq!(sum, 4);
    CONDVAR.notify_all();
    ONCE.call_once(|| ());
    BARRIER.wait();
    drop(SEMAPHORE.acquire().unwrap());
    EVENT.set();
}
