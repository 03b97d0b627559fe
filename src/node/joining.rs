//! What the log says about joining the network.

use crate::dht::BootstrapRound;
use crate::time::Duration;
use core::net::SocketAddr;

/// The node has joined the network with this many contacts.
pub(super) fn log_joined(contacts: u32) {
    log::info!("joined the network: {contacts} contacts");
}

/// No node answered in a round of bootstrapping. The next round begins after `retry_in`.
pub(super) fn log_failed(listen: SocketAddr, round: BootstrapRound, retry_in: Duration) {
    log::warn!("{}; trying again in {} s", failure(listen, round), retry_in.as_secs().max(1));
}

/// Which nodes did not answer.
fn failure(listen: SocketAddr, round: BootstrapRound) -> String {
    match (round.addresses, round.contacts) {
        (0, 0) if round.out_of_reach > 0 => format!(
            "no bootstrap address and no remembered contact can be reached from {listen}: they are of the other IP family"
        ),
        (0, 0) => "no bootstrap address and no remembered contact could be asked".into(),
        (1, 0) => "the bootstrap address does not answer".into(),
        (addresses, 0) => format!("none of {addresses} bootstrap addresses answers"),
        (0, contacts) => format!(
            "none of {contacts} remembered contacts answers at its last address; if their addresses have changed, \
             start with --bootstrap"
        ),
        (addresses, contacts) => {
            format!("none of {addresses} bootstrap addresses and {contacts} remembered contacts answers")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure_of(addresses: u32, contacts: u32, out_of_reach: u32) -> String {
        failure(([127, 0, 0, 1], 7).into(), BootstrapRound { addresses, contacts, out_of_reach })
    }

    #[test]
    fn a_failed_round_names_the_nodes_that_did_not_answer() {
        assert_eq!(failure_of(1, 0, 0), "the bootstrap address does not answer");
        assert_eq!(failure_of(3, 0, 0), "none of 3 bootstrap addresses answers");
        assert_eq!(failure_of(3, 2, 0), "none of 3 bootstrap addresses and 2 remembered contacts answers");
    }

    #[test]
    fn remembered_contacts_that_are_silent_lead_to_advice() {
        assert!(failure_of(0, 2, 0).ends_with("start with --bootstrap"));
    }

    #[test]
    fn addresses_of_the_other_family_are_named_as_the_cause() {
        assert!(failure_of(0, 0, 1).contains("can be reached from 127.0.0.1:7"), "{}", failure_of(0, 0, 1));
        assert_eq!(failure_of(0, 0, 0), "no bootstrap address and no remembered contact could be asked");
    }
}
