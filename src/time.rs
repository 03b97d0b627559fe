//! A point in time as a plain value.
//!
//! The driver reads the monotonic clock and passes its value in; the simulator passes in virtual time. No code below the drivers
//! can read a clock.

use core::ops::{Add, Sub};
pub use core::time::Duration;

/// Nanoseconds since the driver's origin: the start of the process, or of the simulation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    /// The driver's origin.
    pub const ZERO: Instant = Instant(0);

    /// The instant `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    /// The instant `seconds` seconds after the origin. Saturates, as adding does.
    pub const fn from_secs(seconds: u64) -> Self {
        Instant(seconds.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since the origin.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// The time from `earlier` to this instant; zero when this is not later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at 585 years after the origin, which is never reached.
    fn add(self, delay: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, delay: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The earlier of two deadlines; `None` is no deadline.
pub fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Instant::ZERO - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::from_secs(u64::MAX), Instant::from_nanos(u64::MAX));
        assert_eq!(Instant::from_nanos(u64::MAX) + Duration::MAX, Instant::from_nanos(u64::MAX));
        assert_eq!(Instant::from_secs(1).since(Instant::from_secs(2)), Duration::ZERO);
    }

    #[test]
    fn any_deadline_is_earlier_than_none() {
        let soon = Some(Instant::from_secs(1));
        assert_eq!(earliest(None, soon), soon);
        assert_eq!(earliest(soon, Some(Instant::from_secs(2))), soon);
        assert_eq!(earliest(None, None), None);
    }
}
