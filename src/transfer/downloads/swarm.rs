//! What co-downloaders, the nodes that fetch the same file, tell each other: the chunks they gain, and the other co-downloaders.
//!
//! A node that fetches a file *follows* it at each of its sources ([`Frame::Follow`]). From then on the source tells it which
//! chunks the source gains ([`Frame::Gained`]), and which other nodes follow the file there ([`Frame::Sources`]), at once and
//! whenever one is added. So nodes that start together know each other after one round trip to the complete source, and each
//! requests another part of the file from it: see [`Chunks::share_among`](super::chunks::Chunks::share_among).

use super::chunks::Bits;
use super::download::{Download, Phase};
use super::sources::Source;
use super::table::Downloads;
use crate::id::{Key, NodeId};
use crate::io::StreamId;
use crate::manifest::CHUNKS_MAX;
use crate::peers::party::may_tell;
use crate::time::{Duration, Instant};
use crate::transfer::common::{Common, Out};
use crate::transfer::events::DownloadId;
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{FOLLOWS_MAX, Follow, Session};
use crate::wire::contact::{Contact, WireContact, scope_of, with_scope};
use crate::wire::frame::{Frame, GAINED_CHUNKS_MAX, SOURCES_MAX};
use std::collections::BTreeMap;
use zerocopy::little_endian::U32;

/// The number of followers that are told of a new one.
const TOLD_MAX: usize = 16;
/// The most unread bytes with which a peer is still told news. Further news waits until the peer has read them.
const NEWS_UNREAD_MAX: usize = 4096;
/// Places of a download for sources known only by hearsay: named by a peer and not reached yet. `HEARSAY_OF_ONE_MAX` of them are
/// for those that one peer named, so that a peer that names unreachable nodes cannot crowd out those that others name.
const HEARSAY_MAX: usize = 16;
const HEARSAY_OF_ONE_MAX: usize = 8;
/// After this many announced chunks that it refused in a row, a source's announcements of them are ignored.
const DENIED_MAX: u32 = 8;
/// A source that has made no progress for this long is not counted on.
const SILENT: Duration = Duration::from_secs(2);
/// When the partial sources can send what they have of the missing chunks within this time, the complete source is spared for
/// nodes that have no other source.
const SPARE_SECONDS: u64 = 3;

/// Frames from peers.
impl Downloads {
    /// A peer follows a file here, or no longer does.
    pub(in crate::transfer) fn on_follow(
        &mut self,
        now: Instant,
        stream: StreamId,
        (file, over): (Key, bool),
        common: &mut Common,
    ) {
        let Some(session) = common.streams.heard_on(stream) else { return };
        let Some(contact) = session.peer else {
            return debug_assert!(false, "a peer is authenticated before it follows");
        };
        if session.follows.contains_key(&file) != over {
            common.out.counters.follow_repeated += 1;
            return;
        }
        let full = !over && session.follows.len() >= FOLLOWS_MAX;
        if full || !session.may_change_follows(now) {
            common.out.counters.follow_refused += 1;
            return;
        }
        match over {
            true => session.follows.remove(&file),
            false => session.follows.insert(file, Follow::default()),
        };
        let fetching: Vec<DownloadId> = self.of_file(&file).collect();
        self.changed.extend(&fetching);
        if over {
            return;
        }
        for id in fetching {
            // A follower has some of the file, or will have: it is a source.
            let known = self.get(id).is_some_and(|it| it.sources.contains_key(&contact.id));
            if !known {
                self.add_source(now, id, contact, None, common);
            }
        }
        self.introduce(stream, file, contact, common);
    }

    /// A source that this node follows has gained chunks.
    pub(in crate::transfer) fn on_gained(
        &mut self,
        stream: StreamId,
        file: Key,
        gained: &[U32],
        common: &Common,
    ) -> Result<(), CloseReason> {
        let Some(peer) = common.streams.get(&stream).and_then(Session::peer_id) else { return Ok(()) };
        for id in self.of_file(&file).collect::<Vec<_>>() {
            let Some(download) = self.under_way.get_mut(&id) else { continue };
            let Some(count) = download.chunks().map(|chunks| chunks.count()) else { continue };
            if download.sources.get(&peer).is_none_or(|source| source.denied >= DENIED_MAX) {
                continue;
            }
            if gained.iter().any(|chunk| chunk.get() >= count) {
                return Err(CloseReason::Unexpected);
            }
            gained.iter().for_each(|chunk| download.note_holding(&peer, chunk.get(), true));
            self.changed.insert(id);
        }
        Ok(())
    }

