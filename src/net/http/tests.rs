//! The gateway over real sockets, with a node that the test plays and time that jumps.

use super::*;
use crate::io::Place;
use crate::net::testing::TestDir;
use crate::node::command::{Command, Part, Reply};
use crate::time::Duration;
use mio::{Events, Poll};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

const LISTENER: Token = Token(20);
const TOKEN: &str = "sesame-sesame-sesame";
/// The bytes of the file that the played node has: more than the sockets of a connection hold.
const FILE_BYTES: usize = 8 << 20;
/// Its content repeats after this.
const PERIOD: usize = 64 << 10;

fn token(id: u64) -> Token {
    Token((id << 2 | 3) as usize)
}

fn hash() -> String {
    "0f".repeat(32)
}

/// A gateway, and a node that has one file and finds no other.
struct Bench {
    http: Http,
    poll: Poll,
    disk: Disk,
    dir: TestDir,
    now: Instant,
    requests: Vec<Request>,
    /// The commands that the node was given.
    commands: Vec<Command>,
    cancelled: usize,
    /// Reads under way: the command, and the bytes that have not left.
    reads: Vec<(CommandId, u64)>,
    /// Whether reads wait for their turn.
    queues: bool,
}

impl Bench {
    fn new(connections_max: usize) -> Bench {
        let (dir, poll) = (TestDir::new(), Poll::new().unwrap());
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = HttpConfig { listen, token: HttpToken::new(TOKEN) };
        let mut http = Http::bind(&config, connections_max).unwrap();
        http.register(poll.registry(), LISTENER).unwrap();
        let content = (0..PERIOD).map(byte_at).collect::<Vec<u8>>().repeat(FILE_BYTES / PERIOD);
        dir.file("content", &content);
        Bench {
            http,
            poll,
            disk: dir.disk(),
            dir,
            now: Instant::from_secs(1000),
            requests: Vec::new(),
            commands: Vec::new(),
            cancelled: 0,
            reads: Vec::new(),
            queues: false,
        }
    }

    fn connect(&mut self) -> TcpStream {
        let client = TcpStream::connect(self.http.addr()).unwrap();
        client.set_nonblocking(true).unwrap();
        client
    }

    /// Connects, and sends these bytes.
    fn say(&mut self, bytes: &str) -> TcpStream {
        let mut client = self.connect();
        client.write_all(bytes.as_bytes()).unwrap();
        client
    }

    /// One turn of the loop.
    fn turn(&mut self) {
        let mut events = Events::with_capacity(64);
        self.poll.poll(&mut events, Some(core::time::Duration::from_millis(2))).unwrap();
        for event in events.iter() {
            match event.token() {
                LISTENER => self.http.note_listener(),
                Token(number) => {
                    self.http.note(number >> 2, event.is_write_closed() || event.is_error(), token);
                }
            }
        }
        let registry = self.poll.registry();
        self.http.accept(self.now, registry, token);
        self.http.tend(self.now, registry, &mut self.requests);
        self.http.serve(self.now, &self.disk, &mut Outflow::default(), registry, &mut self.requests);
        for request in core::mem::take(&mut self.requests) {
            match request {
                Request::Command(id, command, _) => self.answer(id, command),
                Request::Sent(id, bytes) => self.sent(id, bytes),
                Request::Cancel(id) => {
                    self.reads.retain(|(read, _)| *read != id);
                    self.cancelled += 1;
                }
            }
        }
    }

    /// The node gets a command.
    fn answer(&mut self, id: CommandId, command: Command) {
        self.commands.push(command.clone());
        if self.queues {
            return;
        }
        let Command::Read { hash: asked, part, .. } = command else {
            let reply = Reply::Leave { handed_over: 0, left_behind: 0 };
            return self.http.respond(self.now, id, &Response::Done(reply));
        };
        let failed = |reason| Response::Failed(Failure { reason, message: "no".to_owned() });
        if asked.to_string() != hash() {
            return self.http.respond(self.now, id, &failed(FailureReason::NotFound));
        }
        let length = FILE_BYTES as u64;
        self.http.open(id, length);
        let Some(bytes) = part.map_or(Some(0..length), |part| part.of(length)) else {
            return self.http.respond(self.now, id, &failed(FailureReason::Usage));
        };
        let count = bytes.end - bytes.start;
        if count > 0 {
            let place = Place::File(self.dir.path("content").into());
            let extent = Extent { place, offset: bytes.start, length: count as u32, stamp: None };
            self.http.send_content(id, extent, &self.disk);
        }
        self.reads.push((id, count));
        self.sent(id, 0);
    }

    fn sent(&mut self, id: CommandId, bytes: u64) {
        let Some(at) = self.reads.iter().position(|(read, _)| *read == id) else { return };
        self.reads[at].1 -= bytes;
        if self.reads[at].1 == 0 {
            self.reads.remove(at);
            let reply = Reply::Leave { handed_over: 0, left_behind: 0 };
            self.http.respond(self.now, id, &Response::Done(reply));
        }
    }

