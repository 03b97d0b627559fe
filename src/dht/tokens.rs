//! Tokens: small numbers that validate an address, because only a node that receives there knows them. The node that gives them
//! keeps no state for each peer.

use crate::id::NodeId;
use crate::time::{Duration, Instant};
use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

/// A token is valid for at least this long, and at most twice as long.
pub(super) const TOKEN_PERIOD: Duration = Duration::from_secs(300);

/// Makes and checks this node's tokens.
pub(super) struct TokenMint {
    secret: [u8; 32],
}

impl TokenMint {
    /// A mint with a new secret: tokens of an earlier run are invalid.
    pub(super) fn new(secret: [u8; 32]) -> Self {
        TokenMint { secret }
    }

    /// The token that validates `addr` from now on. Never zero.
    pub(super) fn token(&self, now: Instant, addr: SocketAddr) -> u64 {
        self.of_period(period(now), addr)
    }

    /// Whether `token` was made for `addr` in this period or the last.
    pub(super) fn is_valid(&self, now: Instant, addr: SocketAddr, token: u64) -> bool {
        let current = period(now);
        let mut good = token == self.of_period(current, addr);
        if current > 0 {
            good |= token == self.of_period(current - 1, addr);
        }
        good
    }

    fn of_period(&self, period: u64, addr: SocketAddr) -> u64 {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&period.to_le_bytes()).update(&ip.octets()).update(&addr.port().to_le_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1)
    }
}

fn period(now: Instant) -> u64 {
    now.as_secs() / TOKEN_PERIOD.as_secs()
}

/// Nodes whose token is remembered.
const TOKENS_MAX: usize = 1024;

/// The tokens that other nodes gave to this one.
#[derive(Default)]
pub(super) struct TokenBook {
    tokens: BTreeMap<NodeId, Token>,
}

/// A token of another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token {
    /// The token.
    pub(super) value: u64,
    /// When it arrived.
    pub(super) at: Instant,
}

impl TokenBook {
    /// Remembers the token of `id`. Zero means that it gave none.
    pub(super) fn insert(&mut self, now: Instant, id: NodeId, value: u64) {
        if value == 0 {
            return;
        }
        if self.tokens.len() >= TOKENS_MAX && !self.tokens.contains_key(&id) {
            self.expire(now);
            if self.tokens.len() >= TOKENS_MAX {
                let oldest = self.tokens.iter().min_by_key(|(_, token)| token.at).map(|(id, _)| *id);
                oldest.and_then(|oldest| self.tokens.remove(&oldest));
            }
        }
        self.tokens.insert(id, Token { value, at: now });
    }

    /// The last token of `id`, while it may still be valid.
    pub(super) fn get(&self, now: Instant, id: &NodeId) -> Option<Token> {
        self.tokens.get(id).copied().filter(|token| now.since(token.at) < TOKEN_PERIOD * 2)
    }

    /// Whether `id` gave a token so recently that it must be valid.
    pub(super) fn is_fresh(&self, now: Instant, id: &NodeId) -> bool {
        self.get(now, id).is_some_and(|token| now.since(token.at) < TOKEN_PERIOD)
    }

    /// Forgets tokens that cannot be valid any more.
    pub(super) fn expire(&mut self, now: Instant) {
        self.tokens.retain(|_, token| now.since(token.at) < TOKEN_PERIOD * 2);
    }

    /// Whether no token is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_for_its_address_and_two_periods() {
        let mint = TokenMint::new([1; 32]);
        let (here, there) = (SocketAddr::from(([1, 2, 3, 4], 5)), SocketAddr::from(([1, 2, 3, 4], 6)));
        let token = mint.token(Instant::from_secs(10), here);
        assert!(mint.is_valid(Instant::from_secs(599), here, token));
        assert!(!mint.is_valid(Instant::from_secs(600), here, token));
        assert!(!mint.is_valid(Instant::from_secs(10), there, token));
        assert!(!mint.is_valid(Instant::from_secs(10), here, 0));
        assert!(!TokenMint::new([2; 32]).is_valid(Instant::from_secs(10), here, token));
    }

    #[test]
    fn the_book_is_bounded_and_forgets() {
        let mut book = TokenBook::default();
        for index in 0..2000u32 {
            let mut id = NodeId([0; 32]);
            id.0[..4].copy_from_slice(&index.to_le_bytes());
            book.insert(Instant::from_nanos(u64::from(index)), id, 7);
        }
        assert_eq!(book.tokens.len(), TOKENS_MAX);
        book.expire(Instant::from_secs(601));
        assert!(book.is_empty());
    }
}
