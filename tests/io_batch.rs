//! Batches of operations, wherever they are used.

mod common;

use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::{TempDir, fds, isolated, runtime, watch};
use ramie::fs::File;
use ramie::io::{self, Interest, Read, Write, pipe};
use ramie::net::TcpListener;
use ramie::os::unix::net::UnixStream;

const LONG: Duration = Duration::from_secs(1000);

contract! {
    fn many_reads_at_offsets() {
        let dir = TempDir::new();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..200_000u32).map(|n| (n / 1000) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        let mut buffer = vec![0xff; bytes.len()];
        let sum = io::batch(|batch| {
            for (buf, at) in buffer.chunks_mut(1000).zip((0..).step_by(1000)) {
                batch.read_at(&file, buf, at);
            }
            assert_eq!(batch.len(), 200);
            let mut sum = 0;
            while let Some(done) = batch.next().unwrap() {
                sum += done.result.unwrap();
                assert_eq!(done.buf.unwrap().len(), 1000);
            }
            sum
        });
        assert_eq!(sum, 200_000);
        assert!(buffer == bytes);
    }

    fn writes_and_what_they_wrote() {
        let dir = TempDir::new();
        let file = File::create(dir.path().join("file")).unwrap();
        io::batch(|batch| {
            let a = batch.write_at(&file, b"world", 6);
            let b = batch.write_at(&file, b"hello ", 0);
            let mut keys = Vec::new();
            while let Some(done) = batch.next().unwrap() {
                keys.push((done.key, done.result.unwrap()));
            }
            keys.sort();
            assert_eq!(keys, [(a, 5), (b, 6)]);
            batch.sync_all(&file);
            assert_eq!(batch.next().unwrap().unwrap().result.unwrap(), 0);
        });
        assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"hello world");
    }

    fn the_first_that_is_ready_comes_first() {
        let (a, mut to_a) = pipe().unwrap();
        let (b, _to_b) = pipe().unwrap();
        let (mut x, mut y) = ([0; 4], [0; 4]);
        io::batch(|batch| {
            let slow = batch.read(&b, &mut y);
            let fast = batch.read(&a, &mut x);
            let late = batch.next_timeout(Duration::from_millis(2)).unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::TimedOut);
            to_a.write_all(b"abc").unwrap();
            let done = batch.next().unwrap().unwrap();
            assert_eq!((done.key, done.result.unwrap()), (fast, 3));
            assert_eq!(&done.buf.as_ref().unwrap()[..3], b"abc");
            // The buffer is there again.
            let again = batch.read(&a, done.buf.unwrap());
            to_a.write_all(b"z").unwrap();
            let done = batch.next().unwrap().unwrap();
            assert_eq!((done.key, done.result.unwrap()), (again, 1));
            assert!(batch.cancel(slow));
            let done = batch.next().unwrap().unwrap();
            assert_eq!(done.key, slow);
            assert!(ramie::is_cancelled(&done.result.unwrap_err()));
            assert!(!batch.cancel(slow));
            assert!(batch.next().unwrap().is_none());
        });
        assert_eq!(x[0], b'z');
    }

    fn timeouts_complete_in_their_order() {
        io::batch(|batch| {
            let second = batch.timeout(Duration::from_millis(4));
            let first = batch.timeout(Duration::from_millis(1));
            let never = batch.timeout(LONG);
            assert_eq!(batch.next().unwrap().unwrap().key, first);
            assert_eq!(batch.next().unwrap().unwrap().key, second);
            assert!(batch.cancel(never));
            assert!(batch.next().unwrap().is_none());
        });
    }

    fn sockets_are_accepted_received_and_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let fd = io::batch(|batch| {
            batch.accept(&listener);
            let done = batch.next().unwrap().unwrap();
            assert_eq!(done.result.unwrap(), 0);
            done.fd.unwrap()
        });
        let mut buf = [0; 8];
        io::batch(|batch| {
            let recv = batch.recv(&fd, &mut buf);
            let poll = batch.poll(&client, Interest::READABLE);
            let send = batch.send(&fd, b"to the client");
            let mut seen = Vec::new();
            while seen.len() < 2 {
                let done = batch.next().unwrap().unwrap();
                done.result.unwrap();
                seen.push(done.key);
            }
            seen.sort();
            assert_eq!(seen, [poll, send]);
            (&client).write_all(b"x").unwrap();
            let done = batch.next().unwrap().unwrap();
            assert_eq!((done.key, done.result.unwrap()), (recv, 1));
        });
        assert_eq!(buf[0], b'x');
    }

    fn errors_are_results() {
        let (reader, writer) = pipe().unwrap();
        let (a, b) = UnixStream::pair().unwrap();
        drop(b);
        let mut buf = [0; 4];
        io::batch(|batch| {
            let wrong = batch.read(&writer, &mut buf);
            let done = batch.next().unwrap().unwrap();
            assert_eq!(done.key, wrong);
            assert_eq!(done.result.unwrap_err().raw_os_error(), Some(libc::EBADF));
            batch.send(&a, b"x");
            let error = batch.next().unwrap().unwrap().result.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            let file = batch.read_at(&reader, done.buf.unwrap(), u64::MAX);
            let done = batch.next().unwrap().unwrap();
            assert!(done.key == file && done.result.is_err());
        });
    }

    fn what_is_in_flight_ends_with_the_batch() {
        let (reader, mut writer) = pipe().unwrap();
        let mut buf = [0; 4];
        io::batch(|batch| assert!(batch.read(&reader, &mut buf) != batch.timeout(LONG)));
        let panic = catch_unwind(AssertUnwindSafe(|| {
            io::batch(|batch| {
                batch.read(&reader, &mut buf);
                let _ = batch.next_timeout(Duration::from_millis(1));
                panic!("deliberate");
            })
        }));
        assert!(panic.is_err());
        writer.write_all(b"safe").unwrap();
        assert_eq!(buf, [0; 4]);
        (&reader).read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"safe");
    }

    fn a_batch_in_a_destructor_while_the_thread_unwinds() {
        struct Uses;
        impl Drop for Uses {
            fn drop(&mut self) {
                assert!(std::thread::panicking());
                let (reader, mut writer) = pipe().unwrap();
                let (idle, _writer) = pipe().unwrap();
                let (mut a, mut b) = ([0; 4], [0; 4]);
                writer.write_all(b"x").unwrap();
                io::batch(|batch| {
                    batch.read(&idle, &mut b);
                    let key = batch.read(&reader, &mut a);
                    assert_eq!(batch.next().unwrap().unwrap().key, key);
                });
                assert_eq!(a[0], b'x');
            }
        }
        let result = catch_unwind(|| {
            let _uses = Uses;
            panic!("deliberate");
        });
        assert!(result.is_err());
    }

    fn an_empty_batch_has_nothing() {
        assert!(io::batch(|batch| batch.next().unwrap().is_none()));
        assert!(io::batch(|batch| batch.next_timeout(LONG).unwrap().is_none()));
    }

    fn one_batch_inside_another() {
        let (reader, mut writer) = pipe().unwrap();
        let (mut a, mut b) = ([0; 4], [0; 4]);
        io::batch(|outer| {
            outer.read(&reader, &mut a);
            io::batch(|inner| {
                inner.poll(&writer, Interest::WRITABLE);
                assert!(inner.next().unwrap().unwrap().result.unwrap() > 0);
            });
            writer.write_all(b"x").unwrap();
            assert_eq!(outer.next().unwrap().unwrap().result.unwrap(), 1);
            outer.read(&reader, &mut b);
        });
        assert_eq!(a[0], b'x');
    }
}

