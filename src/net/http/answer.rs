//! Heads of answers, and answers that are complete.
//!
//! There is no `Date`: a node reads no wall clock, and a server without one sends none (RFC 9110, section 6.6.1).

use core::fmt::Display;
use std::io::Write;

/// A status code with its phrase.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Status(u16, &'static str);

impl Status {
    pub(super) const OK: Status = Status(200, "OK");
    pub(super) const PARTIAL: Status = Status(206, "Partial Content");
    pub(super) const NOT_MODIFIED: Status = Status(304, "Not Modified");
    pub(super) const BAD_REQUEST: Status = Status(400, "Bad Request");
    pub(super) const UNAUTHORIZED: Status = Status(401, "Unauthorized");
    pub(super) const FORBIDDEN: Status = Status(403, "Forbidden");
    pub(super) const NOT_FOUND: Status = Status(404, "Not Found");
    pub(super) const METHOD: Status = Status(405, "Method Not Allowed");
    pub(super) const TIMEOUT: Status = Status(408, "Request Timeout");
    pub(super) const LENGTH_REQUIRED: Status = Status(411, "Length Required");
    pub(super) const CONDITION: Status = Status(412, "Precondition Failed");
    pub(super) const BODY_TOO_LARGE: Status = Status(413, "Content Too Large");
    pub(super) const UNSATISFIABLE: Status = Status(416, "Range Not Satisfiable");
    pub(super) const MISDIRECTED: Status = Status(421, "Misdirected Request");
    pub(super) const HEAD_TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
    pub(super) const FAILED: Status = Status(500, "Internal Server Error");
    pub(super) const NOT_IMPLEMENTED: Status = Status(501, "Not Implemented");
    pub(super) const BAD_GATEWAY: Status = Status(502, "Bad Gateway");
    pub(super) const UNAVAILABLE: Status = Status(503, "Service Unavailable");
    pub(super) const VERSION: Status = Status(505, "HTTP Version Not Supported");

    /// The code.
    pub(super) fn code(self) -> u16 {
        self.0
    }
}

/// The head of an answer.
pub(super) struct Head(Vec<u8>);

impl Head {
    /// A head with the fields that every answer has.
    pub(super) fn new(status: Status) -> Head {
        let mut head = Head(Vec::with_capacity(512));
        let _ = write!(head.0, "HTTP/1.1 {} {}\r\n", status.0, status.1);
        head.with("Server", "elver").with("X-Content-Type-Options", "nosniff")
    }

    /// The head with another field. The value has no line breaks: it is the gateway's own.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: impl Display) -> Head {
        let _ = write!(self.0, "{name}: {value}\r\n");
        self
    }

    /// The head's bytes.
    pub(super) fn finish(mut self, keep_alive: bool) -> Vec<u8> {
        // An older client only knows that a connection stays open when it is told.
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let _ = write!(self.0, "Connection: {connection}\r\n\r\n");
        self.0
    }
}

/// An answer that is complete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) media: &'static str,
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// An answer with a body.
    pub(super) fn new(status: Status, media: &'static str, body: Vec<u8>) -> Answer {
        Answer { status, media, fields: Vec::new(), body }
    }

    /// An answer that explains in a line of text what went wrong.
    pub(super) fn text(status: Status, message: &str) -> Answer {
        Answer::new(status, "text/plain; charset=utf-8", format!("{message}\n").into_bytes())
    }

    /// The answer with another field.
    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.fields.push((name, value.into()));
        self
    }

    /// The answer's bytes; those of the head alone for a request that asks for it.
    pub(super) fn bytes(&self, only_head: bool, keep_alive: bool) -> Vec<u8> {
        let mut head = Head::new(self.status);
        for (name, value) in &self.fields {
            head = head.with(name, value);
        }
        // An answer that the content has not changed describes that content, not its own empty body.
        if self.status != Status::NOT_MODIFIED {
            head = head.with("Content-Type", self.media).with("Content-Length", self.body.len());
        }
        let mut bytes = head.finish(keep_alive);
        if !only_head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_its_length_even_without_its_body() {
        let answer = Answer::text(Status::NOT_FOUND, "gone").with("Retry-After", "5");
        let whole = String::from_utf8(answer.bytes(false, true)).unwrap();
        let head = String::from_utf8(answer.bytes(true, true)).unwrap();
        assert_eq!(whole, format!("{head}gone\n"));
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(
            head.contains("\r\nContent-Length: 5\r\n") && head.contains("\r\nRetry-After: 5\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\nConnection: keep-alive\r\n"));
    }
}
