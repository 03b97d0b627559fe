//! Whom a node watches: its nearest neighbours, with a share for each site.
//!
//! A node hears suspicions of its neighbours, gossips with the one that has been silent longest, and probes the nearest of them, the
//! monitored ones, as soon as they are silent. An id is free, so many ids of one owner can surround any node: they must not take all
//! of its places, for nothing would notice the crash of a node behind them. One site has a quarter of the places while members of other sites
//! are there to take the rest. Where there are none, as in a network in one /24, it has them all.

use crate::peers::party::Party;

/// The part of the places that one site has, while other sites contest them: one in this many.
const SITE_SHARE: usize = 4;

/// How closely a member is watched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Watched {
    /// Not at all.
    No,
    /// It is a neighbour.
    Neighbour,
    /// It is one of the nearest neighbours, and probed as soon as it is silent.
    Monitored,
}

/// The places of one kind.
struct Places {
    all: usize,
    free: usize,
}

impl Places {
    fn new(all: usize) -> Self {
        Places { all, free: all }
    }

    /// Whether a member takes a place of which so many nearer members are of its site.
    fn has_room_beside(&self, of_site: usize) -> bool {
        self.free > 0 && of_site < self.all.div_ceil(SITE_SHARE)
    }
}

/// The choice of the members that are watched.
pub(super) struct Watch {
    neighbours: Places,
    monitored: Places,
    /// Members of each site so far. Each site has a place, so there are no more than places.
    sites: Vec<(Party, usize)>,
}

impl Watch {
    /// This many neighbours are watched, and of those this many monitored.
    pub(super) fn new(neighbours: usize, monitored: usize) -> Self {
        let sites = Vec::with_capacity(neighbours);
        Watch { neighbours: Places::new(neighbours), monitored: Places::new(monitored), sites }
    }

    /// Begins a new choice. All members that may be watched are to be [admitted](Watch::admit) then, nearest first, and then the
    /// [rest](Watch::fill) of the places is filled.
    pub(super) fn begin(&mut self) {
        self.neighbours.free = self.neighbours.all;
        self.monitored.free = self.monitored.all;
        self.sites.clear();
    }

    /// The number of members that are watched.
    pub(super) fn len(&self) -> usize {
        self.neighbours.all - self.neighbours.free
    }

    /// Whether places are left.
    pub(super) fn has_room(&self) -> bool {
        self.neighbours.free > 0 || self.monitored.free > 0
    }

    /// The place of the next member, which is of this site, within the share of its site.
    pub(super) fn admit(&mut self, site: Party) -> Watched {
        if self.neighbours.free == 0 {
            return Watched::No;
        }
        let known = self.sites.iter_mut().find(|(other, _)| *other == site);
        let of_site = match known {
            Some((_, count)) => {
                *count += 1;
                *count - 1
            }
            None => {
                self.sites.push((site, 1));
                0
            }
        };
        if self.monitored.has_room_beside(of_site) {
            self.place(Watched::No, Watched::Monitored)
        } else if self.neighbours.has_room_beside(of_site) {
            self.place(Watched::No, Watched::Neighbour)
        } else {
            Watched::No
        }
    }

    /// The place of a member for which its site's share left this one: places that no other site takes are taken beyond the share.
    /// To be called for all members once more, nearest first.
    pub(super) fn fill(&mut self, watched: Watched) -> Watched {
        let is_neighbour = watched != Watched::No;
        if watched != Watched::Monitored
            && self.monitored.free > 0
            && (is_neighbour || self.neighbours.free > 0)
        {
            return self.place(watched, Watched::Monitored);
        }
        if !is_neighbour && self.neighbours.free > 0 {
            return self.place(watched, Watched::Neighbour);
        }
        watched
    }

    fn place(&mut self, before: Watched, now: Watched) -> Watched {
        self.neighbours.free -= usize::from(before == Watched::No);
        self.monitored.free -= usize::from(now == Watched::Monitored);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::Watched::{Monitored, Neighbour, No};
    use super::*;

    /// How members of these sites are watched with 8 places, 4 of them monitored.
    fn watched(sites: &[u8]) -> Vec<Watched> {
        let mut watch = Watch::new(8, 4);
        watch.begin();
        let site = |net: u8| Party::of([9, 9, net, 1].into());
        let admitted: Vec<Watched> = sites.iter().map(|net| watch.admit(site(*net))).collect();
        let chosen: Vec<Watched> = admitted.into_iter().map(|watched| watch.fill(watched)).collect();
        let of = |least| chosen.iter().filter(|watched| **watched >= least).count();
        assert_eq!(of(Neighbour), watch.len());
        assert_eq!((of(Neighbour), of(Monitored)), (sites.len().min(8), sites.len().min(4)));
        chosen
    }

    #[test]
    fn the_nearest_members_are_watched_where_each_is_of_another_site() {
        let nearest = [[Monitored; 4], [Neighbour; 4], [No; 4]].concat();
        assert_eq!(watched(&(1..=12).collect::<Vec<_>>()), nearest);
    }

    #[test]
    fn the_nearest_members_are_watched_where_all_are_of_one_site() {
        let nearest = [[Monitored; 4], [Neighbour; 4], [No; 4]].concat();
        assert_eq!(watched(&[1; 12]), nearest);
        assert_eq!(watched(&[1; 3]), [Monitored; 3]);
    }

    #[test]
    fn a_site_that_surrounds_the_node_has_a_quarter_of_the_places() {
        let sites = [[1; 10].as_slice(), &[2, 3, 4, 5, 6, 7, 8]].concat();
        let expected = [
            [Monitored, Neighbour].as_slice(),
            &[No; 8],
            &[Monitored, Monitored, Monitored, Neighbour, Neighbour, Neighbour, No],
        ];
        assert_eq!(watched(&sites), expected.concat());
    }

    #[test]
    fn a_site_takes_the_places_that_no_other_needs() {
        let sites = [[1; 10].as_slice(), &[2, 3]].concat();
        let expected = [[Monitored; 2].as_slice(), &[Neighbour; 4], &[No; 4], &[Monitored; 2]];
        assert_eq!(watched(&sites), expected.concat());
    }
}