#[test]
fn other_fibers_run_meanwhile_and_a_request_ends_the_wait() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let (reader, _writer) = pipe().unwrap();
        let fiber = ramie::spawn(move || {
            let mut buf = [0; 4];
            io::batch(|batch| {
                batch.read(&reader, &mut buf);
                let error = batch.next().unwrap_err();
                assert!(ramie::is_cancelled(&error));
                // Reported, so this waits again.
                batch.timeout(Duration::from_millis(1));
                batch.next().unwrap().unwrap().result.unwrap()
            })
        });
        ramie::sleep(Duration::from_millis(2));
        assert!(!fiber.is_finished());
        fiber.cancel();
        assert_eq!(fiber.join().unwrap(), 0);
        let late = ramie::time::timeout(Duration::from_millis(2), || {
            io::batch(|batch| {
                batch.timeout(LONG);
                batch.next().map(drop)
            })
        });
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn a_thousand_at_a_time_on_a_small_ring() {
    let _watchdog = watch::dog();
    let runtime = ramie::Runtime::builder().workers(1).ring_entries(8).build().unwrap();
    runtime.run(|| {
        let (mut readers, mut writers): (Vec<_>, Vec<_>) =
            (0..500).map(|_| UnixStream::pair().unwrap()).unzip();
        let mut bufs = vec![[0u8; 8]; readers.len()];
        let feeder = ramie::spawn(move || {
            for (n, writer) in writers.iter_mut().enumerate().rev() {
                writer.write_all(&(n as u64).to_ne_bytes()).unwrap();
            }
            writers
        });
        let readers = &mut readers;
        io::batch(|batch| {
            for (reader, buf) in readers.iter().zip(&mut bufs) {
                batch.recv(reader, buf);
            }
            let mut seen = 0;
            while let Some(done) = batch.next().unwrap() {
                assert_eq!(done.result.unwrap(), 8);
                seen += 1;
            }
            assert_eq!(seen, 500);
        });
        for (n, buf) in bufs.iter().enumerate() {
            assert_eq!(u64::from_ne_bytes(*buf), n as u64);
        }
        drop(feeder.join().unwrap());
    });
}

