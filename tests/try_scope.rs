//! `try_scope` and `race`: the first to fail, or to end, has the others asked to end.

mod common;

use common::rng::Rng;
use common::scopes::{on_one_and_two, pipe, text};
use common::{isolated, runtime, watch};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn endless() -> io::Result<()> {
    let (mut reader, _writer) = pipe();
    reader.read_exact(&mut [0])
}

fn other(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}

#[test]
fn results_of_all() {
    on_one_and_two(|_| {
        let words = ["a", "bb", "ccc"];
        let sum = ramie::try_scope(|s| {
            let lengths = words.each_ref().map(|word| s.spawn(|| Ok(word.len())));
            let unjoined = s.spawn(|| Ok(()));
            assert!(format!("{s:?} {unjoined:?}").contains("TryScope"));
            assert!(!s.is_cancelled());
            let mut sum = 0;
            for length in lengths {
                sum += length.join()?;
            }
            io::Result::Ok(sum)
        });
        assert_eq!(sum.unwrap(), 6);
    });
}

/// The first error comes back, whatever the others say because of it.
#[test]
fn the_first_error_ends_the_others() {
    on_one_and_two(|workers| {
        for joins in [false, true] {
            let cancelled = AtomicUsize::new(0);
            let waits = |result: io::Result<()>| {
                assert!(ramie::is_cancelled(result.as_ref().unwrap_err()));
                cancelled.fetch_add(1, SeqCst);
                result
            };
            let waits = &waits;
            let result: io::Result<()> = ramie::try_scope(|s| {
                let mut handles = Vec::new();
                for _ in 0..20 {
                    handles.push(s.spawn(move || waits(endless())));
                }
                s.spawn_local(|| {
                    ramie::sleep(HOUR);
                    Ok(())
                });
                s.spawn(|| {
                    ramie::sleep(5 * MS);
                    Err::<(), _>(other("the reason"))
                });
                if joins {
                    for handle in handles {
                        handle.join()?;
                    }
                }
                Ok(())
            });
            assert_eq!(result.unwrap_err().to_string(), "the reason", "{workers}");
            assert_eq!(cancelled.load(SeqCst), 20);
        }
    });
}

/// Children that start, or are spawned, after the failure find the request too.
#[test]
fn late_children_find_the_request() {
    on_one_and_two(|_| {
        let count = AtomicUsize::new(0);
        let count = &count;
        let late = move || {
            assert!(ramie::is_cancelled(&endless().unwrap_err()));
            count.fetch_add(1, SeqCst);
            Ok(())
        };
        let result = ramie::try_scope(|s| {
            for _ in 0..10 {
                s.spawn(late);
            }
            let failed = s.spawn(|| Err::<(), _>(1));
            while !failed.is_finished() {
                ramie::yield_now();
            }
            s.spawn(move || {
                assert!(s.is_cancelled());
                s.spawn(late);
                late()
            });
            Ok(())
        });
        assert_eq!(result, Err(1));
        assert_eq!(count.load(SeqCst), 12);
    });
}

/// An error that was joined is its joiner's.
#[test]
fn joined_errors_are_handled() {
    on_one_and_two(|_| {
        let result: Result<i32, i32> = ramie::try_scope(|s| {
            let error = s.spawn(|| Err::<(), _>(3)).join().unwrap_err();
            // Later ones are not the first, and dropped.
            s.spawn(|| Err::<(), _>(4));
            Ok(error)
        });
        assert_eq!(result, Ok(3));
        // Joined through `?`; and an earlier one that is not joined wins.
        let result: Result<(), i32> = ramie::try_scope(|s| s.spawn(|| Err(5)).join());
        assert_eq!(result, Err(5));
        let result: Result<(), i32> = ramie::try_scope(|s| {
            let first = s.spawn(|| Err::<(), _>(6));
            while !first.is_finished() {
                ramie::yield_now();
            }
            let second = s.spawn(|| Err::<(), _>(7)).join();
            assert_eq!(second, Err(7));
            second
        });
        assert_eq!(result, Err(6));
    });
}

#[test]
fn f_fails() {
    on_one_and_two(|_| {
        let result: io::Result<()> = ramie::try_scope(|s| {
            s.spawn(endless);
            s.spawn(|| {
                ramie::sleep(HOUR);
                Ok(())
            });
            ramie::sleep(MS);
            Err(other("f's"))
        });
        assert_eq!(result.unwrap_err().to_string(), "f's");
        let panic = catch_unwind(|| {
            ramie::try_scope(|s| -> io::Result<()> {
                s.spawn(endless);
                panic!("f's")
            })
        });
        assert_eq!(text(panic.unwrap_err()), "f's");
        assert_eq!(ramie::try_scope(|_| Err::<(), _>("alone")), Err("alone"));
    });
}

