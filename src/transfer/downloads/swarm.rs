//! What co-downloaders, the nodes that fetch the same file, tell each other: which chunks they gain, and who the others are.
//!
//! A node that fetches a file *follows* it at each of its sources ([`Frame::Follow`]). From then on the source tells it which
//! chunks the source gains ([`Frame::Gained`]), and which other nodes follow the file there ([`Frame::Sources`]), at once and
//! whenever one is added. So nodes that start together know each other after one round trip to the complete source, and each
//! requests another part of the file from it: see [`Chunks::share_among`](super::chunks::Chunks::share_among).

use super::chunks::Bits;
use super::download::{Download, Phase};
use super::sources::Source;
use crate::id::{Key, NodeId};
use crate::io::StreamId;
use crate::manifest::CHUNKS_MAX;
use crate::time::{Duration, Instant};
use crate::transfer::Transfer;
use crate::transfer::events::DownloadId;
use crate::transfer::streams::session::{FOLLOWS_MAX, Follow, Session};
use crate::wire::contact::{Contact, WireContact};
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
impl Transfer {
    pub(in crate::transfer) fn on_follow(&mut self, now: Instant, stream: StreamId, file: Key, over: bool) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        let Some(contact) = session.peer else { return };
        if session.follows.contains_key(&file) != over {
            self.common.out.counters.follow_repeated += 1;
            return;
        }
        let full = !over && session.follows.len() >= FOLLOWS_MAX;
        if full || !session.may_change_follows(now) {
            self.common.out.counters.follow_refused += 1;
            return;
        }
        match over {
            true => session.follows.remove(&file),
            false => session.follows.insert(file, Follow::default()),
        };
        let fetching: Vec<DownloadId> = self.downloads_of(&file).collect();
        self.changed.extend(&fetching);
        if over {
            return;
        }
        for id in fetching {
            // A follower has some of the file, or will have: it is a source.
            let known = self.downloads.get(&id).is_some_and(|it| it.sources.contains_key(&contact.id));
            if !known {
                self.add_source(now, id, contact, None);
            }
        }
        self.introduce(stream, file, contact);
    }

    pub(in crate::transfer) fn on_gained(
        &mut self,
        now: Instant,
        stream: StreamId,
        file: Key,
        chunks: &[U32],
    ) {
        let Some(peer) = self.common.streams.get(&stream).and_then(Session::peer_id) else { return };
        for id in self.downloads_of(&file).collect::<Vec<_>>() {
            let Some(download) = self.downloads.get_mut(&id) else { continue };
            let Some(count) = download.chunks().map(|chunks| chunks.count()) else { continue };
            if download.sources.get(&peer).is_none_or(|source| source.denied >= DENIED_MAX) {
                continue;
            }
            if chunks.iter().any(|chunk| chunk.get() >= count) {
                return self.violated(now, stream);
            }
            chunks.iter().for_each(|chunk| download.note_holding(&peer, chunk.get(), true));
            self.changed.insert(id);
        }
    }

    pub(in crate::transfer) fn on_sources(
        &mut self,
        now: Instant,
        stream: StreamId,
        file: Key,
        contacts: &[WireContact],
    ) {
        let follows = |session: &&Session| session.following.contains(&file);
        let Some(namer) = self.common.streams.get(&stream).filter(follows).and_then(Session::peer_id) else {
            self.common.out.counters.sources_unasked += 1;
            return;
        };
        for contact in contacts.iter().filter_map(WireContact::get) {
            for id in self.downloads_of(&file).collect::<Vec<_>>() {
                let Some(download) = self.downloads.get(&id) else { continue };
                let unreached = |source: &&Source| !self.common.streams.is_connected(&source.contact.id);
                let namers = download.sources.values().filter(unreached).filter_map(|source| source.hearsay);
                let of_one = namers.clone().filter(|other| *other == namer).count();
                let room = of_one < HEARSAY_OF_ONE_MAX && namers.count() < HEARSAY_MAX;
                if Some(contact.id) == self.common.streams.own()
                    || download.sources.contains_key(&contact.id)
                    || !room
                {
                    continue;
                }
                self.add_source(now, id, contact, Some(namer));
            }
        }
    }
}

impl Transfer {
    fn downloads_of(&self, file: &Key) -> impl Iterator<Item = DownloadId> {
        self.downloads.iter().filter(move |(_, download)| download.hash == *file).map(|(&id, _)| id)
    }

    /// Tells a new follower of a file about others, and others about it.
    fn introduce(&mut self, stream: StreamId, file: Key, newcomer: Contact) {
        let follows = |session: &Session| session.follows.contains_key(&file);
        let mut others: BTreeMap<NodeId, Contact> = BTreeMap::new();
        let mut told = Vec::new();
        for (&other, session) in self.common.streams.iter().filter(|(_, session)| follows(session)) {
            let Some(contact) = session.peer.filter(|contact| contact.id != newcomer.id) else { continue };
            others.insert(contact.id, contact);
            told.push(other);
        }
        for download in self.downloads.values().filter(|download| download.hash == file) {
            let connected = download.sources.values().filter(|source| !source.banned);
            let contacts = connected
                .map(|source| source.contact)
                .filter(|contact| contact.id != newcomer.id && self.common.streams.is_connected(&contact.id));
            others.extend(contacts.map(|contact| (contact.id, contact)));
        }
        let mut others: Vec<Contact> =
            others.into_values().filter(|contact| contact.addr.port() != 0).collect();
        self.common.rng.shuffle(&mut others);
        others.truncate(SOURCES_MAX);
        self.name_sources(stream, file, &others);
        if newcomer.addr.port() != 0 {
            self.common.rng.shuffle(&mut told);
            told.truncate(TOLD_MAX);
            told.into_iter().for_each(|other| self.name_sources(other, file, &[newcomer]));
        }
    }

