//! Whether any other node is there.

use crate::node::machines::Machines;
use crate::time::{Duration, Instant};

/// A node that has seen no other for this long says so: joining takes some seconds, and so does the start of a whole site.
const ALONE_AFTER: Duration = Duration::from_secs(60);

/// When the node last saw another one.
pub(super) struct Company {
    last: Instant,
}

impl Company {
    /// The node has just started.
    pub(super) fn new(now: Instant) -> Self {
        Company { last: now }
    }

    /// Looks whether another node is there now. A leaf is no member, and knows others only as contacts.
    pub(super) fn look(&mut self, now: Instant, machines: &Machines) {
        let Machines { dht, gossip, outbox, .. } = machines;
        self.note(now, gossip.has_live() || outbox.is_leaf() && dht.statistics().contacts > 0);
    }

    fn note(&mut self, now: Instant, there: bool) {
        if there {
            self.last = now;
        }
    }

    /// For how many seconds no other node has been there; `None` unless that is long.
    pub(super) fn alone_seconds(&self, now: Instant) -> Option<u64> {
        let alone = now.since(self.last);
        (alone >= ALONE_AFTER).then_some(alone.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::wire::contact::Contact;

    #[test]
    fn a_node_is_alone_a_minute_after_it_last_saw_another() {
        let at = Instant::from_secs;
        let mut company = Company::new(at(100));
        company.note(at(150), false);
        assert_eq!(company.alone_seconds(at(159)), None, "it may be joining");
        assert_eq!(company.alone_seconds(at(160)), Some(60));
        company.note(at(200), true);
        company.note(at(210), false);
        assert_eq!(company.alone_seconds(at(259)), None);
        assert_eq!(company.alone_seconds(at(280)), Some(80));
    }

    #[test]
    fn a_live_member_is_company() {
        let (start, now) = (Instant::from_secs(100), Instant::from_secs(200));
        let (mut company, mut machines) = (Company::new(start), Machines::alone(start));
        company.look(now, &machines);
        assert_eq!(company.alone_seconds(now), Some(100));
        machines.gossip.note_alive(now, Contact::new(PublicKey([7; 32]), ([127, 0, 0, 7], 1).into()));
        company.look(now, &machines);
        assert_eq!(company.alone_seconds(now), None);
    }
}
