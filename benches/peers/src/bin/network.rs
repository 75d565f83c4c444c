//! Other runtimes as servers on one core: TCP echo, and "Hello, World!" over HTTP/1.1.
//!
//! Each server is a process of its own on core 0; the load comes from core 1: for echo from a ring,
//! for HTTP from `wrk`, without which those columns stay empty. What a request costs the server's
//! core is the figure to look at: the rate has the load's own share in it. All send the same
//! headers, but for may's, whose library has its own.

#[path = "../../../common/mod.rs"]
mod common;
#[path = "../../../common/load.rs"]
mod load;

use common::{Bench, Metric, OURS};
use load::{Client, MESSAGE, Server};
use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

type Serve = fn();

const ECHO: [(&str, Serve); 4] = [
    (OURS, ours::echo),
    ("tokio", on_tokio::echo),
    ("monoio", on_monoio::echo),
    ("may", on_may::echo),
];
const HTTP: [(&str, Serve); 3] =
    [(OURS, ours::http), ("hyper", on_tokio::http), ("may_minihttp", on_may::http)];

struct Metrics {
    connections: usize,
    /// How many requests are sent at once.
    depth: usize,
    rate: Metric,
    cpu: Metric,
    late: Metric,
}

macro_rules! metrics {
    ($what:literal $($connections:literal x $depth:literal,)*) => {
        [$(Metrics {
            connections: $connections,
            depth: $depth,
            rate: Metric::rate(concat!($what, ", ", $connections, " x ", $depth), "k/s"),
            cpu: Metric::time(concat!($what, ", ", $connections, " x ", $depth, ": CPU"), "us"),
            late: Metric::time(concat!($what, ", ", $connections, " x ", $depth, ": 99 %"), "us"),
        }),*]
    };
}

fn main() {
    let mut bench = Bench::from_args();
    if let [serve, what, name] = &*bench.args
        && serve == "serve"
    {
        let servers = if what == "echo" { &ECHO[..] } else { &HTTP[..] };
        let server = servers.iter().find(|(known, _)| known == name).expect("a server's name");
        return server.1();
    }
    for metrics in metrics!("echo" 1 x 1, 64 x 1, 512 x 1, 4096 x 1,) {
        echo(&mut bench, &metrics);
    }
    for metrics in metrics!("HTTP" 64 x 1, 512 x 1, 64 x 16, 512 x 16,) {
        http(&mut bench, &metrics);
    }
    bench.print();
}

fn start(what: &str, name: &'static str) -> Option<(&'static str, Server)> {
    let mut command = if name == "Go" {
        Command::new(std::env::var_os("RAMIE_GO_PEER")?)
    } else {
        Command::new(std::env::current_exe().ok()?)
    };
    match name {
        "Go" => command.args([what, "1", "0"]),
        _ => command.args(["serve", what, name]),
    };
    Some((name, Server::start(command)?))
}

