//! A bootstrap node as the user names it: by its address, or by a host name.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;

/// The default port, for UDP and TCP alike.
pub const DEFAULT_PORT: u16 = 3583;

/// The longest name in bytes (RFC 1035 §2.3.4), with room for the name of an interface.
const NAME_BYTES_MAX: usize = 253;
/// The longest label of a name in bytes (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// A node to join through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootstrapNode {
    /// It is at this address.
    At(SocketAddr),
    /// It has this name, which the driver resolves.
    Named(HostName),
}

/// The name of a host, and a port there. The name may also be a link-local address with the name of an interface, `fe80::1%eth0`,
/// whose number is known only once the interface is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostName {
    name: String,
    port: u16,
}

/// Why a text names no node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidHost {
    text: String,
    reason: &'static str,
}

impl HostName {
    /// The name, in lower case, without the port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

impl fmt::Display for BootstrapNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootstrapNode::At(addr) => addr.fmt(f),
            BootstrapNode::Named(host) => host.fmt(f),
        }
    }
}

impl From<SocketAddr> for BootstrapNode {
    fn from(addr: SocketAddr) -> Self {
        BootstrapNode::At(addr)
    }
}

impl FromStr for HostName {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        match text.parse()? {
            BootstrapNode::Named(host) => Ok(host),
            BootstrapNode::At(_) => Err(invalid(text, "is an address, not a name")),
        }
    }
}

/// Reads `IP:PORT`, `[IP]:PORT`, `[fe80::1%eth0]:PORT` or `NAME:PORT`; without a port it is 3583.
impl FromStr for BootstrapNode {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let (host, port) = split(text)?;
        if let Ok(addr) = format!("{}:{port}", bracketed(host)).parse::<SocketAddr>() {
            return match addr.ip().is_unspecified() || addr.ip().is_multicast() {
                true => Err(invalid(text, "is an address at which no node can be")),
                false => Ok(BootstrapNode::At(addr)),
            };
        }
        let is_name = match host.split_once('%') {
            Some((ip, interface)) => is_link_local(ip) && is_interface(interface),
            None => is_host_name(host),
        };
        match is_name {
            // Letters count in the name of an interface.
            true if host.contains('%') => Ok(BootstrapNode::Named(HostName { name: host.to_owned(), port })),
            true => Ok(BootstrapNode::Named(HostName { name: host.to_ascii_lowercase(), port })),
            false => Err(invalid(text, "is neither an address nor a name")),
        }
    }
}

/// Host and port of a text.
fn split(text: &str) -> Result<(&str, u16), InvalidHost> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) =
                rest.split_once(']').ok_or_else(|| invalid(text, "lacks a closing bracket"))?;
            let port = match rest {
                "" => None,
                _ => Some(rest.strip_prefix(':').ok_or_else(|| invalid(text, "has more after its bracket"))?),
            };
            (host, port)
        }
        // More than one colon is an IPv6 address without brackets.
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (text, None),
        },
    };
    match port.map(str::parse) {
        None => Ok((host, DEFAULT_PORT)),
        Some(Ok(0)) => Err(invalid(text, "has port 0, where no node can be reached")),
        Some(Ok(port)) => Ok((host, port)),
        Some(Err(_)) => Err(invalid(text, "has no port from 1 to 65535")),
    }
}

/// An address as it stands before a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn is_link_local(ip: &str) -> bool {
    matches!(ip.parse(), Ok(IpAddr::V6(ip)) if ip.is_unicast_link_local())
}

/// Whether Linux may have an interface of this name: up to 15 bytes without spaces and slashes.
fn is_interface(name: &str) -> bool {
    (1..16).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
}

/// Whether it has the form of a host name. A name whose last label is a number would be a mistyped address.
fn is_host_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= NAME_BYTES_MAX
        && name.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

fn invalid(text: &str, reason: &'static str) -> InvalidHost {
    InvalidHost { text: text.chars().take(2 * NAME_BYTES_MAX).collect(), reason }
}

impl fmt::Display for InvalidHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` {}; expected NAME:PORT or IP:PORT such as node.example:3583, 192.0.2.7:3583, [2001:db8::7]:3583 or \
             [fe80::1%eth0]:3583",
            self.text, self.reason
        )
    }
}

impl std::error::Error for InvalidHost {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        match text.parse() {
            Ok(BootstrapNode::At(addr)) => Ok(format!("at {addr}")),
            Ok(BootstrapNode::Named(host)) => Ok(format!("named {host}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn addresses_and_names_are_told_apart() {
        for (text, expected) in [
            ("192.0.2.7:5", "at 192.0.2.7:5"),
            ("192.0.2.7", "at 192.0.2.7:3583"),
            ("[2001:db8::7]:5", "at [2001:db8::7]:5"),
            ("[2001:db8::7]", "at [2001:db8::7]:3583"),
            ("2001:db8::7", "at [2001:db8::7]:3583"),
            ("[fe80::1%2]:5", "at [fe80::1%2]:5"),
            ("[fe80::1%eth0]:5", "named [fe80::1%eth0]:5"),
            ("fe80::1%br-lan", "named [fe80::1%br-lan]:3583"),
            ("node.example:5", "named node.example:5"),
            ("Node.Example.", "named node.example.:3583"),
            ("router", "named router:3583"),
            ("_elver.x-1.7up", "named _elver.x-1.7up:3583"),
        ] {
            assert_eq!(read(text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_a_reason() {
        let label = "a".repeat(64);
        let long = ["a".repeat(63).as_str(); 5].join(".");
        for text in [
            "",
            ":5",
            "a b",
            "a..b",
            "-:",
            "192.0.2.7.8:5",
            "192.0.2:5",
            "300.1.1.1",
            "[::1",
            "[::1]5",
            "[]:5",
            "a:b:c",
            "%eth0",
            "10.0.0.1%eth0",
            "2001:db8::7%eth0",
            "fe80::1%",
            "fe80::1%a-name-that-is-too-long",
            "fe80::1%a/b",
            "0.0.0.0:5",
            "[::]:5",
            "224.0.0.1:5",
            "näme",
            "a/b",
            &label,
            &long,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read("node:0").unwrap_err().starts_with("`node:0` has port 0"));
        assert!(read("node:70000").unwrap_err().contains("has no port"));
        assert!(read("a b").unwrap_err().contains("is neither an address nor a name"));
        assert!(read(&"a ".repeat(5000)).unwrap_err().len() < 1000);
    }

    #[test]
    fn a_name_reads_as_it_is_shown() {
        for text in ["node.example:5", "[fe80::1%eth0]:3583"] {
            assert_eq!(text.parse::<HostName>().unwrap().to_string(), text);
        }
        assert!("192.0.2.7:5".parse::<HostName>().is_err(), "an address is no name");
    }
}
