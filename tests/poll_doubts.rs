//! Reads on the poll driver that have all their room filled each time, and leave nothing, until one
//! does (`src/driver/poll/doubts.rs`): what is left is found, however the worker spends its time.

mod common;

use common::rng::Rng;
use common::watch;
use ramie::net::{TcpListener, TcpStream};
use ramie::os::unix::net::UnixStream;
use ramie::{DriverKind, Runtime, is_cancelled};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
/// So many messages, each after the answer to the last one, make a habit of it.
const HABIT: usize = 8;
const MESSAGE: usize = 16;

fn on_poll(workers: usize, f: impl FnOnce() + Send) {
    let _watchdog = watch::dog();
    let rt = Runtime::builder().driver(DriverKind::Poll).workers(workers).build().unwrap();
    rt.run(|| ramie::scope(|scope| _ = scope.spawn(f)));
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    there.set_nodelay(true).unwrap();
    let (here, _) = listener.accept().unwrap();
    here.set_nodelay(true).unwrap();
    (here, there)
}

/// Answers each message, until the other end sends no more.
fn echo(mut stream: impl Read + Write) {
    let mut message = [0; MESSAGE];
    loop {
        match stream.read(&mut message) {
            Ok(0) => return,
            Ok(n) => stream.write_all(&message[..n]).unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sends so many messages at once, and takes their answers.
fn ask(stream: &mut (impl Read + Write), messages: usize) {
    let text: Vec<_> = (0..messages * MESSAGE).map(|n| n as u8).collect();
    stream.write_all(&text).unwrap();
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
}

fn ask_for_a_habit(stream: &mut (impl Read + Write)) {
    (0..HABIT).for_each(|_| ask(stream, 1));
}

/// Has so many connections whose clients send one message at a time, and now and then more.
fn bursts(connections: usize, workers: usize, seed: u64) {
    ramie::scope(|scope| {
        for n in 0..connections {
            let mut rng = Rng(seed + n as u64);
            let (here, mut there) = pair();
            let on = |place: usize| ramie::Builder::new().worker(place % workers);
            on(n).spawn_scoped(scope, move || echo(here)).unwrap();
            let client = move || {
                for _ in 0..10 {
                    ask_for_a_habit(&mut there);
                    ask(&mut there, 2 + rng.below(4) as usize);
                }
            };
            on(n / 2).spawn_scoped(scope, client).unwrap();
        }
    });
}

#[test]
fn one_connection_and_nothing_else_to_do() {
    on_poll(1, || bursts(1, 1, Rng::from_env().0));
}

#[test]
fn many_connections() {
    on_poll(1, || bursts(60, 1, Rng::from_env().0));
}

#[test]
fn two_workers() {
    on_poll(2, || bursts(20, 2, Rng::from_env().0));
}

/// The worker always has something else to run.
#[test]
fn beside_a_fiber_that_never_waits() {
    on_poll(1, || {
        ramie::scope(|scope| {
            let busy = scope.spawn_local(|| {
                while !ramie::cancel::is_requested() {
                    ramie::yield_now();
                }
            });
            bursts(8, 1, Rng::from_env().0);
            busy.cancel();
        });
    });
}

/// More connections wait than epoll tells of at once, and few of them hear anything.
#[test]
fn among_many_that_are_silent() {
    on_poll(1, || {
        let silent: Vec<_> = (0..300).map(|_| UnixStream::pair().unwrap()).collect();
        ramie::scope(|scope| {
            for (here, _) in &silent {
                scope.spawn_local(move || assert_eq!({ here }.read(&mut [0]).unwrap(), 0));
            }
            bursts(8, 1, Rng::from_env().0);
            silent.iter().for_each(|(_, there)| there.shutdown(Shutdown::Both).unwrap());
        });
    });
}

#[test]
fn unix_streams() {
    on_poll(1, || {
        ramie::scope(|scope| {
            let (here, mut there) = UnixStream::pair().unwrap();
            scope.spawn_local(move || echo(here));
            for messages in 1..10 {
                ask_for_a_habit(&mut there);
                ask(&mut there, messages);
            }
        });
    });
}

/// Behind the last message there is nothing but the end.
#[test]
fn the_end_behind_a_message() {
    on_poll(1, || {
        for wait in [false, true] {
            ramie::scope(|scope| {
                let (here, mut there) = pair();
                scope.spawn_local(move || echo(here));
                ask_for_a_habit(&mut there);
                there.write_all(&[1; MESSAGE]).unwrap();
                if wait {
                    there.read_exact(&mut [0; MESSAGE]).unwrap();
                }
                there.shutdown(Shutdown::Write).unwrap();
                let mut rest = Vec::new();
                there.read_to_end(&mut rest).unwrap();
                assert_eq!(rest.len(), if wait { 0 } else { MESSAGE });
            });
        }
    });
}

/// Sends one message after the other, and then so many together, of which the first is read.
fn send(there: &mut TcpStream, messages: usize, has_one: &Cell<bool>) {
    ramie::yield_now();
    for _ in 0..HABIT {
        there.write_all(&[1; MESSAGE]).unwrap();
        ramie::sleep(MS / 10);
    }
    there.write_all(&[1; 2 * MESSAGE][..messages * MESSAGE]).unwrap();
    while !has_one.get() {
        ramie::yield_now();
    }
}

/// A reader that waits for the first of so many messages that come together, and then in doubt,
/// since its worker has something else to run. Its second read is cancelled; returns whether it has
/// ended by that.
fn cancelled_in_doubt(
    mut here: TcpStream,
    there: &mut TcpStream,
    messages: usize,
) -> (TcpStream, bool) {
    let has_one = Rc::new(Cell::new(false));
    let reader = ramie::spawn_local({
        let has_one = Rc::clone(&has_one);
        move || {
            for _ in 0..=HABIT {
                here.read_exact(&mut [0; MESSAGE]).unwrap();
            }
            has_one.set(true);
            let result = here.read(&mut [0; MESSAGE]);
            (here, result)
        }
    });
    send(there, messages, &has_one);
    reader.cancel();
    let (stream, result) = reader.join().unwrap();
    match result {
        Ok(n) => assert_eq!(n, MESSAGE),
        Err(ref error) => assert!(is_cancelled(error), "{error}"),
    }
    (stream, result.is_err())
}

/// Reads on after reads that were cancelled with something there, and with nothing, which then
/// comes; `between` them the stream may become another.
fn reads_on(between: fn(TcpStream) -> TcpStream) {
    on_poll(1, || {
        let (mut here, mut there) = pair();
        for n in 0..20 {
            let is_alone = n % 2 == 0;
            let was_cancelled;
            (here, was_cancelled) =
                cancelled_in_doubt(here, &mut there, if is_alone { 1 } else { 2 });
            here = between(here);
            if is_alone {
                assert!(was_cancelled, "there was nothing to read");
                there.write_all(&[1; MESSAGE]).unwrap();
            }
            if was_cancelled {
                here.read_exact(&mut [0; MESSAGE]).unwrap();
            }
        }
    });
}

/// A read that is cancelled leaves to the next one what it has not seen.
#[test]
fn the_next_read_finds_what_the_last_one_left() {
    reads_on(|stream| stream);
}

/// As above, and the stream has another owner then.
#[test]
fn another_owner() {
    reads_on(|stream| TcpStream::from(OwnedFd::from(stream)));
}

/// What is there when a read begins is read, though the worker looks when its time is over: between
/// two looks it runs the other fiber 64 times.
#[test]
fn a_timeout_in_doubt() {
    const TIME: Duration = Duration::from_millis(100);
    on_poll(1, || {
        let (here, mut there) = pair();
        let here = Rc::new(here);
        for _ in 0..3 {
            let (has_one, has_both) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
            here.set_read_timeout(None).unwrap();
            let reader = ramie::spawn_local({
                let (here, has_one, has_both) = (here.clone(), has_one.clone(), has_both.clone());
                move || {
                    for _ in 0..=HABIT {
                        (&*here).read_exact(&mut [0; MESSAGE]).unwrap();
                    }
                    here.set_read_timeout(Some(TIME)).unwrap();
                    has_one.set(true);
                    let result = (&*here).read(&mut [0; MESSAGE]);
                    has_both.set(true);
                    result
                }
            });
            send(&mut there, 2, &has_one);
            while !has_both.get() {
                let begun = Instant::now();
                while begun.elapsed() < TIME / 50 {
                    std::hint::spin_loop();
                }
                ramie::yield_now();
            }
            assert_eq!(reader.join().unwrap().unwrap(), MESSAGE);
        }
    });
}
