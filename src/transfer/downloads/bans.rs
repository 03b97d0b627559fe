//! Sources that sent wrong content: nothing more is requested from them while a ban is in force.

use super::download::Download;
use super::requests::{cancel, ignore_answers};
use super::table::Downloads;
use crate::id::NodeId;
use crate::io::StreamId;
use crate::time::Instant;
use crate::transfer::common::{Common, Out};
use crate::transfer::streams::session::{Part, Purpose, Receiving, Session};

impl Downloads {
    /// Bans began or ended: updates the sources.
    pub(in crate::transfer) fn review_bans(&mut self, now: Instant, common: &mut Common) {
        for (&id, download) in &mut self.under_way {
            let turned = |(peer, banned): (&NodeId, bool)| {
                let is = common.blame.is_banned(now, peer, &download.hash);
                (is != banned).then_some((*peer, is))
            };
            let sources = download.sources.iter().map(|(peer, source)| (peer, source.banned));
            let turned: Vec<(NodeId, bool)> = sources.filter_map(turned).collect();
            for (peer, banned) in turned {
                download.set_banned(now, &peer, banned);
                self.changed.insert(id);
                if banned {
                    download.withdraw_from(&peer, common);
                }
            }
        }
    }
}

impl Download {
    /// Cancels what a peer was asked for. A piece that is arriving is still verified.
    fn withdraw_from(&mut self, peer: &NodeId, common: &mut Common) {
        for stream in common.streams.all_to(peer).to_vec() {
            if let Some(session) = common.streams.get_mut(&stream) {
                self.withdraw_over(stream, session, &mut common.out);
            }
        }
    }

    fn withdraw_over(&mut self, stream: StreamId, session: &mut Session, out: &mut Out) {
        let coming = match session.receiving {
            Receiving::Sink { purpose: Purpose::Request(number), .. }
            | Receiving::Memory { purpose: Purpose::Request(number), .. } => Some(number),
            _ => None,
        };
        ignore_answers(session, self.id);
        let theirs = session.requests.iter().filter(|(number, request)| {
            request.download == self.id && !request.cancelled && Some(**number) != coming
        });
        let theirs: Vec<(u32, Part)> = theirs.map(|(&number, request)| (number, request.part)).collect();
        for (number, part) in theirs {
            cancel(out, stream, session, number);
            if let (Part::Chunk(index), Some(chunks)) = (part, self.chunks_mut()) {
                chunks.release(index, stream, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ID, fetching, first_request, requests};
    use crate::transfer::streams::session::{Purpose, Receiving};
    use crate::transfer::testing::{NOW, peer, stream};

    #[test]
    fn the_chunks_that_a_banned_source_was_asked_for_are_asked_of_another() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        assert_eq!(requests(&common, 1).len(), 2);
        let file = downloads.the_one().hash;
        common.ban(NOW, peer(1), file, file);
        downloads.review_bans(NOW, &mut common);
        assert_eq!(downloads.banned(ID), [peer(1).id]);
        assert!(requests(&common, 1).iter().all(|request| request.cancelled));
        downloads.has_all(2);
        downloads.pump_all(NOW, &mut common);
        assert_eq!(requests(&common, 2).len(), 2);
    }

    #[test]
    fn a_piece_that_arrives_from_a_banned_source_is_still_verified() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        let coming = first_request(&common, 1);
        let session = common.streams.get_mut(&stream(1)).unwrap();
        let purpose = Purpose::Request(coming);
        session.receiving = Receiving::Sink { purpose, length: 9, begun: NOW, received: 0 };
        let file = downloads.the_one().hash;
        common.ban(NOW, peer(1), file, file);
        downloads.review_bans(NOW, &mut common);
        let cancelled: Vec<bool> = requests(&common, 1).iter().map(|request| request.cancelled).collect();
        assert_eq!(cancelled, [false, true]);
    }

    #[test]
    fn a_source_is_asked_anew_when_its_ban_has_ended() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        let file = downloads.the_one().hash;
        common.ban(NOW, peer(1), file, file);
        downloads.review_bans(NOW, &mut common);
        let later = NOW + common.config.timing.ban.first;
        downloads.review_bans(later, &mut common);
        assert!(downloads.banned(ID).is_empty());
        let source = &downloads.the_one().sources[&peer(1).id];
        assert!(!source.asked_once);
        assert_eq!(source.has.count(), 0, "what it announced may have been wrong");
    }
}
