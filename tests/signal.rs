//! Signals of the operating system.
//!
//! The contract tests use real-time signals, of which each test has its own; what is about the
//! others is tested in processes of their own.

mod common;

use common::{child, eventually, isolated, runtime, watch};
use ramie::signal::{self, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, Signals};
use ramie::{is_cancelled, select, time};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(1000);

/// A signal that no other test uses.
fn fresh() -> i32 {
    static NEXT: AtomicI32 = AtomicI32::new(0);
    let signal = libc::SIGRTMIN() + NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(signal < libc::SIGRTMAX(), "no signal is left for this test");
    signal
}

/// Sends this process a signal.
fn send(signal: i32) {
    let id = i32::try_from(std::process::id()).unwrap();
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::kill(id, signal) }, 0);
}

/// Has this thread run the handler, now.
fn raise(signal: i32) {
    // SAFETY: no memory is passed.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

contract! {
    fn each_gets_every_signal() {
        let (a, b) = (fresh(), fresh());
        let (both, one) = (Signals::new(&[b, a, a]).unwrap(), Signals::new(&[a]).unwrap());
        assert_eq!(both.try_recv(), None);
        send(a);
        assert_eq!((both.recv().unwrap(), one.recv().unwrap()), (a, a));
        send(b);
        assert_eq!(both.recv_timeout(LONG).unwrap(), Some(b));
        assert_eq!(one.recv_timeout(Duration::from_millis(5)).unwrap(), None);
        drop(both);
        send(a);
        assert_eq!(one.iter().next().unwrap().unwrap(), a);
        // Nobody hears of this one, and it does not end the process.
        send(b);
        let late = Signals::new(&[b]).unwrap();
        send(b);
        assert_eq!(late.recv().unwrap(), b);
        assert_eq!(format!("{late:?}"), format!("Signals([{b}])"));
    }

    fn who_waits_is_woken() {
        let a = fresh();
        let signals = Signals::new(&[a]).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                    send(a);
                }
            });
            for signal in signals.iter().take(2) {
                assert_eq!(signal.unwrap(), a);
            }
            assert_eq!(time::timeout(LONG, || signals.recv()).unwrap(), a);
            done.store(true, Ordering::SeqCst);
        });
        let silent = Signals::new(&[fresh()]).unwrap();
        let late = time::timeout(Duration::from_millis(5), || silent.recv());
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    fn no_kind_is_lost_in_a_storm() {
        let (a, b) = (fresh(), fresh());
        let signals = Signals::new(&[a, b]).unwrap();
        for round in 0..20 {
            let threads = [a, b].map(|signal| {
                std::thread::spawn(move || (0..100).for_each(|_| send(signal)))
            });
            let (mut seen_a, mut seen_b) = (false, false);
            while !(seen_a && seen_b) {
                match signals.recv().unwrap() {
                    signal if signal == a => seen_a = true,
                    signal => { assert_eq!(signal, b, "round {round}"); seen_b = true }
                }
            }
            for thread in threads {
                thread.join().unwrap();
            }
        }
    }

    fn selecting() {
        let a = fresh();
        let signals = Signals::new(&[a]).unwrap();
        let early = select! {
            recv(&signals) -> signal => signal.ok(),
            after(Duration::from_millis(2)) => None,
        };
        assert_eq!(early, None);
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            send(a);
        });
        let signal = select! {
            after(LONG) => None,
            recv(&signals) -> signal => signal.ok(),
        };
        assert_eq!(signal, Some(a));
        sender.join().unwrap();
    }

    fn what_cannot_be_received() {
        let cases: &[&[i32]] = &[&[], &[0], &[-1], &[65], &[i32::MAX], &[libc::SIGKILL],
            &[libc::SIGSTOP], &[libc::SIGSEGV], &[libc::SIGBUS], &[SIGUSR2, libc::SIGFPE]];
        for case in cases {
            let error = Signals::new(case).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{case:?}: {error}");
        }
    }
}