fn start_all(what: &str, servers: &[(&'static str, Serve)]) -> Vec<(&'static str, Server)> {
    let names = servers.iter().map(|(name, _)| *name).chain(["Go"]);
    names.filter_map(|name| start(what, name)).collect()
}

fn wanted(bench: &Bench, metrics: &Metrics) -> bool {
    [metrics.rate, metrics.cpu, metrics.late].into_iter().any(|metric| bench.wants(metric))
}

fn echo(bench: &mut Bench, metrics: &Metrics) {
    if !wanted(bench, metrics) {
        return;
    }
    let slice = Duration::from_millis(if bench.quick { 10 } else { 100 });
    // One client's descriptors do not leave room for another's.
    let alone = metrics.connections > 1000;
    let mut servers = start_all("echo", &ECHO);
    let mut clients: Vec<_> = servers
        .iter()
        .map(|(_, server)| (!alone).then(|| Client::new(server, metrics.connections)))
        .collect();
    for _ in bench.rounds(if alone { 5 } else { 20 }) {
        for ((name, server), kept) in servers.iter_mut().zip(&mut clients) {
            let mut once = None;
            let client = match kept {
                Some(client) => client,
                None => once.insert(Client::new(server, metrics.connections)),
            };
            if alone {
                client.run(server, slice);
            }
            let reached = client.run(server, slice);
            bench.record(metrics.rate, name, Some(reached.k_per_s));
            bench.record(metrics.cpu, name, Some(reached.cpu_us));
            bench.record(metrics.late, name, Some(reached.p99_us));
        }
    }
}

/// `wrk` sends what its script says: here so many requests at once.
const SCRIPT: &str = "init = function() local all = {} for i = 1, DEPTH do \
    all[i] = wrk.format(nil, '/') end text = table.concat(all) end \
    request = function() return text end";

fn http(bench: &mut Bench, metrics: &Metrics) {
    if !wanted(bench, metrics) {
        return;
    }
    let dir = common::TempDir::new("wrk");
    let script = dir.path().join("script.lua");
    std::fs::write(&script, SCRIPT.replace("DEPTH", &metrics.depth.to_string())).expect("a file");
    let servers = start_all("http", &HTTP);
    for _ in bench.rounds(5) {
        for (name, server) in &servers {
            let cpu = server.cpu();
            common::pin(1);
            let mut wrk = Command::new("wrk");
            wrk.args(["-t1", "-d1s", "--latency", &format!("-c{}", metrics.connections), "-s"]);
            wrk.arg(&script).arg(format!("http://{}/", server.addr));
            let Ok(output) = wrk.output() else {
                return eprintln!("no wrk: nothing is known about HTTP");
            };
            let cpu = server.cpu() - cpu;
            let text = String::from_utf8_lossy(&output.stdout);
            let after = |label: &str| text.split(label).nth(1)?.split_whitespace().next();
            let before = |label: &str| text.split(label).next()?.split_whitespace().last();
            let rate = after("Requests/sec:").and_then(|text| text.parse::<f64>().ok());
            let count = before(" requests in ").and_then(|text| text.parse::<f64>().ok());
            bench.record(metrics.rate, name, rate.map(|rate| rate / 1e3));
            bench.record(metrics.cpu, name, count.map(|count| cpu.as_secs_f64() * 1e6 / count));
            if metrics.depth == 1 {
                bench.record(metrics.late, name, after("99%").and_then(micros));
            }
        }
    }
}

/// What `wrk` writes as "1.23ms".
fn micros(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let scale = match &text[digits.len()..] {
        "us" => 1.0,
        "ms" => 1e3,
        _ => 1e6,
    };
    Some(digits.parse::<f64>().ok()? * scale)
}

fn say_port(addr: std::io::Result<std::net::SocketAddr>) {
    println!("{}", addr.expect("it is bound").port());
}

const ANY: &str = "127.0.0.1:0";

mod ours {
    use super::*;
    use ramie::net::{TcpListener, TcpStream};

    fn serve(each: fn(TcpStream)) {
        let Some(runtime) = common::runtime(1) else { return };
        runtime.run(|| {
            let listener = TcpListener::bind(ANY).expect("a port");
            say_port(listener.local_addr());
            for stream in listener.incoming().flatten() {
                _ = stream.set_nodelay(true);
                ramie::spawn(move || each(stream));
            }
        });
    }

    pub fn echo() {
        serve(|mut stream| {
            let mut buf = [0; MESSAGE];
            loop {
                match stream.read(&mut buf) {
                    Ok(0) | Err(_) => return,
                    Ok(n) => stream.write_all(&buf[..n]).unwrap_or(()),
                }
            }
        });
    }

    pub fn http() {
        serve(|mut stream| {
            let (mut buf, mut filled) = ([0; 4096], 0);
            let (mut answers, mut date) = (Vec::new(), Date::new());
            while let Ok(n @ 1..) = stream.read(&mut buf[filled..]) {
                filled += n;
                let mut done = 0;
                while let Some(len) = request(&buf[done..filled]) {
                    done += len;
                    date.answer(&mut answers);
                }
                buf.copy_within(done..filled, 0);
                filled -= done;
                if stream.write_all(&answers).is_err() {
                    return;
                }
                answers.clear();
            }
        });
    }

    /// The length of the request at the start of `text`, if it is all there.
    fn request(text: &[u8]) -> Option<usize> {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(text) {
            Ok(httparse::Status::Complete(len)) => Some(len),
            _ => None,
        }
    }

    struct Date {
        text: String,
        until: Instant,
    }

    impl Date {
        fn new() -> Date {
            Date { text: String::new(), until: Instant::now() }
        }

        fn answer(&mut self, out: &mut Vec<u8>) {
            let now = Instant::now();
            if now >= self.until {
                self.until = now + Duration::from_millis(500);
                self.text = httpdate::fmt_http_date(SystemTime::now());
            }
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n");
            out.extend_from_slice(b"content-length: 13\r\ndate: ");
            out.extend_from_slice(self.text.as_bytes());
            out.extend_from_slice(b"\r\n\r\nHello, World!");
        }
    }
}

mod on_tokio {
    use super::*;
    use http_body_util::Full;
    use hyper::body::{Bytes, Incoming};
    use hyper::{Request, Response};
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    fn serve<F: Future<Output = ()> + 'static>(each: fn(TcpStream) -> F) {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let local = tokio::task::LocalSet::new();
        local.block_on(&tokio.expect("a runtime"), async move {
            let listener = TcpListener::bind(ANY).await.expect("a port");
            say_port(listener.local_addr());
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                _ = stream.set_nodelay(true);
                tokio::task::spawn_local(each(stream));
            }
        });
    }

    pub fn echo() {
        serve(|mut stream| async move {
            let mut buf = [0; MESSAGE];
            loop {
                match stream.read(&mut buf).await {
                    Ok(0) | Err(_) => return,
                    Ok(n) => stream.write_all(&buf[..n]).await.unwrap_or(()),
                }
            }
        });
    }

    async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let response = Response::builder().header("content-type", "text/plain");
        Ok(response.body(Full::new(Bytes::from_static(b"Hello, World!"))).expect("a response"))
    }

    pub fn http() {
        serve(|stream| async move {
            let stream = hyper_util::rt::TokioIo::new(stream);
            let service = hyper::service::service_fn(hello);
            let mut http = hyper::server::conn::http1::Builder::new();
            _ = http.pipeline_flush(true).serve_connection(stream, service).await;
        });
    }
}

