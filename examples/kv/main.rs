//! A key-value server that speaks the protocol of Redis, with keys that expire.
//!
//! ```text
//! cargo run --release --example kv -- 127.0.0.1:6380
//! redis-cli -p 6380 SET greeting hello EX 60
//! ```
//! Each connection is a fiber that reads requests, executes them (`store.rs`), and sends replies;
//! those of requests that came together go out together.

mod store;

use ramie::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use ramie::net::{TcpListener, TcpStream};
use ramie::sync::{Arc, Mutex};
use ramie::{eprintln, println};
use std::time::Duration;
use store::{Bytes, Store};

const MAX_LINE: u64 = 64 << 10;
const MAX_STRINGS: u64 = 1 << 20;
const MAX_STRING: u64 = 512 << 20;
/// All strings of a request together.
const MAX_REQUEST: u64 = 1 << 30;
/// So much of replies is sent even if there are more requests to be answered.
const MAX_HELD: usize = 64 << 10;

#[ramie::main]
fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:6380".to_owned());
    let listener = TcpListener::bind(&addr)?;
    println!("listening on {}", listener.local_addr()?);
    let store = Arc::new(Mutex::new(Store::default()));
    let swept = Arc::clone(&store);
    ramie::spawn(move || {
        while ramie::cancel::check().is_ok() {
            ramie::sleep(Duration::from_secs(1));
            swept.lock().expect("no command panics").sweep();
        }
    });
    ramie::spawn(move || accept(&listener, &store));
    ramie::signal::ctrl_c()
}

fn accept(listener: &TcpListener, store: &Arc<Mutex<Store>>) {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let store = Arc::clone(store);
                ramie::spawn(move || match serve(&stream, &store) {
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {} // it hung up
                    Err(error) if ramie::is_cancelled(&error) => {}
                    Err(error) => eprintln!("kv: {peer}: {error}"),
                    Ok(()) => {}
                });
            }
            Err(error) if ramie::is_cancelled(&error) => return,
            // No descriptor is left, say: some connection will end.
            Err(error) => {
                eprintln!("kv: accept: {error}");
                ramie::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// A connection that sends the replies there are before it waits for more requests.
struct Connection<'a> {
    stream: &'a TcpStream,
    replies: Bytes,
}

impl Connection<'_> {
    fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.replies)?;
        self.replies.clear();
        Ok(())
    }
}

impl Read for Connection<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.send()?;
        self.stream.read(buf)
    }
}

fn serve(stream: &TcpStream, store: &Mutex<Store>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(Connection { stream, replies: Vec::new() });
    loop {
        let request = match read_request(&mut input) {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                write!(input.get_mut().replies, "-ERR Protocol error: {error}\r\n")?;
                return input.get_mut().send();
            }
            request => request?,
        };
        let Some((name, args)) = request.split_first() else { continue };
        let name = name.to_ascii_uppercase();
        let reply = store.lock().expect("no command panics").execute(&name, args);
        reply.write(&mut input.get_mut().replies)?;
        if input.get_ref().replies.len() > MAX_HELD {
            input.get_mut().send()?;
        }
    }
}

/// Reads a list of strings, each with its length; or a line of words, as people type them.
fn read_request(input: &mut impl BufRead) -> io::Result<Vec<Bytes>> {
    let line = read_line(input)?;
    let Some(count) = line.strip_prefix(b"*") else {
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        return Ok(words.map(<[u8]>::to_vec).collect());
    };
    let mut left = MAX_REQUEST;
    let read_string = |_| {
        let line = read_line(input)?;
        let len = line.strip_prefix(b"$").ok_or_else(|| invalid("expected '$'"))?;
        let len = length(len, MAX_STRING.min(left))?;
        left -= len;
        let mut string = Vec::new();
        input.take(len).read_to_end(&mut string)?; // takes memory only as it comes
        if read_line(input)?.is_empty() { Ok(string) } else { Err(invalid("invalid bulk length")) }
    };
    (0..length(count, MAX_STRINGS)?).map(read_string).collect()
}

fn read_line(input: &mut impl BufRead) -> io::Result<Bytes> {
    let mut line = Vec::new();
    input.take(MAX_LINE).read_until(b'\n', &mut line)?;
    match line.pop_if(|end| *end == b'\n') {
        Some(_) => line.pop_if(|end| *end == b'\r'),
        None if line.len() as u64 == MAX_LINE => return Err(invalid("too big a line")),
        None => return Err(ErrorKind::UnexpectedEof.into()),
    };
    Ok(line)
}

fn length(text: &[u8], most: u64) -> io::Result<u64> {
    let length = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    length.filter(|length| *length <= most).ok_or_else(|| invalid("invalid length"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
