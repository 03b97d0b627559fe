//! Contested places: which entry of a full table gives way.
//!
//! A table with room refuses no entry. A full table removes an entry of the holder with the most entries. That holder is found
//! level by level: the site with the most entries, in it the home with the most, then the link, then the identity. Of that
//! holder's entries the one of least worth goes. Between holders of equally many entries, worth alone decides. So one party, with
//! any number of identities, displaces only its own entries, and a network inside one prefix is divided like any other.
//!
//! A small table is examined as a whole ([`gives_way`]). A large one counts its [`Holdings`].

use super::party::{Level, Parties, Party};
use crate::id::{NodeId, ShortId};
use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeMap;

/// The owner of an entry: a party, and an identity of it. Holders of one party are neighbours in their order, at every level.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Holder {
    /// The party of the address that the entry came from.
    pub party: Party,
    /// The identity.
    pub identity: ShortId,
}

impl Holder {
    /// The node `id` at `addr`.
    pub fn node(parties: Parties, id: &NodeId, addr: SocketAddr) -> Holder {
        Holder { party: parties.of(id, addr), identity: id.short() }
    }

    /// A host that is not authenticated: its address is all the identity that it has.
    pub fn host(ip: IpAddr) -> Holder {
        let ip = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Holder { party: Party::of(IpAddr::V6(ip)), identity: (ip.to_bits() as u64).to_be_bytes() }
    }
}

/// The levels at which holders are compared, the widest first. At `None`, each identity counts by itself.
const LEVELS: [Option<Level>; 4] = [Some(Level::Site), Some(Level::Home), Some(Level::Link), None];

impl Holder {
    /// Whether two holders count as one at a level.
    pub fn is_one_with(&self, other: &Holder, level: Option<Level>) -> bool {
        match level {
            Some(level) => self.party.at(level) == other.party.at(level),
            None => self == other,
        }
    }

    /// The number of `others` that count as one with this holder, at each level. Of two holders, the one with the greater crowd
    /// holds more.
    pub fn crowd(&self, others: impl Iterator<Item = Holder>) -> Crowd {
        let mut crowd = Crowd::default();
        for other in others {
            for (count, level) in crowd.0.iter_mut().zip(LEVELS) {
                *count += u32::from(self.is_one_with(&other, level));
            }
        }
        crowd
    }
}

/// The number of entries of one holder, at each level.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Crowd([u32; LEVELS.len()]);

/// The entry that gives way in a table of `entries`, the newcomer among them: each with its holder and its worth. Of equal entries
/// the last gives way. `None` only when there are no entries.
pub fn gives_way<W: Ord>(entries: &[(Holder, W)]) -> Option<usize> {
    give_way(entries, 1).first().copied()
}

/// The entries that give way when `surplus` of them have no place, in no particular order.
pub fn give_way<W: Ord>(entries: &[(Holder, W)], surplus: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..entries.len()).rev().collect();
    order.sort_by_key(|&index| entries[index].0);
    lose(entries, &order, 0, surplus)
}

/// The `loss` entries that the given ones lose, which are in the order of their holders. At each level the largest groups are cut
/// down to one size; which of those then lose one more, is decided by worth.
fn lose<W: Ord>(entries: &[(Holder, W)], some: &[usize], level: usize, loss: usize) -> Vec<usize> {
    let by_worth = |a: &usize, b: &usize| entries[*a].1.cmp(&entries[*b].1);
    let Some(kind) = LEVELS.get(level) else {
        let mut some = some.to_vec();
        some.sort_by(by_worth);
        some.truncate(loss);
        return some;
    };
    let groups = || some.chunk_by(|a, b| entries[*a].0.is_one_with(&entries[*b].0, *kind));
    let lost_at = |size: usize| groups().map(|group| group.len().saturating_sub(size)).sum::<usize>();
    // The largest size to which cutting the groups loses enough.
    let (mut size, mut above) = (0, groups().map(<[usize]>::len).max().unwrap_or(0));
    while size + 1 < above {
        let middle = size + (above - size) / 2;
        if lost_at(middle) >= loss {
            size = middle;
        } else {
            above = middle;
        }
    }
    let (mut lost, mut next) = (Vec::new(), Vec::new());
    for group in groups().filter(|group| group.len() > size) {
        let mut losers = lose(entries, group, level + 1, group.len() - size);
        next.extend(losers.pop());
        lost.extend(losers);
    }
    next.sort_by(by_worth);
    next.truncate(loss.saturating_sub(lost.len()));
    lost.extend(next);
    lost
}

