//! The head of a request, parsed and checked.
//!
//! What could be read in two ways is refused, because a proxy in front might read it in the other: a length given twice, a transfer
//! coding, a body of a request that has none (RFC 9112, section 11.2).

use super::answer::Status;

/// The longest head in bytes: the request line and the fields.
pub(super) const HEAD_BYTES_MAX: usize = 8 << 10;
/// The longest body in bytes: a `set` fits with its value written as an array of numbers.
pub(super) const BODY_BYTES_MAX: usize = 8 << 10;
/// Fields that one head may have.
const FIELDS_MAX: usize = 64;

/// The methods that the gateway knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Other,
}

/// A request, without its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// The path, as it was sent.
    pub(super) path: String,
    /// What follows the question mark.
    pub(super) query: String,
    /// The host that the client believes it talks to, with the port if one was given.
    pub(super) host: Option<String>,
    /// Whether the client wants to send another request on this connection.
    pub(super) keep_alive: bool,
    /// The length of the body.
    pub(super) body_bytes: usize,
    /// The conditions and the credentials, as they were sent.
    pub(super) fields: Fields,
}

/// The values of the fields that the gateway heeds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Fields {
    pub(super) authorization: Option<String>,
    pub(super) range: Option<String>,
    pub(super) if_range: Option<String>,
    pub(super) if_match: Option<String>,
    pub(super) if_none_match: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) fetch_site: Option<String>,
    pub(super) fetch_mode: Option<String>,
}

/// Why a head is refused. The connection cannot be used after it, because the next request's beginning is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// It is no request, or one with two meanings.
    Malformed(&'static str),
    /// It is longer than [`HEAD_BYTES_MAX`], or has too many fields.
    HeadTooLarge,
    /// Its body is longer than [`BODY_BYTES_MAX`].
    BodyTooLarge,
    /// It has a body without a length.
    NoLength,
    /// Its body has a transfer coding.
    Coded,
    /// It has another version of HTTP than 1.0 and 1.1.
    Version,
}

impl Refusal {
    /// The status and the explanation for the client.
    pub(super) fn answer(self) -> (Status, &'static str) {
        match self {
            Refusal::Malformed(why) => (Status::BAD_REQUEST, why),
            Refusal::HeadTooLarge => {
                (Status::HEAD_TOO_LARGE, "the request's head is too large: send at most 8 KiB and 64 fields")
            }
            Refusal::BodyTooLarge => {
                (Status::BODY_TOO_LARGE, "the request's body is too large: send at most 8 KiB")
            }
            Refusal::NoLength => {
                (Status::LENGTH_REQUIRED, "the request's body has no length: send Content-Length")
            }
            Refusal::Coded => (
                Status::NOT_IMPLEMENTED,
                "the request's body has a transfer coding: send it as it is, with Content-Length",
            ),
            Refusal::Version => (Status::VERSION, "the gateway speaks HTTP/1.0 and HTTP/1.1"),
        }
    }
}

/// The result of parsing the bytes that have arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Parsed {
    /// The head is not complete.
    Partial,
    /// A head, and its length in bytes. The body follows.
    Whole(Box<Request>, usize),
    /// No further request can be read.
    Refused(Refusal),
}

