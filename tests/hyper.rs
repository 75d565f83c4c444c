//! Async code that nobody here wrote: hyper's HTTP/1 server and client, each run by `block_on` on
//! fibers of their own, with no other runtime in the process.
//!
//! Three kinds of connections:
//! - a pipe in memory that knows wakers, as async code expects of a connection;
//! - a socket of which every poll performs a plain blocking read or write, suspending the fiber
//!   inside `poll`. Nothing is ever pending. Enough for a server, which reads, answers, and reads;
//! - a socket with a fiber that reads ahead, for a client, which must be able to write while it
//!   waits for an answer.

mod common;

use common::{runtime, watch};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, client, server};
use ramie::fs::File;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

// ---- Connections --------------------------------------------------------------------------------

/// One direction of a connection in memory.
#[derive(Default)]
struct Lane {
    bytes: VecDeque<u8>,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How much fits into a lane: little, so that both sides have to wait.
const ROOM: usize = 4096;

impl Lane {
    fn read(&mut self, context: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<()> {
        if self.bytes.is_empty() && !self.closed {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = self.bytes.len().min(buf.remaining());
        let (front, back) = self.bytes.as_slices();
        let from_front = front.len().min(count);
        buf.put_slice(&front[..from_front]);
        buf.put_slice(&back[..count - from_front]);
        self.bytes.drain(..count);
        self.writer.take().into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }

    fn write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(ROOM.saturating_sub(self.bytes.len()));
        if count == 0 && !bytes.is_empty() {
            self.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.bytes.extend(&bytes[..count]);
        self.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }

    fn close(&mut self) {
        self.closed = true;
        self.reader.take().into_iter().for_each(Waker::wake);
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

/// One end of a connection in memory.
struct Memory {
    read: Arc<Mutex<Lane>>,
    write: Arc<Mutex<Lane>>,
}

fn memory() -> (Memory, Memory) {
    let (a, b) = (Arc::<Mutex<Lane>>::default(), Arc::<Mutex<Lane>>::default());
    (Memory { read: Arc::clone(&a), write: Arc::clone(&b) }, Memory { read: b, write: a })
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.read.lock().unwrap().close();
        self.write.lock().unwrap().close();
    }
}

impl Read for Memory {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.read.lock().unwrap().read(context, buf).map(Ok)
    }
}

impl Write for Memory {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write.lock().unwrap().write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.lock().unwrap().close();
        Poll::Ready(Ok(()))
    }
}

/// A socket that is read and written on the fiber that polls it.
struct Direct(UnixStream, File);

impl Direct {
    fn new(socket: UnixStream) -> Self {
        let file = File::from(OwnedFd::from(socket.try_clone().unwrap()));
        Self(socket, file)
    }
}

impl Read for Direct {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; 8192];
        let most = buf.remaining().min(bytes.len());
        let count = io::Read::read(&mut self.1, &mut bytes[..most])?;
        buf.put_slice(&bytes[..count]);
        Poll::Ready(Ok(()))
    }
}

impl Write for Direct {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(io::Write::write(&mut self.1, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown(std::net::Shutdown::Write))
    }
}

/// A socket that is written on the fiber that polls it, and read by another one, ahead of it.
struct ReadAhead {
    ahead: Arc<Mutex<Lane>>,
    socket: Direct,
}

impl ReadAhead {
    fn new(socket: UnixStream) -> Self {
        let ahead = Arc::<Mutex<Lane>>::default();
        let lane = Arc::clone(&ahead);
        let mut file = File::from(OwnedFd::from(socket.try_clone().unwrap()));
        ramie::spawn_local(move || {
            let mut bytes = vec![0; 8192];
            loop {
                let count = io::Read::read(&mut file, &mut bytes).unwrap_or(0);
                let mut rest = &bytes[..count];
                while !rest.is_empty() {
                    let written = std::future::poll_fn(|c| lane.lock().unwrap().write(c, rest));
                    match ramie::block_on(written) {
                        Ok(count) => rest = &rest[count..],
                        Err(_) => return,
                    }
                }
                if count == 0 {
                    return lane.lock().unwrap().close();
                }
            }
        });
        Self { ahead, socket: Direct::new(socket) }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        let _ = self.socket.0.shutdown(std::net::Shutdown::Both);
        self.ahead.lock().unwrap().close();
    }
}

