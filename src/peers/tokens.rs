//! Tokens: small numbers that validate an address, because only a node that receives there knows them. The node that gives them
//! keeps no state for each peer.

use crate::id::ShortId;
use crate::time::{Duration, Instant};
use core::net::{IpAddr, SocketAddr};

/// A token is valid for at least this long, and at most twice as long.
pub const TOKEN_PERIOD: Duration = Duration::from_secs(300);

/// Makes and checks this node's tokens.
pub struct TokenMint {
    secret: [u8; 32],
}

impl TokenMint {
    /// A mint with a new secret: tokens of an earlier run are invalid.
    pub fn new(secret: [u8; 32]) -> Self {
        TokenMint { secret }
    }

    /// The token that from `now` on validates `addr` for the node whose id begins with `node`, and for no other. Never zero.
    pub fn token(&self, now: Instant, addr: SocketAddr, node: ShortId) -> u64 {
        self.of_period(period(now), addr, node)
    }

    /// Whether `token` was made for this node at `addr` in this period or the last.
    pub fn is_valid(&self, now: Instant, addr: SocketAddr, node: ShortId, token: u64) -> bool {
        if token == 0 {
            return false;
        }
        let current = period(now);
        let mut good = token == self.of_period(current, addr, node);
        if current > 0 {
            good |= token == self.of_period(current - 1, addr, node);
        }
        good
    }

    fn of_period(&self, period: u64, addr: SocketAddr, node: ShortId) -> u64 {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut made_of = [0; 34];
        made_of[..8].copy_from_slice(&period.to_le_bytes());
        made_of[8..24].copy_from_slice(&ip.octets());
        made_of[24..26].copy_from_slice(&addr.port().to_le_bytes());
        made_of[26..].copy_from_slice(&node);
        let [a, b, c, d, e, f, g, h, ..] = *blake3::keyed_hash(&self.secret, &made_of).as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1)
    }
}

fn period(now: Instant) -> u64 {
    now.as_secs() / TOKEN_PERIOD.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_for_its_address_its_node_and_two_periods() {
        let mint = TokenMint::new([1; 32]);
        let (here, there) = (SocketAddr::from(([1, 2, 3, 4], 5)), SocketAddr::from(([1, 2, 3, 4], 6)));
        let (node, other) = ([7; 8], [8; 8]);
        let token = mint.token(Instant::from_secs(10), here, node);
        let valid =
            |seconds, addr, node, token| mint.is_valid(Instant::from_secs(seconds), addr, node, token);
        assert!(valid(10, here, node, token));
        assert!(valid(599, here, node, token));
        assert!(!valid(600, here, node, token), "its periods are over");
        assert!(!valid(10, there, node, token), "another address");
        assert!(!valid(10, here, other, token), "another node at the address");
        assert!(!valid(10, here, node, 0), "no token");
        let restarted = TokenMint::new([2; 32]);
        assert!(!restarted.is_valid(Instant::from_secs(10), here, node, token), "another run");
    }
}
