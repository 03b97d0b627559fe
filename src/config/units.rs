//! Sizes and durations in text.

use crate::limits::LIFETIME_SECONDS_MAX;
use crate::time::Duration;
use core::fmt;

/// Why a text is no size or no duration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UnitError {
    /// No number of bytes.
    Size(String),
    /// No span of time.
    Duration(String),
    /// No unit of time has this name.
    Unit(String),
    /// The number is too large.
    TooLarge(String),
    /// The fraction is finer than the resolution.
    TooFine(String),
    /// The lifetime of copies is zero, or too long.
    Lifetime(String),
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnitError::Size(text) => write!(
                f,
                "`{text}` is no size; write a number of bytes, or a number with B, KiB, MiB, GiB, TiB (powers of 1024), kB, \
                 MB, GB or TB (powers of 1000)"
            ),
            UnitError::Duration(text) => write!(
                f,
                "`{text}` is no duration; write a number of seconds, or numbers with units such as 90s, 15m, 12h, 30d, 1h 30m"
            ),
            UnitError::Unit(unit) => write!(f, "`{unit}` is no unit of time; there are ms, s, m, h, d and w"),
            UnitError::TooLarge(text) => write!(f, "`{text}` is too large"),
            UnitError::TooFine(text) => write!(f, "`{text}` comes to no whole number of seconds"),
            UnitError::Lifetime(text) => {
                let most = LIFETIME_SECONDS_MAX / 86_400;
                write!(f, "copies are kept for 1 s to {most} d, not for `{text}`")
            }
        }
    }
}

impl std::error::Error for UnitError {}

/// Digits of a number with a unit: one of 64 bits has room for them. Of some longer ones the crate makes 0.
const DIGITS_MAX: usize = 19;

/// Reads a size in bytes: `4096`, `512MiB`, `1GB`, `1.5GiB`. Units are taken in any case; `K`, `M`, `G` and `T` alone are
/// powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let trimmed = text.trim();
    let digits = trimmed.bytes().filter(u8::is_ascii_digit).count();
    if digits > DIGITS_MAX {
        let whole = if digits == trimmed.len() { trimmed.parse().ok() } else { None };
        return whole.ok_or_else(|| UnitError::TooLarge(text.to_owned()));
    }
    let units = match trimmed.ends_with(['b', 'B']) {
        true => parse_size::Config::new(),
        false => parse_size::Config::new().with_binary(),
    };
    units.parse_size(trimmed).map_err(|error| match error {
        parse_size::Error::PosOverflow => UnitError::TooLarge(text.to_owned()),
        _ => UnitError::Size(text.to_owned()),
    })
}

/// Reads a duration in whole seconds: `90`, `90s`, `15m`, `12h`, `30d`, `1h 30m`. At most 2^32 - 1 seconds, 136 years.
pub fn parse_duration(text: &str) -> Result<u32, UnitError> {
    let time = parse_span(text)?;
    match time.subsec_nanos() {
        0 => u32::try_from(time.as_secs()).map_err(|_| UnitError::TooLarge(text.to_owned())),
        _ => Err(UnitError::TooFine(text.to_owned())),
    }
}

/// Reads a time to the millisecond: what [`parse_duration`] reads, and fractions of a second: `0.5`, `2.5s`, `500ms`.
pub fn parse_time(text: &str) -> Result<Duration, UnitError> {
    let time = parse_span(text)?;
    match u32::try_from(time.as_secs()) {
        Ok(_) => Ok(Duration::from_millis(time.as_millis() as u64)),
        Err(_) => Err(UnitError::TooLarge(text.to_owned())),
    }
}

/// Reads the lifetime of copies in seconds: a duration that other nodes accept.
pub fn parse_lifetime(text: &str) -> Result<u32, UnitError> {
    let seconds = parse_duration(text)?;
    match (1..=LIFETIME_SECONDS_MAX).contains(&seconds) {
        true => Ok(seconds),
        false => Err(UnitError::Lifetime(text.to_owned())),
    }
}

/// Reads a span of time. A number without a unit is one of seconds.
fn parse_span(text: &str) -> Result<core::time::Duration, UnitError> {
    // Enough digits for 136 years in seconds, and too few for the parser's sums, years in seconds, to come near their limits.
    const DIGITS_MAX: usize = 11;
    let bytes = text.trim().bytes();
    if bytes.clone().filter(u8::is_ascii_digit).count() > DIGITS_MAX {
        return Err(UnitError::TooLarge(text.to_owned()));
    }
    let unit = if bytes.clone().all(|byte| byte.is_ascii_digit() || byte == b'.') { "s" } else { "" };
    humantime::parse_duration(&format!("{text}{unit}")).map_err(|error| match error {
        humantime::DurationError::UnknownUnit { unit, .. } if !unit.is_empty() => UnitError::Unit(unit),
        humantime::DurationError::NumberOverflow if text.contains('.') => UnitError::TooFine(text.to_owned()),
        humantime::DurationError::NumberOverflow => UnitError::TooLarge(text.to_owned()),
        _ => UnitError::Duration(text.to_owned()),
    })
}

