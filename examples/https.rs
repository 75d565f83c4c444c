//! HTTPS with `rustls`, which knows only `Read` and `Write`, as it is: a server that greets, and a
//! client.
//!
//! ```text
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
//!     -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem
//! cargo run --release --example https -- serve cert.pem key.pem [ADDRESS]
//! cargo run --release --example https -- get cert.pem localhost PORT /PATH
//! ```

use ramie::fs;
use ramie::net::{TcpListener, TcpStream};
use ramie::time::timeout;
use ramie::{eprintln, println};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, Stream,
};
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::time::Duration;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;
/// For a whole head to come, however slowly, and for each write.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_HEAD: u64 = 16 << 10;

#[ramie::main]
fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", cert, key] => serve(cert, key, "127.0.0.1:0"),
        ["serve", cert, key, address] => serve(cert, key, address),
        ["get", cert, host, port, path] => get(cert, host, port.parse()?, path),
        _ => Err("usage: serve CERT KEY [ADDRESS] | get CERT HOST PORT PATH".into()),
    }
}

fn certificates(path: &str) -> Outcome<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_slice_iter(&fs::read(path)?).collect::<Result<_, _>>()?)
}

fn serve(cert: &str, key: &str, address: &str) -> Outcome<()> {
    let key = PrivateKeyDer::from_pem_slice(&fs::read(key)?)?;
    let config = ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(certificates(cert)?, key)?);
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let config = Arc::clone(&config);
        match stream {
            Ok(stream) => drop(ramie::spawn(move || {
                if let Err(error) = greet(stream, config) {
                    eprintln!("{error}");
                }
            })),
            Err(_) => ramie::sleep(Duration::from_millis(50)), // too many open files, say
        }
    }
    Ok(())
}

fn greet(mut stream: TcpStream, config: Arc<ServerConfig>) -> Outcome<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut connection = ServerConnection::new(config)?;
    let mut stream = BufReader::new(Stream::new(&mut connection, &mut stream));
    loop {
        let Some(head) = timeout(PATIENCE, || read_head(&mut stream))? else { return Ok(()) };
        let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let greeting = format!("Hello, {}!\n", String::from_utf8_lossy(path).trim_matches('/'));
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{greeting}",
            greeting.len()
        );
        stream.get_mut().write_all(answer.as_bytes())?;
        stream.get_mut().flush()?;
    }
}

/// `None` at the end, or if there is more than we care to read.
fn read_head(stream: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let left = MAX_HEAD - head.len() as u64;
        if stream.by_ref().take(left).read_until(b'\n', &mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

fn get(cert: &str, host: &str, port: u16, path: &str) -> Outcome<()> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(cert)?);
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())?;
    let mut stream = TcpStream::connect((host, port))?;
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    let mut stream = Stream::new(&mut connection, &mut stream);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = BufReader::new(&mut stream);
    let (mut line, mut len) = (String::new(), 0);
    while answer.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse()?;
        }
        line.clear();
    }
    let mut body = Vec::new();
    answer.take(len).read_to_end(&mut body)?;
    io::stdout().write_all(&body)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}
