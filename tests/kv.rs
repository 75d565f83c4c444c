//! The `kv` example, with the clients of Redis where they are there, and by hand.

mod common;

use common::example::{Server, has_tool};
use common::{eventually, watch};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

fn start() -> Server {
    Server::start("kv", &["127.0.0.1:0"])
}

/// What the server answers to all of this.
#[track_caller]
fn answers(server: &Server, requests: &[u8], expected: &str) {
    let mut stream = TcpStream::connect(&server.addr).unwrap();
    stream.write_all(requests).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, expected);
}

/// Requests as clients send them.
fn encoded(requests: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests.lines() {
        let words: Vec<&str> = request.split(' ').collect();
        write!(bytes, "*{}\r\n", words.len()).unwrap();
        for word in words {
            write!(bytes, "${}\r\n{word}\r\n", word.len()).unwrap();
        }
    }
    bytes
}

#[test]
fn by_hand() {
    let _watchdog = watch::dog();
    let server = start();
    answers(&server, b"PING\r\nping\n\r\n*0\r\nECHO hi\r\n", "+PONG\r\n+PONG\r\n$2\r\nhi\r\n");
    let requests = "SET a 1\nGET a\nINCR a\nINCRBY a 40\nDECR a\nDEL a b\nGET a\nEXISTS a";
    let expected = "+OK\r\n$1\r\n1\r\n:2\r\n:42\r\n:41\r\n:1\r\n$-1\r\n:0\r\n";
    answers(&server, &encoded(requests), expected);
    let requests = "SET a x\nINCR a\nNONSENSE\nGET\nSET a 1 EX\nSET a 1 EX x\nSET a 1 ZZ";
    let number = "value is not an integer or out of range";
    let expected = format!(
        "+OK\r\n-ERR {number}\r\n\
         -ERR unknown command 'NONSENSE', or wrong number of arguments\r\n\
         -ERR unknown command 'GET', or wrong number of arguments\r\n\
         -ERR syntax error\r\n-ERR {number}\r\n-ERR syntax error\r\n"
    );
    answers(&server, &encoded(requests), &expected);
    let requests = "SET c 9223372036854775807\nINCR c\nDECRBY c -9223372036854775808\nFLUSHALL";
    let overflow = "-ERR increment or decrement would overflow\r\n";
    answers(&server, &encoded(requests), &format!("+OK\r\n{overflow}{overflow}+OK\r\n"));
    // Any bytes, in keys and values.
    let set = b"*3\r\n$3\r\nSET\r\n$4\r\n\0\r\n\xff\r\n$2\r\n\r\n\r\n";
    let get = b"*2\r\n$3\r\nGET\r\n$4\r\n\0\r\n\xff\r\n";
    answers(&server, &[&set[..], get].concat(), "+OK\r\n$2\r\n\r\n\r\n");
    server.end();
}

#[test]
fn keys_expire() {
    let _watchdog = watch::dog();
    let server = start();
    let requests = "SET a 1 EX 100\nTTL a\nSET a 1\nTTL a\nTTL b\nEXPIRE b 1\nEXPIRE a 50\nTTL a";
    let expected = "+OK\r\n:100\r\n+OK\r\n:-1\r\n:-2\r\n:0\r\n:1\r\n:50\r\n";
    answers(&server, &encoded(requests), expected);
    let requests = "PERSIST a\nPERSIST a\nTTL a\nEXPIRE a -1\nGET a\nSET n 1 NX\nSET n 2 NX\n\
                    SET n 3 XX PX 5000\nGET n\nSET m 1 XX\nSET a 1 EX 9223372036854775807";
    let expected = ":1\r\n:0\r\n:-1\r\n:1\r\n$-1\r\n+OK\r\n$-1\r\n+OK\r\n$1\r\n3\r\n$-1\r\n\
                    -ERR invalid expire time\r\n";
    answers(&server, &encoded(requests), expected);
    // Seen, and removed by the sweeper although nobody asks for it.
    answers(&server, &encoded("FLUSHALL\nSET a 1 PX 20\nSET b 1"), "+OK\r\n+OK\r\n+OK\r\n");
    let mut stream = TcpStream::connect(&server.addr).unwrap();
    eventually("one key is left", || {
        let mut answer = [0; 4];
        stream.write_all(b"DBSIZE\r\n").unwrap();
        stream.read_exact(&mut answer).unwrap();
        &answer == b":1\r\n"
    });
    server.end();
}

