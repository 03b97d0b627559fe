//! Requests from a fuzzer.

use super::access::{Access, HttpToken};
use super::connection::head_of;
use super::range::{Selected, select};
use super::request::{HEAD_BYTES_MAX, Parsed, end_of_head, parse};
use super::route::{Plan, plan};

/// Reads bytes as the requests of one connection, decides about each on loopback and on another address, and writes the answers
/// that follow without the node. Returns the number of requests.
///
/// # Panics
/// When an answer's head does not read back, or has a field of the request's making.
pub fn try_requests(mut bytes: &[u8]) -> usize {
    let token = HttpToken::new("sesame-sesame-sesame");
    let listeners = ["127.0.0.1:1", "192.0.2.7:1"].map(|addr| addr.parse().expect("an address"));
    let accesses = listeners.map(|addr| Access::new(addr, token).expect("it has a token"));
    let mut requests = 0;
    while let Some(end) = end_of_head(&bytes[..bytes.len().min(HEAD_BYTES_MAX)], 0) {
        let (request, length) = match parse(&bytes[..end]) {
            Parsed::Whole(request, length) => (request, length),
            Parsed::Partial | Parsed::Refused(_) => break,
        };
        let Some(body) = bytes.get(length..length + request.body_bytes) else { break };
        for access in &accesses {
            match plan(&request, body, access) {
                Plan::Answer(answer) => check(&answer.bytes(false, request.keep_alive)),
                Plan::Content(content) => {
                    for file_length in [0, 1, 1 << 18, u64::MAX >> 1] {
                        let selected = select(content.part, file_length);
                        if let Selected::Some(bytes) = &selected {
                            assert!(bytes.start < bytes.end && bytes.end <= file_length, "{bytes:?}");
                        }
                        if selected != Selected::Unsatisfiable {
                            check(&head_of(&content, &selected, file_length).finish(request.keep_alive));
                        }
                    }
                }
                Plan::Ask(..) => {}
            }
        }
        requests += 1;
        bytes = &bytes[length + request.body_bytes..];
    }
    requests
}

fn check(answer: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    assert!(head.parse(answer).expect("an answer reads back").is_complete());
    let known = |name: &str| {
        name.starts_with("Content-")
            || name.starts_with("Accept")
            || name.starts_with("Cross-")
            || name.starts_with("X-")
            || [
                "Server",
                "Connection",
                "ETag",
                "Cache-Control",
                "Allow",
                "WWW-Authenticate",
                "Referrer-Policy",
            ]
            .contains(&name)
    };
    assert!(head.headers.iter().all(|field| known(field.name)), "{:?}", head.headers);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_up_to_the_first_that_is_none() {
        let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(try_requests(request.repeat(3).as_bytes()), 3);
        assert_eq!(try_requests(format!("{request}{request}x\r\n\r\n{request}").as_bytes()), 2);
    }
}
