//! Tests of a client on the control socket.

use super::super::lines::{DESCRIPTORS_AHEAD_MAX, LINE_BYTES_MAX};
use super::*;
use crate::net::testing::TestDir;
use crate::node::command::{Progress, Reply, Stage};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

fn pair() -> (Client, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (Client::new(1, near), far)
}

const ROOM: Room = Room { commands_per_client: 3, commands: 9, descriptors: 9 };

fn begin(client: &mut Client) {
    client.begin(CommandId(5), &Asked { command: Command::Id, number: None, descriptor: None });
}

fn said(far: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    match far.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
        _ => String::from_utf8(bytes).unwrap(),
    }
}

fn left() -> Response {
    Response::Done(Reply::Leave { handed_over: 0, left_behind: 0 })
}

fn progress(done: u64) -> Response {
    Response::Progress(Progress { stage: Stage::Downloading, done, total: 9, prefix: 0, path: None })
}

#[test]
fn the_next_command_without_a_number_is_taken_after_the_response_to_the_last() {
    let (dir, (mut client, mut far)) = (TestDir::new(), pair());
    let disk = dir.disk();
    far.write_all(b"{\"command\":\"id\"}\n{\"command\":\"pe").unwrap();
    assert!(matches!(
        client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM),
        Served::Asked(Asked { command: Command::Id, .. })
    ));
    begin(&mut client);
    far.write_all(b"ers\"}\n").unwrap();
    assert!(matches!(client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM), Served::Dry));
    client.respond(Instant::ZERO, CommandId(5), left());
    assert!(client.has_backlog() && client.running_count() == 0);
    assert!(matches!(
        client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM),
        Served::Asked(Asked { command: Command::Peers, .. })
    ));
    assert!(said(&mut far).starts_with("{\"event\":\"done\""));
}

#[test]
fn a_client_that_half_closes_still_gets_its_response() {
    let (dir, (mut client, mut far)) = (TestDir::new(), pair());
    let disk = dir.disk();
    far.write_all(b"{\"command\":\"id\"}\n").unwrap();
    far.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(matches!(
        client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM),
        Served::Asked(Asked { command: Command::Id, .. })
    ));
    begin(&mut client);
    assert!(matches!(client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM), Served::Dry));
    client.respond(Instant::ZERO, CommandId(5), left());
    assert!(matches!(client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM), Served::Gone));
    assert!(said(&mut far).ends_with("}\n"));
    let (mut client, far) = pair();
    begin(&mut client);
    drop(far);
    client.hang_up();
    assert!(matches!(client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM), Served::Gone));
    assert!(client.awaits(CommandId(5)));
}

#[test]
fn an_invalid_command_is_answered_and_an_endless_line_is_not() {
    let (dir, (mut client, mut far)) = (TestDir::new(), pair());
    let disk = dir.disk();
    far.write_all(b"{\"command\":\"explode\"}\n").unwrap();
    assert!(matches!(client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM), Served::Gone));
    assert!(said(&mut far).contains("not a command"));
    let (mut client, mut far) = pair();
    let mut sent = 0;
    loop {
        if matches!(client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM), Served::Gone) {
            break;
        }
        assert!(sent < 4 * LINE_BYTES_MAX, "the client takes a line without an end");
        sent += far.write(&[b' '; 4096]).unwrap_or(0);
    }
}

#[test]
fn the_last_progress_of_an_interval_is_sent_when_it_is_due() {
    let (dir, (mut client, mut far)) = (TestDir::new(), pair());
    let disk = dir.disk();
    begin(&mut client);
    let now = Instant::from_secs(9);
    (1..=3).for_each(|done| client.respond(now, CommandId(5), progress(done)));
    assert_eq!(client.next_deadline(), Some(now + PROGRESS_INTERVAL));
    client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM);
    assert!(said(&mut far).contains("\"done\":1"));
    client.tell(now + PROGRESS_INTERVAL);
    assert_eq!(client.next_deadline(), None);
    client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM);
    let text = said(&mut far);
    assert!(text.contains("\"done\":3") && !text.contains("\"done\":2"), "{text}");
}

