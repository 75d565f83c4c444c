//! A chat server over WebSockets: what one client says, all others hear. `tungstenite`, which knows
//! only `Read` and `Write`, is used as it is.
//!
//! `cargo run --release --example chat -- [ADDRESS]`, by default at a free port, which it prints.
//! The path that a client connects to is its name: `ws://127.0.0.1:PORT/anna`.

use ramie::net::{Shutdown, TcpListener, TcpStream};
use ramie::sync::broadcast::{self, RecvError, Sender};
use ramie::sync::{Arc, Mutex};
use ramie::{eprintln, println};
use std::io::{self, Read, Write};
use std::time::Duration;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

/// So many messages a slow client may lag behind before it misses some.
const BACKLOG: usize = 1000;
/// As many messages are kept as the backlog is long, so they must not be of any size.
const MAX_MESSAGE: usize = 64 << 10;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

#[derive(Clone)]
struct Said {
    by: u64,
    line: String,
}

#[ramie::main]
fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(&*address)?;
    println!("listening on {}", listener.local_addr()?);
    let (room, _) = broadcast::channel(BACKLOG);
    for (id, stream) in (0..).zip(listener.incoming()) {
        let room = room.clone();
        match stream {
            Ok(stream) => drop(ramie::spawn(move || {
                if let Err(error) = client(id, stream, &room) {
                    eprintln!("client {id}: {error}");
                }
            })),
            Err(_) => ramie::sleep(Duration::from_millis(50)), // too many open files, say
        }
    }
    Ok(())
}

/// One client: this fiber listens to it, and another one tells it what the others say.
fn client(id: u64, stream: TcpStream, room: &Sender<Said>) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(PATIENCE)?; // for the handshake
    stream.set_write_timeout(PATIENCE)?; // who reads nothing is sent away
    let socket = Socket { stream: Arc::new(stream), turn: Arc::default() };
    let (mut name, mut others) = (String::new(), None);
    #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
    let handshake = |request: &Request, response: Response| {
        name = request.uri().path().trim_matches('/').to_owned();
        others = Some(room.subscribe()); // before it is answered: from then on it misses nothing
        Ok(response)
    };
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let accepted = tungstenite::accept_hdr_with_config(socket.clone(), handshake, Some(limits));
    let Ok(mut ears) = accepted else {
        return Ok(()); // it does not speak our protocol
    };
    let mut others = others.expect("the handshake has subscribed");
    socket.stream.set_read_timeout(None)?;
    let mut mouth = WebSocket::from_raw_socket(socket.clone(), Role::Server, None);
    let say = |line| _ = room.send(Said { by: id, line });
    say(format!("{name} is here"));
    let result = ramie::scope(|scope| {
        let teller = scope.spawn(|| {
            loop {
                let told = match others.recv() {
                    Ok(said) if said.by == id => Ok(()),
                    Ok(said) => mouth.send(Message::text(said.line)),
                    Err(RecvError::Lagged(count)) => {
                        mouth.send(Message::text(format!("({count} messages missed)")))
                    }
                    Err(RecvError::Closed) => return, // asked to end, see below
                };
                if told.is_err() {
                    _ = socket.stream.shutdown(Shutdown::Both); // ends the listening, too
                    return;
                }
            }
        });
        let result = loop {
            match ears.read() {
                Ok(Message::Text(line)) => say(format!("{name}: {line}")),
                Ok(_) => {} // tungstenite itself answers pings and the end
                Err(error) => break error,
            }
        };
        teller.cancel();
        result
    });
    say(format!("{name} has left"));
    match result {
        Error::ConnectionClosed | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Ok(())
        }
        error => Err(error),
    }
}

/// One of the two users of a connection. Each message goes out whole: tungstenite writes one, or
/// several, at a time, and the other user has its turn after it.
#[derive(Clone)]
struct Socket {
    stream: Arc<TcpStream>,
    turn: Arc<Mutex<()>>,
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self.stream).read(buf)
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let _turn = self.turn.lock();
        (&*self.stream).write_all(buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