#[test]
fn cancelling_a_wait() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let a = fresh();
        let fiber = ramie::spawn(move || {
            let signals = Signals::new(&[a]).unwrap();
            let error = signals.recv().unwrap_err();
            raise(a); // comes, whoever has been asked to end
            (error, signals.recv().unwrap())
        });
        ramie::sleep(Duration::from_millis(5));
        let (error, signal) = fiber.cancel_join().unwrap();
        assert!(is_cancelled(&error) && signal == a);
        let fiber = ramie::spawn(move || {
            let signals = Signals::new(&[a]).unwrap();
            select! { recv(&signals) -> signal => signal.is_err() }
        });
        ramie::sleep(Duration::from_millis(5));
        assert!(fiber.cancel_join().unwrap());
    });
}

/// The handler must not need room on the stack of the fiber that it interrupts.
#[test]
fn a_signal_on_a_full_stack() {
    /// Fills the stack up to a few hundred bytes.
    #[inline(never)]
    fn fill(signal: i32, mut depth: u64) -> u64 {
        if ramie::stack_remaining().is_some_and(|left| left < 2048) {
            for _ in 0..10 {
                raise(signal);
            }
            return depth;
        }
        depth = std::hint::black_box(depth) + 1;
        fill(signal, depth) + std::hint::black_box(1)
    }

    let _watchdog = watch::dog();
    runtime(2).run(|| {
        let a = fresh();
        let signals = Signals::new(&[a]).unwrap();
        let builder = ramie::Builder::new().stack_size(16 << 10);
        let depth = builder.spawn(move || fill(a, 0)).unwrap().join().unwrap();
        assert!(depth > 10);
        assert_eq!(signals.recv().unwrap(), a);
    });
}

/// Signals interrupt the system calls of workers, which must not notice.
#[test]
fn workers_are_not_disturbed() {
    use std::io::{Read, Write};

    let _watchdog = watch::dog();
    runtime(2).run(|| {
        let a = fresh();
        let signals = Signals::new(&[a]).unwrap();
        static DONE: AtomicBool = AtomicBool::new(false);
        let sender = std::thread::spawn(move || {
            while !DONE.load(Ordering::SeqCst) {
                send(a);
                std::thread::yield_now();
            }
        });
        let (mut ours, mut theirs) = ramie::os::unix::net::UnixStream::pair().unwrap();
        let echo = ramie::spawn(move || {
            let mut byte = [0];
            while theirs.read(&mut byte).unwrap() != 0 {
                ramie::sleep(Duration::from_micros(10));
                theirs.write_all(&byte).unwrap();
            }
        });
        for byte in 0..200 {
            ours.write_all(&[byte]).unwrap();
            let mut answer = [0];
            ours.read_exact(&mut answer).unwrap();
            assert_eq!(answer[0], byte);
            signals.recv().unwrap();
        }
        drop(ours);
        echo.join().unwrap();
        DONE.store(true, Ordering::SeqCst);
        sender.join().unwrap();
    });
}

/// Receivers come and go in a storm of signals; whoever waits for one that comes after he has
/// begun gets it.
#[test]
fn comings_and_goings() {
    let _watchdog = watch::dog();
    static DONE: AtomicBool = AtomicBool::new(false);
    let (a, b) = (fresh(), fresh());
    drop(Signals::new(&[a]).unwrap()); // from here on it is caught
    let storm = std::thread::spawn(move || {
        while !DONE.load(Ordering::SeqCst) {
            send(a);
            std::thread::yield_now();
        }
    });
    runtime(2).run(|| {
        let fibers: Vec<_> = (0..40_u64)
            .map(|n| {
                ramie::spawn(move || {
                    for round in 0..25 {
                        let signals = Signals::new(&[a]).unwrap();
                        let limit = Duration::from_micros(n * round % 300);
                        let _ = signals.recv_timeout(limit).unwrap();
                        assert_eq!(signals.recv().unwrap(), a);
                    }
                    let signals = Signals::new(&[b]).unwrap();
                    raise(b);
                    assert_eq!(signals.recv().unwrap(), b);
                })
            })
            .collect();
        for fiber in fibers {
            fiber.join().unwrap();
        }
    });
    DONE.store(true, Ordering::SeqCst);
    storm.join().unwrap();
}

