//! The value of an offer: replicas and lifetime come from the publisher's claim, and from nothing else.

use crate::claim::UNCLAIMED_SECONDS_MAX;
use crate::peers::rate::{Bucket, Rate};
use crate::store::Store;
use crate::time::Instant;
use crate::wire::claim::verify_claim;
use crate::wire::frame::{Offer, Refusal};
use crate::wire::network::Network;

/// Claims that are verified in one second, 50 µs each: more than a disk stores pieces.
const CHECKS_PER_SECOND: u32 = 500;

/// Judges the claims of offered pieces.
pub(in crate::node) struct Claims {
    rate: Rate,
    checks: Bucket,
    /// Offers refused because their publisher did not sign the claim.
    forged: u64,
}

impl Default for Claims {
    fn default() -> Self {
        Claims { rate: Rate::per_second(CHECKS_PER_SECOND), checks: Bucket::FULL, forged: 0 }
    }
}

impl Claims {
    /// The offer as it counts. Without a claim the piece is kept for a day at most and is not repaired. A claim that is known is
    /// not verified again.
    pub(in crate::node) fn judge(
        &mut self,
        now: Instant,
        offer: &Offer,
        store: &Store,
        network: &Network,
    ) -> Result<Offer, Refusal> {
        let Some(claim) = offer.claim else {
            let lifetime = offer.lifetime.min(UNCLAIMED_SECONDS_MAX);
            return Ok(Offer { replicas: offer.replicas.min(1), lifetime, ..*offer });
        };
        if store.piece(&offer.key).is_some_and(|piece| piece.claim == Some(claim)) {
            return Ok(*offer);
        }
        if !self.checks.take(now, &self.rate) {
            return Err(Refusal::Busy);
        }
        if !verify_claim(network, &offer.key, &claim) {
            self.forged += 1;
            return Err(Refusal::Invalid);
        }
        Ok(*offer)
    }

    /// The number of offers with a forged claim.
    pub(in crate::node) fn forged(&self) -> u64 {
        self.forged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Key;
    use crate::identity::Identity;
    use crate::io::{Mode, Recovered};
    use crate::limits::Limits;
    use crate::manifest::Content;
    use crate::time::Duration;
    use crate::wire::claim::sign_claim;

    fn offer() -> Offer {
        Offer {
            key: Key([7; 32]),
            content: Content::File,
            length: 5,
            input_offset: 0,
            replicas: 3,
            mode: Mode::UNKNOWN,
            lifetime: 30 * 24 * 3600,
            claim: None,
        }
    }

    fn claimed(network: &Network) -> Offer {
        let offer = offer();
        let identity = Identity::from_secret(&[1; 32]);
        let claim = sign_claim(network, &identity, &offer.key, (offer.replicas, offer.lifetime), 1);
        Offer { claim: Some(claim), ..offer }
    }

    fn judge(claims: &mut Claims, now: u64, offer: &Offer) -> Result<Offer, Refusal> {
        let now = Instant::from_secs(now);
        let store = Store::new(&Limits::default(), &Recovered::default(), 1, now);
        claims.judge(now, offer, &store, &Network::new("test"))
    }

    #[test]
    fn a_piece_that_is_offered_without_a_claim_lives_for_a_day_unrepaired() {
        let counts = judge(&mut Claims::default(), 1, &offer()).unwrap();
        assert_eq!(counts.lifetime, 24 * 3600);
        assert_eq!(counts.replicas, 1);
    }

    #[test]
    fn an_offer_counts_as_its_publisher_signed_it() {
        let claimed = claimed(&Network::new("test"));
        assert_eq!(judge(&mut Claims::default(), 1, &claimed), Ok(claimed));
    }

    #[test]
    fn a_refused_forgery_is_counted() {
        let mut claims = Claims::default();
        let elsewhere = claimed(&Network::new("another network"));
        assert_eq!(judge(&mut claims, 1, &elsewhere), Err(Refusal::Invalid));
        assert_eq!(claims.forged(), 1);
    }

    #[test]
    fn a_flood_of_claims_takes_no_more_than_its_share_of_the_processor() {
        let (mut claims, elsewhere) = (Claims::default(), claimed(&Network::new("another network")));
        let busy = (0..600).filter(|_| judge(&mut claims, 1, &elsewhere) == Err(Refusal::Busy)).count();
        assert_eq!(busy, 100);
        let later = Instant::from_secs(1) + Duration::from_secs(1);
        assert_eq!(judge(&mut claims, later.as_secs(), &elsewhere), Err(Refusal::Invalid));
    }
}
