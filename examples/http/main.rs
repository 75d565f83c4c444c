//! A static-file server: HTTP/1.1 with keep-alive, pipelining, HEAD, ranges, 304 and indexes.
//!
//! `cargo run --release --example http -- DIRECTORY [ADDRESS]`, by default at a free port, which it
//! prints. One fiber for each connection, written as one would write it for threads. This file
//! speaks HTTP; `files.rs` finds what to answer.

mod files;

use files::Answer;
use httparse::{Request, Status};
use httpdate::fmt_http_date;
use ramie::net::{TcpListener, TcpStream};
use ramie::println;
use ramie::time::timeout;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const MAX_HEAD: u64 = 16 << 10;
/// For a whole head to come, however slowly, and for each write.
const PATIENCE: Duration = Duration::from_secs(30);

#[ramie::main]
fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let root = PathBuf::from(args.next().unwrap_or_else(|| ".".into()));
    let listener = TcpListener::bind(args.next().as_deref().unwrap_or("127.0.0.1:0"))?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let root = root.clone();
        match stream {
            // A connection that ends early is its client's business.
            Ok(stream) => drop(ramie::spawn(move || serve(&stream, &root))),
            Err(_) => ramie::sleep(Duration::from_millis(50)), // too many open files, say
        }
    }
    Ok(())
}

fn serve(stream: &TcpStream, root: &Path) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = (BufReader::new(stream), BufWriter::new(stream));
    let mut head = Vec::new();
    while timeout(PATIENCE, || read_head(&mut reader, &mut head))? {
        let goes_on = respond(&head, root, &mut writer)?;
        if !goes_on || reader.buffer().is_empty() {
            writer.flush()?; // answers to requests that came together leave together
        }
        if !goes_on {
            break;
        }
    }
    Ok(())
}

/// Returns whether there is one: there may be the end, or more than we care to read.
fn read_head(reader: &mut impl BufRead, head: &mut Vec<u8>) -> io::Result<bool> {
    head.clear();
    while !head.ends_with(b"\r\n\r\n") {
        let left = MAX_HEAD - head.len() as u64;
        if reader.by_ref().take(left).read_until(b'\n', head)? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Answers one request. Returns whether the connection goes on.
fn respond(head: &[u8], root: &Path, writer: &mut impl Write) -> io::Result<bool> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = Request::new(&mut headers);
    // All of it: a head that seems to be shorter to the parser would hide another request.
    let valid = request.parse(head) == Ok(Status::Complete(head.len()));
    let modern = request.version == Some(1);
    let Answer { status, headers, len, body } = match request.method {
        _ if !valid || (modern && header(&request, "host").is_none()) => {
            Answer::text("400 Bad Request", "")
        }
        Some("GET" | "HEAD") => files::answer(&request, root)?,
        _ => Answer::text("405 Method Not Allowed", "Allow: GET, HEAD\r\n"),
    };
    // Nobody here reads a request's body, so nothing that comes after one can be read either.
    // Each header counts: who stands between us and the client may have heeded another one.
    let has_body = request.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("transfer-encoding")
            || (header.name.eq_ignore_ascii_case("content-length") && header.value != b"0")
    });
    let goes_on = match header(&request, "connection") {
        _ if !valid || has_body => false,
        Some(option) if option.eq_ignore_ascii_case("close") => false,
        option => modern || option.is_some_and(|name| name.eq_ignore_ascii_case("keep-alive")),
    };
    let (date, connection) =
        (fmt_http_date(SystemTime::now()), if goes_on { "keep-alive" } else { "close" });
    write!(writer, "HTTP/1.1 {status}\r\nDate: {date}\r\nConnection: {connection}\r\n")?;
    write!(writer, "Content-Length: {len}\r\n{headers}\r\n")?;
    if let Some(body) = body
        && request.method != Some("HEAD")
    {
        // If the file has become shorter, only the end of the connection can say so.
        return Ok(io::copy(&mut body.take(len), writer)? == len && goes_on);
    }
    Ok(goes_on)
}

fn header<'a>(request: &Request<'_, 'a>, name: &str) -> Option<&'a str> {
    let mut headers = request.headers.iter();
    let found = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok()
}
