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