    /// A peer at which this node follows a file names other nodes that do.
    pub(in crate::transfer) fn on_sources(
        &mut self,
        now: Instant,
        stream: StreamId,
        file: Key,
        contacts: &[WireContact],
        common: &mut Common,
    ) {
        let follows = |session: &&Session| session.following.contains(&file);
        let Some(namer) = common.streams.get(&stream).filter(follows).and_then(Session::peer_id) else {
            common.out.counters.sources_unasked += 1;
            return;
        };
        let namer_at = common.streams.get(&stream).map(|session| session.remote);
        for contact in contacts.iter().filter_map(WireContact::get) {
            let scope = namer_at.and_then(scope_of).unwrap_or_default();
            let contact = Contact { addr: with_scope(contact.addr, scope), ..contact };
            if !common.streams.network().admits(&contact.public) {
                common.out.counters.sources_without_work += 1;
                continue;
            }
            for id in self.of_file(&file).collect::<Vec<_>>() {
                let takes = |download: &Download| download.takes_hearsay(&namer, &contact.id, common);
                if self.get(id).is_some_and(takes) {
                    self.add_source(now, id, contact, Some(namer), common);
                }
            }
        }
    }

    /// Tells a new follower of a file about others, and others about it.
    fn introduce(&self, stream: StreamId, file: Key, newcomer: Contact, common: &mut Common) {
        let follows = |session: &Session| session.follows.contains_key(&file);
        let mut others: BTreeMap<NodeId, Contact> = BTreeMap::new();
        let mut told = Vec::new();
        for (&other, session) in common.streams.iter().filter(|(_, session)| follows(session)) {
            let Some(contact) = session.peer.filter(|contact| contact.id != newcomer.id) else { continue };
            others.insert(contact.id, contact);
            told.push(other);
        }
        for download in self.under_way.values().filter(|download| download.hash == file) {
            let connected = download.sources.values().filter(|source| !source.banned);
            let contacts = connected
                .map(|source| source.contact)
                .filter(|contact| contact.id != newcomer.id && common.streams.is_connected(&contact.id));
            others.extend(contacts.map(|contact| (contact.id, contact)));
        }
        let mut others: Vec<Contact> =
            others.into_values().filter(|contact| contact.addr.port() != 0).collect();
        common.rng.shuffle(&mut others);
        others.truncate(SOURCES_MAX);
        name_sources(stream, file, &others, common);
        if newcomer.addr.port() != 0 {
            common.rng.shuffle(&mut told);
            told.truncate(TOLD_MAX);
            told.into_iter().for_each(|other| name_sources(other, file, &[newcomer], common));
        }
    }

    /// Ends the following of a finished download's file, unless another download needs it.
    pub(super) fn unfollow(&self, download: &Download, common: &mut Common) {
        let file = download.hash;
        if !download.is_shared || self.of_file(&file).any(|id| self.under_way[&id].is_shared) {
            return;
        }
        for (&stream, session) in common.streams.iter_mut() {
            if session.following.remove(&file) {
                common.out.write(stream, session, &Frame::Follow { file, over: true });
            }
        }
    }
}

impl Download {
    /// Whether there is room for a source that `namer` names and that is unknown so far.
    fn takes_hearsay(&self, namer: &NodeId, named: &NodeId, common: &Common) -> bool {
        let unreached = |source: &&Source| !common.streams.is_connected(&source.contact.id);
        let namers = self.sources.values().filter(unreached).filter_map(|source| source.hearsay);
        let of_one = namers.clone().filter(|other| other == namer).count();
        let room = of_one < HEARSAY_OF_ONE_MAX && namers.count() < HEARSAY_MAX;
        room && Some(*named) != common.streams.own() && !self.sources.contains_key(named)
    }

    /// Follows the file at every connected source.
    pub(super) fn follow(&self, common: &mut Common) {
        for source in self.sources.values().filter(|source| !source.banned) {
            let Some((stream, session)) = common.streams.session_to_mut(&source.contact.id) else { continue };
            if session.following.insert(self.hash) {
                common.out.write(stream, session, &Frame::Follow { file: self.hash, over: false });
            }
        }
    }

    /// Recomputes the co-downloaders: the sources that follow the file here.
    pub(super) fn update_co_downloaders(&mut self, common: &Common) {
        let follows = |stream: &StreamId| {
            common.streams.get(stream).is_some_and(|session| session.follows.contains_key(&self.hash))
        };
        let fetches = |id: &NodeId| common.streams.all_to(id).iter().any(follows);
        let co_downloaders: Vec<NodeId> = self.sources.keys().copied().filter(fetches).collect();
        if co_downloaders == self.co_downloaders {
            return;
        }
        if let (Phase::Chunks(chunks), Some(own)) = (&mut self.phase, common.streams.own()) {
            let others: Vec<u64> = co_downloaders.iter().map(number_of).collect();
            chunks.share_among(number_of(&own), &others);
            self.co_downloaders = co_downloaders;
        }
    }

