//! Readers of the settings' values, the same for every place. An error gives the reason why the value is refused.

use super::units;
use crate::id::IdWork;
use crate::limits::RATE_MIN;
use crate::node::{BootstrapNode, InvalidHost};
use core::fmt::Display;
use core::net::SocketAddr;
use core::ops::RangeInclusive;
use core::str::FromStr;

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address; expected IP:PORT such as 192.0.2.7:3583 or [2001:db8::7]:3583")
    })
}

pub(super) fn parse_peer(text: &str) -> Result<BootstrapNode, String> {
    text.parse().map_err(|error: InvalidHost| error.to_string())
}

pub(super) fn parse_replicas(text: &str) -> Result<u8, String> {
    parse_number(text, 0..=u8::MAX)
}

/// Reads a rate in bytes per second: a size, at least 16 KiB, or 0 for any.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    match units::parse_size(text.strip_suffix("/s").unwrap_or(text)) {
        Ok(rate) if (1..RATE_MIN).contains(&rate) => {
            Err(format!("`{text}` is too little: at least 16KiB a second, or 0 for any number of bytes"))
        }
        Ok(rate) => Ok(rate),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads the number of TCP streams: enough for one download, and no more than the driver has numbers for.
pub fn parse_streams(text: &str) -> Result<usize, String> {
    parse_number(text, 33..=4000)
}

/// Reads a limit of concurrent work: peers that are sent content, downloads, clients.
pub fn parse_uploads(text: &str) -> Result<usize, String> {
    parse_number(text, 1..=4000)
}

/// Reads the number of commands that may wait for their turn.
pub(super) fn parse_queue(text: &str) -> Result<usize, String> {
    parse_number(text, 0..=1_000_000)
}

/// Reads the largest size of a table.
pub(super) fn parse_count(text: &str) -> Result<usize, String> {
    parse_number(text, 1..=10_000_000)
}

fn parse_number<T: FromStr + PartialOrd + Display>(
    text: &str,
    allowed: RangeInclusive<T>,
) -> Result<T, String> {
    match text.parse() {
        Ok(number) if allowed.contains(&number) => Ok(number),
        _ => Err(format!("`{text}` is no number from {} to {}", allowed.start(), allowed.end())),
    }
}

pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

/// Reads the mode of the control socket, in octal digits as chmod does.
pub(super) fn parse_socket_mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode @ 0o600..=0o777) if mode & 0o600 == 0o600 && !digits.starts_with('+') => Ok(mode),
        _ => Err(format!("`{text}` is no mode of a socket: expected 600 to 777, such as 660")),
    }
}

/// Reads a group: its number, or its name in /etc/group. A name that another source of groups knows has to be given as a number:
/// asking such sources would need a shared C library.
pub(super) fn parse_group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").map_err(|error| {
        format!("the group `{text}` cannot be looked up in /etc/group: {error}; give its number")
    })?;
    group_in(&groups, text).ok_or_else(|| {
        format!("there is no group `{text}` in /etc/group; `groupadd --system {text}` makes one")
    })
}

/// The number of the group with this name in the text of a group(5) file.
fn group_in(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Reads the bits of work that an identity has to show.
pub fn parse_id_work(text: &str) -> Result<IdWork, String> {
    let bits: u8 = parse_number(text, 0..=IdWork::BITS_MAX)?;
    IdWork::new(bits).ok_or_else(|| format!("`{text}` is too much"))
}

/// Reads a network's name.
pub fn parse_network(text: &str) -> Result<String, String> {
    match text.is_empty() || text.chars().any(char::is_control) {
        true => Err("a network's name is not empty and has no control characters".to_owned()),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_refused_on_either_side_of_its_bounds() {
        assert_eq!(parse_streams("32").ok(), None);
        assert_eq!(parse_streams("33"), Ok(33));
        assert_eq!(parse_streams("4000"), Ok(4000));
        assert_eq!(parse_streams("4001"), Err("`4001` is no number from 33 to 4000".to_owned()));
        assert_eq!(parse_replicas("256"), Err("`256` is no number from 0 to 255".to_owned()));
    }

    #[test]
    fn a_rate_is_a_size_with_or_without_a_second() {
        assert_eq!(parse_rate("2MiB/s"), Ok(2 << 20));
        assert_eq!(parse_rate("2MiB"), Ok(2 << 20));
        assert_eq!(parse_rate("0"), Ok(0));
        assert!(parse_rate("16383").is_err());
    }

    #[test]
    fn the_work_of_an_identity_has_a_bound() {
        assert_eq!(parse_id_work("40").map(IdWork::bits), Ok(40));
        assert_eq!(parse_id_work("0"), Ok(IdWork::NONE));
        assert_eq!(parse_id_work("41"), Err("`41` is no number from 0 to 40".to_owned()));
        assert!(parse_id_work("-1").is_err() && parse_id_work("").is_err());
    }

    #[test]
    fn the_owner_of_the_control_socket_can_always_write_to_it() {
        assert_eq!(parse_socket_mode("660"), Ok(0o660));
        assert_eq!(parse_socket_mode("0666"), Ok(0o666));
        for wrong in ["", "60", "060", "500", "4660", "1000", "rw", "+660", "6600"] {
            assert!(parse_socket_mode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_group_is_a_number_or_a_name_of_the_group_file() {
        assert_eq!(parse_group("4711"), Ok(4711));
        let groups = "root:x:0:\nelver:x:990:ann,ben\nbroken\nodd:x:many:\n";
        assert_eq!(group_in(groups, "elver"), Some(990));
        for name in ["elve", "broken", "odd", "ann", ""] {
            assert_eq!(group_in(groups, name), None, "{name}");
        }
        let error = parse_group("no such group").unwrap_err();
        assert!(error.contains("/etc/group"), "{error}");
    }

    #[test]
    fn a_network_has_a_name_without_control_characters() {
        assert_eq!(parse_network("elver test"), Ok("elver test".to_owned()));
        assert!(parse_network("").is_err());
        assert!(parse_network("a\nb").is_err());
    }
}