/// Finds the end of a head in `bytes`, of which the first `searched` contain none: the position after the empty line.
pub(super) fn end_of_head(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(2);
    (from..bytes.len())
        .find(|&at| bytes[at] == b'\n' && matches!(bytes[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
        .map(|at| if bytes[at + 1] == b'\n' { at + 2 } else { at + 3 })
}

/// Parses a complete head.
pub(super) fn parse(head: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) => match read(&parsed) {
            Ok(request) => Parsed::Whole(Box::new(request), length),
            Err(refusal) => Parsed::Refused(refusal),
        },
        Ok(httparse::Status::Partial) => Parsed::Partial,
        Err(httparse::Error::TooManyHeaders) => Parsed::Refused(Refusal::HeadTooLarge),
        Err(httparse::Error::Version) => Parsed::Refused(Refusal::Version),
        Err(_) => Parsed::Refused(Refusal::Malformed("this is no HTTP request")),
    }
}

fn read(parsed: &httparse::Request<'_, '_>) -> Result<Request, Refusal> {
    let minor = parsed.version.ok_or(Refusal::Version)?;
    let method = match parsed.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        _ => Method::Other,
    };
    let mut heard = Heard::default();
    for field in parsed.headers.iter() {
        heard.take(field)?;
    }
    let (host, path_and_query) = split_target(parsed.path.unwrap_or_default())?;
    if minor >= 1 && heard.host.is_none() {
        return Err(Refusal::Malformed("the request does not name its host: send one Host field"));
    }
    let body_bytes = heard.body_bytes(method)?;
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    Ok(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        host: host.map(str::to_owned).or(heard.host),
        keep_alive: if minor >= 1 { !heard.close } else { heard.keep_alive && !heard.close },
        body_bytes,
        fields: heard.fields,
    })
}

/// Splits a target into the host, if it is absolute, and the path with the query.
fn split_target(target: &str) -> Result<(Option<&str>, &str), Refusal> {
    if target.starts_with('/') {
        return Ok((None, target));
    }
    let rest = target.strip_prefix("http://").ok_or(Refusal::Malformed("the request's target is no path"))?;
    let at = rest.find('/').unwrap_or(rest.len());
    let path = if at == rest.len() { "/" } else { &rest[at..] };
    Ok((Some(&rest[..at]), path))
}

/// What the fields say.
#[derive(Default)]
struct Heard {
    fields: Fields,
    host: Option<String>,
    length: Option<u64>,
    coded: bool,
    close: bool,
    keep_alive: bool,
}