#[test]
fn bad_input() {
    let _watchdog = watch::dog();
    let server = start();
    let errors: &[&[u8]] = &[
        b"*x\r\n",
        b"*-5\r\n",
        b"*99999999999\r\n",
        b"*1\r\nPING\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$99999999999\r\n",
        b"*1\r\n$4\r\nPINGPONG\r\n",
    ];
    for request in errors {
        let mut stream = TcpStream::connect(&server.addr).unwrap();
        stream.write_all(&[b"PING\r\n", *request].concat()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap(); // closed by the server
        assert!(text.starts_with("+PONG\r\n-ERR Protocol error: "), "{request:?}: {text}");
    }
    // Ends in the middle, and a promise of much that does not come.
    answers(&server, b"PING\r\n*2\r\n$3\r\nGE", "+PONG\r\n");
    answers(&server, b"PING\r\n*1\r\n$500000000\r\nxyz", "+PONG\r\n");
    answers(&server, &[b'x'; 64 << 10], "-ERR Protocol error: too big a line\r\n");
    eventually("only the listener is left", || server.sockets() == 1);
    server.end();
}

/// More than fits anywhere, before the first reply is read.
#[test]
fn deep_pipelines() {
    let _watchdog = watch::dog();
    let server = start();
    let stream = TcpStream::connect(&server.addr).unwrap();
    let value = "v".repeat(1000);
    let requests = encoded(&format!("SET key {value}\nGET key\n").repeat(5000));
    let mut sender = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        sender.write_all(&requests).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    std::thread::sleep(Duration::from_millis(50));
    let mut replies = Vec::new();
    (&stream).read_to_end(&mut replies).unwrap();
    sender.join().unwrap();
    assert!(replies == format!("+OK\r\n$1000\r\n{value}\r\n").repeat(5000).as_bytes());
    server.end();
}

/// Half of a request must not hold back the reply to the one before.
#[test]
fn replies_are_not_held_back() {
    let _watchdog = watch::dog();
    let server = start();
    let mut stream = TcpStream::connect(&server.addr).unwrap();
    for _ in 0..20 {
        stream.write_all(b"PING\r\n*1\r\n$4\r\nPI").unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).unwrap();
        stream.write_all(b"NG\r\n").unwrap();
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+PONG\r\n");
    }
    drop(stream);
    server.end();
}

#[test]
fn with_redis_cli() {
    if !has_tool("redis-cli", "redis-tools") {
        return;
    }
    let _watchdog = watch::dog();
    let server = start();
    let cli = |args: &[&str]| {
        let output = Command::new("redis-cli").args(["-p", server.port()]).args(args).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert_eq!(cli(&["PING"]), "PONG\n");
    assert_eq!(cli(&["SET", "greeting", "hello world", "EX", "60"]), "OK\n");
    assert_eq!(cli(&["GET", "greeting"]), "hello world\n");
    assert_eq!(cli(&["-r", "100", "INCR", "n"]).lines().last(), Some("100"));
    assert_eq!(cli(&["GET", "nothing"]), "\n");
    assert!(cli(&["HGET", "a", "b"]).starts_with("ERR unknown command"));
    // Ten thousand at once.
    let mut pipe = Command::new("redis-cli");
    pipe.args(["-p", server.port(), "--pipe"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut pipe = pipe.spawn().unwrap();
    let mut input = pipe.stdin.take().unwrap();
    input.write_all(&encoded(&"INCR many\n".repeat(10_000))).unwrap();
    drop(input);
    let output = pipe.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("errors: 0, replies: 10000"), "{text}");
    assert_eq!(cli(&["GET", "many"]), "10000\n");
    server.end();
}

#[test]
fn with_redis_benchmark() {
    if !has_tool("redis-benchmark", "redis-tools") {
        return;
    }
    let _watchdog = watch::dog();
    let server = start();
    for depth in ["1", "16"] {
        let mut command = Command::new("redis-benchmark");
        command.args(["-p", server.port(), "-n", "4000", "-c", "50", "-P", depth, "-q"]);
        let output = command.args(["-t", "ping,set,get,incr"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "\n");
        for name in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR"] {
            let done = |line: &str| line.starts_with(name) && line.contains("requests per second");
            assert!(text.lines().any(done), "{name}: {text}");
        }
        assert!(output.status.success(), "{text}");
    }
    server.end();
}