impl Read for ReadAhead {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.ahead.lock().unwrap().read(context, buf).map(Ok)
    }
}

impl Write for ReadAhead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

// ---- The server ---------------------------------------------------------------------------------

/// A body that is sent in chunks, since nobody knows its length; a fiber makes them.
struct Chunks(Option<ramie::JoinHandle<(Bytes, u32)>>);

impl Chunks {
    fn new(left: u32) -> Self {
        let next = move || {
            ramie::yield_now();
            (Bytes::from(vec![left as u8; left as usize]), left)
        };
        Self((left > 0).then(|| ramie::spawn(next)))
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(fiber) = &mut self.0 else { return Poll::Ready(None) };
        let Poll::Ready(result) = Pin::new(fiber).poll(context) else { return Poll::Pending };
        let (bytes, left) = result.unwrap();
        *self = Self::new(left - 1);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// What [`Chunks`] sends.
fn chunked(count: u32) -> Vec<u8> {
    (1..=count).rev().flat_map(|left| vec![left as u8; left as usize]).collect()
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let full = |bytes: Bytes| Response::new(Full::new(bytes).boxed());
    Ok(match (request.method().clone(), path.as_str()) {
        (Method::POST, "/echo") => full(request.into_body().collect().await?.to_bytes()),
        (Method::GET, "/chunks") => Response::new(Chunks::new(200).boxed()),
        (Method::GET, "/never") => std::future::pending().await,
        // A blocking call, in the middle of async code.
        (Method::GET, "/file") => full(ramie::fs::read("Cargo.toml").unwrap().into()),
        // A fiber's result.
        (Method::GET, "/fiber") => full(ramie::spawn(|| "from a fiber").await.unwrap().into()),
        _ => {
            let mut response = full(Bytes::new());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

fn serve<T: Read + Write + Unpin>(connection: T) {
    let http = server::conn::http1::Builder::new()
        // With a connection that does not know `Pending`, hyper must not look for the other side's
        // end while it works on an answer.
        .half_close(true)
        .serve_connection(connection, service_fn(answer));
    ramie::block_on(http).expect("the connection ends well");
}

// ---- The client ---------------------------------------------------------------------------------

type AnyBody = BoxBody<Bytes, Infallible>;

async fn ask(
    sender: &mut client::conn::http1::SendRequest<AnyBody>,
    method: Method,
    path: &str,
    body: AnyBody,
) -> (StatusCode, Bytes) {
    let request = Request::builder().method(method).uri(path).header("host", "test");
    sender.ready().await.unwrap();
    let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

/// Many requests over one connection.
fn converse<T: Read + Write + Unpin + 'static>(connection: T, requests: usize) {
    ramie::block_on(async {
        let (mut sender, http) = client::conn::http1::handshake(connection).await.unwrap();
        let http = ramie::spawn_future_local(http);
        let empty = || Full::default().boxed();
        for n in 0..requests {
            let (status, body) = match n % 6 {
                0 => {
                    let sent = Bytes::from(vec![n as u8; n * 7]);
                    let body = Full::new(sent.clone()).boxed();
                    let (status, body) = ask(&mut sender, Method::POST, "/echo", body).await;
                    assert_eq!(body, sent);
                    (status, body)
                }
                1 => {
                    let body = Chunks::new(100).boxed();
                    let (status, body) = ask(&mut sender, Method::POST, "/echo", body).await;
                    assert_eq!(body, chunked(100));
                    (status, body)
                }
                2 => ask(&mut sender, Method::GET, "/chunks", empty()).await,
                3 => ask(&mut sender, Method::GET, "/file", empty()).await,
                4 => ask(&mut sender, Method::GET, "/fiber", empty()).await,
                _ => ask(&mut sender, Method::GET, "/nothing", empty()).await,
            };
            match n % 6 {
                2 => assert_eq!(body, chunked(200)),
                3 => assert_eq!(body, std::fs::read("Cargo.toml").unwrap()),
                4 => assert_eq!(body, "from a fiber"),
                _ => {}
            }
            let expected = if n % 6 == 5 { StatusCode::NOT_FOUND } else { StatusCode::OK };
            assert_eq!(status, expected);
        }
        // 1 MiB there and back, far more than a connection holds.
        let sent: Bytes = (0..1 << 20).map(|n: u32| (n.wrapping_mul(n) >> 7) as u8).collect();
        let body = Full::new(sent.clone()).boxed();
        let (_, body) = ask(&mut sender, Method::POST, "/echo", body).await;
        assert!(body == sent, "1 MiB came back changed");
        drop(sender);
        http.await.unwrap().expect("the connection ends well");
    });
}

// ---- The tests ----------------------------------------------------------------------------------

/// Runs several conversations at the same time, with one worker and with two.
fn several(connect: fn() -> (ramie::JoinHandle<()>, ramie::JoinHandle<()>)) {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let pairs: Vec<_> = (0..6).map(|_| connect()).collect();
            for (server, client) in pairs {
                client.join().unwrap();
                server.join().unwrap();
            }
        });
    }
}

#[test]
fn over_memory() {
    several(|| {
        let (here, there) = memory();
        (ramie::spawn(|| serve(there)), ramie::spawn(|| converse(here, 60)))
    });
}

#[test]
fn over_sockets() {
    several(|| {
        let (here, there) = UnixStream::pair().unwrap();
        let server = ramie::spawn(|| serve(Direct::new(there)));
        (server, ramie::spawn(|| converse(ReadAhead::new(here), 60)))
    });
}

/// A client's fiber that is cancelled drops its futures, and with them the connection; the server
/// notices, and ends.
#[test]
fn a_cancelled_conversation() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let (here, there) = memory();
            let server = ramie::spawn(move || {
                let service = service_fn(answer);
                let http = server::conn::http1::Builder::new().serve_connection(there, service);
                ramie::block_on(http)
            });
            let asked = Arc::new(Mutex::new(false));
            let theirs = Arc::clone(&asked);
            let client = ramie::spawn(move || {
                ramie::try_block_on(async {
                    let (mut sender, http) = client::conn::http1::handshake(here).await.unwrap();
                    let _http = ramie::spawn_future_local(http);
                    let (_, body) =
                        ask(&mut sender, Method::GET, "/fiber", Full::default().boxed()).await;
                    *theirs.lock().unwrap() = true;
                    ask(&mut sender, Method::GET, "/never", Full::new(body).boxed()).await
                })
            });
            common::eventually("it has asked", || *asked.lock().unwrap());
            ramie::sleep(std::time::Duration::from_millis(2));
            client.cancel();
            assert!(ramie::is_cancelled(&client.join().unwrap().unwrap_err()));
            assert!(server.join().unwrap().is_err(), "cut off in the middle of an answer");
        });
    }
}

/// No other runtime takes part.
#[test]
fn no_thread_but_ours() {
    let _watchdog = watch::dog();
    common::isolated("no_thread_but_ours", || {
        runtime(1).run(|| {
            let (here, there) = memory();
            let server = ramie::spawn(|| serve(there));
            converse(here, 20);
            server.join().unwrap();
            let mut others = Vec::new();
            for task in std::fs::read_dir("/proc/self/task").unwrap() {
                let name = std::fs::read_to_string(task.unwrap().path().join("comm"));
                // The blocking pool's, and the kernel's own for io_uring.
                let ours = |name: &String| name.starts_with("ramie-") || name.starts_with("iou-");
                others.extend(name.ok().filter(|name| !ours(name)));
            }
            // The harness's two, and the watchdog's.
            assert!(others.len() <= 3, "{others:?}");
        });
    });
}
