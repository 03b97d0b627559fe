//! Who may ask for what.
//!
//! On loopback every user of the machine may read. A browser there runs pages of strangers, which must neither read nor change
//! anything through the gateway: a page whose name resolves to 127.0.0.1 (DNS rebinding) is known by its `Host`, and one that asks
//! from another origin by `Sec-Fetch-Site` or `Origin`. No answer allows another origin to read it (CORS).
//!
//! On other addresses every request needs the token. What changes the node needs it everywhere, as a bearer token: browsers send
//! the credentials of basic authentication by themselves, also when a stranger's page asks.

use super::answer::{Answer, Status};
use super::request::Request;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// The secret that allows changes, and all requests from other machines.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HttpToken(blake3::Hash);

impl HttpToken {
    /// The fewest characters of a token.
    pub const CHARACTERS_MIN: usize = 16;
    /// The most characters of a token.
    pub const CHARACTERS_MAX: usize = 256;

    /// The token that a text consists of, white space around it aside: 16 to 256 visible ASCII characters. `None` if it is none.
    pub fn new(text: &str) -> Option<HttpToken> {
        let text = text.trim();
        let fits = (Self::CHARACTERS_MIN..=Self::CHARACTERS_MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| HttpToken::of(text))
    }

    /// Hashes are compared in constant time.
    fn of(text: &str) -> HttpToken {
        HttpToken(blake3::hash(text.as_bytes()))
    }
}

impl fmt::Debug for HttpToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpToken")
    }
}

/// What a request asks for, as far as access is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asks {
    /// Content, or the page: a link on a stranger's page may lead there.
    Page,
    /// The node's state.
    State,
    /// A change.
    Change,
}

/// The rules of one listener.
#[derive(Clone, Debug)]
pub(super) struct Access {
    token: Option<HttpToken>,
    /// Whether only this machine reaches the listener.
    loopback: bool,
}

impl Access {
    /// The rules of a listener at this address. `None` when it would be open to other machines.
    pub(super) fn new(listen: SocketAddr, token: Option<HttpToken>) -> Option<Access> {
        let loopback = listen.ip().to_canonical().is_loopback();
        (loopback || token.is_some()).then_some(Access { token, loopback })
    }

    /// Allows a request, or answers it.
    pub(super) fn check(&self, request: &Request, asks: Asks) -> Result<(), Answer> {
        let shown = Shown::of(request);
        let bears = |given: Option<HttpToken>| given.is_some() && given == self.token;
        if bears(shown.bearer) {
            return Ok(());
        }
        if asks == Asks::Change {
            return Err(self.refuse_change());
        }
        if !self.loopback {
            return if bears(shown.password) {
                self.check_origin(request, asks)
            } else {
                Err(unauthorized())
            };
        }
        if !request.host.as_deref().is_none_or(is_local) {
            let why =
                "the gateway answers to `localhost` and to addresses: use one of them, or send the token";
            return Err(Answer::text(Status::MISDIRECTED, why));
        }
        self.check_origin(request, asks)
    }

    fn check_origin(&self, request: &Request, asks: Asks) -> Result<(), Answer> {
        let fields = &request.fields;
        let is_other = match (fields.fetch_site.as_deref(), &fields.origin) {
            (Some(site), _) => !matches!(site, "same-origin" | "none"),
            (None, Some(origin)) => {
                request.host.as_deref().is_none_or(|host| origin.strip_prefix("http://") != Some(host))
            }
            (None, None) => false,
        };
        let is_link = asks == Asks::Page && fields.fetch_mode.as_deref() == Some("navigate");
        match is_other && !is_link {
            true => Err(Answer::text(Status::FORBIDDEN, "pages of other origins may not ask the gateway")),
            false => Ok(()),
        }
    }

    fn refuse_change(&self) -> Answer {
        match self.token {
            Some(_) => unauthorized(),
            None => Answer::text(
                Status::FORBIDDEN,
                "changes need a token: start the node with --http-token-file, and send `Authorization: Bearer TOKEN`",
            ),
        }
    }
}

fn unauthorized() -> Answer {
    let why = "this needs the node's token: send `Authorization: Bearer TOKEN`, or the token as the password";
    Answer::text(Status::UNAUTHORIZED, why).with("WWW-Authenticate", "Basic realm=\"elver\"")
}

/// Whether a host is this machine's name for itself or an address. No stranger's name resolves to those.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// The credentials of a request.
#[derive(Default)]
struct Shown {
    bearer: Option<HttpToken>,
    password: Option<HttpToken>,
}

impl Shown {
    fn of(request: &Request) -> Shown {
        let text = request.fields.authorization.as_deref().unwrap_or_default();
        let (scheme, credentials) = text.split_once(' ').unwrap_or_default();
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Shown { bearer: Some(HttpToken::of(credentials)), password: None };
        }
        let decoded = scheme.eq_ignore_ascii_case("basic").then(|| base64(credentials)).flatten();
        let password = decoded.as_deref().and_then(|text| text.split_once(':')).map(|(_, password)| password);
        Shown { bearer: None, password: password.map(HttpToken::of) }
    }
}

