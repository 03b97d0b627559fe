//! Accounts: how many bytes of the store each holder has, and each site, in the order in which they give way.
//!
//! A contest finds the largest site, and in it the holders that give way first, without a look at the others: the time is logarithmic
//! in their number. Only a contest inside the newcomer's own site reads all holders of that site.

use crate::peers::contest::Holder;
use crate::peers::party::{Level, Party};
use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Where a holder stands in its site: those of unclaimed pieces come first, then those with most.
type Standing = (Party, bool, Reverse<u64>, Holder);

/// Holders that count as one at a level. At no level each counts by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Group {
    /// One of them.
    pub(super) one: Holder,
    pub(super) level: Option<Level>,
}

impl Group {
    pub(super) fn contains(&self, holder: &Holder) -> bool {
        self.one.is_one_with(holder, self.level)
    }

    /// A bound below all holders of the group, and of its site above it. Holders of one group are neighbours in their order.
    pub(super) fn first(&self) -> Holder {
        match self.level {
            Some(level) => Holder { party: self.one.party.at(level), identity: [0; 8] },
            None => self.one,
        }
    }
}

/// The accounts.
#[derive(Default)]
pub(super) struct Accounts {
    holders: BTreeMap<Holder, u64>,
    order: BTreeSet<Standing>,
    sites: BTreeMap<Party, u64>,
    largest: BTreeSet<(u64, Party)>,
}

fn site_of(holder: &Holder) -> Party {
    holder.party.at(Level::Site)
}

/// The standing of a holder with these bytes. The identity of unclaimed pieces is zero.
fn standing(holder: Holder, bytes: u64) -> Standing {
    (site_of(&holder), holder.identity != [0; 8], Reverse(bytes), holder)
}

impl Accounts {
    /// A holder has these bytes more.
    pub(super) fn add(&mut self, holder: Holder, bytes: u64) {
        let before = self.holders.get(&holder).copied().unwrap_or(0);
        self.set(holder, before, before + bytes);
    }

    /// A holder has these bytes less.
    pub(super) fn remove(&mut self, holder: &Holder, bytes: u64) {
        let Some(before) = self.holders.get(holder).copied() else {
            return debug_assert!(false, "bytes that were never added");
        };
        self.set(*holder, before, before.saturating_sub(bytes));
    }

    fn set(&mut self, holder: Holder, before: u64, after: u64) {
        let site = site_of(&holder);
        let all = self.sites.get(&site).copied().unwrap_or(0);
        let rest = all - before + after;
        self.order.remove(&standing(holder, before));
        self.largest.remove(&(all, site));
        if after > 0 {
            self.holders.insert(holder, after);
            self.order.insert(standing(holder, after));
        } else {
            self.holders.remove(&holder);
        }
        if rest > 0 {
            self.sites.insert(site, rest);
            self.largest.insert((rest, site));
        } else {
            self.sites.remove(&site);
        }
    }

    /// The site with most, and its bytes.
    pub(super) fn largest_site(&self) -> Option<(Party, u64)> {
        self.largest.last().map(|(bytes, site)| (*site, *bytes))
    }

    /// The bytes of the site of a holder.
    pub(super) fn of_site(&self, holder: &Holder) -> u64 {
        self.sites.get(&site_of(holder)).copied().unwrap_or(0)
    }

    /// All holders of a site and their bytes, in order.
    pub(super) fn holders_of(&self, site: Party) -> impl Iterator<Item = (Holder, u64)> + '_ {
        let first = Holder { party: site, identity: [0; 8] };
        let from = self.holders.range(first..).map(|(holder, bytes)| (*holder, *bytes));
        from.take_while(move |(holder, _)| site_of(holder) == site)
    }

    /// The holders of a group, in the order in which they give way.
    pub(super) fn yielding(&self, group: Group) -> impl Iterator<Item = Holder> + '_ {
        let site = site_of(&group.one);
        let first =
            (site, false, Reverse(u64::MAX), Holder { party: Party::from_bytes([0; 16]), identity: [0; 8] });
        let from = self.order.range(first..).take_while(move |(of, ..)| *of == site);
        from.map(|(.., holder)| *holder).filter(move |holder| group.contains(holder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(net: u8, identity: u8) -> Holder {
        Holder { party: Party::of([9, 9, net, 1].into()), identity: [identity; 8] }
    }

    #[test]
    fn the_largest_site_is_found_as_bytes_come_and_go() {
        let mut accounts = Accounts::default();
        accounts.add(holder(1, 1), 10);
        accounts.add(holder(1, 2), 10);
        accounts.add(holder(2, 3), 15);
        assert_eq!(accounts.largest_site(), Some((holder(1, 1).party, 20)));
        accounts.remove(&holder(1, 1), 6);
        assert_eq!(accounts.largest_site(), Some((holder(2, 1).party, 15)));
        assert_eq!(accounts.of_site(&holder(1, 9)), 14);
        accounts.remove(&holder(1, 1), 4);
        accounts.remove(&holder(1, 2), 10);
        accounts.remove(&holder(2, 3), 15);
        assert_eq!(accounts.largest_site(), None);
        assert!(accounts.holders.is_empty() && accounts.order.is_empty() && accounts.sites.is_empty());
    }

    #[test]
    fn unclaimed_pieces_and_then_the_largest_holders_give_way_first() {
        let mut accounts = Accounts::default();
        for (identity, bytes) in [(1, 10), (2, 30), (0, 5), (3, 20)] {
            accounts.add(holder(1, identity), bytes);
        }
        accounts.add(holder(2, 4), 99);
        let group = Group { one: holder(1, 1), level: Some(Level::Site) };
        let order: Vec<u8> = accounts.yielding(group).map(|holder| holder.identity[0]).collect();
        assert_eq!(order, [0, 2, 3, 1]);
        let alone = Group { one: holder(1, 3), level: None };
        assert_eq!(accounts.yielding(alone).collect::<Vec<_>>(), [holder(1, 3)]);
    }
}