#[test]
fn a_shutdown_ends_a_batch() {
    let _watchdog = watch::dog();
    let (reader, _writer) = pipe().unwrap();
    let runtime = runtime(1);
    let fiber = runtime.run(|| {
        let fiber = ramie::spawn(move || {
            let mut buf = [0; 4];
            io::batch(|batch| {
                batch.read(&reader, &mut buf);
                batch.next().map(|done| done.unwrap().result.map(drop))
            })
        });
        ramie::sleep(Duration::from_millis(2));
        fiber
    });
    drop(runtime);
    let ended = fiber.join().unwrap();
    assert!(matches!(ended, Err(e) | Ok(Err(e)) if ramie::is_cancelled(&e)));
}

#[test]
#[should_panic(expected = "a batch of I/O is for the fiber")]
fn a_batch_is_not_for_another_fiber() {
    io::batch(|batch| {
        batch.timeout(LONG);
        runtime(1).run(|| batch.next().map(drop)).unwrap();
    });
}

/// The poll driver hands a read of a named pipe back, for a thread to perform it. When the batch
/// ends nobody waits for that, so the bytes stay; and where nothing may suspend, nothing has to.
#[test]
fn what_was_handed_back_is_not_done_at_the_end() {
    let _watchdog = watch::dog();
    let dir = TempDir::new();
    let path = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut fifo = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    fifo.write_all(b"x").unwrap();
    let driver = ramie::DriverKind::Poll;
    let runtime = ramie::Runtime::builder().workers(1).driver(driver).build().unwrap();
    let mut buf = [0; 4];
    runtime.run(|| {
        io::batch(|batch| _ = batch.read(&fifo, &mut buf));
        ramie::no_suspend(|| io::batch(|batch| _ = batch.read(&fifo, &mut buf)));
        let result = io::batch(|batch| {
            batch.read(&fifo, &mut buf);
            batch.next().unwrap().unwrap().result
        });
        assert_eq!(result.unwrap(), 1);
    });
    assert_eq!(buf, *b"x\0\0\0");
}

#[test]
#[should_panic(expected = "inside `ramie::no_suspend` would suspend")]
fn a_batch_does_not_wait_where_nothing_may_suspend() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let (reader, _writer) = pipe().unwrap();
        let mut buf = [0; 4];
        ramie::no_suspend(|| {
            io::batch(|batch| {
                batch.read(&reader, &mut buf);
                batch.timeout(Duration::from_millis(10));
                batch.next().map(drop)
            })
        })
        .unwrap();
    });
}

#[test]
fn nothing_is_left_open() {
    isolated("nothing_is_left_open", || {
        let runtime = runtime(1);
        let work = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            // Accepted, and taken by nobody.
            io::batch(|batch| {
                batch.accept(&listener);
                batch.accept(&listener);
                let _ = batch.poll(&client, Interest::WRITABLE);
                batch.next().unwrap();
            });
            let _ = client.as_fd();
        };
        runtime.run(work);
        let before = fds();
        for _ in 0..50 {
            runtime.run(work);
        }
        assert_eq!(fds(), before);
    });
}
