//! The two directions of a stream as values of their own. The other end is std's, on a thread.

mod common;

use std::net::Shutdown;
use std::thread::{self, JoinHandle};

use common::TempDir;
use ramie::io::{self, IoSlice, IoSliceMut, Read, Write};
use ramie::net::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, TcpStream, WriteHalf};
use ramie::os::unix::net::UnixStream;

fn tcp() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (stream, listener.accept().unwrap().0)
}

fn unix() -> (UnixStream, std::os::unix::net::UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    (ours.into(), theirs)
}

/// Sends back what it receives, until the end of that.
fn echo(mut peer: impl Read + Write + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buf = [0; 5000];
        loop {
            match peer.read(&mut buf).unwrap() {
                0 => return,
                n => peer.write_all(&buf[..n]).unwrap(),
            }
        }
    })
}

/// More than the sockets have room for, so that each direction must go on by itself.
fn there_and_back(mut reader: impl Read, writer: impl Write + Send) {
    let bytes: Vec<u8> = (0..8_000_000_u32).map(|n| (n ^ n >> 8) as u8).collect();
    let mut back = vec![0; bytes.len()];
    let mut writer = writer;
    if ramie::is_fiber() {
        ramie::scope(|scope| {
            scope.spawn(|| writer.write_all(&bytes).unwrap());
            reader.read_exact(&mut back).unwrap();
        });
    } else {
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&bytes).unwrap());
            reader.read_exact(&mut back).unwrap();
        });
    }
    assert!(back == bytes);
}

macro_rules! on_both {
    (|$stream:ident, $peer:ident| $body:block) => {{
        {
            #[allow(unused_mut)]
            let (mut $stream, mut $peer) = tcp();
            $body
        }
        {
            #[allow(unused_mut)]
            let (mut $stream, mut $peer) = unix();
            $body
        }
    }};
}

contract! {
    fn borrowed_halves_work_at_the_same_time() {
        on_both!(|stream, peer| {
            let echo = echo(peer);
            let (mut reader, mut writer) = stream.split();
            there_and_back(&mut reader, &mut writer);
            // Dropped, they shut nothing down.
            stream.write_all(b"more").unwrap();
            let mut buf = [0; 4];
            stream.read_exact(&mut buf).unwrap();
            assert_eq!(&buf, b"more");
            drop(stream);
            echo.join().unwrap();
        });
    }

    fn owned_halves_end_one_after_the_other() {
        on_both!(|stream, peer| {
            let echo = echo(peer.try_clone().unwrap());
            let (mut reader, mut writer) = stream.into_split();
            there_and_back(&mut reader, &mut writer);
            writer.flush().unwrap();
            drop(writer);
            echo.join().unwrap(); // it has seen the end
            peer.write_all(b"after the end").unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "after the end");
            drop((reader, peer));
        });
    }

    fn the_last_half_closes() {
        on_both!(|stream, peer| {
            let (reader, writer) = stream.into_split();
            drop(reader);
            peer.set_nonblocking(true).unwrap();
            let waits = peer.read(&mut [0]).unwrap_err();
            assert_eq!(waits.kind(), io::ErrorKind::WouldBlock);
            writer.forget();
            peer.set_nonblocking(false).unwrap();
            assert_eq!(peer.read(&mut [0]).unwrap(), 0);
        });
    }

    fn halves_are_reunited() {
        on_both!(|stream, peer| {
            let (mut reader, mut writer) = stream.into_split();
            for _ in 0..3 {
                let stream = reader.reunite(writer).unwrap();
                (reader, writer) = stream.into_split();
            }
            let mut stream = writer.reunite(reader).unwrap();
            stream.write_all(b"still").unwrap();
            let mut buf = [0; 5];
            peer.read_exact(&mut buf).unwrap();
            assert_eq!(&buf, b"still");
        });
        let ((a, mut peer_of_a), (b, _peer_of_b)) = (tcp(), tcp());
        let ((read_a, write_a), (read_b, write_b)) = (a.into_split(), b.into_split());
        let error = read_b.reunite(write_a).unwrap_err();
        assert_eq!(error.to_string(), "the two halves are not of the same stream");
        let mut a = read_a.reunite(error.1).unwrap();
        drop(error.0.reunite(write_b).unwrap());
        a.write_all(b"a").unwrap();
        drop(a);
        let mut text = String::new();
        peer_of_a.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a");
    }

    fn halves_have_what_the_stream_has() {
        let (mut stream, mut peer) = tcp();
        let addr = peer.local_addr().unwrap();
        let (mut reader, mut writer) = stream.split();
        assert_eq!(reader.as_ref().peer_addr().unwrap(), addr);
        let parts = [IoSlice::new(b"ab"), IoSlice::new(b"cd")];
        assert_eq!(writer.write_vectored(&parts).unwrap(), 4);
        let mut buf = [0; 4];
        peer.read_exact(&mut buf).unwrap();
        peer.write_all(&buf).unwrap();
        let (mut x, mut y) = ([0; 1], [0; 3]);
        while reader.as_ref().peek(&mut [0; 4]).unwrap() != 4 {}
        let parts = &mut [IoSliceMut::new(&mut x), IoSliceMut::new(&mut y)];
        assert_eq!(reader.read_vectored(parts).unwrap(), 4);
        assert_eq!((&x, &y), (b"a", b"bcd"));
        writer.as_ref().set_nodelay(true).unwrap();
        assert!(format!("{reader:?} {writer:?}").starts_with("ReadHalf(TcpStream"));
    }

    fn the_kernel_copies_through_halves() {
        let dir = TempDir::new();
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n ^ n >> 8) as u8).collect();
        std::fs::write(dir.path().join("from"), &bytes).unwrap();
        on_both!(|stream, peer| {
            let echo = echo(peer);
            let (mut reader, mut writer) = stream.into_split();
            let (from, to) = (dir.path().join("from"), dir.path().join("to"));
            let copier = thread::spawn(move || {
                let mut to = ramie::fs::File::create(to).unwrap();
                io::copy(&mut reader, &mut to).unwrap()
            });
            let mut from = ramie::fs::File::open(from).unwrap();
            assert_eq!(io::copy(&mut from, &mut writer).unwrap(), 300_000);
            drop(writer);
            echo.join().unwrap();
            assert_eq!(copier.join().unwrap(), 300_000);
            assert!(std::fs::read(dir.path().join("to")).unwrap() == bytes);
        });
    }
}

#[test]
fn halves_may_go_where_the_stream_may() {
    fn goes<T: Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe + Unpin>() {}
    goes::<TcpStream>();
    goes::<ReadHalf<'static, TcpStream>>();
    goes::<WriteHalf<'static, UnixStream>>();
    goes::<OwnedReadHalf>();
    goes::<OwnedWriteHalf<UnixStream>>();
}