/// Panics keep their payload, end the others, and are not lost for an error that came first.
#[test]
fn panics() {
    on_one_and_two(|_| {
        let panic = catch_unwind(|| {
            ramie::try_scope(|s| {
                s.spawn(endless);
                s.spawn(|| -> io::Result<()> {
                    ramie::sleep(MS);
                    panic_any(11)
                });
                Ok(())
            })
        });
        assert_eq!(*panic.unwrap_err().downcast::<i32>().unwrap(), 11);
        let panic = catch_unwind(|| {
            ramie::try_scope(|s| {
                s.spawn(|| Err::<(), _>(1));
                s.spawn(|| -> Result<(), i32> {
                    ramie::sleep(MS);
                    panic_any(12)
                });
                Ok(())
            })
        });
        assert_eq!(*panic.unwrap_err().downcast::<i32>().unwrap(), 12);
        // In `join` they go on in the joiner, who may catch them.
        let result = ramie::try_scope(|s| {
            let fiber = s.spawn(|| -> Result<(), ()> { panic_any(13) });
            Ok(*catch_unwind(AssertUnwindSafe(|| fiber.join())).unwrap_err().downcast().unwrap())
        });
        assert_eq!(result, Ok(13));
    });
}

#[test]
fn requests_by_hand() {
    on_one_and_two(|_| {
        let result = ramie::try_scope(|s| {
            let fibers = [(); 3].map(|()| s.spawn(endless));
            ramie::sleep(MS);
            s.cancel();
            assert!(s.is_cancelled());
            for fiber in fibers {
                assert!(ramie::is_cancelled(&fiber.join().unwrap_err()));
            }
            io::Result::Ok(1)
        });
        assert_eq!(result.unwrap(), 1);
        // One of them: its error is a failure like others.
        let result = ramie::try_scope(|s| {
            let fiber = s.spawn(endless);
            s.spawn(endless);
            ramie::sleep(MS);
            fiber.cancel();
            Ok(())
        });
        assert!(ramie::is_cancelled(&result.unwrap_err()));
    });
}

/// A request to the owner, while it waits, is passed on.
#[test]
fn requests_to_the_owner_are_passed_on() {
    on_one_and_two(|_| {
        for sleeps in [false, true] {
            let owner = ramie::spawn(move || {
                ramie::try_scope(|s| {
                    s.spawn(endless);
                    s.spawn(endless);
                    Ok(())
                })
            });
            let racer = ramie::spawn(|| ramie::race((endless, endless)));
            if sleeps {
                ramie::sleep(2 * MS);
            }
            owner.cancel();
            racer.cancel();
            assert!(ramie::is_cancelled(&owner.join().unwrap().unwrap_err()));
            assert!(ramie::is_cancelled(&racer.join().unwrap().unwrap_err()));
        }
    });
}

#[test]
fn local_children() {
    on_one_and_two(|_| {
        let log = RefCell::new(Vec::new());
        ramie::try_scope(|s| {
            s.spawn_local(|| {
                log.borrow_mut().push(1);
                Ok(())
            });
            let rc = s.spawn_local(|| Ok(Rc::new(2)));
            let two = *rc.join()?;
            log.borrow_mut().push(two);
            Result::<(), ()>::Ok(())
        })
        .unwrap();
        log.borrow_mut().sort_unstable();
        assert_eq!(*log.borrow(), [1, 2]);
    });
}

/// Where children run on their parent's fiber, that one is not asked to end for them.
#[test]
fn while_unwinding() {
    struct AtDrop;
    impl Drop for AtDrop {
        fn drop(&mut self) {
            let result: Result<(), i32> = ramie::try_scope(|s| {
                s.spawn(|| {
                    s.spawn(|| Err::<(), _>(1));
                    Err::<(), _>(2)
                });
                Ok(())
            });
            assert_eq!(result, Err(1));
            assert_eq!(ramie::race((|| 1, || 2)), 1);
        }
    }
    on_one_and_two(|_| {
        let panic = catch_unwind(|| {
            let _at_drop = AtDrop;
            panic!("outer");
        });
        assert_eq!(text(panic.unwrap_err()), "outer");
        // No request is left over.
        assert!(ramie::fs::metadata("Cargo.toml").is_ok());
    });
}

// ---- race --------------------------------------------------------------------------------------