#[test]
fn usual_signals() {
    isolated("usual_signals", || {
        runtime(1).run(|| {
            let fiber = ramie::spawn(signal::ctrl_c);
            let signals = Signals::new(&[SIGINT, SIGHUP, SIGTERM, SIGUSR1]).unwrap();
            for signal in [SIGHUP, SIGUSR1, SIGTERM] {
                send(signal);
                assert_eq!(signals.recv().unwrap(), signal);
            }
            ramie::yield_now(); // ctrl_c waits now
            send(SIGINT);
            fiber.join().unwrap().unwrap();
            assert_eq!(signals.recv().unwrap(), SIGINT);
            drop(signals);
            // Still caught.
            for signal in [SIGINT, SIGHUP, SIGTERM, SIGUSR1] {
                send(signal);
            }
        });
    });
}

/// A signal that nobody has asked for does what it always does, and the faults are left alone.
#[test]
fn others_are_left_alone() {
    let name = "others_are_left_alone";
    let output = child(name, || {
        let _signals = Signals::new(&[SIGHUP]).unwrap();
        raise(SIGUSR1);
    });
    assert_eq!(output.status.signal(), Some(SIGUSR1));
}

#[test]
fn overflows_are_still_reported() {
    let output = child("overflows_are_still_reported", || {
        #[inline(never)]
        fn overflow(depth: u64) -> u64 {
            if depth == u64::MAX { 0 } else { overflow(std::hint::black_box(depth) + 1) + 1 }
        }
        runtime(1).run(|| {
            let _signals = Signals::new(&[SIGHUP, SIGUSR1]).unwrap();
            let fiber = ramie::Builder::new().name("deep".to_owned()).spawn(|| overflow(0));
            fiber.unwrap().join().unwrap();
        });
    });
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("fiber 'deep' has overflowed its stack"), "{text}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT));
}

/// Who was there before us still gets his signals.
#[test]
fn an_earlier_handler_is_called() {
    static CALLS: AtomicI32 = AtomicI32::new(0);
    extern "C" fn handler(_: i32) {
        CALLS.fetch_add(1, Ordering::SeqCst);
    }

    let _watchdog = watch::dog();
    let a = fresh();
    // SAFETY: the handler touches an atomic only.
    let before = unsafe { libc::signal(a, handler as extern "C" fn(i32) as libc::sighandler_t) };
    assert_eq!(before, libc::SIG_DFL);
    let signals = Signals::new(&[a]).unwrap();
    raise(a);
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
    assert_eq!(signals.recv().unwrap(), a);
}

/// What a child gets between `fork` and `exec` is its own; after `exec` it has the default action.
#[test]
fn children_have_their_own() {
    use ramie::os::unix::process::CommandExt;

    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let a = fresh();
        let signals = Signals::new(&[a]).unwrap();
        let mut command = ramie::process::Command::new("true");
        // SAFETY: sends the child a signal, which is async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                libc::raise(a);
                Ok(())
            });
        }
        assert!(command.status().unwrap().success());
        assert_eq!(signals.recv_timeout(Duration::from_millis(10)).unwrap(), None);
        let script = format!("kill -{a} $$");
        let status = ramie::process::Command::new("sh").args(["-c", &script]).status().unwrap();
        assert_eq!(status.signal(), Some(a));
    });
}

#[test]
fn threads_and_descriptors() {
    isolated("threads_and_descriptors", || {
        let (threads, fds) = (common::threads(), common::fds());
        let all: Vec<_> = (0..100).map(|_| Signals::new(&[SIGUSR1]).unwrap()).collect();
        send(SIGUSR1);
        for signals in &all {
            assert_eq!(signals.recv().unwrap(), SIGUSR1);
        }
        drop(all);
        eventually("one thread for all", || common::threads() == threads + 1);
        assert_eq!(common::fds(), fds);
    });
}
