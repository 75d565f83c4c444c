//! The servers among the examples, used by clients that others wrote: curl, wrk, tungstenite.

mod common;

use common::example::{Server, has_tool, path};
use common::{TempDir, watch};
use ramie::net::TcpStream;
use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// Sends raw bytes, and gives what comes back until the end.
fn raw(port: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

struct Site {
    dir: TempDir,
    server: Server,
}

impl Site {
    fn new() -> Self {
        let dir = TempDir::new();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir_all(root.join("list/a dir")).unwrap();
        fs::write(root.join("index.html"), "<p>front page").unwrap();
        fs::write(root.join("sub/index.html"), "<p>below").unwrap();
        fs::write(root.join("list/a&b <c>.txt"), "odd name").unwrap();
        fs::write(root.join("digits.txt"), "0123456789").unwrap();
        fs::write(root.join("empty"), "").unwrap();
        let large: Vec<u8> = (0..20_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        fs::write(root.join("large.bin"), large).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        let server = Server::start("http", &[root.to_str().unwrap()]);
        Self { dir, server }
    }

    /// What curl prints: with `-i`, and `args`, the headers and the body.
    fn curl(&self, target: &str, args: &[&str]) -> String {
        let url = format!("http://127.0.0.1:{}{target}", self.server.port());
        output(Command::new("curl").args(["-sS", "-i", "--path-as-is"]).args(args).arg(url))
    }
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let mut lines = answer.lines().take_while(|line| !line.is_empty());
    let line = lines.find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{answer}"));
    line[name.len()..].trim_start_matches(':').trim()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}")).1
}

#[track_caller]
fn is(answer: &str, status: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
}

#[test]
fn http_serves_files() {
    let _watchdog = watch::dog();
    if !has_tool("curl", "curl") {
        return;
    }
    let site = Site::new();
    let answer = site.curl("/digits.txt", &[]);
    is(&answer, "200 OK");
    assert_eq!(body(&answer), "0123456789");
    assert_eq!(header(&answer, "Content-Type"), "text/plain; charset=utf-8");
    assert_eq!(header(&answer, "Content-Length"), "10");
    assert_eq!(body(&site.curl("/digits.txt?query", &[])), "0123456789");
    assert_eq!(body(&site.curl("/empty", &[])), "");

    let answer = site.curl("/digits.txt", &["--head"]);
    is(&answer, "200 OK");
    assert_eq!((header(&answer, "Content-Length"), body(&answer)), ("10", ""));

    let copy = site.dir.path().join("copy");
    site.curl("/large.bin", &["-o", copy.to_str().unwrap(), "--no-include"]);
    let original = fs::read(site.dir.path().join("root/large.bin")).unwrap();
    assert!(fs::read(copy).unwrap() == original, "20 MB arrived differently");

    assert_eq!(body(&site.curl("/", &[])), "<p>front page");
    assert_eq!(body(&site.curl("/sub/", &[])), "<p>below");
    let answer = site.curl("/sub", &[]);
    is(&answer, "301");
    assert_eq!(header(&answer, "Location"), "/sub/");
    let page = site.curl("/list/", &[]);
    assert!(body(&page).contains("a&amp;b &lt;c>.txt</a>"), "{page}");
    assert!(body(&page).contains("a%20dir/\""), "{page}");
    assert_eq!(body(&site.curl("/list/a%26b%20%3cc%3E.txt", &[])), "odd name");
}

#[test]
fn http_conditions_and_ranges() {
    let _watchdog = watch::dog();
    if !has_tool("curl", "curl") {
        return;
    }
    let site = Site::new();
    let get = |headers: &[&str]| {
        let args: Vec<&str> = headers.iter().flat_map(|header| ["-H", *header]).collect();
        site.curl("/digits.txt", &args)
    };
    let answer = get(&[]);
    let etag = header(&answer, "ETag").to_owned();
    let date = header(&answer, "Last-Modified").to_owned();
    let matches = format!("If-None-Match: \"x\", {etag}");
    let since = format!("If-Modified-Since: {date}");
    for (headers, status) in [
        (vec![&*matches], "304"),
        (vec!["If-None-Match: *"], "304"),
        (vec!["If-None-Match: \"x\""], "200"),
        (vec!["If-None-Match: \"x\"", &since], "200"),
        (vec![&since], "304"),
        (vec!["If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], "200"),
        (vec!["If-Modified-Since: nonsense"], "200"),
    ] {
        let answer = get(&headers);
        is(&answer, status);
        assert_eq!(body(&answer).is_empty(), status == "304", "{answer}");
    }
    for (spec, range, part) in [
        ("bytes=2-4", "bytes 2-4/10", "234"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=-3", "bytes 7-9/10", "789"),
        ("bytes=-30", "bytes 0-9/10", "0123456789"),
        ("bytes=5-500", "bytes 5-9/10", "56789"),
    ] {
        let answer = get(&[&format!("Range: {spec}")]);
        is(&answer, "206");
        assert_eq!((header(&answer, "Content-Range"), body(&answer)), (range, part));
    }
    for spec in ["bytes=10-", "bytes=-0", "bytes=99-100"] {
        let answer = get(&[&format!("Range: {spec}")]);
        is(&answer, "416");
        assert_eq!(header(&answer, "Content-Range"), "bytes */10");
    }
    for spec in ["bytes=4-2", "bytes=1-2,4-5", "lines=1-2", "bytes=", "bytes=x-y"] {
        let answer = get(&[&format!("Range: {spec}")]);
        is(&answer, "200");
        assert_eq!(body(&answer), "0123456789");
    }
    is(&get(&["Range: bytes=1-2", &format!("If-Range: {etag}")]), "206");
    is(&get(&["Range: bytes=1-2", "If-Range: \"x\""]), "200");
}

#[test]
fn http_refuses() {
    let _watchdog = watch::dog();
    if !has_tool("curl", "curl") {
        return;
    }
    let site = Site::new();
    for target in [
        "/../secret",
        "/sub/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "//etc/passwd",
        "/%00",
    ] {
        let answer = site.curl(target, &[]);
        is(&answer, "404");
        assert!(!answer.contains("secret"), "{answer}");
    }
    is(&site.curl("/missing", &[]), "404");
    let answer = site.curl("/digits.txt", &["-X", "DELETE"]);
    is(&answer, "405");
    assert_eq!(header(&answer, "Allow"), "GET, HEAD");
    is(&site.curl("/digits.txt", &["--data", "body"]), "405");
    let port = site.server.port();
    is(&raw(port, "nonsense\r\n\r\n"), "400");
    is(&raw(port, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"), "400");
    is(&raw(port, "GET / HTTP/1.0\r\n\r\n"), "200");
    let endless = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20 << 10));
    assert_eq!(raw(port, &endless[..16 << 10]), "");
    let fifo = site.dir.path().join("root/fifo");
    assert_eq!(output(Command::new("mkfifo").arg(fifo)), "");
    is(&site.curl("/fifo", &["--max-time", "20"]), "403");
}

#[test]
fn http_takes_no_body_for_a_request() {
    let _watchdog = watch::dog();
    let site = Site::new();
    let hidden = "GET /digits.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for headers in [
        "Content-Length: 64\r\n",
        "Content-Length: 0\r\nContent-Length: 64\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: 0\r\n",
    ] {
        let request = format!("GET /empty HTTP/1.1\r\nHost: x\r\n{headers}\r\n{hidden}");
        let answer = raw(site.server.port(), &request);
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{headers}: {answer}");
        assert_eq!(header(&answer, "Connection"), "close", "{headers}");
    }
    // The parser would see the end of a head here, and the line feeds between two.
    let request = format!("GET /empty HTTP/1.1\nHost: x\n\n{hidden}");
    is(&raw(site.server.port(), &request), "400");
}

#[test]
fn http_connections_go_on() {
    let _watchdog = watch::dog();
    let site = Site::new();
    let port = site.server.port();
    let request = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    // Requests that come together are answered in order.
    let requests: String = (0..100).map(|_| request("/digits.txt", "")).collect();
    let all = raw(port, &format!("{requests}{}", request("/", "Connection: close\r\n")));
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 101);
    assert_eq!(all.matches("0123456789").count(), 100);
    assert!(all.ends_with("<p>front page"), "{all}");
    if has_tool("curl", "curl") {
        let url = format!("http://127.0.0.1:{port}/digits.txt");
        let counts =
            ["-sS", "-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects}", &url, &url];
        assert_eq!(output(Command::new("curl").args(counts)), "10", "the second needs none");
    }
    if has_tool("wrk", "wrk") {
        let report = output(
            Command::new("wrk")
                .args(["-c64", "-t1", "-d1"])
                .arg(format!("http://127.0.0.1:{port}/digits.txt")),
        );
        assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{report}");
        let rate = report.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        assert!(rate.is_some_and(|rate| rate.trim().parse::<f64>().unwrap() > 10.0), "{report}");
    }
}

#[test]
fn chat_tells_the_others() {
    let _watchdog = watch::dog();
    let server = Server::start("chat", &[]);
    let connect = |name: &str| {
        let stream = TcpStream::connect(&*server.addr).unwrap();
        tungstenite::client(format!("ws://localhost/{name}"), stream).unwrap().0
    };
    let hear = |client: &mut tungstenite::WebSocket<TcpStream>| loop {
        if let tungstenite::Message::Text(text) = client.read().unwrap() {
            break text.to_string();
        }
    };
    ramie::Runtime::builder().workers(1).build().unwrap().run(|| {
        let mut anna = connect("anna");
        // The handshake is answered before the others are told.
        anna.send(tungstenite::Message::Ping("am I there".into())).unwrap();
        assert!(matches!(anna.read().unwrap(), tungstenite::Message::Pong(_)));
        let mut bert = connect("bert");
        assert_eq!(hear(&mut anna), "bert is here");
        anna.send("hello".into()).unwrap();
        assert_eq!(hear(&mut bert), "anna: hello");
        bert.send(tungstenite::Message::Ping("are you there".into())).unwrap();
        assert!(matches!(bert.read().unwrap(), tungstenite::Message::Pong(_)));
        // Many at once, some of them large: each arrives once, whole, in order.
        let line = |n: usize| format!("{n} {}", "x".repeat(n * 50));
        let talk = ramie::spawn(move || {
            (0..500).for_each(|n| anna.send(line(n).into()).unwrap());
            anna
        });
        for n in 0..500 {
            assert_eq!(hear(&mut bert), format!("anna: {}", line(n)));
        }
        let mut anna = talk.join().unwrap();
        anna.close(None).unwrap();
        assert!(matches!(anna.read().unwrap(), tungstenite::Message::Close(_)));
        assert_eq!(hear(&mut bert), "anna has left");
        // Too long a message, of which nobody is told.
        let mut dora = connect("dora");
        assert_eq!(hear(&mut bert), "dora is here");
        dora.send("x".repeat(100 << 10).into()).unwrap();
        assert_eq!(hear(&mut bert), "dora has left");
        // One that is just gone, in the middle of a frame.
        let mut carl = connect("carl");
        assert_eq!(hear(&mut bert), "carl is here");
        carl.get_mut().write_all(&[0x81, 0xff]).unwrap();
        drop(carl);
        assert_eq!(hear(&mut bert), "carl has left");
    });
}

#[test]
fn https_greets() {
    let _watchdog = watch::dog();
    if !has_tool("openssl", "openssl") || !has_tool("curl", "curl") {
        return;
    }
    let dir = TempDir::new();
    let (key, cert) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
    let (key, cert) = (key.to_str().unwrap(), cert.to_str().unwrap());
    let made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
                -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE";
    output(
        Command::new("openssl").args(made.split_whitespace()).args(["-keyout", key, "-out", cert]),
    );
    let server = Server::start("https", &["serve", cert, key]);
    let url = format!("https://localhost:{}/anna", server.port());
    let to = format!("localhost:{}:127.0.0.1", server.port());
    let curl = ["-sS", "--cacert", cert, "--resolve", &to, &url, &url];
    assert_eq!(output(Command::new("curl").args(curl)), "Hello, anna!\nHello, anna!\n");
    let port = server.port();
    let ours = output(Command::new(path("https")).args(["get", cert, "localhost", port, "/bert"]));
    assert_eq!(ours, "Hello, bert!\n");
    // A client without trust in it, and one that speaks no TLS: neither harms the next.
    let mut distrusting = Command::new("curl");
    let refused = distrusting.args(["-sS", "--resolve", &to, &url]).output().unwrap();
    assert_eq!(refused.status.code(), Some(60), "curl's code for a certificate it does not know");
    raw(server.port(), "GET / HTTP/1.1\r\n\r\n");
    assert_eq!(output(Command::new("curl").args(&curl[..6])), "Hello, anna!\n");
}

#[test]
fn tail_follows() {
    let _watchdog = watch::dog();
    let dir = TempDir::new();
    let log = dir.path().join("log");
    let lines = |range: std::ops::Range<u32>| -> String {
        range.map(|n| format!("line {n} {}\n", "x".repeat(n as usize))).collect()
    };
    fs::write(&log, lines(0..400)).unwrap();
    let mut command = Command::new(path("tail"));
    let mut child = command.arg(&log).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut expect = |text: &str| {
        let mut bytes = vec![0; text.len()];
        stdout.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    };
    expect(&lines(390..400));
    let append = |text: &str| {
        let mut file = fs::File::options().append(true).create(true).open(&log).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append("one\n");
    expect("one\n");
    append("half a li");
    append("ne\n");
    expect("half a line\n");
    fs::write(&log, "truncated\n").unwrap();
    expect("truncated\n");
    fs::write(dir.path().join("new"), "another file\n").unwrap();
    fs::rename(dir.path().join("new"), &log).unwrap();
    expect("another file\n");
    fs::rename(&log, dir.path().join("old")).unwrap();
    append("rotated\n");
    expect("rotated\n");
    fs::remove_file(&log).unwrap();
    append("made again\n");
    expect("made again\n");
    append(&"much\n".repeat(100_000));
    expect(&"much\n".repeat(100_000));
    // When its reader has gone it ends well, at the next line.
    drop(stdout);
    append("nobody reads this\n");
    assert!(child.wait().unwrap().success());
}