    /// Runs turns until a condition holds.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Bench) -> bool) {
        for _ in 0..5000 {
            if holds(self) {
                return;
            }
            self.turn();
        }
        panic!("waited in vain for {what}");
    }

    /// Runs turns until the client has read `count` bytes, or the end.
    fn read(&mut self, client: &mut TcpStream, count: usize) -> Vec<u8> {
        let (mut read, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        for _ in 0..5000 {
            while read.len() < count {
                let most = buffer.len().min(count - read.len());
                match client.read(&mut buffer[..most]) {
                    Ok(0) => return read,
                    Ok(length) => read.extend_from_slice(&buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error} after {} bytes", read.len()),
                }
            }
            if read.len() == count {
                return read;
            }
            self.turn();
        }
        panic!("no more than {} bytes came", read.len());
    }

    /// Reads one head, and returns its status and its text.
    fn head(&mut self, client: &mut TcpStream) -> (u16, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let next = self.read(client, 1);
            assert!(!next.is_empty(), "the connection ended after {}", String::from_utf8_lossy(&head));
            head.extend(next);
        }
        let head = String::from_utf8(head).unwrap();
        (head[9..12].parse().unwrap(), head)
    }

    /// Everything until the connection ends, as text.
    fn rest(&mut self, client: &mut TcpStream) -> String {
        String::from_utf8(self.read(client, usize::MAX)).unwrap()
    }

    /// The answer to a request that is the connection's last: status, head and body.
    fn ask(&mut self, request: &str) -> (u16, String, Vec<u8>) {
        let mut client = self.say(request);
        client.shutdown(Shutdown::Write).unwrap();
        let (status, head) = self.head(&mut client);
        let body = self.read(&mut client, usize::MAX);
        (status, head, body)
    }

    fn get(&mut self, path: &str, fields: &str) -> (u16, String, Vec<u8>) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"))
    }

    fn open(&self) -> usize {
        self.http.connections.len()
    }

    fn advance(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.turn();
    }
}

fn byte_at(index: usize) -> u8 {
    let index = index % PERIOD;
    (index * 7 + index / 251) as u8
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn a_file_and_its_ranges_are_sent_with_their_lengths() {
    let mut bench = Bench::new(9);
    let path = format!("/{}/clip.mp4", hash());
    let (status, head, body) = bench.get(&path, "");
    assert_eq!((status, body.len()), (200, FILE_BYTES));
    let content = fs::read(bench.dir.path("content")).unwrap();
    assert!(body == content);
    assert_eq!(field(&head, "Content-Length"), Some("8388608"));
    assert_eq!(field(&head, "Content-Type"), Some("video/mp4"));
    assert_eq!(field(&head, "ETag"), Some(&format!("\"{}\"", hash())[..]));
    assert_eq!(field(&head, "Accept-Ranges"), Some("bytes"));
    for (range, content_range, bytes) in [
        ("bytes=5-8", "bytes 5-8/8388608", 5..9),
        ("bytes=8388604-", "bytes 8388604-8388607/8388608", FILE_BYTES - 4..FILE_BYTES),
        ("bytes=-2", "bytes 8388606-8388607/8388608", FILE_BYTES - 2..FILE_BYTES),
    ] {
        let (status, head, body) = bench.get(&path, &format!("Range: {range}\r\n"));
        assert_eq!((status, field(&head, "Content-Range")), (206, Some(content_range)));
        assert_eq!(body, bytes.map(byte_at).collect::<Vec<_>>(), "{range}");
    }
    let (status, head, _) = bench.get(&path, "Range: bytes=8388608-\r\n");
    assert_eq!((status, field(&head, "Content-Range")), (416, Some("bytes */8388608")));
    assert_eq!(bench.http.counters.answers_2xx, 4);
    assert_eq!(bench.http.counters.answers_4xx, 1);
}

#[test]
fn the_head_of_a_file_costs_none_of_its_content() {
    let mut bench = Bench::new(9);
    let request = format!("HEAD /{} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=1-2\r\n\r\n", hash());
    let (status, head, body) = bench.ask(&request);
    assert_eq!((status, field(&head, "Content-Length"), body.len()), (200, Some("8388608"), 0));
    let empty = Some(Part::Between { start: 0, end: Some(0) });
    assert!(
        matches!(&bench.commands[..], [Command::Read { part, .. }] if *part == empty),
        "{:?}",
        bench.commands
    );
    let (status, _, body) = bench.get(&format!("/{}", hash()), &format!("If-None-Match: \"{}\"\r\n", hash()));
    assert_eq!((status, body.len(), bench.commands.len()), (304, 0, 1));
}

#[test]
fn a_file_that_no_node_has_is_not_found_and_the_connection_goes_on() {
    let mut bench = Bench::new(9);
    let mut client = bench.say(&format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "00".repeat(32)));
    assert_eq!(bench.head(&mut client).0, 404);
    assert_eq!(bench.read(&mut client, 3), b"no\n");
    client
        .write_all(
            format!("GET /{} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-0\r\n\r\n", hash()).as_bytes(),
        )
        .unwrap();
    assert_eq!(bench.head(&mut client).0, 206);
    assert_eq!(bench.read(&mut client, 1), [byte_at(0)]);
    assert_eq!(bench.open(), 1);
}

