//! Readers of the settings' values, the same for every place. An error gives the reason why the value is refused.

use super::units;
use crate::id::IdWork;
use crate::limits::RATE_MIN;
use core::fmt::Display;
use core::net::SocketAddr;
use core::ops::RangeInclusive;
use core::str::FromStr;

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address; expected IP:PORT such as 192.0.2.7:3583 or [2001:db8::7]:3583")
    })
}

pub(super) fn parse_peer(text: &str) -> Result<SocketAddr, String> {
    let address = parse_address(text)?;
    match address.port() {
        0 => Err(format!("`{text}` has port 0, where no node can be reached")),
        _ => Ok(address),
    }
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
    fn a_network_has_a_name_without_control_characters() {
        assert_eq!(parse_network("elver test"), Ok("elver test".to_owned()));
        assert!(parse_network("").is_err());
        assert!(parse_network("a\nb").is_err());
    }
}