/// Decodes base64 to text. `None` if it is none.
fn base64(text: &str) -> Option<String> {
    let digits = text.trim_end_matches('=');
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(digits.len() * 3 / 4), 0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, count) = (bits << 6 | u32::from(value), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
        bits &= (1 << count) - 1;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::super::request::{Parsed, parse};
    use super::*;

    const TOKEN: &str = "sesame-sesame-sesame";

    fn access(listen: &str, token: Option<&str>) -> Option<Access> {
        Access::new(listen.parse().unwrap(), token.map(|token| HttpToken::new(token).unwrap()))
    }

    /// The status of a request with these fields, 200 if it is allowed.
    fn status(access: &Access, asks: Asks, fields: &str) -> u16 {
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        let Parsed::Whole(request, _) = parse(head.as_bytes()) else { panic!("{head}") };
        access.check(&request, asks).map_or_else(|answer| answer.status.code(), |()| 200)
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        assert!(access("0.0.0.0:1", None).is_none() && access("192.0.2.7:1", None).is_none());
        assert!(access("[::]:1", None).is_none());
        assert!(access("0.0.0.0:1", Some(TOKEN)).is_some());
        for loopback in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(access(loopback, None).is_some(), "{loopback}");
        }
    }

    #[test]
    fn a_token_is_long_and_has_no_white_space_inside() {
        assert_eq!(HttpToken::new(&format!(" {TOKEN}\n")), HttpToken::new(TOKEN));
        assert!(HttpToken::new(TOKEN).is_some());
        for text in ["", "short", "sesame sesame sesame", &"x".repeat(257), "séésame-séésame-séésame"] {
            assert_eq!(HttpToken::new(text), None, "{text}");
        }
    }

    #[test]
    fn on_loopback_a_page_with_a_name_of_its_own_gets_nothing() {
        let access = access("127.0.0.1:3584", None).unwrap();
        for host in ["localhost", "LOCALHOST.:3584", "127.0.0.1:3584", "[::1]:3584", "192.0.2.7"] {
            assert_eq!(status(&access, Asks::State, &format!("Host: {host}\r\n")), 200, "{host}");
        }
        for host in ["evil.example:3584", "localhost.evil.example", "", "127.0.0.1.evil.example", "[evil]"] {
            assert_eq!(status(&access, Asks::Page, &format!("Host: {host}\r\n")), 421, "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_may_link_to_content_and_do_nothing_else() {
        let access = access("127.0.0.1:3584", None).unwrap();
        for (asks, fields, expected) in [
            (Asks::State, "Sec-Fetch-Site: same-origin\r\n", 200),
            (Asks::State, "Sec-Fetch-Site: cross-site\r\n", 403),
            (Asks::Page, "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", 403),
            (Asks::Page, "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 200),
            (Asks::State, "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 403),
            (Asks::State, "Origin: http://evil.example\r\n", 403),
            (Asks::State, "Origin: null\r\n", 403),
            (Asks::State, "Origin: http://localhost:3584\r\n", 200),
            (Asks::Change, "", 403),
        ] {
            let fields = format!("Host: localhost:3584\r\n{fields}");
            assert_eq!(status(&access, asks, &fields), expected, "{asks:?} {fields}");
        }
    }

    #[test]
    fn other_machines_need_the_token_and_changes_need_it_as_a_bearer_token() {
        let access = access("0.0.0.0:3584", Some(TOKEN)).unwrap();
        // The base64 of `me:sesame-sesame-sesame`, and of the same without its last letter.
        let (right, wrong) = ("bWU6c2VzYW1lLXNlc2FtZS1zZXNhbWU=", "bWU6c2VzYW1lLXNlc2FtZS1zZXNhbQ==");
        for (asks, fields, expected) in [
            (Asks::Page, String::new(), 401),
            (Asks::Page, format!("Authorization: Bearer {TOKEN}\r\n"), 200),
            (Asks::Change, format!("Authorization: bearer  {TOKEN}\r\n"), 200),
            (Asks::Page, format!("Authorization: Bearer {TOKEN}x\r\n"), 401),
            (Asks::Page, "Authorization: Bearer \r\n".to_owned(), 401),
            (Asks::State, format!("Authorization: Basic {right}\r\n"), 200),
            (Asks::State, format!("Authorization: Basic {wrong}\r\n"), 401),
            (Asks::State, format!("Authorization: Basic {right}\r\nOrigin: http://evil.example\r\n"), 403),
            (Asks::Change, format!("Authorization: Basic {right}\r\n"), 401),
            (Asks::State, "Authorization: Basic \u{1}\r\n".to_owned(), 401),
        ] {
            let fields = format!("Host: kiosk.example\r\n{fields}");
            let Parsed::Whole(..) = parse(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes()) else {
                continue;
            };
            assert_eq!(status(&access, asks, &fields), expected, "{asks:?} {fields}");
        }
    }

    #[test]
    fn base64_is_decoded_with_and_without_padding() {
        for (text, expected) in
            [("", Some("")), ("YQ==", Some("a")), ("YWI", Some("ab")), ("YWJj", Some("abc"))]
        {
            assert_eq!(base64(text).as_deref(), expected, "{text}");
        }
        assert_eq!(base64("Y*"), None);
        assert_eq!(base64("/w=="), None, "it is no text");
    }
}
