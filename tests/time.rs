//! Sleeping until a point in time, and ticks.

mod common;

use common::{eventually, runtime, watch};
use ramie::cancel;
use ramie::time::{
    Duration, Instant, MissedTick, deadline, interval, interval_at, sleep, sleep_until, timeout,
};
use std::io::ErrorKind;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

contract! {
    fn sleeping_until() {
        let end = Instant::now() + 5 * MS;
        sleep_until(end);
        assert!(Instant::now() >= end);
        sleep_until(end); // over
        sleep_until(Instant::now().checked_sub(HOUR).unwrap_or(end));
        sleep(Duration::ZERO);
        sleep(Duration::from_nanos(1));
    }

    fn ticks_keep_the_rate() {
        let start = Instant::now();
        let mut ticks = interval(2 * MS);
        assert_eq!(ticks.period(), 2 * MS);
        let first = ticks.tick();
        assert!(first >= start);
        for n in 1..6 {
            let due = ticks.tick();
            assert_eq!(due, first + n * 2 * MS, "tick {n}");
            assert!(Instant::now() >= due);
        }
    }

    fn missed_ticks() {
        for missed in [MissedTick::Burst, MissedTick::Delay, MissedTick::Skip] {
            let start = Instant::now();
            let mut ticks = interval_at(start, 10 * MS);
            ticks.set_missed_tick(missed);
            assert_eq!(ticks.missed_tick(), missed);
            assert_eq!(ticks.tick(), start);
            std::thread::sleep(35 * MS);
            assert_eq!(ticks.tick(), start + 10 * MS, "the late one");
            let taken = Instant::now();
            let next = ticks.tick();
            match missed {
                MissedTick::Burst => assert_eq!(next, start + 20 * MS),
                MissedTick::Delay => assert!(next >= start + 45 * MS && next <= taken + 10 * MS),
                MissedTick::Skip => {
                    let since = next - start;
                    assert!(since >= 40 * MS);
                    // Multiples of the period, but for what rounding takes.
                    let off = since.as_micros() % 10_000;
                    assert!(off <= 1 || off >= 9_999, "{since:?}");
                }
            }
            assert!(Instant::now() >= next);
        }
    }

    fn resetting() {
        let mut ticks = interval(HOUR);
        ticks.tick();
        ticks.reset_immediately();
        assert!(ticks.tick() <= Instant::now());
        ticks.reset_after(2 * MS);
        let start = Instant::now();
        ticks.tick();
        assert!(start.elapsed() >= MS);
        let end = Instant::now() + 2 * MS;
        ticks.reset_at(end);
        assert_eq!(ticks.tick(), end);
        ticks.reset();
        let result = timeout(MS, || {
            ticks.tick();
            cancel::check()
        });
        assert!(result.is_err(), "the next one is an hour away");
    }

    /// A tick that was not waited for is still to come.
    fn a_tick_that_ends_early_is_not_lost() {
        let start = Instant::now() + HOUR;
        let mut ticks = interval_at(start, HOUR);
        for _ in 0..3 {
            let result = timeout(MS, || {
                assert_eq!(ticks.tick(), start);
                cancel::check()
            });
            assert!(result.is_err());
        }
        ticks.reset_immediately();
        assert!(ticks.tick() <= Instant::now());
    }
}

/// Sleeps of all lengths at once, on all workers: none ends early, all end, the shortest first.
#[test]
fn many_sleeps() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let fibers: Vec<_> = (0..10_000_u64)
                .map(|n| {
                    ramie::spawn(move || {
                        let duration = Duration::from_micros(n.wrapping_mul(7919) % 100_000);
                        let start = Instant::now();
                        sleep(duration);
                        assert!(start.elapsed() >= duration);
                    })
                })
                .collect();
            fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
        });
    }
}

/// Sleeps, timeouts that expire and that do not, and ends that are far away, all at once: what is
/// near comes neither early nor never, whatever waits beside it.
#[test]
fn near_and_far_beside_each_other() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let far = [HOUR, 10_000 * HOUR, 100 * 10_000 * HOUR, Duration::MAX];
            let far = far.map(|duration| ramie::spawn(move || sleep(duration)));
            let near = |n: u32| {
                let short = Duration::from_micros(u64::from(n) * 7919 % 200_000);
                let start = Instant::now();
                if n.is_multiple_of(2) {
                    let slept = timeout(HOUR * (1 + n), || {
                        sleep(short);
                        cancel::check()
                    });
                    assert!(slept.is_ok());
                } else {
                    let ended = timeout(short, || {
                        sleep(HOUR);
                        cancel::check()
                    });
                    assert_eq!(ended.unwrap_err().kind(), ErrorKind::TimedOut);
                }
                assert!(start.elapsed() >= short);
            };
            let near: Vec<_> = (0..5_000).map(|n| ramie::spawn(move || near(n))).collect();
            near.into_iter().for_each(|fiber| fiber.join().unwrap());
            far.into_iter().for_each(|fiber| fiber.cancel_join().unwrap());
        });
    }
}

/// A sleep that ends long before those armed earlier, and while many others are cancelled.
#[test]
fn timers_are_taken_out_of_the_middle() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let fibers: Vec<_> = (0..2_000_u64)
            .map(|n| ramie::spawn(move || sleep(HOUR + Duration::from_micros(n * 7919 % 2_000))))
            .collect();
        ramie::yield_now();
        let mut left = fibers;
        let mut seed = 1_u64;
        while !left.is_empty() {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let index = (seed >> 33) as usize % left.len();
            left.swap_remove(index).cancel_join().unwrap();
            if left.len() % 100 == 0 {
                sleep(Duration::from_micros(10));
            }
        }
    });
}

/// Timers do not starve under fibers that are always ready, nor do those under timers.
#[test]
fn timers_fire_beside_busy_fibers() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let busy = ramie::spawn(|| {
            while cancel::check().is_ok() {
                ramie::yield_now();
            }
        });
        let start = Instant::now();
        let end = start + 20 * MS;
        let result = deadline(end, || {
            loop {
                ramie::yield_now();
                sleep(MS);
                cancel::check()?;
            }
        });
        let _: std::io::Result<()> = result;
        assert!(Instant::now() >= end);
        assert!(!busy.is_finished());
        busy.cancel_join().unwrap();
        eventually("time passes", || start.elapsed() > 20 * MS);
    });
}
