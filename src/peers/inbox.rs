//! How a datagram is received: from its form to its authenticated content, the cheapest check first.
//!
//! 1. A MAC is checked at once: it costs less than finding out whether it should be. A request whose MAC cannot be checked is
//!    challenged.
//! 2. A signature is checked if the [budget](super::checks) allows it.
//! 3. The sender's [place in the table](super::table) tells whether the datagram was received before, and what it proves.

use super::checks::Claim;
use super::outbox::Outbox;
use super::table::{Hold, Received, Unknown};
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::Refused;
use crate::wire::contact::canonical;
use crate::wire::datagram::{Unverified, Verified};
use crate::wire::header::Auth;
use core::net::SocketAddr;

/// Why a well-formed datagram is not received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// It was received before.
    Replayed,
    /// The budget of signature checks is spent.
    OverBudget,
    /// It does not authenticate its sender.
    Refused(Refused),
}

/// Receives a datagram. `answers`: whether it answers an outstanding request. `hold` tells how firmly a peer keeps its place in the
/// table.
pub fn receive<'a>(
    outbox: &mut Outbox,
    now: Instant,
    from: SocketAddr,
    datagram: Unverified<'a>,
    answers: bool,
    hold: impl Fn(&NodeId) -> Hold,
) -> Result<Received<'a>, Rejected> {
    let from = canonical(from);
    match datagram.auth() {
        Auth::Bare => Err(Rejected::Refused(Refused::Auth)),
        Auth::Mac => match outbox.peers.authenticate(now, from, datagram, answers) {
            Ok(received) => received.ok_or(Rejected::Replayed),
            Err(Unknown) => {
                // A wrong answer is dropped without a challenge: the peer has no request to repeat.
                if !answers {
                    outbox.challenge(now, from, &datagram);
                }
                Err(Rejected::Refused(Refused::Mac))
            }
        },
        Auth::Signed => {
            let claim = outbox.peers.claim(now, from, &datagram, answers);
            if !outbox.checks.admit(now, from, claim) {
                return Err(Rejected::OverBudget);
            }
            let verified = datagram.verify(&outbox.network, &outbox.identity.id()).map_err(|reason| {
                outbox.checks.note_wrong(now, from, claim);
                Rejected::Refused(reason)
            })?;
            let received = outbox.peers.admit(now, from, &outbox.identity, verified, claim, hold);
            received.ok_or(Rejected::Replayed)
        }
    }
}

/// Receives a datagram that was signed with this node's own key, in an earlier run or by another process that has the key. `answers`:
/// whether it answers an outstanding request; else it may be a recording. Its sender enters no table.
pub fn receive_own<'a>(
    outbox: &mut Outbox,
    now: Instant,
    from: SocketAddr,
    datagram: Unverified<'a>,
    answers: bool,
) -> Result<Verified<'a>, Rejected> {
    // One of this run was only reflected.
    if datagram.epoch() == outbox.epoch() {
        return Err(Rejected::Refused(Refused::Sender));
    }
    let (from, claim) = (canonical(from), if answers { Claim::Answer } else { Claim::None });
    if !outbox.checks.admit(now, from, claim) {
        return Err(Rejected::OverBudget);
    }
    datagram.verify_own(&outbox.network, &outbox.identity.id()).map_err(|reason| {
        outbox.checks.note_wrong(now, from, claim);
        Rejected::Refused(reason)
    })
}
