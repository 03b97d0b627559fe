//! Ranges of a file, as `Range` asks for them (RFC 9110, section 14).
//!
//! One range is served. A request for several gets the whole file, as the standard allows: an answer in many parts would cost the
//! node more than it spares the client, and thousands of ranges must not cost anything.

use crate::node::command::Part;
use core::ops::Range;

/// The part that the value of a `Range` field asks for. `None` for what is to be ignored: another unit, several ranges, or what is
/// no range.
pub(super) fn parse(value: &str) -> Option<Part> {
    let (unit, range) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.split_once('-')?;
    match (number(first.trim()), number(last.trim())) {
        (Digits::None, Digits::Some(last)) => Some(Part::Last(last)),
        (Digits::Some(start), Digits::None) => Some(Part::Between { start, end: None }),
        (Digits::Some(start), Digits::Some(last)) if start <= last => {
            Some(Part::Between { start, end: Some(last.saturating_add(1)) })
        }
        _ => None,
    }
}

enum Digits {
    None,
    Some(u64),
    Other,
}

/// A number, or the largest if it is larger.
fn number(text: &str) -> Digits {
    match text {
        "" => Digits::None,
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Digits::Some(text.parse().unwrap_or(u64::MAX))
        }
        _ => Digits::Other,
    }
}

/// The bytes that an answer has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Selected {
    /// All of them: status 200.
    Whole,
    /// These: status 206.
    Some(Range<u64>),
    /// None, because the file has no such bytes: status 416.
    Unsatisfiable,
}

/// The bytes that a part has in a file of `length` bytes.
pub(super) fn select(part: Option<Part>, length: u64) -> Selected {
    match part {
        None => Selected::Whole,
        Some(Part::Last(0)) => Selected::Unsatisfiable,
        // The last bytes of an empty file are the file: it has no range that could be named.
        Some(Part::Last(_)) if length == 0 => Selected::Whole,
        Some(Part::Between { start, .. }) if start >= length => Selected::Unsatisfiable,
        Some(part) => part.of(length).map_or(Selected::Unsatisfiable, Selected::Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_selects_bytes_of_the_file() {
        for (value, length, expected) in [
            ("bytes=0-0", 10, Selected::Some(0..1)),
            ("bytes=2-5", 10, Selected::Some(2..6)),
            ("bytes=2-", 10, Selected::Some(2..10)),
            ("bytes=-3", 10, Selected::Some(7..10)),
            ("bytes=-30", 10, Selected::Some(0..10)),
            ("bytes=9-99", 10, Selected::Some(9..10)),
            ("Bytes = 2-5", 10, Selected::Some(2..6)),
            ("bytes=2-18446744073709551615", 10, Selected::Some(2..10)),
            ("bytes=2-99999999999999999999999", 10, Selected::Some(2..10)),
            ("bytes=10-", 10, Selected::Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Selected::Unsatisfiable),
            ("bytes=-0", 10, Selected::Unsatisfiable),
            ("bytes=0-0", 0, Selected::Unsatisfiable),
            ("bytes=-5", 0, Selected::Whole),
        ] {
            let part = parse(value);
            assert!(part.is_some(), "{value}");
            assert_eq!(select(part, length), expected, "{value} of {length}");
        }
    }

    #[test]
    fn what_is_no_single_range_is_ignored() {
        let many = format!("bytes={}", "0-0,".repeat(2000));
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=+1-2",
            "items=0-1",
            "bytes=0-1,3-4",
            &many,
        ] {
            assert_eq!(parse(value), None, "{value:.40}");
        }
        assert_eq!(select(None, 10), Selected::Whole);
    }
}