    fn name_sources(&mut self, stream: StreamId, file: Key, contacts: &[Contact]) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        if !contacts.is_empty() && session.unread <= NEWS_UNREAD_MAX {
            let contacts: Vec<WireContact> =
                contacts.iter().map(|contact| WireContact::new(contact, 0)).collect();
            self.common.out.write(stream, session, &Frame::Sources { file, contacts: &contacts });
        }
    }

    /// Follows the file of a download at every connected source.
    pub(in crate::transfer) fn follow(&mut self, download: &Download) {
        for source in download.sources.values().filter(|source| !source.banned) {
            let Some(stream) = self.common.streams.to(&source.contact.id) else { continue };
            let Some(session) = self.common.streams.get_mut(&stream) else { continue };
            if session.following.insert(download.hash) {
                self.common.out.write(stream, session, &Frame::Follow { file: download.hash, over: false });
            }
        }
    }

    /// Ends the following of a finished download's file, unless another download needs it.
    pub(in crate::transfer) fn unfollow(&mut self, download: &Download) {
        let file = download.hash;
        if !download.is_shared || self.downloads_of(&file).any(|id| self.downloads[&id].is_shared) {
            return;
        }
        for (&stream, session) in self.common.streams.iter_mut() {
            if session.following.remove(&file) {
                self.common.out.write(stream, session, &Frame::Follow { file, over: true });
            }
        }
    }

    /// Queues for every follower of a file that this node has gained a chunk.
    pub(in crate::transfer) fn tell_gained(&mut self, file: &Key, chunk: u32) {
        for (&stream, session) in self.common.streams.iter_mut() {
            let Some(follow) = session.follows.get_mut(file) else { continue };
            // A file that is fetched again and again must not queue more news than it can have chunks.
            if follow.news.len() < CHUNKS_MAX as usize {
                follow.news.push(chunk);
            }
            tell_news(&mut self.common.out, stream, session);
        }
    }

    /// Sends the queued news to a peer that has read what it was sent.
    pub(in crate::transfer) fn tell_more(&mut self, stream: StreamId) {
        if let Some(session) = self.common.streams.get_mut(&stream) {
            tell_news(&mut self.common.out, stream, session);
        }
    }

    /// Recomputes the co-downloaders: the sources that follow the file here.
    pub(in crate::transfer) fn update_co_downloaders(&self, download: &mut Download) {
        let follows = |stream: &StreamId| {
            self.common
                .streams
                .get(stream)
                .is_some_and(|session| session.follows.contains_key(&download.hash))
        };
        let fetches = |id: &NodeId| self.common.streams.all_to(id).iter().any(follows);
        let co_downloaders: Vec<NodeId> = download.sources.keys().copied().filter(fetches).collect();
        if co_downloaders == download.co_downloaders {
            return;
        }
        if let (Phase::Chunks(chunks), Some(own)) = (&mut download.phase, self.common.streams.own()) {
            let others: Vec<u64> = co_downloaders.iter().map(number_of).collect();
            chunks.share_among(number_of(&own), &others);
            download.co_downloaders = co_downloaders;
        }
    }

    /// The chunks that are not requested from a complete source, because partial sources will send them soon.
    pub(in crate::transfer) fn spared(&self, now: Instant, download: &Download) -> Option<Bits> {
        let chunks = download.chunks().filter(|_| !download.co_downloaders.is_empty())?;
        let (mut common, mut pace) = (Bits::new(chunks.count()), 0_u64);
        let (mut parts, mut wholes) = (0, 0);
        for source in download.sources.values() {
            let stream = self.common.streams.to(&source.contact.id);
            let Some(session) = stream.and_then(|stream| self.common.streams.get(&stream)) else { continue };
            if chunks.is_all(&source.has) {
                wholes += 1;
            } else if source.banned || source.pause > now || source.denied > 0 {
                continue;
            } else if let Some(shown) = session.pace(now, SILENT) {
                common.join(&source.has);
                (parts, pace) = (parts + 1, pace.saturating_add(shown));
            }
        }
        let soon = chunks.bytes_lacking_of(&common) <= pace.saturating_mul(SPARE_SECONDS);
        // With many complete sources none of them is overloaded.
        (soon && parts >= 2 * wholes).then_some(common)
    }

    /// When a source that is counted on will have been silent for [`SILENT`].
    pub(in crate::transfer) fn silent_at(&self, stream: StreamId) -> Option<Instant> {
        let session = self.common.streams.get(&stream).filter(|session| !session.requests.is_empty())?;
        Some(session.received_at + SILENT)
    }
}

fn number_of(id: &NodeId) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&id.0[..8]);
    u64::from_le_bytes(number)
}

/// Tells a peer which chunks this node has gained, as far as the peer has read earlier news.
fn tell_news(out: &mut crate::transfer::Out, stream: StreamId, session: &mut Session) {
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
