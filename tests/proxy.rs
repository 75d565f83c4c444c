//! The `proxy` example, between clients and servers of all manners.

mod common;

use common::example::{Server, has_tool};
use common::{eventually, watch};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// A proxy to a listener of ours.
fn start() -> (Server, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    (Server::start("proxy", &["127.0.0.1:0", &target]), listener)
}

fn connect(proxy: &Server) -> TcpStream {
    TcpStream::connect(&proxy.addr).unwrap()
}

/// Each side ends what it says, and still hears the other.
#[test]
fn half_closed() {
    let _watchdog = watch::dog();
    let (proxy, listener) = start();
    for client_first in [true, false] {
        let client = connect(&proxy);
        let (server, _) = listener.accept().unwrap();
        let (mut first, mut second) =
            if client_first { (&client, &server) } else { (&server, &client) };
        first.write_all(b"question").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        second.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        for part in ["a ", "long ", "answer"] {
            thread::sleep(Duration::from_millis(5));
            second.write_all(part.as_bytes()).unwrap();
        }
        second.shutdown(Shutdown::Write).unwrap();
        text.clear();
        first.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a long answer");
    }
    eventually("only the listener is left", || proxy.sockets() == 1);
    proxy.end();
}

#[test]
fn much_both_ways_at_once() {
    const LEN: usize = 8 << 20;
    let _watchdog = watch::dog();
    let (proxy, listener) = start();
    let exchange = |stream: TcpStream, sent: u8, expected: u8| {
        let mut writer = stream.try_clone().unwrap();
        let writer = thread::spawn(move || {
            writer.write_all(&vec![sent; LEN]).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        (&stream).read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        assert!(received.len() == LEN && received.iter().all(|byte| *byte == expected));
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            let client = connect(&proxy);
            let (server, _) = listener.accept().unwrap();
            scope.spawn(move || exchange(client, b'c', b's'));
            scope.spawn(move || exchange(server, b's', b'c'));
        }
    });
    proxy.end();
}

#[test]
fn many_connections() {
    let _watchdog = watch::dog();
    let (proxy, listener) = start();
    let pairs: Vec<_> = (0..200).map(|_| (connect(&proxy), listener.accept().unwrap().0)).collect();
    for (client, server) in &pairs {
        (&mut &*client).write_all(b"ping").unwrap();
        let mut word = [0; 4];
        (&mut &*server).read_exact(&mut word).unwrap();
        (&mut &*server).write_all(&word).unwrap();
        (&mut &*client).read_exact(&mut word).unwrap();
    }
    drop(pairs);
    eventually("only the listener is left", || proxy.sockets() == 1);
    proxy.end();
}

/// A connection that is reset on one side ends on the other.
#[test]
fn resets_and_refusals() {
    let _watchdog = watch::dog();
    let (proxy, listener) = start();
    let mut client = connect(&proxy);
    let (server, _) = listener.accept().unwrap();
    client.write_all(b"unread").unwrap();
    eventually("it has come", || server.peek(&mut [0; 8]).is_ok_and(|n| n > 0));
    drop(server); // with something unread, so it is reset
    assert!(client.read(&mut [0; 8]).map_or(true, |n| n == 0));
    drop(client);
    eventually("only the listener is left", || proxy.sockets() == 1);
    drop(listener);
    let mut refused = connect(&proxy);
    assert!(refused.read(&mut [0; 8]).map_or(true, |n| n == 0));
    eventually("only the listener is left", || proxy.sockets() == 1);
    proxy.end();
}

/// curl, and a server whose answer's end is the connection's.
#[test]
fn with_curl() {
    if !has_tool("curl", "curl") {
        return;
    }
    let _watchdog = watch::dog();
    let (proxy, listener) = start();
    let body = "x".repeat(300_000);
    let sent = body.clone();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        write!(stream, "HTTP/1.0 200 OK\r\n\r\n{sent}").unwrap();
    });
    let mut curl = Command::new("curl");
    let output = curl.args(["-sS", "--max-time", "60"]).arg(format!("http://{}/", proxy.addr));
    let output = output.stderr(Stdio::inherit()).output().unwrap();
    server.join().unwrap();
    assert!(output.status.success() && output.stdout == body.as_bytes());
    proxy.end();
}
