//! How fast this processor is.

use super::clock::Clock;
use crate::identity::{Identity, verify};
use core::hint::black_box;

/// Checks that are measured: about half a millisecond on a desktop, ten on a router.
const MEASURED: usize = 10;

/// The signature checks that this processor manages in a second. The fastest of a few counts, because other programs may run meanwhile.
pub(super) fn checks_per_second(clock: &Clock) -> u32 {
    let (signer, digest) = (Identity::from_secret(&[1; 32]), [2; 32]);
    let signature = signer.sign(&digest);
    let check = |_| {
        let began = clock.now();
        black_box(verify(black_box(&signer.public()), &digest, &signature));
        clock.now().since(began).as_nanos()
    };
    let fastest = (0..MEASURED).map(check).min().unwrap_or(1).max(1);
    u32::try_from(1_000_000_000 / fastest).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_speed_is_that_of_a_processor() {
        let checks = checks_per_second(&Clock::start());
        assert!((10..10_000_000).contains(&checks), "{checks}");
    }
}