/// Entries of a large table are chosen ahead: at most 1/256 of the table, and 1/8 of the entries of their holder. These limits
/// bound how far out of date the choice can be.
const AHEAD_OF_TABLE: usize = 256;
const AHEAD_OF_HOLDER: u32 = 8;

/// The number of entries of each holder in a large table, and the entries that give way next. `P` is the place of an entry; a
/// greater place is worth less.
pub struct Holdings<P> {
    counts: BTreeMap<Holder, u32>,
    total: usize,
    /// The holders with the most entries, in order.
    yielding: Vec<Holder>,
    /// Entries of these holders that give way. The last one goes next.
    ahead: Vec<P>,
}

impl<P> Default for Holdings<P> {
    fn default() -> Self {
        Holdings { counts: BTreeMap::new(), total: 0, yielding: Vec::new(), ahead: Vec::new() }
    }
}

impl<P: Ord> Holdings<P> {
    /// An entry of this holder was added.
    pub fn add(&mut self, holder: Holder) {
        *self.counts.entry(holder).or_default() += 1;
        self.total += 1;
    }

    /// An entry of this holder was removed.
    pub fn remove(&mut self, holder: &Holder) {
        let Some(count) = self.counts.get_mut(holder) else {
            debug_assert!(false, "an entry that was never added");
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(holder);
        }
        self.total -= 1;
    }

    /// The place that gives way to an entry of `newcomer` at `place`; `None` when the newcomer gives way. The place may have
    /// become empty since it was chosen; the caller then asks again. `entries` are the places of the table with their holders,
    /// those of least worth first. They are read only when no place is chosen ahead.
    pub fn gives_way<I>(&mut self, newcomer: Holder, place: &P, entries: impl FnOnce() -> I) -> Option<P>
    where
        I: Iterator<Item = (Holder, P)>,
    {
        if self.ahead.is_empty() {
            self.choose(newcomer, entries());
        }
        let next = self.ahead.pop()?;
        if *place > next && self.yielding.binary_search(&newcomer).is_ok() {
            self.ahead.push(next);
            return None;
        }
        Some(next)
    }

    /// Whether [`gives_way`](Holdings::gives_way) would give an entry of `newcomer` at `place` the place of another.
    pub fn finds_place<I>(&mut self, newcomer: Holder, place: &P, entries: impl FnOnce() -> I) -> bool
    where
        I: Iterator<Item = (Holder, P)>,
    {
        if self.ahead.is_empty() {
            self.choose(newcomer, entries());
        }
        self.ahead.last().is_some_and(|next| place <= next || self.yielding.binary_search(&newcomer).is_err())
    }

