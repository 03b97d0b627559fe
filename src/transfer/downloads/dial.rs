//! Which sources to connect to.

use super::download::Download;
use super::sources::{RootState, Source};
use crate::io::StreamId;
use crate::time::Instant;
use crate::transfer::common::Common;
use crate::transfer::streams::session::Session;
use crate::wire::contact::Contact;

impl Download {
    /// Dials sources that are not connected, those with the fewest failures first, until enough are useful.
    pub(super) fn connect_sources(&mut self, now: Instant, common: &mut Common) {
        let on_the_way = |source: &Source| match common.streams.to(&source.contact.id) {
            Some(_) if source.banned => false,
            Some(stream) => !self.is_exhausted(source) && !is_doubtful(now, source, stream, common),
            None => common.streams.is_dialling(&source.contact.id),
        };
        let useful = self.sources.values().filter(|source| on_the_way(source)).count();
        let wanted = self.sources_wanted().saturating_sub(useful);
        if wanted == 0 {
            return;
        }
        let mut candidates: Vec<(u8, u64, Contact)> = self
            .sources
            .values()
            .filter(|source| !source.given_up() && source.retry_at <= now)
            .filter(|source| common.streams.to(&source.contact.id).is_none())
            .filter(|source| !common.streams.is_dialling(&source.contact.id))
            .map(|source| (source.failures, source.order, source.contact))
            .collect();
        candidates.sort_unstable_by_key(|&(failures, order, _)| (failures, order));
        for (_, _, contact) in candidates.into_iter().take(wanted) {
            if !common.dial(now, contact) {
                return;
            }
        }
    }
}

/// Whether a connected source is slow: it answered that it is busy, or a request to it makes no progress.
fn is_doubtful(now: Instant, source: &Source, stream: StreamId, common: &Common) -> bool {
    let patience = common.config.timing.patience;
    let slow_root = matches!(source.root, RootState::Asked { since } if since + patience <= now);
    let stalled = |session: &Session| !session.requests.is_empty() && session.received_at + patience <= now;
    source.pause > now || slow_root || common.streams.get(&stream).is_some_and(stalled)
}

#[cfg(test)]
mod tests {
    use super::super::table::Downloads;
    use super::super::testing::ID;
    use crate::id::Key;
    use crate::id::NodeId;
    use crate::limits::Limits;
    use crate::transfer::common::Common;
    use crate::transfer::testing::{NOW, connected, peer};
    use crate::transfer::{StreamOutput, Transfer, TransferEvent};

    const FILE: Key = Key([1; 32]);

    /// A download of a file of which only the hash is known, with `sources` sources that are not connected.
    fn searching(sources: u8) -> (Downloads, Common) {
        let Transfer { mut downloads, mut common, .. } = connected(0, Limits::default());
        assert!(downloads.fetch(NOW, ID, FILE, true, &mut common));
        for seed in 1..=sources {
            assert!(downloads.add_source(NOW, ID, peer(seed), None, &mut common));
        }
        (downloads, common)
    }

    fn dialled(common: &mut Common) -> Vec<NodeId> {
        let dialled = |output| match output {
            StreamOutput::Connect { contact, .. } => Some(contact.id),
            _ => None,
        };
        common.outputs().into_iter().filter_map(dialled).collect()
    }

    #[test]
    fn sources_without_failures_are_dialled_first_and_no_more_than_are_useful() {
        let (mut downloads, mut common) = searching(6);
        downloads.the_one().sources.get_mut(&peer(1).id).unwrap().failures = 1;
        downloads.pump_all(NOW, &mut common);
        let first = dialled(&mut common);
        assert_eq!(first.len(), 4);
        assert!(!first.contains(&peer(1).id));
        downloads.pump_all(NOW, &mut common);
        assert!(dialled(&mut common).is_empty(), "four are on the way");
    }

    #[test]
    fn others_are_asked_for_in_place_of_a_source_that_was_given_up() {
        let (mut downloads, mut common) = searching(1);
        downloads.the_one().sources.get_mut(&peer(1).id).unwrap().failures = 9;
        downloads.pump_all(NOW, &mut common);
        assert!(dialled(&mut common).is_empty());
        assert_eq!(common.events(), [TransferEvent::SourcesNeeded { download: ID, keys: vec![FILE] }]);
    }
}