impl Heard {
    fn take(&mut self, field: &httparse::Header<'_>) -> Result<(), Refusal> {
        let Fields {
            authorization,
            range,
            if_range,
            if_match,
            if_none_match,
            origin,
            fetch_site,
            fetch_mode,
        } = &mut self.fields;
        let known = [
            ("authorization", authorization),
            ("range", range),
            ("if-range", if_range),
            ("if-match", if_match),
            ("if-none-match", if_none_match),
            ("origin", origin),
            ("sec-fetch-site", fetch_site),
            ("sec-fetch-mode", fetch_mode),
            ("host", &mut self.host),
        ];
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let text = || core::str::from_utf8(field.value).map(|text| text.trim().to_owned());
        if let Some((_, place)) = known.into_iter().find(|(name, _)| is(name)) {
            let text = text().map_err(|_| Refusal::Malformed("a field of the request is no text"))?;
            return match place.replace(text) {
                None => Ok(()),
                Some(_) => Err(Refusal::Malformed("the request has a field twice that it may have once")),
            };
        }
        if is("content-length") {
            let digits = text().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok());
            let length = length.ok_or(Refusal::Malformed("the request's Content-Length is no number"))?;
            if self.length.replace(length).is_some() {
                return Err(Refusal::Malformed("the request has two lengths"));
            }
        } else if is("transfer-encoding") {
            self.coded = true;
        } else if is("connection") {
            for token in text().unwrap_or_default().split(',') {
                self.close |= token.trim().eq_ignore_ascii_case("close");
                self.keep_alive |= token.trim().eq_ignore_ascii_case("keep-alive");
            }
        }
        Ok(())
    }

    /// The length of the body that follows the head.
    fn body_bytes(&self, method: Method) -> Result<usize, Refusal> {
        match (self.coded, self.length, method) {
            (true, Some(_), _) => Err(Refusal::Malformed("the request has a length and a transfer coding")),
            (true, None, _) => Err(Refusal::Coded),
            (false, None, Method::Post) => Err(Refusal::NoLength),
            (false, None | Some(0), _) => Ok(0),
            (false, Some(length), Method::Post) => match usize::try_from(length) {
                Ok(length) if length <= BODY_BYTES_MAX => Ok(length),
                _ => Err(Refusal::BodyTooLarge),
            },
            (false, Some(_), _) => {
                Err(Refusal::Malformed("the request has a body, which its method has not"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str) -> Request {
        match parse(head.as_bytes()) {
            Parsed::Whole(request, length) if length == head.len() => *request,
            other => panic!("{other:?}"),
        }
    }

    fn status(head: &str) -> u16 {
        match parse(head.as_bytes()) {
            Parsed::Refused(refusal) => refusal.answer().0.code(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_has_a_path_a_host_and_its_conditions() {
        let head = "GET /a/b?x=1 HTTP/1.1\r\nHost: localhost:3584\r\nrange:  bytes=0-1 \r\nIf-None-Match: \"x\"\r\n\r\n";
        let request = request(head);
        assert_eq!((request.method, &request.path[..], &request.query[..]), (Method::Get, "/a/b", "x=1"));
        assert_eq!(request.host.as_deref(), Some("localhost:3584"));
        assert_eq!(request.fields.range.as_deref(), Some("bytes=0-1"));
        assert_eq!(request.fields.if_none_match.as_deref(), Some("\"x\""));
        assert!(request.keep_alive);
    }

    #[test]
    fn an_absolute_target_says_the_host() {
        let head = "GET http://192.0.2.7:3584/x HTTP/1.1\r\nHost: evil.example\r\n\r\n";
        let request = request(head);
        assert_eq!((request.host.as_deref(), &request.path[..]), (Some("192.0.2.7:3584"), "/x"));
        assert_eq!(self::request("GET http://h HTTP/1.1\r\nHost: h\r\n\r\n").path, "/");
    }

    #[test]
    fn a_connection_is_kept_as_its_version_says() {
        let keeps = |version: &str, field: &str| {
            request(&format!("GET / HTTP/{version}\r\nHost: h\r\n{field}\r\n")).keep_alive
        };
        assert!(keeps("1.1", "") && !keeps("1.1", "Connection: x, Close\r\n"));
        assert!(!keeps("1.0", "") && keeps("1.0", "Connection: keep-alive\r\n"));
    }

    #[test]
    fn a_request_with_two_meanings_is_refused() {
        let with =
            |method: &str, fields: &str| status(&format!("{method} / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
        for (method, fields, expected) in [
            ("POST", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
            ("POST", "Content-Length: 5\r\nContent-Length: 5\r\n", 400),
            ("POST", "Content-Length: 5, 5\r\n", 400),
            ("POST", "Content-Length: +5\r\n", 400),
            ("POST", "Content-Length: 99999999999999999999999\r\n", 400),
            ("GET", "Content-Length: 5\r\n", 400),
            ("GET", "Host: i\r\n", 400),
            ("GET", "Range: bytes=0-1\r\nRange: bytes=0-2\r\n", 400),
            ("GET", "Transfer-Encoding: chunked\r\n", 501),
            ("POST", "Transfer-Encoding: identity\r\n", 501),
            ("POST", "", 411),
            ("POST", "Content-Length: 8193\r\n", 413),
            ("GET", "Content-Length : 5\r\n", 400),
            ("GET", " folded\r\n", 400),
            ("GET", &"a: b\r\n".repeat(64), 431),
        ] {
            assert_eq!(with(method, fields), expected, "{method} {fields:.40}");
        }
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400, "without a host");
        assert_eq!(status("GET x HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/2.0\r\nHost: h\r\n\r\n"), 505);
        assert_eq!(status("\x16\x03\x01\r\n\r\n"), 400);
    }

    #[test]
    fn the_end_of_a_head_is_found_however_its_bytes_arrive() {
        for head in ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\nHost: h\n\n"] {
            let bytes = [head.as_bytes(), b"GET"].concat();
            assert_eq!(end_of_head(&bytes, 0), Some(head.len()));
            for searched in 0..head.len() {
                let (first, all) = (end_of_head(&bytes[..searched], 0), end_of_head(&bytes, searched));
                assert_eq!((first, all), (None, Some(head.len())), "{searched}");
            }
        }
    }
}