    fn choose(&mut self, newcomer: Holder, entries: impl Iterator<Item = (Holder, P)>) {
        self.add(newcomer);
        let mut most: Vec<(Holder, u32)> =
            self.counts.iter().map(|(holder, count)| (*holder, *count)).collect();
        self.remove(&newcomer);
        for level in LEVELS {
            let groups = || most.chunk_by(|a, b| a.0.is_one_with(&b.0, level));
            let size =
                |group: &[(Holder, u32)]| group.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
            let largest = groups().map(size).max();
            most = groups().filter(|group| Some(size(group)) == largest).flatten().copied().collect();
        }
        let mut places = (self.total / AHEAD_OF_TABLE).max(1);
        if let [(_, count)] = most[..] {
            places = places.min((count / AHEAD_OF_HOLDER).max(1) as usize);
        }
        let mut left: Vec<bool> = vec![true; most.len()];
        let alone = most.len() == 1;
        for (holder, place) in entries {
            if self.ahead.len() == places {
                break;
            }
            let Ok(index) = most.binary_search_by_key(&holder, |(holder, _)| *holder) else { continue };
            // Holders of the same number of entries lose one each.
            if left[index] {
                left[index] = alone;
                self.ahead.push(place);
            }
        }
        self.ahead.reverse();
        self.yielding = most.into_iter().map(|(holder, _)| holder).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn holder(ip: &str, identity: u8) -> Holder {
        Holder { party: Party::of(ip.parse().unwrap()), identity: [identity; 8] }
    }

    /// The entry that gives way among entries of the given addresses, each an identity of its own and worth more than the next.
    fn loser<'a>(ips: &[&'a str]) -> &'a str {
        let entries: Vec<(Holder, usize)> =
            ips.iter().enumerate().map(|(index, ip)| (holder(ip, index as u8), ips.len() - index)).collect();
        ips[gives_way(&entries).unwrap()]
    }

    #[test]
    fn the_party_that_holds_most_gives_way_whatever_its_entries_are_worth() {
        assert_eq!(loser(&["8.8.8.1", "8.8.8.2", "9.9.9.9", "7.7.7.7"]), "8.8.8.2");
        assert_eq!(loser(&["9.9.9.9", "10.0.0.1", "10.0.0.2", "8.8.8.1", "8.8.8.2"]), "8.8.8.2");
    }

    #[test]
    fn worth_alone_decides_between_parties_that_hold_the_same() {
        assert_eq!(loser(&["8.8.8.1", "9.9.9.9", "7.7.7.7"]), "7.7.7.7");
        assert_eq!(loser(&["8.8.8.1", "8.8.8.2", "8.8.8.3"]), "8.8.8.3", "a network in one prefix");
        assert_eq!(loser(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]), "10.0.0.3", "a network in a private range");
    }

    #[test]
    fn a_site_full_of_links_counts_as_one() {
        let site = ["2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1"];
        // One link elsewhere has two entries, more than any link of the site, and the site has three.
        assert_eq!(loser(&[site[0], site[1], site[2], "2001:db8:9::1", "2001:db8:9::2"]), site[2]);
    }

    #[test]
    fn of_a_site_the_home_with_most_gives_way_and_of_that_the_link_with_most() {
        let (home, link) = ("2001:db8:0:100::1", "2001:db8:0:201::1");
        assert_eq!(loser(&[link, "2001:db8:0:201::2", "2001:db8:0:202::1", home, home]), "2001:db8:0:201::2");
    }

    #[test]
    fn of_a_party_the_identity_with_most_gives_way() {
        let entries = [(holder("8.8.8.1", 1), 1), (holder("8.8.8.2", 2), 9), (holder("8.8.8.1", 2), 8)];
        assert_eq!(gives_way(&entries), Some(2));
        assert_eq!(gives_way::<u8>(&[]), None);
    }

    #[test]
    fn when_several_give_way_the_parties_are_cut_to_one_size() {
        let ips = ["8.8.8.1", "8.8.8.2", "8.8.8.3", "9.9.9.1", "9.9.9.2", "7.7.7.7"];
        let entries: Vec<(Holder, i32)> =
            ips.iter().enumerate().map(|(index, ip)| (holder(ip, index as u8), -(index as i32))).collect();
        let losers = |surplus| give_way(&entries, surplus).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(losers(1), [2].into());
        assert_eq!(
            losers(2),
            [2, 4].into(),
            "of two parties with two each, the one whose entry is worth less"
        );
        assert_eq!(losers(3), [1, 2, 4].into());
        assert_eq!(losers(4), [1, 2, 4, 5].into());
        assert_eq!(losers(9).len(), 6);
        assert!(give_way(&entries, 0).is_empty());
    }

    #[test]
    fn a_crowd_is_counted_at_every_level() {
        let others =
            ["2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:100::1", "8.8.8.8"].map(|ip| holder(ip, 1));
        assert_eq!(holder("2001:db8::7", 2).crowd(others.into_iter()), Crowd([3, 2, 1, 0]));
        assert_eq!(holder("8.8.8.8", 1).crowd(others.into_iter()), Crowd([1; 4]));
    }

    /// A table of places that is full with a hundred or more entries.
    #[derive(Default)]
    struct Table {
        holdings: Holdings<u32>,
        places: BTreeMap<u32, Holder>,
        capacity: usize,
    }

    impl Table {
        fn of(capacity: usize) -> Table {
            Table { capacity, ..Table::default() }
        }

        fn enter(&mut self, place: u32, holder: Holder) -> bool {
            assert!(!self.places.contains_key(&place));
            if self.places.len() >= self.capacity {
                let entries = || self.places.iter().rev().map(|(place, holder)| (*holder, *place));
                let Some(victim) = self.holdings.gives_way(holder, &place, entries) else { return false };
                let Some(owner) = self.places.remove(&victim) else { return self.enter(place, holder) };
                self.holdings.remove(&owner);
            }
            self.holdings.add(holder);
            self.places.insert(place, holder);
            true
        }

        /// Whether a newcomer would find a place, without entering it.
        fn would_take(&mut self, place: u32, holder: Holder) -> bool {
            let entries = || self.places.iter().rev().map(|(place, holder)| (*holder, *place));
            self.places.len() < self.capacity || self.holdings.finds_place(holder, &place, entries)
        }

        fn of_party(&self, ip: &str) -> usize {
            let party = Party::of(ip.parse().unwrap());
            self.places.values().filter(|holder| holder.party == party).count()
        }
    }

    #[test]
    fn one_party_with_any_number_of_identities_displaces_only_itself_from_a_full_table() {
        for capacity in [16, 1024] {
            let mut table = Table::of(capacity);
            for honest in 0..10 {
                table.enter(1_000_000 + honest, holder(&format!("9.9.{honest}.1"), 1));
            }
            for place in 0..5000 {
                table.enter(place * 7, holder("8.8.8.8", (place % 251) as u8));
            }
            let kept = (0..10).filter(|honest| table.of_party(&format!("9.9.{honest}.1")) == 1).count();
            assert_eq!(kept, 10, "of a table of {capacity}");
            assert_eq!(table.places.len(), capacity);
        }
    }

    #[test]
    fn a_table_that_one_party_filled_has_room_for_every_other() {
        let mut table = Table::of(512);
        (0..2000).for_each(|place| _ = table.enter(place, holder("8.8.8.8", 1)));
        for honest in 0..100 {
            assert!(table.enter(1_000_000 + honest, holder(&format!("9.9.{honest}.1"), 1)));
        }
        assert_eq!(table.of_party("8.8.8.8"), 412);
    }

    #[test]
    fn whether_a_newcomer_finds_a_place_is_known_before_it_enters() {
        let mut table = Table::of(64);
        let mut told = [0; 2];
        for number in 0..2000_u32 {
            let (place, from) = (number.wrapping_mul(2_654_435_761) >> 8, holder("8.8.8.8", 1));
            let from = if number % 9 == 0 { holder(&format!("9.9.{}.1", number % 5), 1) } else { from };
            if table.places.contains_key(&place) {
                continue;
            }
            let (would, kept) = (table.would_take(place, from), table.places.len());
            assert_eq!(table.places.len(), kept);
            assert_eq!(table.enter(place, from), would, "{number}");
            told[usize::from(would)] += 1;
        }
        assert!(told.iter().all(|count| *count > 50), "{told:?}: both happened");
    }

    #[test]
    fn a_holder_that_yields_keeps_the_entries_of_most_worth() {
        let mut table = Table::of(64);
        for place in (0..1000).rev() {
            table.enter(place, holder("8.8.8.8", 1));
        }
        assert_eq!(table.places.keys().copied().collect::<BTreeSet<_>>(), (0..64).collect());
        assert!(!table.enter(5000, holder("8.8.8.8", 1)), "worth less than all that it has");
    }
}
