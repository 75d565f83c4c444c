//! `scope`: what `std::thread::scope` documents, sentence by sentence, and what fibers add to it.

mod common;

use common::eventually;
use common::scopes::{on_one_and_two, pipe, text};
use std::cell::RefCell;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// Says so when it is dropped, after a suspension.
struct SlowDrop<'a>(&'a AtomicUsize);

impl Drop for SlowDrop<'_> {
    fn drop(&mut self) {
        ramie::yield_now();
        ramie::sleep(MS);
        self.0.fetch_add(1, SeqCst);
    }
}

/// The example of std's page.
#[test]
fn stds_example() {
    on_one_and_two(|_| {
        let mut a = vec![1, 2, 3];
        let mut x = 0;
        ramie::scope(|s| {
            s.spawn(|| assert_eq!(a, [1, 2, 3]));
            s.spawn(|| x += a[0] + a[2]);
        });
        a.push(4);
        assert_eq!(x, a.len());
    });
}

/// "All threads spawned within the scope that haven't been manually joined will be automatically
/// joined before this function returns."
#[test]
fn all_children_are_joined() {
    on_one_and_two(|_| {
        let done = AtomicUsize::new(0);
        let result = ramie::scope(|s| {
            for n in 0..200_u32 {
                let done = &done;
                let fiber = s.spawn(move || {
                    match n % 4 {
                        0 => {}
                        1 => ramie::yield_now(),
                        2 => ramie::sleep(MS),
                        _ => _ = ramie::fs::metadata("Cargo.toml").unwrap(),
                    }
                    done.fetch_add(1, SeqCst);
                });
                match n % 3 {
                    0 => drop(fiber),
                    1 => std::mem::forget(fiber),
                    _ => fiber.join().unwrap(),
                }
            }
            "the value of f"
        });
        assert_eq!(result, "the value of f");
        assert_eq!(done.load(SeqCst), 200);
    });
}

/// A result that nobody takes may borrow, and its destructor may suspend, while the scope lasts.
#[test]
fn results_are_dropped_within_the_scope() {
    on_one_and_two(|_| {
        for yields in [false, true] {
            let drops = AtomicUsize::new(0);
            ramie::scope(|s| {
                for n in 0..60 {
                    let drops = &drops;
                    let fiber = s.spawn(move || {
                        if yields {
                            ramie::yield_now();
                        }
                        SlowDrop(drops)
                    });
                    match n % 3 {
                        0 => drop(fiber),
                        1 => drop(fiber.join()),
                        _ => {
                            eventually("end", || fiber.is_finished());
                            drop(fiber);
                        }
                    }
                }
            });
            assert_eq!(drops.load(SeqCst), 60);
        }
    });
}

/// "If any of the automatically joined threads panicked", the scope does.
#[test]
fn a_childs_panic_reaches_the_scope() {
    on_one_and_two(|_| {
        for suspends in [false, true] {
            for keep in [false, true] {
                let done = AtomicBool::new(false);
                let panic = catch_unwind(AssertUnwindSafe(|| {
                    ramie::scope(|s| {
                        let fiber = s.spawn(|| {
                            if suspends {
                                ramie::sleep(MS);
                            }
                            panic!("child");
                        });
                        if keep {
                            std::mem::forget(fiber);
                        }
                        s.spawn(|| {
                            ramie::sleep(5 * MS);
                            done.store(true, SeqCst);
                        });
                    })
                }));
                assert_eq!(text(panic.unwrap_err()), "a scoped fiber panicked");
                assert!(done.load(SeqCst), "the others are waited for");
            }
        }
    });
}

/// Panics of joined children are their joiner's business.
#[test]
fn a_joined_panic_does_not_reach_the_scope() {
    on_one_and_two(|_| {
        let answer = ramie::scope(|s| {
            let panic = s.spawn(|| panic_any(7)).join().unwrap_err();
            let fiber = s.spawn(|| panic_any(8));
            eventually("end", || fiber.is_finished());
            let other = fiber.try_join().unwrap().unwrap_err();
            let fiber = s.spawn(|| panic_any(9));
            let third = fiber.join_timeout(Duration::MAX).unwrap().unwrap_err();
            [panic, other, third].map(|panic| *panic.downcast::<i32>().unwrap())
        });
        assert_eq!(answer, [7, 8, 9]);
        // One of two is taken.
        let panic = catch_unwind(|| {
            ramie::scope(|s| {
                _ = s.spawn(|| panic_any(7)).join();
                s.spawn(|| panic_any(8));
            });
        });
        assert_eq!(text(panic.unwrap_err()), "a scoped fiber panicked");
    });
}

/// The panic of `f` goes before those of children, and waits for them.
#[test]
fn a_panic_of_f_waits_for_the_children() {
    on_one_and_two(|_| {
        let done = AtomicUsize::new(0);
        let panic = catch_unwind(AssertUnwindSafe(|| {
            ramie::scope(|s| {
                for n in 0..20_u64 {
                    let done = &done;
                    s.spawn(move || {
                        ramie::sleep(Duration::from_millis(n % 3));
                        assert!(!std::thread::panicking());
                        done.fetch_add(1, SeqCst);
                        assert!(n != 7, "a child's");
                    });
                }
                panic!("the parent's");
            })
        }));
        assert_eq!(text(panic.unwrap_err()), "the parent's");
        assert_eq!(done.load(SeqCst), 20);
    });
}

/// The destructor of a child's fiber-local value panics: as good as the child itself.
#[test]
fn a_panic_of_a_fiber_local_value_reaches_the_scope() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("bad local");
        }
    }
    ramie::fiber_local! { static BAD: RefCell<Option<Bad>> = RefCell::new(None); }
    on_one_and_two(|_| {
        let panic = catch_unwind(|| ramie::scope(|s| _ = s.spawn(|| BAD.set(Some(Bad)))));
        assert_eq!(text(panic.unwrap_err()), "a scoped fiber panicked");
    });
}

