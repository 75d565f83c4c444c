//! Timeouts, deadlines, shields: whose error it is, what is left behind, what is never lost.

mod common;

use common::{eventually, on_a_fiber, runtime, watch};
use ramie::time::{Duration, Instant, deadline, sleep_until, timeout, within};
use ramie::{cancel, is_cancelled};
use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn pipe() -> (ramie::fs::File, ramie::fs::File) {
    let (reader, writer) = io::pipe().unwrap();
    (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
}

/// Waits for ever, or until it is told not to; on a thread too, where a read would block.
fn forever() -> io::Result<()> {
    ramie::sleep(HOUR);
    cancel::check()
}

/// An operation that would work.
fn op() -> io::Result<()> {
    ramie::fs::metadata("Cargo.toml").map(drop)
}

#[track_caller]
fn assert_timed_out<T>(result: io::Result<T>) {
    let error = result.err().expect("it timed out");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(!is_cancelled(&error));
}

#[track_caller]
fn assert_cancelled<T>(result: io::Result<T>) {
    let error = result.err().expect("it was cancelled");
    assert!(is_cancelled(&error), "{error}");
}

/// Nothing is pending.
#[track_caller]
fn assert_quiet() {
    assert!(!cancel::is_requested());
    cancel::check().unwrap();
    op().unwrap();
    let start = Instant::now();
    ramie::sleep(2 * MS);
    assert!(start.elapsed() >= 2 * MS, "a sleep ended early");
    ramie::park_timeout(MS); // a token may be left
    let start = Instant::now();
    ramie::park_timeout(2 * MS);
    assert!(start.elapsed() >= 2 * MS, "a park ended early");
}

contract! {
    fn what_is_in_time_is_not_touched() {
        assert_eq!(timeout(HOUR, || Ok(7)).unwrap(), 7);
        assert_eq!(timeout(Duration::MAX, || op().map(|()| 8)).unwrap(), 8);
        let error = timeout(HOUR, || ramie::fs::metadata("no such file")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(within(Duration::MAX, || 9), Ok(9));
        assert_eq!(deadline(Instant::now() + HOUR, || Ok(10)).unwrap(), 10);
        assert_quiet();
    }

    fn a_sleep_ends_at_the_deadline_and_the_check_reports_it() {
        let start = Instant::now();
        assert_timed_out(timeout(5 * MS, forever));
        assert!(start.elapsed() >= 5 * MS);
        assert_quiet();
        let end = Instant::now() + 5 * MS;
        assert_timed_out(deadline(end, || {
            sleep_until(Instant::now() + HOUR);
            assert!(Instant::now() >= end);
            ramie::sleep(HOUR); // still unreported
            op()
        }));
        assert_quiet();
    }

    fn a_park_wakes_once() {
        let start = Instant::now();
        assert_timed_out(timeout(5 * MS, || {
            while start.elapsed() < 5 * MS {
                ramie::park();
            }
            let parked = Instant::now();
            ramie::park_timeout(5 * MS);
            assert!(parked.elapsed() >= 5 * MS, "once");
            op()
        }));
        assert_quiet();
    }

    fn an_expired_deadline_fails_the_first_operation() {
        let past = Instant::now().checked_sub(MS).unwrap();
        for expired in [
            timeout(Duration::ZERO, op),
            timeout(Duration::ZERO, cancel::check),
            timeout(Duration::ZERO, forever),
            deadline(past, op),
            deadline(Instant::now(), forever),
        ] {
            assert_timed_out(expired);
            assert_quiet();
        }
        timeout(Duration::ZERO, || {
            ramie::park(); // wakes once
            Ok(())
        }).unwrap();
        assert_eq!(timeout(Duration::ZERO, || Ok(7)).unwrap(), 7, "nothing reported it");
        assert_eq!(within(Duration::ZERO, || 7).unwrap_err().into_inner(), 7);
        assert_quiet();
    }

    /// A deadline is reported once, and what comes after it in the same call is not limited.
    fn one_report_for_each_deadline() {
        assert_timed_out(timeout(MS, || {
            let error = forever().unwrap_err();
            assert!(is_cancelled(&error) && error.kind() != ErrorKind::TimedOut);
            assert_quiet();
            Err::<(), _>(error)
        }));
        // Swallowed, it leaves the result alone.
        timeout(MS, || {
            forever().unwrap_err();
            op()
        })
        .unwrap();
        assert_quiet();
    }

    fn what_nobody_reported_is_withdrawn() {
        timeout(MS, || {
            ramie::sleep(HOUR);
            Ok(())
        })
        .unwrap();
        assert_quiet();
        let error = timeout(MS, || {
            ramie::sleep(HOUR);
            Err::<(), _>(io::Error::from(ErrorKind::NotFound))
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
        assert_quiet();
        within(MS, || ramie::sleep(HOUR)).unwrap_err().into_inner();
        assert_quiet();
    }

    /// An operation that fails by itself keeps its error.
    fn a_cancelled_error_of_another_kind_is_not_taken_over() {
        let error = timeout(HOUR, || Err::<(), _>(io::Error::from_raw_os_error(libc::ECANCELED)));
        assert_cancelled(error);
        let error = timeout(MS, || {
            ramie::sleep(HOUR);
            Err::<(), _>(io::Error::from_raw_os_error(libc::ECANCELED))
        });
        assert_cancelled(error);
        assert_quiet();
    }

    fn the_shorter_one_wins_inside() {
        let start = Instant::now();
        timeout(HOUR, || {
            assert_timed_out(timeout(5 * MS, forever));
            assert!(start.elapsed() >= 5 * MS);
            assert_quiet();
            Ok(())
        })
        .unwrap();
        assert_quiet();
    }

    fn the_shorter_one_wins_outside() {
        let inner = Cell::new(None);
        assert_timed_out(timeout(5 * MS, || {
            let error = timeout(HOUR, forever).unwrap_err();
            inner.set(Some(is_cancelled(&error)));
            Err::<(), _>(error)
        }));
        assert_eq!(inner.get(), Some(true), "the outer deadline passes through the inner one");
        assert_quiet();
        // Both at the same time: the outer one covers the inner one.
        let end = Instant::now() + 2 * MS;
        assert_timed_out(deadline(end, || {
            let result = deadline(end, forever);
            assert!(is_cancelled(result.as_ref().unwrap_err()));
            result
        }));
        assert_quiet();
    }

    fn one_after_the_other_inside_and_outside() {
        let order = Cell::new(0);
        assert_timed_out(timeout(400 * MS, || {
            assert_timed_out(timeout(2 * MS, forever));
            order.set(1);
            assert_timed_out(timeout(2 * MS, || {
                forever().unwrap_err();
                forever().unwrap_err(); // the outer one, inside the expired inner one
                order.set(2);
                // The inner one was overtaken: its error goes out.
                Err::<(), _>(io::Error::from_raw_os_error(libc::ECANCELED))
            }).map_err(|error| {
                assert!(is_cancelled(&error), "{error}");
                io::ErrorKind::TimedOut.into()
            }));
            assert_quiet();
            assert_eq!(order.get(), 2);
            Err::<(), _>(io::Error::from_raw_os_error(libc::ECANCELED))
        }));
    }

    fn deep_nesting() {
        fn nest(depth: u32, at: u32, order: &Cell<u32>) -> io::Result<()> {
            if depth == 0 {
                return forever();
            }
            let limit = if depth == at { MS } else { HOUR };
            let result = timeout(limit, || nest(depth - 1, at, order));
            let error = result.unwrap_err();
            assert_eq!(error.kind() == ErrorKind::TimedOut, depth >= at, "{depth} of {at}");
            order.set(order.get() + 1);
            Err(error)
        }
        for at in [1, 7, 20] {
            let order = Cell::new(0);
            assert_timed_out(nest(20, at, &order));
            assert_eq!(order.get(), 20);
            assert_quiet();
        }
    }

    fn a_panic_leaves_nothing_behind() {
        for limit in [Duration::ZERO, MS, HOUR] {
            let panic = std::panic::catch_unwind(|| {
                timeout(HOUR, || cancel::shield(|| timeout(limit, || -> io::Result<()> {
                    if limit == MS {
                        ramie::sleep(HOUR);
                    }
                    std::panic::resume_unwind(Box::new("deliberate"));
                })))
            });
            assert_eq!(*panic.unwrap_err().downcast::<&str>().unwrap(), "deliberate");
            assert_quiet();
        }
    }

    /// A destructor that waits while its thread unwinds blocks the thread, until the deadline; its
    /// operations are performed.
    fn unwinding_through_a_timeout() {
        struct Waits;
        impl Drop for Waits {
            fn drop(&mut self) {
                let start = Instant::now();
                let end = start + 2 * MS;
                _ = within(2 * MS, || while Instant::now() < end {
                    ramie::park();
                });
                assert!(start.elapsed() >= 2 * MS);
                op().unwrap();
                cancel::check().unwrap();
                let shut = timeout(Duration::ZERO, op);
                shut.unwrap();
            }
        }
        _ = std::panic::catch_unwind(|| {
            timeout(MS, || -> io::Result<()> {
                let _waits = Waits;
                ramie::sleep(2 * MS);
                std::panic::resume_unwind(Box::new("deliberate"));
            })
        }).unwrap_err();
        assert_quiet();
    }

    fn a_shield_puts_deadlines_off() {
        assert_timed_out(timeout(MS, || {
            cancel::shield(|| {
                let start = Instant::now();
                ramie::sleep(5 * MS);
                assert!(start.elapsed() >= 5 * MS);
                assert!(!cancel::is_requested());
                op().unwrap();
                let start = Instant::now();
                ramie::park_timeout(2 * MS);
                assert!(start.elapsed() >= 2 * MS);
                // Those inside work, and see nothing of the one outside.
                assert_timed_out(timeout(MS, forever));
                cancel::shield(op).unwrap();
                op().unwrap();
            });
            assert!(cancel::is_requested());
            ramie::park(); // wakes once for it
            op()
        }));
        assert_quiet();
    }

    fn recancel_brings_it_back_while_its_timeout_lasts() {
        assert_timed_out(timeout(MS, || {
            assert_cancelled(forever());
            cancel::recancel();
            assert!(cancel::is_requested());
            assert_cancelled(op());
            cancel::recancel();
            ramie::park();
            ramie::sleep(HOUR);
            cancel::shield(|| cancel::check().unwrap());
            op()
        }));
        cancel::recancel();
        assert_quiet();
        // Through an inner one, for the outer one.
        assert_timed_out(timeout(MS, || {
            timeout(HOUR, || {
                forever().unwrap_err();
                cancel::recancel();
                Ok(())
            }).unwrap();
            op()
        }));
        assert_quiet();
    }

    fn without_bounds_there_is_nothing_to_report() {
        cancel::recancel();
        assert_quiet();
        assert_eq!(cancel::shield(|| cancel::shield(|| 7)), 7);
        assert_quiet();
    }

    /// The result of an end that came late is kept, and the timeout is over.
    fn a_join_is_waited_for() {
        if !ramie::is_fiber() {
            return;
        }
        let fiber = ramie::spawn(|| {
            assert_quiet(); // not under the deadline of whoever spawned it
            ramie::sleep(10 * MS);
            7
        });
        let start = Instant::now();
        let seven = timeout(MS, || Ok(fiber.join().unwrap())).unwrap();
        assert_eq!(seven, 7);
        assert!(start.elapsed() >= 10 * MS);
        assert_quiet();
        let fiber = ramie::spawn(|| ramie::sleep(10 * MS));
        assert_timed_out(timeout(MS, || {
            fiber.join().unwrap();
            op()
        }));
        assert_quiet();
    }

    fn a_job_on_the_pool_is_waited_for() {
        let seven = timeout(MS, || Ok(ramie::unblock(|| {
            std::thread::sleep(10 * MS);
            7
        })));
        assert_eq!(seven.unwrap(), 7);
        assert_quiet();
    }

    /// None of these suspends.
    fn in_no_suspend() {
        ramie::no_suspend(|| {
            timeout(HOUR, cancel::check).unwrap();
            cancel::shield(cancel::recancel);
            assert_timed_out(timeout(Duration::ZERO, cancel::check));
            assert!(within(HOUR, || !cancel::is_requested()).unwrap());
        });
        assert_quiet();
    }
}

/// On a fiber, operations that wait are broken off.
#[test]
fn a_read_fails_at_the_deadline() {
    on_a_fiber(|| {
        let (mut reader, mut writer) = pipe();
        for _ in 0..3 {
            assert_timed_out(timeout(2 * MS, || reader.read(&mut [0; 10])));
            assert_quiet();
        }
        // What has come is kept.
        writer.write_all(b"works").unwrap();
        assert_eq!(timeout(HOUR, || reader.read(&mut [0; 10])).unwrap(), 5);
        // `read_exact` does not go on for ever.
        writer.write_all(b"abc").unwrap();
        let mut bytes = [0; 4];
        assert_timed_out(timeout(2 * MS, || reader.read_exact(&mut bytes)));
        assert_eq!(&bytes[..3], b"abc");
    });
}

/// A request by a handle passes through timeouts untouched, before, with and after a deadline.
#[test]
fn a_handles_request_passes_through() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    /// Long enough for a deadline of a millisecond, and until the request has come, too.
    fn meanwhile_asked() {
        ramie::sleep(2 * MS);
        eventually("a request", || ASKED.load(Ordering::SeqCst));
    }
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let run = |body: fn() -> io::Result<()>| {
                ASKED.store(false, Ordering::SeqCst);
                let fiber = ramie::Builder::new().worker(workers - 1).spawn(body).unwrap();
                ramie::sleep(5 * MS);
                fiber.cancel();
                ASKED.store(true, Ordering::SeqCst);
                fiber.join().unwrap()
            };
            assert_cancelled(run(|| timeout(HOUR, || timeout(HOUR, forever))));
            // Both come while neither is delivered.
            assert_cancelled(run(|| {
                timeout(MS, || {
                    cancel::shield(meanwhile_asked);
                    op()
                })
            }));
            // The deadline was reported before: the request is the stronger one.
            assert_cancelled(run(|| {
                timeout(MS, || {
                    let error = forever().unwrap_err();
                    forever().unwrap_err();
                    Err(error)
                })
            }));
            // The request is reported first, what was to tidy up runs into the deadline.
            assert_cancelled(run(|| {
                timeout(20 * MS, || {
                    let error = forever().unwrap_err();
                    forever().unwrap_err();
                    Err(error)
                })
            }));
            // A timeout that is left takes no request with it.
            assert_cancelled(run(|| {
                timeout(MS, || {
                    ramie::sleep(HOUR);
                    cancel::shield(meanwhile_asked);
                    Ok(())
                })
                .unwrap();
                op()
            }));
        });
    }
}