    /// The chunks that are not requested from a complete source, because partial sources will send them soon.
    pub(super) fn spared(&self, now: Instant, common: &Common) -> Option<Bits> {
        let chunks = self.chunks().filter(|_| !self.co_downloaders.is_empty())?;
        let (mut partial, mut pace) = (Bits::new(chunks.count()), 0_u64);
        let (mut parts, mut wholes) = (0, 0);
        for source in self.sources.values() {
            let Some(session) = common.streams.session_to(&source.contact.id) else { continue };
            if chunks.is_all(&source.has) {
                wholes += 1;
            } else if source.banned || source.pause > now || source.denied > 0 {
                continue;
            } else if let Some(shown) = session.pace(now, SILENT) {
                partial.join(&source.has);
                (parts, pace) = (parts + 1, pace.saturating_add(shown));
            }
        }
        let soon = chunks.bytes_lacking_of(&partial) <= pace.saturating_mul(SPARE_SECONDS);
        // With many complete sources none of them is overloaded.
        (soon && parts >= 2 * wholes).then_some(partial)
    }
}

fn name_sources(stream: StreamId, file: Key, contacts: &[Contact], common: &mut Common) {
    let Some(session) = common.streams.get_mut(&stream) else { return };
    let told = contacts.iter().filter(|contact| may_tell(contact.addr, session.remote));
    let contacts: Vec<WireContact> = told.map(|contact| WireContact::new(contact, 0)).collect();
    if !contacts.is_empty() && session.unread <= NEWS_UNREAD_MAX {
        common.out.write(stream, session, &Frame::Sources { file, contacts: &contacts });
    }
}

/// Queues for every follower of a file that this node has gained a chunk.
pub(in crate::transfer) fn tell_gained(file: &Key, chunk: u32, common: &mut Common) {
    for (&stream, session) in common.streams.iter_mut() {
        let Some(follow) = session.follows.get_mut(file) else { continue };
        // A file that is fetched again and again must not queue more news than it can have chunks.
        if follow.news.len() < CHUNKS_MAX as usize {
            follow.news.push(chunk);
        }
        tell_news(&mut common.out, stream, session);
    }
}

/// Sends the queued news to a peer that has read what it was sent.
pub(in crate::transfer) fn tell_more(stream: StreamId, common: &mut Common) {
    if let Some(session) = common.streams.get_mut(&stream) {
        tell_news(&mut common.out, stream, session);
    }
}

/// When a source that is counted on will have been silent for [`SILENT`].
pub(super) fn silent_at(stream: StreamId, common: &Common) -> Option<Instant> {
    let session = common.streams.get(&stream).filter(|session| !session.requests.is_empty())?;
    Some(session.received_at + SILENT)
}

fn number_of(id: &NodeId) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&id.0[..8]);
    u64::from_le_bytes(number)
}

