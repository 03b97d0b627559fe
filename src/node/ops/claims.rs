//! The value of an offer: replicas and lifetime come from the publisher's claim, and from nothing else.

use crate::claim::UNCLAIMED_SECONDS_MAX;
use crate::peers::party::Party;
use crate::peers::rate::{Limiter, PartyLimiter, Rate};
use crate::store::Store;
use crate::time::Instant;
use crate::wire::claim::verify_claim;
use crate::wire::frame::{Offer, Refusal};
use crate::wire::network::Network;

/// Claims that are verified in one second, 50 µs each: more than a disk stores pieces.
const CHECKS_PER_SECOND: u32 = 500;

/// While fewer than half of them are left, a party gets this part of the checks.
const SHARES: u32 = 8;

/// Judges the claims of offered pieces.
pub(in crate::node) struct Claims {
    checks: Limiter,
    /// The parties' shares, while checks are scarce.
    scarce: PartyLimiter,
    /// Offers refused because their publisher did not sign the claim.
    forged: u64,
}

impl Claims {
    /// No claims yet. `secret` hides which parties share a share.
    pub(in crate::node) fn new(secret: u64) -> Self {
        let share = Rate::per_second(CHECKS_PER_SECOND / SHARES);
        let (checks, scarce) =
            (Limiter::new(Rate::per_second(CHECKS_PER_SECOND)), PartyLimiter::new(share, secret));
        Claims { checks, scarce, forged: 0 }
    }

    /// The offer as it counts. Without a claim the piece is kept for a day at most and is not repaired. A claim that is known is
    /// not verified again.
    pub(in crate::node) fn judge(
        &mut self,
        now: Instant,
        (offer, party): (&Offer, Party),
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
        let is_scarce = self.checks.available(now) <= u64::from(CHECKS_PER_SECOND / 2);
        if is_scarce && !self.scarce.take(now, party) || !self.checks.take(now) {
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
        judge_from(claims, now, offer, 1)
    }

    /// Judges the offer of a node in the network 9.9.`net`.
    fn judge_from(claims: &mut Claims, now: u64, offer: &Offer, net: u8) -> Result<Offer, Refusal> {
        let now = Instant::from_secs(now);
        let store = Store::new(&Limits::default(), &Recovered::default(), 1, now);
        let party = Party::of([9, 9, net, 1].into());
        claims.judge(now, (offer, party), &store, &Network::new("test"))
    }

    #[test]
    fn a_piece_that_is_offered_without_a_claim_lives_for_a_day_unrepaired() {
        let counts = judge(&mut Claims::new(7), 1, &offer()).unwrap();
        assert_eq!(counts.lifetime, 24 * 3600);
        assert_eq!(counts.replicas, 1);
    }

    #[test]
    fn an_offer_counts_as_its_publisher_signed_it() {
        let claimed = claimed(&Network::new("test"));
        assert_eq!(judge(&mut Claims::new(7), 1, &claimed), Ok(claimed));
    }

    #[test]
    fn a_refused_forgery_is_counted() {
        let mut claims = Claims::new(7);
        let elsewhere = claimed(&Network::new("another network"));
        assert_eq!(judge(&mut claims, 1, &elsewhere), Err(Refusal::Invalid));
        assert_eq!(claims.forged(), 1);
    }

    #[test]
    fn a_flood_of_claims_takes_no_more_than_its_share_of_the_processor() {
        let (mut claims, elsewhere) = (Claims::new(7), claimed(&Network::new("another network")));
        let mut judged = |net| {
            let results = (0..600).map(|_| judge_from(&mut claims, 1, &elsewhere, net));
            results.filter(|result| *result != Err(Refusal::Busy)).count()
        };
        assert_eq!(judged(1), 250 + 500 / 8, "half of all, and a share of the rest");
        assert_eq!(judged(2), 500 / 8, "checks are left for another party");
        assert!((3..30).map(judged).sum::<usize>() <= 500 - 250 - 2 * (500 / 8));
        let later = Instant::from_secs(1) + Duration::from_secs(1);
        assert_eq!(judge(&mut claims, later.as_secs(), &elsewhere), Err(Refusal::Invalid));
    }
}