#[test]
fn the_first_wins() {
    on_one_and_two(|_| {
        for first in 0..3 {
            let nap = |n: u32| {
                move || {
                    ramie::sleep(if n == first { MS } else { HOUR });
                    n
                }
            };
            assert_eq!(ramie::race((nap(0), nap(1), nap(2))), first);
            assert_eq!(ramie::race([nap(0), nap(1), nap(2)]), first);
            assert_eq!(ramie::race(vec![nap(0), nap(1), nap(2)]), first);
        }
        let borrowed = String::from("text");
        let length = ramie::race((|| borrowed.len(), || borrowed.len()));
        assert_eq!(length, 4);
        let all = ramie::race((|| 1, || 1, || 1, || 1, || 1, || 1, || 1, || 1));
        assert_eq!(all, 1);
    });
}

/// The losers are asked to end and waited for; their results are dropped.
#[test]
fn losers_end() {
    struct Result<'a>(&'a AtomicUsize, bool);
    impl Drop for Result<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    on_one_and_two(|_| {
        let (drops, saw) = (AtomicUsize::new(0), AtomicBool::new(false));
        let first = ramie::race((
            || {
                saw.store(ramie::is_cancelled(&endless().unwrap_err()), SeqCst);
                Result(&drops, false)
            },
            || {
                ramie::sleep(MS);
                Result(&drops, true)
            },
        ));
        assert!(first.1 && saw.load(SeqCst));
        assert_eq!(drops.load(SeqCst), 1);
    });
}

/// Both run at the same time, even on one worker: each needs the other.
#[test]
fn racers_run_together() {
    on_one_and_two(|_| {
        let ((mut a, mut to_a), (mut b, mut to_b)) = (pipe(), pipe());
        let result = ramie::race((
            || -> io::Result<u8> {
                to_b.write_all(&[1])?;
                let mut byte = [0];
                a.read_exact(&mut byte)?;
                Ok(byte[0])
            },
            || {
                let mut byte = [0];
                b.read_exact(&mut byte)?;
                to_a.write_all(&[2])?;
                ramie::sleep(HOUR);
                Ok(byte[0])
            },
        ));
        assert_eq!(result.unwrap(), 2);
    });
}

#[test]
fn racers_panic() {
    on_one_and_two(|_| {
        let panic = catch_unwind(|| ramie::race((|| endless().is_ok(), || panic_any(5))));
        assert_eq!(*panic.unwrap_err().downcast::<i32>().unwrap(), 5);
        let panic = catch_unwind(|| ramie::race(Vec::<fn() -> u8>::new())).unwrap_err();
        assert!(text(panic).contains("no racers"));
    });
    let _watchdog = watch::dog();
    let panic = catch_unwind(|| ramie::race((|| 1, || 2))).unwrap_err();
    assert!(text(panic).contains("outside of a runtime"));
}

/// Failures of all kinds at all times.
#[test]
fn stress() {
    isolated("stress", || {
        std::panic::set_hook(Box::new(|_| {}));
        let mut rng = Rng::from_env();
        for round in 0..300 {
            let rt = runtime(1 + rng.below(3) as usize);
            let (ran, children) = (AtomicUsize::new(0), rng.below(30) as usize);
            let seeds: Vec<u64> = (0..children).map(|_| rng.below(u64::MAX)).collect();
            let result = catch_unwind(AssertUnwindSafe(|| {
                rt.run(|| {
                    ramie::try_scope(|s| {
                        for &seed in &seeds {
                            let ran = &ran;
                            let fiber = s.spawn(move || {
                                let mut rng = Rng(seed);
                                ran.fetch_add(1, SeqCst);
                                match rng.below(6) {
                                    0 => endless().map_err(|_| 0_u64)?,
                                    1 => ramie::sleep(Duration::from_micros(rng.below(300))),
                                    2 => ramie::yield_now(),
                                    3 => _ = s.spawn(|| Ok(())),
                                    _ => {}
                                }
                                match rng.below(10) {
                                    0 => panic_any(seed),
                                    1 => Err(seed),
                                    _ => Ok(seed),
                                }
                            });
                            // Not one that waits for ever.
                            if rng.below(5) == 0 && Rng(seed).below(6) != 0 {
                                fiber.join()?;
                            }
                        }
                        // Those that wait for ever.
                        s.cancel();
                        Ok(())
                    })
                })
            }));
            match result {
                Ok(Ok(())) => assert_eq!(ran.load(SeqCst), children),
                Ok(Err(error)) => assert!(error == 0 || seeds.contains(&error), "{round}"),
                Err(panic) => assert!(seeds.contains(panic.downcast_ref().unwrap()), "{round}"),
            }
            common::eventually("no fiber is left", || rt.metrics().live_fibers == 0);
        }
    });
}
