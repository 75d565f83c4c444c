//! A TCP proxy: whoever connects to LISTEN talks to TARGET.
//!
//! ```text
//! cargo run --example proxy -- 127.0.0.1:8080 example.com:80
//! ```
//! Each connection is a fiber, and each of its two directions another one. The end of one direction
//! is passed on as such while the other goes on (a half-closed connection); an error ends both.

use ramie::io::{self, ErrorKind};
use ramie::net::{Shutdown, TcpListener, TcpStream};
use ramie::{eprintln, println};
use std::process::ExitCode;
use std::time::Duration;

#[ramie::main]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, target] = arguments.as_slice() else {
        eprintln!("usage: proxy LISTEN TARGET");
        return ExitCode::from(2);
    };
    match serve(listen, target) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {listen}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Accepts connections until Ctrl-C.
fn serve(listen: &str, target: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    println!("listening on {}", listener.local_addr()?);
    let target = target.to_owned();
    ramie::spawn(move || {
        loop {
            match listener.accept() {
                Ok((client, peer)) => {
                    let target = target.clone();
                    ramie::spawn(move || {
                        if let Err(error) = relay(&client, &target) {
                            eprintln!("proxy: {peer}: {error}");
                        }
                    });
                }
                Err(error) if ramie::is_cancelled(&error) => break,
                // No descriptor is left, say: some connection will end.
                Err(error) => {
                    eprintln!("proxy: accept: {error}");
                    ramie::sleep(Duration::from_millis(100));
                }
            }
        }
    });
    ramie::signal::ctrl_c()
}

/// Connects a client with its server, until both have said all.
fn relay(client: &TcpStream, target: &str) -> io::Result<()> {
    let server = &TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (up, down) = ramie::join(|| pump(client, server), || pump(server, client));
    up.and(down)
}

/// Passes on what comes from one side, and then its end.
fn pump(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let result = match io::copy(&mut from, &mut to) {
        Ok(_) => to.shutdown(Shutdown::Write),
        Err(error) => {
            // The other direction ends, too.
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            Err(error)
        }
    };
    match result {
        // It has gone altogether, which is its right.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}