#[test]
fn content_that_leaves_after_its_line_is_counted() {
    let (dir, (mut client, mut far)) = (TestDir::new(), pair());
    let (disk, path) = (dir.disk(), dir.file("file", b"0123456789"));
    for number in [5, 6] {
        client.begin(
            CommandId(number),
            &Asked { command: Command::Id, number: Some(number), descriptor: None },
        );
    }
    for (command, offset, length) in [(5, 0, 4), (6, 4, 5), (5, 9, 1)] {
        let place = crate::io::Place::File(path.as_path().into());
        let extent = Extent { place, offset, length, stamp: None };
        client.send_content(CommandId(command), Content { offset, length, file_length: 10 }, extent, &disk);
    }
    assert!(matches!(client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM), Served::Dry));
    let sent = [(5, 4), (6, 5), (5, 1)].map(|(command, bytes)| (CommandId(command), bytes));
    assert_eq!(client.take_sent(), sent.to_vec());
    assert_eq!(client.take_sent(), vec![]);
    let line = |id, offset, length| {
        format!(
            "{{\"id\":{id},\"event\":\"content\",\"offset\":{offset},\"length\":{length},\"file_length\":10}}\n"
        )
    };
    assert_eq!(said(&mut far), format!("{}0123{}45678{}9", line(5, 0, 4), line(6, 4, 5), line(5, 9, 1)));
}

#[test]
fn a_client_whose_content_cannot_be_read_is_disconnected() {
    let (dir, (mut client, _far)) = (TestDir::new(), pair());
    let disk = dir.disk();
    begin(&mut client);
    let place = crate::io::Place::File(dir.path("none").into());
    let extent = Extent { place, offset: 0, length: 1, stamp: None };
    client.send_content(CommandId(5), Content { offset: 0, length: 1, file_length: 1 }, extent, &disk);
    assert!(matches!(client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM), Served::Gone));
    assert!(client.awaits(CommandId(5)));
}

#[test]
fn unread_progress_does_not_pile_up() {
    let (mut client, _far) = pair();
    begin(&mut client);
    for second in 0..1000 {
        client.respond(Instant::from_secs(9 + second), CommandId(5), progress(second));
    }
    assert!(client.outbox.held_bytes() < BACKLOG_BYTES + 1024);
}

