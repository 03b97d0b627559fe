//! The rule against amplification: this node sends an unvalidated address at most three times the bytes that came from there,
//! with every kind of answer (as in QUIC, RFC 9000 §8.1). Otherwise any node could direct this node's traffic at a victim.

use crate::wire::datagram::Verified;
use crate::wire::header::{Auth, HEADER_BYTES};

/// The factor: the bytes sent to an unvalidated address, over the bytes that came from there.
const AMPLIFICATION_MAX: usize = 3;

/// The bytes that may be sent because of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyBudget {
    bytes: usize,
    /// How the answers are authenticated: like the request.
    auth: Auth,
}

impl ReplyBudget {
    /// The budget of a request. `validated`: the sender has shown that it receives at the address that it sends from.
    pub fn new(request: &Verified<'_>, validated: bool) -> ReplyBudget {
        ReplyBudget::of(request.datagram_bytes(), request.auth(), validated)
    }

    /// The budget of a request with this many bytes of UDP payload and this authentication.
    fn of(request_bytes: usize, auth: Auth, validated: bool) -> ReplyBudget {
        let bytes = if validated { usize::MAX } else { request_bytes.saturating_mul(AMPLIFICATION_MAX) };
        ReplyBudget { bytes, auth }
    }

    /// The room for the payload of one more datagram.
    pub fn room(&self) -> usize {
        let overhead = HEADER_BYTES + self.auth.tail_bytes();
        self.auth.payload_bytes_max().min(self.bytes.saturating_sub(overhead))
    }

    /// Takes a datagram of this many bytes out of the budget. False when it does not fit; the caller must not send it then.
    pub fn take(&mut self, datagram_bytes: usize) -> bool {
        match self.bytes.checked_sub(datagram_bytes) {
            Some(rest) => self.bytes = rest,
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header::{OVERHEAD_BYTES, PAYLOAD_BYTES_MAX};

    #[test]
    fn all_that_a_request_leads_to_is_no_more_than_three_times_its_bytes() {
        for request_bytes in [0, 1, OVERHEAD_BYTES, 400, 1232] {
            let mut budget = ReplyBudget::of(request_bytes, Auth::Signed, false);
            let mut sent = 0;
            for payload in [budget.room(), 0, 40, 1] {
                let datagram = payload + OVERHEAD_BYTES;
                if budget.take(datagram) {
                    sent += datagram;
                }
            }
            assert!(sent <= 3 * request_bytes, "{sent} bytes for {request_bytes}");
        }
        let mut budget = ReplyBudget::of(OVERHEAD_BYTES, Auth::Signed, false);
        assert_eq!(budget.room(), 2 * OVERHEAD_BYTES);
        assert!(budget.take(OVERHEAD_BYTES) && budget.room() == OVERHEAD_BYTES);
        assert!(!budget.take(2 * OVERHEAD_BYTES + 1) && budget.take(2 * OVERHEAD_BYTES));
        assert_eq!(budget.room(), 0);
    }

    #[test]
    fn a_validated_address_is_sent_whole_datagrams() {
        let mut budget = ReplyBudget::of(1, Auth::Signed, true);
        assert!((0..1000).all(|_| budget.take(1232)));
        assert_eq!(budget.room(), PAYLOAD_BYTES_MAX);
        assert_eq!(ReplyBudget::of(1, Auth::Mac, true).room(), Auth::Mac.payload_bytes_max());
    }
}
