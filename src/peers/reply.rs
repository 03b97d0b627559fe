//! The rule against amplification: an address that is not validated is sent at most three times the bytes that came from there,
//! whatever the answers are (as in QUIC, RFC 9000 §8.1). Else anyone could point this node at a victim.

use crate::wire::header::{OVERHEAD_BYTES, PAYLOAD_BYTES_MAX};

/// An address that is not validated is sent at most this many times the bytes that came from there.
const AMPLIFICATION_MAX: usize = 3;

/// The bytes that may be sent because of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyBudget {
    bytes: usize,
}

impl ReplyBudget {
    /// The budget of a request of so many bytes of UDP payload. `validated` says that its sender has shown to receive at the
    /// address that it sends from.
    pub fn new(request_bytes: usize, validated: bool) -> ReplyBudget {
        ReplyBudget {
            bytes: if validated { usize::MAX } else { request_bytes.saturating_mul(AMPLIFICATION_MAX) },
        }
    }

    /// The room for the payload of one more datagram.
    pub fn room(&self) -> usize {
        PAYLOAD_BYTES_MAX.min(self.bytes.saturating_sub(OVERHEAD_BYTES))
    }

    /// Takes a datagram of so many bytes out of the budget. False when it does not fit: then it must not be sent.
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

    #[test]
    fn all_that_a_request_leads_to_is_no_more_than_three_times_its_bytes() {
        for request_bytes in [0, 1, OVERHEAD_BYTES, 400, 1232] {
            let mut budget = ReplyBudget::new(request_bytes, false);
            let mut sent = 0;
            for payload in [budget.room(), 0, 40, 1] {
                let datagram = payload + OVERHEAD_BYTES;
                if budget.take(datagram) {
                    sent += datagram;
                }
            }
            assert!(sent <= 3 * request_bytes, "{sent} bytes for {request_bytes}");
        }
        let mut budget = ReplyBudget::new(OVERHEAD_BYTES, false);
        assert_eq!(budget.room(), 2 * OVERHEAD_BYTES);
        assert!(budget.take(OVERHEAD_BYTES) && budget.room() == OVERHEAD_BYTES);
        assert!(!budget.take(2 * OVERHEAD_BYTES + 1) && budget.take(2 * OVERHEAD_BYTES));
        assert_eq!(budget.room(), 0);
    }

    #[test]
    fn a_validated_address_is_sent_whole_datagrams() {
        let mut budget = ReplyBudget::new(1, true);
        assert!((0..1000).all(|_| budget.take(1232)));
        assert_eq!(budget.room(), PAYLOAD_BYTES_MAX);
    }
}