#[test]
fn requests_that_come_at_once_are_answered_one_after_the_other() {
    let mut bench = Bench::new(9);
    let request = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=3-3\r\n\r\n", hash());
    // Far more than the buffer holds: the rest waits in the socket.
    let mut client = bench.say(&request.repeat(500));
    for answer in 0..500 {
        assert_eq!(bench.head(&mut client).0, 206, "{answer}");
        assert_eq!(bench.read(&mut client, 1), [byte_at(3)]);
        let held = bench.http.connections.iter().next().unwrap().1.held_bytes();
        assert!(held < 4096, "{held} bytes of answers wait in memory");
    }
    assert_eq!(bench.http.counters.requests, 500);
}

#[test]
fn a_head_that_comes_too_slowly_or_is_too_large_is_refused() {
    let mut bench = Bench::new(9);
    let mut slow = bench.say("GET / HTT");
    bench.until("the request's begin", |bench| bench.http.connections.iter().any(|(_, one)| !one.is_idle()));
    bench.advance(9);
    slow.write_all(b"P").unwrap();
    bench.advance(2);
    assert_eq!(bench.head(&mut slow).0, 408, "a byte now and then does not help");
    assert_eq!(bench.http.counters.requests_slow, 1);
    for fields in [format!("Cookie: {}\r\n", "x".repeat(9000)), "a: b\r\n".repeat(65)] {
        let mut client = bench.say(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
        assert_eq!(bench.head(&mut client).0, 431);
        assert!(bench.rest(&mut client).contains("8 KiB"));
    }
    assert_eq!(bench.http.counters.requests_too_large, 2);
    drop(slow);
    bench.until("the end of all", |bench| bench.open() == 0);
}

#[test]
fn a_client_that_sends_nothing_is_forgotten_without_a_word() {
    let mut bench = Bench::new(9);
    let mut client = bench.connect();
    bench.until("the connection", |bench| bench.open() == 1);
    bench.advance(61);
    assert_eq!(bench.rest(&mut client), "");
    assert_eq!(bench.open(), 0);
}

#[test]
fn smuggled_bodies_end_the_connection_and_are_never_read_as_requests() {
    let mut bench = Bench::new(9);
    let inner = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", hash());
    for fields in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", inner.len()),
        format!("Content-Length: {}\r\n", inner.len()),
        "Transfer-Encoding: chunked\r\n".to_owned(),
    ] {
        let mut client = bench.say(&format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{inner}"));
        let (status, head) = bench.head(&mut client);
        assert!(matches!(status, 400 | 501) && head.contains("Connection: close"), "{head}");
        let rest = bench.rest(&mut client);
        assert!(!rest.contains("HTTP/1.1"), "{rest}");
    }
    assert_eq!(bench.http.counters.requests_malformed, 3);
    assert!(bench.commands.is_empty());
}

#[test]
fn thousands_of_ranges_get_the_whole_file_once() {
    let mut bench = Bench::new(9);
    let ranges = "0-0,".repeat(1900);
    let (status, head, body) = bench.get(&format!("/{}", hash()), &format!("Range: bytes={ranges}\r\n"));
    assert_eq!((status, field(&head, "Content-Range"), body.len()), (200, None, FILE_BYTES));
    assert_eq!(bench.commands.len(), 1);
}

#[test]
fn a_reader_that_stops_or_trickles_is_cut_off_and_its_read_ends() {
    let mut bench = Bench::new(9);
    let mut client = bench.say(&format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", hash()));
    assert_eq!(bench.head(&mut client).0, 200);
    for _ in 0..50 {
        bench.turn();
    }
    bench.advance(29);
    assert_eq!(bench.reads.len(), 1);
    bench.read(&mut client, 100);
    bench.advance(2);
    assert_eq!((bench.open(), bench.cancelled, bench.reads.len()), (0, 1, 0));
    assert_eq!(bench.http.counters.readers_slow, 1);
}

#[test]
fn a_reader_that_goes_away_ends_its_read() {
    let mut bench = Bench::new(9);
    let mut client = bench.say(&format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", hash()));
    assert_eq!(bench.head(&mut client).0, 200);
    drop(client);
    bench.until("the end of the read", |bench| bench.open() == 0);
    assert_eq!((bench.cancelled, bench.reads.len()), (1, 0));
}

#[test]
fn content_whose_turn_does_not_come_is_to_be_tried_later() {
    let mut bench = Bench::new(9);
    bench.queues = true;
    let mut client = bench.say(&format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", hash()));
    bench.until("the command", |bench| bench.commands.len() == 1);
    bench.advance(61);
    let (status, head) = bench.head(&mut client);
    assert_eq!((status, field(&head, "Retry-After"), bench.cancelled), (503, Some("5"), 1));
    assert_eq!(bench.open(), 1, "the connection goes on");
}

#[test]
fn connections_beyond_the_limit_replace_idle_ones_or_are_told_to_come_later() {
    let mut bench = Bench::new(2);
    bench.queues = true;
    let mut idle = bench.connect();
    bench.until("the idle one", |bench| bench.open() == 1);
    let request = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", hash());
    let busy: Vec<TcpStream> = (0..2).map(|_| bench.say(&request)).collect();
    bench.until("the commands", |bench| bench.commands.len() == 2);
    assert_eq!(bench.rest(&mut idle), "", "it made room");
    let (status, head, _) = bench.ask(&request);
    assert_eq!((status, field(&head, "Retry-After")), (503, Some("5")));
    let flood: Vec<TcpStream> = (0..40).map(|_| bench.connect()).collect();
    for _ in 0..20 {
        bench.turn();
    }
    assert!(bench.open() <= 2 + SURPLUS_MAX, "{}", bench.open());
    assert_eq!(bench.http.counters.turned_away, 1);
    drop((busy, flood));
    // Those that still wait for an answer may have only said that they send no more: they end with their answer.
    bench.advance(61);
    bench.until("the end of all", |bench| bench.open() == 0);
}

#[test]
fn answers_beyond_what_fits_the_memory_are_refused() {
    let mut bench = Bench::new(30);
    bench.queues = true;
    let mut clients: Vec<TcpStream> =
        (0..20).map(|_| bench.say("GET /api/ls HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    bench.until("the requests", |bench| bench.http.counters.requests == 20);
    let fit = Limits::HTTP_ANSWER_BYTES / Limits::HTTP_REPLY_BYTES;
    assert_eq!((bench.commands.len(), bench.http.counters.answers_5xx), (fit, 20 - fit as u64));
    // Content needs no memory.
    clients.push(bench.say(&format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", hash())));
    bench.until("the read", |bench| bench.commands.len() == fit + 1);
}

#[test]
fn a_command_that_does_not_end_is_cancelled_and_its_room_is_free_again() {
    let mut bench = Bench::new(30);
    bench.queues = true;
    let body = format!(r#"{{"command":"get","hash":"{}","timeout":0}}"#, hash());
    let post = format!(
        "POST /api/command HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let fit = Limits::HTTP_ANSWER_BYTES / Limits::HTTP_REPLY_BYTES;
    let mut waiting: Vec<TcpStream> = (0..fit).map(|_| bench.say(&post)).collect();
    bench.until("the commands", |bench| bench.commands.len() == fit);
    // One that sends no more may still read its answer; those that close look the same.
    waiting[0].shutdown(Shutdown::Write).unwrap();
    let mut first = waiting.remove(0);
    drop(waiting);
    for _ in 0..10 {
        bench.turn();
    }
    bench.advance(59);
    let (status, ..) = bench.get("/api/status", "");
    assert_eq!((status, bench.cancelled), (503, 0), "there is no room before the time is over");
    bench.advance(2);
    let (status, head) = bench.head(&mut first);
    assert_eq!((status, field(&head, "Retry-After"), bench.cancelled), (503, Some("5"), fit));
    bench.queues = false;
    assert_eq!(bench.get("/api/status", "").0, 200);
    drop(first);
    bench.until("the end of all", |bench| bench.open() == 0);
}

#[test]
fn changes_need_the_token_and_their_body_may_come_late() {
    let mut bench = Bench::new(9);
    let body = r#"{"command":"unset","name":"x"}"#;
    let post = |fields: &str| {
        let length = body.len();
        format!("POST /api/command HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{fields}\r\n")
    };
    let (status, ..) = bench.ask(&format!("{}{body}", post("")));
    assert_eq!((status, bench.http.counters.requests_denied), (401, 1));
    let mut client = bench.say(&post(&format!("Authorization: Bearer {TOKEN}\r\n")));
    for _ in 0..10 {
        bench.turn();
    }
    assert!(bench.commands.is_empty());
    client.write_all(body.as_bytes()).unwrap();
    let (status, head) = bench.head(&mut client);
    assert_eq!((status, field(&head, "Content-Type")), (200, Some("application/json")));
    assert!(matches!(&bench.commands[..], [Command::Unset { .. }]));
}