#[test]
fn a_shield_puts_requests_off() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let (mut reader, mut writer) = pipe();
            let (shielded, inside) = mpsc::channel();
            let fiber = ramie::Builder::new().worker(workers - 1).spawn(move || {
                cancel::shield(|| {
                    shielded.send(()).unwrap();
                    assert_eq!(reader.read(&mut [0; 10]).unwrap(), 3);
                    op().unwrap();
                    cancel::check().unwrap();
                    assert!(!cancel::is_requested());
                    let start = Instant::now();
                    ramie::sleep(2 * MS);
                    assert!(start.elapsed() >= 2 * MS);
                    ramie::park(); // the token
                    assert_timed_out(timeout(MS, forever));
                });
                assert!(cancel::is_requested());
                ramie::park(); // wakes for the request, though the token was taken inside
                ramie::sleep(HOUR);
                assert_cancelled(reader.read(&mut [0; 10]));
                assert_quiet();
            });
            let fiber = fiber.unwrap();
            eventually("it is shielded", || inside.try_recv().is_ok());
            ramie::sleep(2 * MS);
            fiber.cancel();
            ramie::sleep(2 * MS);
            fiber.cancel();
            assert!(!fiber.is_finished());
            writer.write_all(b"abc").unwrap();
            fiber.join().unwrap();
        });
    }
}

