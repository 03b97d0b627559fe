//! The verdict on a failed search: whether it has failed, and the cause.

use super::sources::Search;
use crate::node::command::FailureReason;
use crate::node::status;
use crate::transfer::DownloadState;

/// The target of a search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) enum Sought {
    /// The root.
    Root,
    /// The chunks.
    Chunks,
}

/// Why a search cannot succeed, when its lookups have ended and all its sources have been asked. `None` while it still can.
/// `unreached` is the number of providers that could not be reached.
pub(in crate::node) fn hopeless(
    sought: Sought,
    search: &Search,
    state: &DownloadState,
    unreached: u32,
) -> Option<(FailureReason, String)> {
    if search.is_looking() || search.lookups() == 0 || !state.idle {
        return None;
    }
    let (answered, banned) = (search.answered(), state.banned);
    match sought {
        Sought::Root if banned > 0 => {
            let why = format!("{}, and no other has it", status::sent_wrong_content(banned));
            Some((FailureReason::Unverified, why))
        }
        Sought::Root if answered == 0 && state.not_found == 0 => {
            let why = "no other node answered: see `elver peers`".to_owned();
            Some((FailureReason::Unreachable, why))
        }
        Sought::Root if unreached > 0 => Some((FailureReason::Unreachable, not_reached(unreached))),
        Sought::Root => Some((
            FailureReason::NotFound,
            format!("no node that was asked has it; {}", status::answered(answered)),
        )),
        Sought::Chunks if banned > 0 && state.connected == 0 && search.lookups() > 1 => {
            let why = format!("{}, and no other has the rest", status::sent_wrong_content(banned));
            Some((FailureReason::Unverified, why))
        }
        _ => None,
    }
}

fn not_reached(providers: u32) -> String {
    match providers {
        1 => "the one node that should have it cannot be connected to: it is off, cut off, or behind a NAT or a firewall"
            .to_owned(),
        _ => format!(
            "{providers} nodes that should have it cannot be connected to: they are off, cut off, or behind a NAT or a firewall"
        ),
    }
}

/// Why a download without progress fails. `missing` is the number of missing chunks and of all chunks, once they are known.
pub(in crate::node) fn timed_out(
    missing: Option<(usize, usize)>,
    search: &Search,
    state: &DownloadState,
    unreached: u32,
) -> (FailureReason, String) {
    let (reason, cause) = match state.banned {
        0 => (FailureReason::Unreachable, "no node that has the rest can be reached".to_owned()),
        banned => (FailureReason::Unverified, status::sent_wrong_content(banned)),
    };
    let why = match missing {
        Some((missing, of)) => format!("{missing} of {of} chunks are missing, and {cause}"),
        None if unreached > 0 => not_reached(unreached),
        None => format!("no answer in time; {}", status::answered(search.answered())),
    };
    (reason, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Key, NodeId, PublicKey};
    use crate::node::machines::Machines;
    use crate::time::Instant;
    use crate::transfer::DownloadId;
    use crate::wire::contact::Contact;

    const START: Instant = Instant::from_secs(100);

    /// A search after this many lookups, which nodes answered and which found providers.
    fn search(lookups: u32, answered: u32, providers: u8) -> Search {
        let mut machines = Machines::alone(START);
        let mut search = Search::new(DownloadId(1), Key([1; 32]));
        let contact = |number| Contact::new(PublicKey([number; 32]), ([127, 0, 0, 1], 1).into());
        let found: Vec<(Contact, bool)> = (0..providers).map(|number| (contact(number), false)).collect();
        search.providers_found(START, NodeId([9; 32]), &found, &mut machines);
        (0..lookups).for_each(|_| search.providers_looked_up(START, &[], answered, &mut machines));
        search
    }

    /// The state of a download whose sources have all been asked.
    fn idle() -> DownloadState {
        DownloadState { idle: true, ..DownloadState::default() }
    }

    fn reason(sought: Sought, search: &Search, state: &DownloadState) -> Option<FailureReason> {
        hopeless(sought, search, state, 0).map(|(reason, _)| reason)
    }

    #[test]
    fn a_search_goes_on_while_a_lookup_or_a_source_is_under_way() {
        let busy = DownloadState { idle: false, ..DownloadState::default() };
        assert_eq!(reason(Sought::Root, &search(1, 3, 0), &busy), None);
        assert_eq!(reason(Sought::Root, &search(0, 0, 0), &idle()), None);
        let mut looking = search(1, 3, 0);
        looking.look_up(START, &mut Machines::alone(START));
        assert_eq!(reason(Sought::Root, &looking, &idle()), None);
    }

    #[test]
    fn a_root_that_no_node_has_is_not_found() {
        assert_eq!(reason(Sought::Root, &search(1, 3, 0), &idle()), Some(FailureReason::NotFound));
    }

    #[test]
    fn a_root_is_unreachable_when_no_node_could_be_asked_or_a_provider_could_not() {
        let unreachable = Some(FailureReason::Unreachable);
        assert_eq!(reason(Sought::Root, &search(1, 0, 0), &idle()), unreachable);
        // Nodes near the hash answered that they do not have it. The one provider did not answer.
        let none_near = DownloadState { failed: 1, not_found: 6, ..idle() };
        let (reason_of, why) = hopeless(Sought::Root, &search(1, 3, 1), &none_near, 1).unwrap();
        assert_eq!(reason_of, FailureReason::Unreachable);
        assert!(why.starts_with("the one node that should have it cannot be connected to"), "{why}");
        assert_eq!(reason(Sought::Root, &search(1, 3, 1), &none_near), Some(FailureReason::NotFound));
    }

    #[test]
    fn wrong_content_is_the_reason_before_any_other() {
        let banned = DownloadState { banned: 1, ..idle() };
        let unverified = Some(FailureReason::Unverified);
        assert_eq!(reason(Sought::Root, &search(1, 0, 0), &banned), unverified);
        assert_eq!(reason(Sought::Chunks, &search(2, 3, 0), &banned), unverified);
    }

    #[test]
    fn missing_chunks_are_looked_for_again_unless_only_liars_are_left() {
        assert_eq!(reason(Sought::Chunks, &search(5, 3, 0), &idle()), None);
        let banned = DownloadState { banned: 1, ..idle() };
        assert_eq!(reason(Sought::Chunks, &search(1, 3, 0), &banned), None, "another lookup may find more");
        let one_left = DownloadState { connected: 1, ..banned };
        assert_eq!(reason(Sought::Chunks, &search(2, 3, 0), &one_left), None);
    }

    #[test]
    fn a_timeout_names_what_is_missing_and_why() {
        let (reason, why) = timed_out(Some((2, 5)), &search(1, 3, 0), &idle(), 0);
        assert_eq!(reason, FailureReason::Unreachable);
        assert!(why.starts_with("2 of 5 chunks are missing"), "{why}");
        let banned = DownloadState { banned: 1, ..idle() };
        assert_eq!(timed_out(Some((2, 5)), &search(1, 3, 0), &banned, 0).0, FailureReason::Unverified);
        let (_, why) = timed_out(None, &search(1, 3, 0), &idle(), 0);
        assert_eq!(why, "no answer in time; 3 nodes answered");
    }
}
