//! Former contacts: nodes that were dropped from the routing table, and at the start the contacts of the last run.
//!
//! While the table is empty they are nodes to join through. While it is not, the node asks one of them from time to time, at ever
//! longer intervals and without end, as Serf and ringpop do: after a partition the nodes of each half have contacts in their own
//! half, and only a former contact leads to the other half.

use crate::id::NodeId;
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use std::collections::VecDeque;

/// Former contacts that are remembered.
const FORMER_MAX: usize = 64;
/// The pause before the first question to a former contact while the table has contacts.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// The longest pause between two questions. Six nodes on each side of a cut then ask across it every five seconds.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The former contacts, and when the next one is asked.
pub(super) struct FormerContacts {
    /// The latest first.
    contacts: VecDeque<Contact>,
    /// `None` while the table is empty.
    due: Option<Instant>,
    pause: Duration,
    /// Questions since the pause was last made longer.
    asked: usize,
}

impl FormerContacts {
    /// The contacts of the last run, of which the first 64 are remembered.
    pub(super) fn new(remembered: &[Contact]) -> Self {
        let contacts = remembered.iter().take(FORMER_MAX).copied().collect();
        FormerContacts { contacts, due: None, pause: PAUSE_MIN, asked: 0 }
    }

    /// The contacts, the latest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Contact> {
        self.contacts.iter().copied()
    }

    /// The number of contacts.
    pub(super) fn len(&self) -> usize {
        self.contacts.len()
    }

    /// A contact was dropped because it did not answer. The cause may be this node's own link.
    pub(super) fn add(&mut self, contact: Contact) {
        self.remove(&contact.id);
        self.contacts.truncate(FORMER_MAX - 1);
        self.contacts.push_front(contact);
    }

    /// A node is a contact again, or has left. Returns whether it was a former contact.
    pub(super) fn remove(&mut self, id: &NodeId) -> bool {
        let before = self.contacts.len();
        self.contacts.retain(|contact| contact.id != *id);
        self.contacts.len() < before
    }

    /// The next contact in rotation.
    pub(super) fn next(&mut self) -> Option<Contact> {
        let contact = self.contacts.pop_back()?;
        self.contacts.push_front(contact);
        Some(contact)
    }

    /// The table has its first contact: from now on former contacts are asked one by one.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.due, self.pause, self.asked) = (Some(now + PAUSE_MIN), PAUSE_MIN, 0);
    }

    /// The table is empty.
    pub(super) fn stop(&mut self) {
        self.due = None;
    }

    /// When the next contact is due; `None` when there is none to ask.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.filter(|_| !self.contacts.is_empty())
    }

    /// The contact to ask now. After each pass over all of them the pause doubles.
    pub(super) fn due(&mut self, now: Instant) -> Option<Contact> {
        self.next_deadline().filter(|due| *due <= now)?;
        self.asked += 1;
        if self.asked >= self.contacts.len() {
            (self.pause, self.asked) = ((self.pause * 2).min(PAUSE_MAX), 0);
        }
        self.due = Some(now + self.pause);
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

    const START: Instant = Instant::from_secs(100);

    fn contact(number: u8) -> Contact {
        Contact::new(PublicKey([number; 32]), ([10, 0, 0, number], 3583).into())
    }

    #[test]
    fn contacts_are_remembered_once_each_and_up_to_a_bound() {
        let mut former = FormerContacts::new(&[]);
        for number in (0..=u8::MAX).chain([7, 200, 200]) {
            former.add(contact(number));
        }
        let all: Vec<Contact> = former.iter().collect();
        assert_eq!(all.len(), FORMER_MAX);
        assert_eq!(all[..2], [contact(200), contact(7)]);
        assert_eq!(all.iter().filter(|fallen| **fallen == contact(200)).count(), 1);
    }

    #[test]
    fn each_contact_is_asked_in_turn_and_the_pause_grows_up_to_a_bound() {
        let mut former = FormerContacts::new(&[contact(1), contact(2)]);
        assert_eq!(former.next_deadline(), None, "the table is empty");
        former.begin(START);
        let mut asked = Vec::new();
        let mut pauses = Vec::new();
        let mut last = START;
        for _ in 0..12 {
            let at = former.next_deadline().unwrap();
            asked.push(former.due(at).unwrap());
            pauses.push(at.since(last).as_secs());
            last = at;
        }
        assert_eq!(asked[..4], [contact(2), contact(1), contact(2), contact(1)]);
        assert_eq!(pauses, [5, 5, 10, 10, 20, 20, 40, 40, 60, 60, 60, 60]);
    }

    #[test]
    fn a_contact_that_answered_is_not_asked_again_and_without_any_there_is_no_deadline() {
        let mut former = FormerContacts::new(&[contact(1)]);
        former.begin(START);
        assert!(former.remove(&contact(1).id));
        assert!(!former.remove(&contact(1).id));
        assert_eq!(former.next_deadline(), None);
        assert_eq!(former.due(START + PAUSE_MAX), None);
        former.add(contact(2));
        assert_eq!(former.due(START + PAUSE_MAX), Some(contact(2)));
        former.stop();
        assert_eq!(former.next_deadline(), None);
    }
}