#[test]
fn recancel_brings_a_request_back() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let fiber = ramie::spawn(|| {
            assert_cancelled(forever());
            cancel::recancel();
            ramie::park();
            ramie::sleep(HOUR);
            assert_cancelled(op());
            cancel::shield(|| {
                cancel::recancel();
                op().unwrap();
            });
            // A timeout inside of which it is reported is not in its way.
            assert_cancelled(timeout(HOUR, || {
                let result = op();
                cancel::recancel();
                result
            }));
            assert_cancelled(op());
            // What was reported last is something else now.
            assert_timed_out(timeout(MS, forever));
            cancel::recancel();
            assert_quiet();
        });
        ramie::yield_now();
        fiber.cancel_join().unwrap();
    });
}

/// The end of a runtime is no timeout, though it fires all timers.
#[test]
fn shutdown_is_not_a_timeout() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        let ended = Arc::new(AtomicUsize::new(0));
        let (mut reader, _writer) = pipe();
        let fibers: Vec<_> = rt.run(|| {
            let theirs = Arc::clone(&ended);
            let reading = ramie::Builder::new().worker(workers - 1).spawn(move || {
                assert_cancelled(timeout(HOUR, || reader.read(&mut [0])));
                assert_cancelled(cancel::shield(cancel::check));
                assert_cancelled(timeout(HOUR, op));
                theirs.fetch_add(1, Ordering::SeqCst);
            });
            let theirs = Arc::clone(&ended);
            let sleeping = ramie::spawn(move || {
                assert_cancelled(timeout(HOUR, || cancel::shield(forever)));
                theirs.fetch_add(1, Ordering::SeqCst);
            });
            ramie::sleep(5 * MS);
            vec![reading.unwrap(), sleeping]
        });
        assert_eq!(rt.shutdown_timeout(Duration::from_secs(30)), 0);
        assert_eq!(ended.load(Ordering::SeqCst), 2);
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    }
}

/// A fiber that is parked inside a timeout does not hold up the end of the runtime until then.
#[test]
fn a_parked_fiber_under_a_deadline_is_leaked_soon() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        rt.run(|| {
            _ = ramie::spawn(|| {
                timeout(HOUR, || -> io::Result<()> {
                    loop {
                        ramie::park();
                    }
                })
            });
            ramie::sleep(2 * MS);
        });
        let start = Instant::now();
        assert_eq!(rt.shutdown_timeout(HOUR), 1);
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}

/// A future that is given up for a deadline reports the deadline, and no request.
#[test]
fn a_future_is_given_up_at_the_deadline() {
    on_a_fiber(|| {
        assert_timed_out(timeout(MS, || ramie::try_block_on(std::future::pending::<()>())));
        assert_quiet();
        assert_timed_out(timeout(Duration::ZERO, || ramie::try_block_on(async {})));
        assert_quiet();
    });
}