#[test]
fn commands_with_numbers_run_concurrently_up_to_the_limits() {
    let (dir, (mut client, mut far)) = (TestDir::new(), pair());
    let disk = dir.disk();
    let serve =
        |client: &mut Client, room: Room| client.serve(Instant::ZERO, &disk, &mut Outflow::default(), room);
    for number in 1..=5 {
        writeln!(far, "{{\"command\":\"id\",\"id\":{number}}}").unwrap();
    }
    let none = Room { commands: 0, ..ROOM };
    assert!(matches!(serve(&mut client, none), Served::Waits(Lack::Commands)));
    for id in 1..=3 {
        let Served::Asked(asked) = serve(&mut client, ROOM) else { panic!("there is room for {id}") };
        assert_eq!(asked.number, Some(id));
        client.begin(CommandId(id), &asked);
    }
    // The client runs as many commands as one client may.
    assert!(matches!(serve(&mut client, ROOM), Served::Dry));
    client.respond(Instant::ZERO, CommandId(2), left());
    let Served::Asked(asked) = serve(&mut client, ROOM) else { panic!("one has ended") };
    assert_eq!(asked.number, Some(4));
    client.begin(CommandId(4), &asked);
    client.respond(Instant::ZERO, CommandId(1), progress(1));
    client.respond(Instant::ZERO, CommandId(3), left());
    assert!(matches!(serve(&mut client, none), Served::Waits(Lack::Commands)));
    let text = said(&mut far);
    let ids: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| (line["id"].as_u64().unwrap(), line["event"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [(2, "done"), (1, "progress"), (3, "done")];
    assert_eq!(ids, expected.map(|(id, event)| (id, event.to_owned())));
}

#[test]
fn a_command_without_a_number_has_the_connection_for_itself() {
    let (dir, (mut client, mut far)) = (TestDir::new(), pair());
    let disk = dir.disk();
    let serve = |client: &mut Client| client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM);
    far.write_all(b"{\"command\":\"id\",\"id\":7}\n{\"command\":\"id\"}\n{\"command\":\"id\",\"id\":8}\n")
        .unwrap();
    let Served::Asked(asked) = serve(&mut client) else { panic!("the first") };
    client.begin(CommandId(1), &asked);
    assert!(matches!(serve(&mut client), Served::Dry));
    client.respond(Instant::ZERO, CommandId(1), left());
    let Served::Asked(asked) = serve(&mut client) else { panic!("the second") };
    assert_eq!(asked.number, None);
    client.begin(CommandId(2), &asked);
    assert!(matches!(serve(&mut client), Served::Dry));
    client.respond(Instant::ZERO, CommandId(2), left());
    assert!(matches!(serve(&mut client), Served::Asked(Asked { number: Some(8), .. })));
    let text = said(&mut far);
    assert!(
        text.starts_with("{\"id\":7,") && text.lines().nth(1).unwrap().starts_with("{\"event\""),
        "{text}"
    );
}

/// Sends a line, and descriptors with its first byte.
fn pass(far: &UnixStream, line: &str, descriptors: usize) {
    let file = std::fs::File::open("Cargo.toml").unwrap();
    let files = vec![file.as_fd(); descriptors];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(far, &[IoSlice::new(line.as_bytes())], &mut rights, SendFlags::empty()).unwrap();
}

#[test]
fn a_descriptor_goes_to_the_command_whose_line_it_came_with() {
    let (dir, (mut client, mut far)) = (TestDir::new(), pair());
    let disk = dir.disk();
    let serve =
        |client: &mut Client, room: Room| client.serve(Instant::ZERO, &disk, &mut Outflow::default(), room);
    far.write_all(b"{\"command\":\"id\",\"id\":1}\n").unwrap();
    pass(&far, "{\"command\":\"id\",\"id\":2,\"descriptor\":true}\n", 1);
    far.write_all(b"{\"command\":\"id\",\"id\":3,\"descriptor\":true}\n").unwrap();
    let mut passed = Vec::new();
    for id in 1..=3 {
        let Served::Asked(asked) = serve(&mut client, ROOM) else { panic!("line {id}") };
        client.begin(CommandId(id), &asked);
        passed.push(asked.descriptor.is_some());
    }
    // The third line announces a descriptor, and none comes.
    assert_eq!(passed, vec![false, true, false]);
    assert_eq!(client.descriptor_count(), 0);
    pass(&far, "{\"command\":\"id\",\"id\":4}\n", 1);
    let none = Room { descriptors: 1, ..ROOM };
    client.respond(Instant::ZERO, CommandId(1), left());
    assert!(matches!(serve(&mut client, none), Served::Waits(Lack::Descriptors)));
    assert!(matches!(serve(&mut client, ROOM), Served::Asked(_)));
}

#[test]
fn surplus_descriptors_are_closed_and_descriptors_without_lines_end_the_connection() {
    let (dir, (mut client, far)) = (TestDir::new(), pair());
    let disk = dir.disk();
    let serve = |client: &mut Client| client.serve(Instant::ZERO, &disk, &mut Outflow::default(), ROOM);
    pass(&far, "{\"command\":\"id\",\"id\":1,\"descriptor\":true}\n", 9);
    let Served::Asked(asked) = serve(&mut client) else { panic!("the line is sound") };
    // The node cannot tell which of them belongs to the line.
    assert!(asked.descriptor.is_none() && client.descriptor_count() == 0);
    let (mut client, far) = pair();
    let ended = (0..2 * DESCRIPTORS_AHEAD_MAX).any(|_| {
        pass(&far, " ", 1);
        matches!(serve(&mut client), Served::Gone)
    });
    assert!(ended && client.descriptor_count() <= DESCRIPTORS_AHEAD_MAX);
}
