//! `/api`: the commands of the control socket as JSON.
//!
//! `GET /api/NAME` reads. `POST /api/command` takes the line of any command that touches no path of this machine, and needs the
//! token. A command that is not done within a minute is cancelled; events do not come here. The answer is the command's reply; a failure is its reason and its message.

use super::access::{Access, Asks};
use super::answer::{Answer, Status};
use super::request::{Method, Request};
use super::route::{Form, Plan, only_reads};
use crate::node::command::{Command, Failure, FailureReason, Listed, Reply};
use std::path::PathBuf;

const JSON: &str = "application/json";

/// Decides about a request for `/api/NAME`.
pub(super) fn plan(request: &Request, name: &str, body: &[u8], access: &Access) -> Result<Plan, Answer> {
    if name == "command" {
        access.check(request, Asks::Change)?;
        return command(request, body).map(|command| Plan::Ask(command, Form::Json));
    }
    access.check(request, Asks::State)?;
    only_reads(request)?;
    let command = match name {
        "status" => Command::Status,
        "peers" => Command::Peers,
        "id" => Command::Id,
        "values" => Command::Values,
        "ls" => Command::List { after: after(&request.query)? },
        _ => {
            let what = "there are /api/status, /api/peers, /api/ls, /api/values, /api/id and /api/command";
            return Err(Answer::text(Status::NOT_FOUND, what));
        }
    };
    Ok(Plan::Ask(command, Form::Json))
}

fn command(request: &Request, body: &[u8]) -> Result<Command, Answer> {
    if request.method != Method::Post {
        return Err(Answer::text(Status::METHOD, "send the command with POST").with("Allow", "POST"));
    }
    let command = serde_json::from_slice(body)
        .map_err(|error| Answer::text(Status::BAD_REQUEST, &format!("the body is not a command: {error}")))?;
    match command {
        Command::Put { .. } | Command::Get { target: Some(_), .. } | Command::GetEntry { .. } => {
            Err(Answer::text(
                Status::FORBIDDEN,
                "commands with paths of the node's machine are for its control socket: run elver there",
            ))
        }
        Command::Read { .. } => Err(Answer::text(Status::BAD_REQUEST, "read content with GET /HASH")),
        // Its answer may never come.
        Command::Events { .. } => Err(Answer::text(
            Status::BAD_REQUEST,
            "events do not come over HTTP: run `elver events` at the node, or read /metrics",
        )),
        command => Ok(command),
    }
}

/// The last file of the page before, in a query of the form `hash=HASH&path=PATH`.
fn after(query: &str) -> Result<Option<Listed>, Answer> {
    let value =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(decode);
    let wrong = || Answer::text(Status::BAD_REQUEST, "the page's beginning is hash=HASH&path=PATH");
    match (value("hash"), value("path")) {
        (None, None) => Ok(None),
        (Some(Some(hash)), Some(Some(path))) => {
            let hash = hash.parse().map_err(|_| wrong())?;
            Ok(Some(Listed { hash, path: PathBuf::from(path) }))
        }
        _ => Err(wrong()),
    }
}