/// A size as text: `0 B`, `4.0 KiB`, `1.5 GiB`.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be rounded to 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration as text, in its two largest units: `45 s`, `2 m 5 s`, `3 d 4 h`.
pub fn format_duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} m {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} m", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_the_same_units() {
        for (text, millis) in [
            ("5", 5_000),
            ("0.5", 500),
            (" 0.25 ", 250),
            ("2.25 s", 2_250),
            ("1.5m", 90_000),
            ("0.1d", 8_640_000),
            ("500ms", 500),
            ("0", 0),
        ] {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in
            ["", ".", ".5", "5.", "1.5x", "-1.5", "1.5.5", "nan", "inf", "1e3", "99999999999.5", "1.s"]
        {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_with_every_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("7B", 7),
            ("512MiB", 512 << 20),
            ("512 MiB", 512 << 20),
            ("512mib", 512 << 20),
            ("3k", 3 << 10),
            ("3M", 3 << 20),
            (" 2g ", 2 << 30),
            ("1T", 1 << 40),
            ("3kb", 3_000),
            ("3MB", 3_000_000),
            ("1GB", 1_000_000_000),
            ("1tb", 1_000_000_000_000),
            ("1TiB", 1 << 40),
            ("1.5GiB", 3 << 29),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn durations_are_read_with_every_unit() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("15m", 900),
            ("12h", 43_200),
            ("30d", 2_592_000),
            ("2w", 1_209_600),
            ("1h 30m", 5_400),
            ("1h30m", 5_400),
            ("1.5h", 5_400),
            (" 90 ", 90),
            ("0", 0),
            ("4294967295", u32::MAX),
        ] {
            assert_eq!(parse_duration(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn nonsense_and_negative_sizes_are_refused() {
        for text in ["", "GiB", "-1", "+1", "1.5.5GiB", "1QB", "1GiBs", "0x10", "١", "1\0"] {
            assert_eq!(parse_size(text), Err(UnitError::Size(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn nonsense_and_negative_durations_are_refused() {
        for text in ["", "d", "-5s", "+5s", "1h 30", "5s,", "٣s"] {
            assert_eq!(parse_duration(text), Err(UnitError::Duration(text.to_owned())), "{text}");
        }
        assert_eq!(parse_duration("5x"), Err(UnitError::Unit("x".to_owned())));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        for text in [
            "18446744073709551616",
            "184467440737095516159",
            "99999999999999999999999",
            "17000000TiB",
            "1e99",
        ] {
            assert_eq!(parse_size(text), Err(UnitError::TooLarge(text.to_owned())));
        }
    }

    #[test]
    fn durations_that_do_not_fit_are_refused() {
        for text in ["4294967296", "50000d", "18446744073709551615d", "18446744073709551615s 1000ms"] {
            assert_eq!(parse_duration(text), Err(UnitError::TooLarge(text.to_owned())));
        }
        assert_eq!(parse_time("99999999999"), Err(UnitError::TooLarge("99999999999".to_owned())));
    }

    #[test]
    fn a_duration_in_seconds_has_no_fraction_of_one() {
        for text in ["0.5", "500ms", "1.0001h"] {
            assert_eq!(parse_duration(text), Err(UnitError::TooFine(text.to_owned())));
        }
    }

    #[test]
    fn a_lifetime_that_no_node_agrees_to_is_refused() {
        assert_eq!(parse_lifetime("365d"), Ok(LIFETIME_SECONDS_MAX));
        for text in ["0", "366d", "0d"] {
            assert_eq!(parse_lifetime(text), Err(UnitError::Lifetime(text.to_owned())));
        }
    }

    #[test]
    fn an_error_names_the_units_that_there_are() {
        assert!(parse_duration("5x").unwrap_err().to_string().contains("s, m, h, d"));
        assert!(parse_size("5x").unwrap_err().to_string().contains("GiB"));
    }

    #[test]
    fn sizes_and_durations_are_written_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(format_size(bytes), text);
        }
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (125, "2 m 5 s"), (3_660, "1 h 1 m"), (273_600, "3 d 4 h")]
        {
            assert_eq!(format_duration(seconds), text);
        }
    }
}
