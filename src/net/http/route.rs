//! From a request to what is done for it.

use super::access::{Access, Asks};
use super::answer::{Answer, Status};
use super::request::{Method, Request};
use super::{api, media, page, range};
use crate::id::Key;
use crate::node::command::{Command, Part};

/// What is done for a request.
#[derive(Debug)]
pub(super) enum Plan {
    /// Answer at once.
    Answer(Answer),
    /// Send a file, or a part of it.
    Content(Content),
    /// Ask the node, and answer with what it replies.
    Ask(Command, Form),
}

/// A file to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Content {
    /// Its address.
    pub(super) hash: Key,
    /// The part asked for; `None` is the whole file.
    pub(super) part: Option<Part>,
    /// Its type, by the name in the request.
    pub(super) media: &'static str,
    /// Whether only the head of the answer is asked for.
    pub(super) only_head: bool,
}

/// The form in which a reply of the node is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// As JSON.
    Json,
    /// As metrics.
    Metrics,
}

/// Decides about a request. `body` is its body.
pub(super) fn plan(request: &Request, body: &[u8], access: &Access) -> Plan {
    decide(request, body, access).unwrap_or_else(Plan::Answer)
}

fn decide(request: &Request, body: &[u8], access: &Access) -> Result<Plan, Answer> {
    let path = request.path.strip_prefix('/').unwrap_or(&request.path);
    let (first, name) = path.split_once('/').unwrap_or((path, ""));
    if first == "api" {
        return api::plan(request, name, body, access);
    }
    let asks = if path == "metrics" { Asks::State } else { Asks::Page };
    access.check(request, asks)?;
    only_reads(request)?;
    if let Some(answer) = page::find(path) {
        return Ok(Plan::Answer(answer));
    }
    if path == "metrics" {
        return Ok(Plan::Ask(Command::Status, Form::Metrics));
    }
    let hash = (first.len() == 64 && !name.contains('/')).then(|| first.parse().ok()).flatten();
    let Some(hash) = hash else {
        let what =
            "there is nothing here: files are at /HASH and /HASH/NAME, the node at /, /api and /metrics";
        return Err(Answer::text(Status::NOT_FOUND, what));
    };
    content(request, hash, name)
}

/// Refuses methods that change something.
pub(super) fn only_reads(request: &Request) -> Result<(), Answer> {
    match request.method {
        Method::Get | Method::Head => Ok(()),
        Method::Post | Method::Other => {
            let why = "only GET and HEAD are possible here";
            Err(Answer::text(Status::METHOD, why).with("Allow", "GET, HEAD"))
        }
    }
}

/// The tag of a file: its address names its bytes, so it never changes.
pub(super) fn tag(hash: Key) -> String {
    format!("\"{hash}\"")
}

/// How long a client may keep a file: for ever, as the bytes of an address never change.
pub(super) const CACHE: &str = "max-age=31536000, immutable";

fn content(request: &Request, hash: Key, name: &str) -> Result<Plan, Answer> {
    let (fields, tag) = (&request.fields, tag(hash));
    // A list of tags, or a star for whatever is there. The bytes of an address are always the same.
    let lists = |value: &str, weak: bool| {
        value
            .split(',')
            .map(str::trim)
            .any(|one| one == "*" || one == tag || weak && one.strip_prefix("W/") == Some(&tag[..]))
    };
    if fields.if_match.as_deref().is_some_and(|value| !lists(value, false)) {
        return Err(Answer::text(Status::CONDITION, "the file at this address has another tag: its address"));
    }
    if fields.if_none_match.as_deref().is_some_and(|value| lists(value, true)) {
        let unchanged = Answer::new(Status::NOT_MODIFIED, "", Vec::new());
        return Err(unchanged.with("ETag", tag).with("Cache-Control", CACHE));
    }
    let same = fields.if_range.as_deref().is_none_or(|value| value == tag);
    let ranged = request.method == Method::Get && same;
    let part = fields.range.as_deref().filter(|_| ranged).and_then(range::parse);
    let only_head = request.method == Method::Head;
    Ok(Plan::Content(Content { hash, part, media: media::type_of(name), only_head }))
}

#[cfg(test)]
mod tests {
    use super::super::request::{Parsed, parse};
    use super::*;

    const HASH: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    fn planned(method: &str, path: &str, fields: &str) -> Plan {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let Parsed::Whole(request, _) = parse(head.as_bytes()) else { panic!("{head}") };
        plan(&request, b"", &Access::new("127.0.0.1:1".parse().unwrap(), None).unwrap())
    }

    fn status(method: &str, path: &str, fields: &str) -> u16 {
        match planned(method, path, fields) {
            Plan::Answer(answer) => answer.status.code(),
            other => panic!("{other:?}"),
        }
    }

    fn content(method: &str, path: &str, fields: &str) -> Content {
        match planned(method, path, fields) {
            Plan::Content(content) => content,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_is_a_file_and_the_name_after_it_tells_its_type() {
        let plain = content("GET", &format!("/{HASH}"), "");
        assert_eq!((plain.hash.to_string(), plain.media), (HASH.to_owned(), "application/octet-stream"));
        assert!(!plain.only_head && plain.part.is_none());
        assert_eq!(content("HEAD", &format!("/{HASH}/a%20b.mp4?x"), "").media, "video/mp4");
        assert!(content("HEAD", &format!("/{HASH}"), "Range: bytes=0-1\r\n").part.is_none());
        for path in ["/x", "/a/b", &format!("/{HASH}/a/b"), &format!("/{}", &HASH[1..]), "//", "/favicon.ico"]
        {
            assert_eq!(status("GET", path, ""), 404, "{path}");
        }
    }

    #[test]
    fn content_is_only_read() {
        for method in ["PUT", "DELETE", "OPTIONS", "get", "PROPFIND"] {
            assert_eq!(status(method, &format!("/{HASH}"), ""), 405, "{method}");
        }
        assert_eq!(status("POST", &format!("/{HASH}"), "Content-Length: 0\r\n"), 405);
    }

    #[test]
    fn the_tag_decides_about_conditions() {
        let path = format!("/{HASH}");
        for (fields, expected) in [
            (format!("If-None-Match: \"{HASH}\"\r\n"), 304),
            (format!("If-None-Match: \"x\", W/\"{HASH}\"\r\n"), 304),
            ("If-None-Match: *\r\n".to_owned(), 304),
            ("If-Match: \"x\"\r\n".to_owned(), 412),
            (format!("If-Match: W/\"{HASH}\"\r\n"), 412),
        ] {
            assert_eq!(status("GET", &path, &fields), expected, "{fields}");
        }
        let part = |fields: &str| content("GET", &path, &format!("Range: bytes=1-2\r\n{fields}")).part;
        let expected = Some(Part::Between { start: 1, end: Some(3) });
        assert_eq!(part(""), expected);
        assert_eq!(part(&format!("If-Range: \"{HASH}\"\r\n")), expected);
        assert_eq!(part("If-Range: \"x\"\r\n"), None);
        assert_eq!(part("If-Range: Wed, 21 Oct 2015 07:28:00 GMT\r\n"), None);
        assert_eq!(part(&format!("If-None-Match: \"x\"\r\nIf-Match: \"{HASH}\"\r\n")), expected);
    }
}