/// Decodes percent-encoded text. `None` if it is none.
fn decode(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = core::str::from_utf8(&digits).ok().filter(|digits| !digits.starts_with('+'))?;
                u8::from_str_radix(digits, 16).ok()?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The answer with a reply of the node.
pub(super) fn reply(reply: &Reply) -> Answer {
    let body =
        serde_json::to_vec(reply).expect("a reply has only string keys, and only numbers that JSON has");
    Answer::new(Status::OK, JSON, body).with("Cache-Control", "no-store")
}

/// The answer to a command that failed.
pub(super) fn failure(failure: &Failure) -> Answer {
    let body = serde_json::to_vec(failure).expect("a failure is two strings");
    retry(Answer::new(status_of(failure.reason), JSON, body), failure.reason)
}

/// The status of a failure.
pub(super) fn status_of(reason: FailureReason) -> Status {
    match reason {
        FailureReason::Usage => Status::BAD_REQUEST,
        FailureReason::NotFound => Status::NOT_FOUND,
        FailureReason::Unverified => Status::BAD_GATEWAY,
        FailureReason::Failed => Status::FAILED,
        FailureReason::Unreachable | FailureReason::NoSpace | FailureReason::Busy => Status::UNAVAILABLE,
    }
}

/// Says when to try again what may succeed later.
pub(super) fn retry(answer: Answer, reason: FailureReason) -> Answer {
    match reason {
        FailureReason::Busy => answer.with("Retry-After", "5"),
        FailureReason::Unreachable => answer.with("Retry-After", "10"),
        FailureReason::NoSpace => answer.with("Retry-After", "60"),
        _ => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::HttpToken;
    use super::super::request::{Parsed, parse};
    use super::*;

    const TOKEN: &str = "sesame-sesame-sesame";

    fn planned(line: &str, body: &str) -> Result<Command, u16> {
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let Parsed::Whole(request, _) = parse(head.as_bytes()) else { panic!("{head}") };
        let access = Access::new("127.0.0.1:1".parse().unwrap(), HttpToken::new(TOKEN)).unwrap();
        let name = request.path.strip_prefix("/api/").unwrap().to_owned();
        match plan(&request, &name, body.as_bytes(), &access) {
            Ok(Plan::Ask(command, Form::Json)) => Ok(command),
            Ok(other) => panic!("{other:?}"),
            Err(answer) => Err(answer.status.code()),
        }
    }

    #[test]
    fn commands_that_read_have_names_and_others_come_as_json() {
        assert_eq!(planned("GET /api/status", ""), Ok(Command::Status));
        assert_eq!(planned("HEAD /api/peers", ""), Ok(Command::Peers));
        assert_eq!(planned("GET /api/leave", ""), Err(404));
        assert_eq!(planned("POST /api/status", ""), Err(405));
        assert_eq!(planned("GET /api/command", ""), Err(405));
        let unset = r#"{"command":"unset","name":"x"}"#;
        assert_eq!(planned("POST /api/command", unset), Ok(Command::Unset { name: "x".to_owned() }));
        assert_eq!(planned("POST /api/command", "{}"), Err(400));
    }

    #[test]
    fn a_command_with_a_path_or_without_an_end_is_refused() {
        let hash = "0".repeat(64);
        for (body, status) in [
            (r#"{"command":"put","path":"/etc/shadow"}"#.to_owned(), 403),
            (format!(r#"{{"command":"get","hash":"{hash}","target":"/etc/cron.d/x"}}"#), 403),
            (
                format!(r#"{{"command":"get_entry","hash":"{hash}","directory":"/etc","place":"cron.d/x"}}"#),
                403,
            ),
            (format!(r#"{{"command":"read","hash":"{hash}"}}"#), 400),
            (r#"{"command":"events"}"#.to_owned(), 400),
            (r#"{"command":"events","after":7}"#.to_owned(), 400),
        ] {
            assert_eq!(planned("POST /api/command", &body), Err(status), "{body}");
        }
        let cached = format!(r#"{{"command":"get","hash":"{hash}"}}"#);
        assert!(matches!(planned("POST /api/command", &cached), Ok(Command::Get { target: None, .. })));
    }

    #[test]
    fn a_page_of_files_begins_after_the_last_of_the_page_before() {
        let hash = "0f".repeat(32);
        let after = |query: &str| match planned(&format!("GET /api/ls{query}"), "") {
            Ok(Command::List { after }) => Ok(after),
            Ok(other) => panic!("{other:?}"),
            Err(status) => Err(status),
        };
        assert_eq!(after(""), Ok(None));
        let listed = after(&format!("?hash={hash}&path=%2Fa%20b+c%C3%A9")).unwrap().unwrap();
        assert_eq!((listed.hash.to_string(), listed.path), (hash.clone(), PathBuf::from("/a b cé")));
        for query in [
            "?hash=x&path=y",
            &format!("?hash={hash}"),
            &format!("?hash={hash}&path=%f"),
            &format!("?hash={hash}&path=%ff"),
        ] {
            assert_eq!(after(query), Err(400), "{query}");
        }
    }
}
