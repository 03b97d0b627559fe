//! Selecting the contacts nearest to a key in bounded space.

use crate::id::{Distance, Key};
use crate::wire::contact::Contact;

/// The `n` of `contacts` that are nearest to `target`, nearest first.
pub fn closest<'a>(contacts: impl Iterator<Item = &'a Contact>, target: &Key, n: usize) -> Vec<Contact> {
    let mut slots = vec![None; n];
    let mut nearest = Nearest::new(target, &mut slots);
    for contact in contacts {
        nearest.offer(&contact.id.key(), contact);
    }
    nearest.iter().copied().copied().collect()
}

/// One place in a [`Nearest`]: the first eight bytes of the distance, the whole distance, and the item.
pub(super) type Slot<T> = Option<(u64, Distance, T)>;

/// The nearest of all items that were offered, in as many places as the caller lends.
pub(super) struct Nearest<'s, T> {
    target: Key,
    slots: &'s mut [Slot<T>],
    length: usize,
    /// The first eight bytes of the farthest distance kept, once every place is taken: one comparison then rejects most offers.
    farthest: u64,
}

impl<'s, T: Copy> Nearest<'s, T> {
    /// A selection that fills `slots` from the front.
    pub(super) fn new(target: &Key, slots: &'s mut [Slot<T>]) -> Self {
        let farthest = if slots.is_empty() { 0 } else { u64::MAX };
        Nearest { target: *target, slots, length: 0, farthest }
    }

    /// Keeps `item`, whose key is `place`, if there is room or it is nearer than an item that is kept.
    #[inline]
    pub(super) fn offer(&mut self, place: &Key, item: T) {
        let leading = leading(place) ^ leading(&self.target);
        if leading <= self.farthest {
            self.insert(leading, place.distance(&self.target), item);
        }
    }

    /// Whether every place is taken.
    pub(super) fn is_full(&self) -> bool {
        self.length == self.slots.len()
    }

    /// The kept items, nearest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots[..self.length].iter().flatten().map(|(_, _, item)| item)
    }

    fn insert(&mut self, leading: u64, distance: Distance, item: T) {
        let capacity = self.slots.len();
        let after = |slot: &Slot<T>| slot.as_ref().is_some_and(|(_, kept, _)| *kept <= distance);
        let index = self.slots[..self.length].partition_point(after);
        if index == capacity {
            return;
        }
        if self.length < capacity {
            self.length += 1;
        }
        self.slots[index..self.length].rotate_right(1);
        self.slots[index] = Some((leading, distance, item));
        if self.length == capacity {
            self.farthest = self.slots[capacity - 1].as_ref().map_or(u64::MAX, |(kept, ..)| *kept);
        }
    }
}

fn leading(key: &Key) -> u64 {
    key.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::rng::Rng;

    fn contacts(count: usize) -> Vec<Contact> {
        let mut rng = Rng::new([1; 32]);
        (0..count).map(|_| Contact::new(PublicKey(rng.bytes()), ([127, 0, 0, 1], 1).into())).collect()
    }

    #[test]
    fn it_agrees_with_sorting_everything() {
        let mut all = contacts(500);
        let target = Key([7; 32]);
        for n in [0, 1, 20, 499, 500, 600] {
            let found = closest(all.iter(), &target, n);
            all.sort_by_key(|contact| contact.id.distance(&target));
            assert_eq!(found, all[..n.min(500)]);
        }
    }

    #[test]
    fn ties_in_the_first_bytes_are_resolved() {
        let mut all = contacts(3);
        for (index, contact) in all.iter_mut().enumerate() {
            contact.id.0 = [0; 32];
            contact.id.0[31] = 3 - index as u8;
        }
        let found = closest(all.iter(), &Key([0; 32]), 2);
        assert_eq!(found, [all[2], all[1]]);
    }
}