/// Children spawn in the same scope, also when `f` has returned.
#[test]
fn children_spawn_in_their_scope() {
    fn grow<'scope, 'env>(
        s: &'scope ramie::Scope<'scope, 'env>,
        count: &'scope AtomicUsize,
        depth: u32,
    ) {
        count.fetch_add(1, SeqCst);
        if depth != 0 {
            for n in 0..3 {
                s.spawn(move || {
                    if n == 1 {
                        ramie::yield_now();
                    }
                    grow(s, count, depth - 1);
                });
            }
        }
    }
    on_one_and_two(|_| {
        let count = AtomicUsize::new(0);
        ramie::scope(|s| grow(s, &count, 6));
        assert_eq!(count.load(SeqCst), (3_usize.pow(7) - 1) / 2);
    });
}

#[test]
fn scopes_nest() {
    fn sum(numbers: &[u64]) -> u64 {
        match numbers {
            [one] => *one,
            _ => {
                let (low, high) = numbers.split_at(numbers.len() / 2);
                ramie::scope(|s| {
                    let high = s.spawn(|| sum(high));
                    sum(low) + high.join().unwrap()
                })
            }
        }
    }
    on_one_and_two(|_| {
        let numbers: Vec<u64> = (1..=3000).collect();
        assert_eq!(sum(&numbers), 3000 * 3001 / 2);
    });
}

/// Handles are joined by whoever they get to, such as a younger sibling.
#[test]
fn siblings_join_each_other() {
    on_one_and_two(|_| {
        let last = ramie::scope(|s| {
            let mut last = s.spawn(|| 1);
            for _ in 0..100 {
                last = s.spawn(move || last.join().unwrap() + 1);
            }
            last.join().unwrap()
        });
        assert_eq!(last, 101);
    });
}

#[test]
fn handles_name_cancel_and_wait() {
    on_one_and_two(|_| {
        let (mut reader, writer) = pipe();
        let (mut other, other_writer) = pipe();
        ramie::scope(|s| {
            let fiber = s.spawn(|| reader.read(&mut [0]).unwrap_err());
            let second = s.spawn(|| other.read(&mut [0]).unwrap_err());
            let fiber = fiber.try_join().expect_err("nobody writes");
            let fiber = fiber.join_timeout(MS).expect_err("nobody writes");
            assert!(!fiber.is_finished());
            assert_ne!(fiber.fiber().id(), ramie::current().id());
            fiber.cancel();
            assert!(ramie::is_cancelled(&fiber.join().unwrap()));
            assert!(ramie::is_cancelled(&second.cancel_join().unwrap()));

            let parked = s.spawn(|| {
                let me = ramie::current().id();
                ramie::park();
                me
            });
            parked.fiber().unpark();
            let id = parked.fiber().id();
            assert_eq!(parked.join().unwrap(), id);
        });
        drop((writer, other_writer));
    });
}

#[test]
fn builders_spawn_in_scopes() {
    on_one_and_two(|workers| {
        let big = [1_u8; 4096];
        ramie::scope(|s| {
            let names = ramie::Builder::new()
                .name("a child".into())
                .stack_size(1 << 20)
                .spawn_scoped(s, || {
                    assert!(ramie::stack_remaining().unwrap() > 600 << 10);
                    (ramie::current().name().map(str::to_owned), big.len())
                })
                .unwrap();
            assert_eq!(names.join().unwrap(), (Some("a child".to_owned()), 4096));
            for worker in 0..workers {
                let builder = ramie::Builder::new().worker(worker);
                let fiber = builder.spawn_scoped(s, || (std::thread::current().id(), big)).unwrap();
                let (id, copy) = fiber.join().unwrap();
                assert_eq!(id == std::thread::current().id(), worker == 0);
                assert_eq!(copy, big);
            }
            let error = ramie::Builder::new().worker(workers).spawn_scoped(s, || ()).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        });
    });
}

#[test]
fn local_children_need_not_be_send() {
    on_one_and_two(|_| {
        let log = RefCell::new(Vec::new());
        let thread = std::thread::current().id();
        ramie::scope(|s| {
            for n in 0..50 {
                let log = &log;
                let fiber = s.spawn_local(move || {
                    ramie::yield_now();
                    assert_eq!(std::thread::current().id(), thread);
                    log.borrow_mut().push(n);
                    Rc::new(n)
                });
                if n % 2 == 0 {
                    assert_eq!(*fiber.join().unwrap(), n);
                }
            }
        });
        let mut log = log.into_inner();
        log.sort_unstable();
        assert_eq!(log, (0..50).collect::<Vec<_>>());
    });
}

/// Large closures and results, and those without a size.
#[test]
fn payloads_of_all_sizes() {
    #[derive(Clone, Copy)]
    #[repr(align(256))]
    struct Aligned(u8);
    on_one_and_two(|_| {
        let huge = [7_u64; 1000];
        let aligned = Aligned(3);
        ramie::scope(|s| {
            let fibers: Vec<_> =
                (0..20).map(|n| s.spawn(move || huge.map(|x| x + n).iter().sum::<u64>())).collect();
            for (n, fiber) in fibers.into_iter().enumerate() {
                assert_eq!(fiber.join().unwrap(), (7 + n as u64) * 1000);
            }
            let back = s.spawn(move || aligned).join().unwrap();
            assert_eq!((back.0, (&raw const back).addr() % 256), (3, 0));
            s.spawn(|| ()).join().unwrap();
        });
    });
}