mod on_monoio {
    use super::*;
    use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
    use monoio::net::TcpListener;

    pub fn echo() {
        let built = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().build();
        built.expect("a runtime").block_on(async {
            let listener = TcpListener::bind(ANY).expect("a port");
            say_port(listener.local_addr());
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                _ = stream.set_nodelay(true);
                monoio::spawn(async move {
                    let mut buf = Vec::with_capacity(MESSAGE);
                    loop {
                        let (read, filled) = stream.read(buf).await;
                        let (Ok(1..), filled) = (read, filled) else { return };
                        let (written, empty) = stream.write_all(filled).await;
                        if written.is_err() {
                            return;
                        }
                        buf = empty;
                        buf.clear();
                    }
                });
            }
        });
    }
}

mod on_may {
    use super::*;
    use may::net::TcpListener;
    use may_minihttp::{HttpServer, HttpService, Request, Response};

    pub fn echo() {
        may::config().set_workers(1).set_stack_size(0x1000);
        let listener = TcpListener::bind(ANY).expect("a port");
        say_port(listener.local_addr());
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            _ = stream.set_nodelay(true);
            let serve = move || {
                let mut buf = [0; MESSAGE];
                loop {
                    match stream.read(&mut buf) {
                        Ok(0) | Err(_) => return,
                        Ok(n) => stream.write_all(&buf[..n]).unwrap_or(()),
                    }
                }
            };
            // SAFETY: nothing here uses thread-locals or much stack.
            unsafe { may::coroutine::spawn(serve) };
        }
    }

    #[derive(Clone)]
    struct Hello;

    impl HttpService for Hello {
        fn call(&mut self, _: Request, response: &mut Response) -> std::io::Result<()> {
            response.header("content-type: text/plain").body("Hello, World!");
            Ok(())
        }
    }

    pub fn http() {
        may::config().set_workers(1);
        // It does not say which port it has got.
        let port = std::net::TcpListener::bind(ANY).and_then(|listener| listener.local_addr());
        let addr = port.expect("a port");
        let server = HttpServer(Hello).start(addr).expect("a server");
        say_port(Ok(addr));
        _ = server.join();
    }
}