/// Tells a peer which chunks this node has gained, as far as the peer has read earlier news.
fn tell_news(out: &mut Out, stream: StreamId, session: &mut Session) {
    while session.unread <= NEWS_UNREAD_MAX {
        let Some((&file, follow)) = session.follows.iter_mut().find(|(_, follow)| !follow.news.is_empty())
        else {
            return;
        };
        let rest = follow.news.split_off(follow.news.len().min(GAINED_CHUNKS_MAX));
        let chunks: Vec<U32> = core::mem::replace(&mut follow.news, rest).into_iter().map(U32::new).collect();
        out.write(stream, session, &Frame::Gained { file, chunks: &chunks });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ID, fetching};
    use super::*;
    use crate::limits::Limits;
    use crate::transfer::testing::{NOW, connected, manifest, peer, stream};
    use crate::transfer::{StreamOutput, Transfer};

    const FILE: Key = Key([1; 32]);

    fn follows(common: &mut Common, seed: u8, file: Key) {
        common.streams.get_mut(&stream(seed)).unwrap().follows.insert(file, Follow::default());
    }

    #[test]
    fn a_follower_of_a_file_that_is_fetched_is_a_source_of_it() {
        let Transfer { mut downloads, mut common, .. } = connected(2, Limits::default());
        assert!(downloads.fetch(NOW, ID, FILE, true, &mut common));
        downloads.on_follow(NOW, stream(1), (FILE, false), &mut common);
        downloads.on_follow(NOW, stream(2), (Key([9; 32]), false), &mut common);
        let sources: Vec<&NodeId> = downloads.get(ID).unwrap().sources.keys().collect();
        assert_eq!(sources, [&peer(1).id]);
    }

    #[test]
    fn following_twice_changes_nothing() {
        let Transfer { mut downloads, mut common, .. } = connected(1, Limits::default());
        for over in [false, false, true, true] {
            downloads.on_follow(NOW, stream(1), (FILE, over), &mut common);
        }
        assert_eq!(common.out.counters.follow_repeated, 2);
        assert!(common.streams.get(&stream(1)).unwrap().follows.is_empty());
    }

    #[test]
    fn followers_are_told_of_each_other() {
        let Transfer { mut downloads, mut common, .. } = connected(2, Limits::default());
        downloads.on_follow(NOW, stream(1), (FILE, false), &mut common);
        assert_eq!(common.outputs(), [], "it is the only one");
        downloads.on_follow(NOW, stream(2), (FILE, false), &mut common);
        let told: Vec<StreamId> = common
            .outputs()
            .into_iter()
            .filter_map(|output| match output {
                StreamOutput::Write { stream, .. } => Some(stream),
                _ => None,
            })
            .collect();
        assert_eq!(told, [stream(2), stream(1)]);
    }

    #[test]
    fn sources_known_by_hearsay_get_few_places_and_those_of_one_peer_fewer() {
        let (mut downloads, mut common) = fetching(2, &[]);
        let mut taken = [0; 3];
        for seed in 10..60 {
            let namer = 1 + seed as usize % 2;
            let from = peer(namer as u8).id;
            if downloads.the_one().takes_hearsay(&from, &peer(seed).id, &common) {
                assert!(downloads.add_source(NOW, ID, peer(seed), Some(from), &mut common));
                taken[namer] += 1;
            }
        }
        assert_eq!(taken, [0, HEARSAY_OF_ONE_MAX, HEARSAY_OF_ONE_MAX]);
        assert_eq!(taken.iter().sum::<usize>(), HEARSAY_MAX);
    }

    #[test]
    fn sources_that_a_peer_names_for_a_file_that_is_not_followed_there_are_ignored() {
        let (mut downloads, mut common) = fetching(2, &[]);
        let file = downloads.the_one().hash;
        let named = [WireContact::new(&peer(9), 0)];
        downloads.on_sources(NOW, stream(1), file, &named, &mut common);
        assert_eq!(common.out.counters.sources_unasked, 1);
        assert!(!downloads.the_one().sources.contains_key(&peer(9).id));
        common.streams.get_mut(&stream(1)).unwrap().following.insert(file);
        downloads.on_sources(NOW, stream(1), file, &named, &mut common);
        assert!(downloads.the_one().sources.contains_key(&peer(9).id));
    }

    #[test]
    fn gained_chunks_are_entered_and_one_that_the_file_does_not_have_is_a_violation() {
        let (mut downloads, common) = fetching(2, &[]);
        let file = downloads.the_one().hash;
        assert_eq!(downloads.on_gained(stream(1), file, &[U32::new(1)], &common), Ok(()));
        assert_eq!(downloads.the_one().sources[&peer(1).id].has.ones().collect::<Vec<_>>(), [1]);
        let beyond = downloads.on_gained(stream(1), file, &[U32::new(2)], &common);
        assert_eq!(beyond, Err(CloseReason::Unexpected));
    }

    #[test]
    fn what_a_source_announces_is_ignored_after_it_refused_too_much_of_it() {
        let (mut downloads, common) = fetching(2, &[]);
        let file = downloads.the_one().hash;
        downloads.the_one().sources.get_mut(&peer(1).id).unwrap().denied = DENIED_MAX;
        assert_eq!(downloads.on_gained(stream(1), file, &[U32::new(1)], &common), Ok(()));
        assert_eq!(downloads.the_one().sources[&peer(1).id].has.count(), 0);
    }

    #[test]
    fn news_waits_until_the_peer_has_read_what_it_was_sent() {
        let Transfer { mut common, .. } = connected(1, Limits::default());
        follows(&mut common, 1, FILE);
        common.streams.get_mut(&stream(1)).unwrap().unread = NEWS_UNREAD_MAX + 1;
        tell_gained(&FILE, 3, &mut common);
        tell_gained(&FILE, 4, &mut common);
        assert_eq!(common.outputs(), []);
        common.streams.get_mut(&stream(1)).unwrap().unread = 0;
        tell_more(stream(1), &mut common);
        assert_eq!(common.outputs().len(), 1, "both in one frame");
        tell_more(stream(1), &mut common);
        assert_eq!(common.outputs(), []);
    }

    #[test]
    fn a_file_is_followed_at_every_source_until_no_download_needs_it() {
        let (mut downloads, mut common) = fetching(2, &[]);
        let other = DownloadId(2);
        assert!(downloads.fetch(NOW, other, manifest(2).hash(), true, &mut common));
        downloads.pump_all(NOW, &mut common);
        let following = |common: &Common| {
            (1..=2).filter(|&seed| !common.streams.get(&stream(seed)).unwrap().following.is_empty()).count()
        };
        assert_eq!(following(&common), 2);
        downloads.abort(ID, &mut common);
        assert_eq!(following(&common), 2, "another download is of the same file");
        downloads.abort(other, &mut common);
        assert_eq!(following(&common), 0);
    }
}
