//! Sizes and durations as people write and read them.

use crate::limits::LIFETIME_SECONDS_MAX;
use crate::time::Duration;
use core::fmt;

/// Why a text is no size or no duration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UnitError {
    /// It does not start with a whole number.
    Number(String),
    /// What follows the number is no unit.
    Unit {
        /// What follows.
        unit: String,
        /// The units there are.
        known: &'static str,
    },
    /// It is more than fits.
    TooLarge(String),
    /// Copies are not kept for no time or for so long.
    Lifetime(String),
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnitError::Number(text) => write!(f, "`{text}` does not start with a whole number"),
            UnitError::Unit { unit, known } => write!(f, "`{unit}` is no unit; there are {known}"),
            UnitError::TooLarge(text) => write!(f, "`{text}` is too large"),
            UnitError::Lifetime(text) => {
                let most = LIFETIME_SECONDS_MAX / 86_400;
                write!(f, "copies are kept for 1 s to {most} d, not for `{text}`")
            }
        }
    }
}

impl std::error::Error for UnitError {}

const SIZE_UNITS: &str = "B, KiB, MiB, GiB, TiB (powers of 1024) and kB, MB, GB, TB (powers of 1000)";
const DURATION_UNITS: &str = "s, m, h and d";

/// Reads a size in bytes: `4096`, `512MiB`, `1GB`. Units are taken in any case; `K`, `M`, `G` and `T` alone are powers
/// of 1024.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(UnitError::Unit { unit: unit.to_owned(), known: SIZE_UNITS }),
    };
    number.checked_mul(factor).ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// Reads a duration in seconds: `90`, `90s`, `15m`, `12h`, `30d`. At most 2^32 - 1 seconds, 136 years.
pub fn parse_duration(text: &str) -> Result<u32, UnitError> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(UnitError::Unit { unit: unit.to_owned(), known: DURATION_UNITS }),
    };
    number
        .checked_mul(factor)
        .and_then(|seconds| u32::try_from(seconds).ok())
        .ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// Reads a time to the millisecond: what [`parse_duration`] reads, and fractions: `0.5`, `2.5s`, `1.5m`.
pub fn parse_time(text: &str) -> Result<Duration, UnitError> {
    let text = text.trim();
    let Some((whole, rest)) = text.split_once('.') else {
        return parse_duration(text).map(|seconds| Duration::from_secs(seconds.into()));
    };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, unit) = rest.split_at(end);
    if digits.is_empty() || whole.is_empty() {
        return Err(UnitError::Number(text.to_owned()));
    }
    let seconds = parse_duration(&format!("{whole}{unit}"))?;
    // One of the unit, in milliseconds; what is left of the point has shown that there is such a unit.
    let one = 1000 * u64::from(parse_duration(&format!("1{unit}"))?);
    // Nobody means more than a millionth of a day.
    let digits = &digits[..digits.len().min(6)];
    let fraction = split(digits)?.0 * one / 10u64.pow(digits.len() as u32);
    Ok(Duration::from_millis(u64::from(seconds) * 1000 + fraction))
}

/// Reads how long copies are to be kept, in seconds: a duration that other nodes agree to.
pub fn parse_lifetime(text: &str) -> Result<u32, UnitError> {
    let seconds = parse_duration(text)?;
    match (1..=LIFETIME_SECONDS_MAX).contains(&seconds) {
        true => Ok(seconds),
        false => Err(UnitError::Lifetime(text.to_owned())),
    }
}

/// The number that a text starts with, and the rest without the space between.
fn split(text: &str) -> Result<(u64, &str), UnitError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(UnitError::Number(text.to_owned()));
    }
    // Digits only: all that can go wrong is that there are too many.
    let number = digits.parse().map_err(|_| UnitError::TooLarge(text.to_owned()))?;
    Ok((number, unit.trim_start()))
}

/// A size for people: `0 B`, `4.0 KiB`, `1.5 GiB`.
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

/// A duration for people, in its two largest units: `45 s`, `2 m 5 s`, `3 d 4 h`.
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
            ("2.25 s", 2_250),
            ("1.5m", 90_000),
            ("0.1d", 8_640_000),
            ("0.0000001h", 0),
            ("0", 0),
        ] {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", ".", ".5", "5.", "1.5x", "-1.5", "1.5.5", "nan", "1e3", "99999999999.5", "1.s"] {
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
            (" 2g ", 2 << 30),
            ("1GB", 1_000_000_000),
            ("3kb", 3_000),
            ("1TiB", 1 << 40),
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
            ("4294967295", u32::MAX),
        ] {
            assert_eq!(parse_duration(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn nonsense_negatives_and_overflow_are_refused() {
        for text in ["", "GiB", "-1", "+1", "1.5GiB", "1 2", "1QB", "1GiBs", "0x10", "١", "1\0"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for text in ["", "d", "-5s", "1.5h", "1y", "1M", "5 5s", "٣s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["18446744073709551616", "99999999999999999999999", "17000000TiB"] {
            assert_eq!(parse_size(text), Err(UnitError::TooLarge(text.to_owned())));
        }
        for text in ["4294967296", "50000d", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), Err(UnitError::TooLarge(text.to_owned())));
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
        assert!(parse_duration("5y").unwrap_err().to_string().contains("s, m, h and d"));
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
