//! Two nodes that exchange datagrams: how each knows the other.

use super::*;
use crate::peers::inbox::{self, Rejected};
use crate::peers::outbox::{Ask, Asker, Attempt, Outbox};
use crate::peers::testing;
use crate::wire::Refused;
use crate::wire::message::Message;

const PING: Message<'static> = Message::Ping { padding: 0 };

fn identity(index: usize) -> Identity {
    Identity::from_secret(&[1 + index as u8; 32])
}

fn addr(index: usize) -> SocketAddr {
    ([10, 0, 0, 1 + index as u8], 3583).into()
}

/// Two nodes.
struct Pair {
    network: Network,
    now: Instant,
    nodes: [Outbox; 2],
    runs: u64,
}

/// How the request and the answer of an exchange were authenticated, and whether a challenge came between them.
type Exchange = (Auth, Auth, bool);

const SIGNED: Exchange = (Auth::Signed, Auth::Signed, false);
const MAC: Exchange = (Auth::Mac, Auth::Mac, false);

impl Pair {
    fn new() -> Self {
        let network = Network::new("test");
        let nodes = [0, 1].map(|index| testing::outbox(&network, identity(index), false, 50 + index as u64));
        Pair { network, now: Instant::from_secs(1000), nodes, runs: 100 }
    }

    /// A pair that exchanges MACs.
    fn acquainted() -> Self {
        let mut pair = Pair::new();
        assert_eq!([pair.exchange(0), pair.exchange(0), pair.exchange(0)], [SIGNED, SIGNED, MAC]);
        pair
    }

    fn restart(&mut self, index: usize) {
        self.runs += 1;
        self.nodes[index] = testing::outbox(&self.network, identity(index), false, self.runs);
    }

    /// The datagram of a ping that a node sends.
    fn ping(&mut self, from: usize, attempt: Attempt) -> Vec<u8> {
        let recipient = Some(identity(1 - from).id());
        let ask = Ask { to: addr(1 - from), recipient, transaction: 7, attempt };
        self.nodes[from].request(self.now, ask, &PING).expect("it fits");
        self.nodes[from].poll().expect("a ping").bytes().to_vec()
    }

    fn receive<'a>(&mut self, at: usize, bytes: &'a [u8]) -> Result<Received<'a>, Rejected> {
        let datagram = Unverified::parse(bytes, &self.network).expect("sound");
        let answers = datagram.kind().is_answer();
        inbox::receive(&mut self.nodes[at], self.now, addr(1 - at), datagram, answers, |_| Hold::Loose)
    }

    /// A ping and its pong, with a challenge when the other node cannot check the ping.
    fn exchange(&mut self, from: usize) -> Exchange {
        let to = 1 - from;
        let (mut ping, mut challenged) = (self.ping(from, Attempt::First), false);
        if self.receive(to, &ping).is_err() {
            let challenge = self.nodes[to].poll().expect("a challenge").bytes().to_vec();
            let challenge = Unverified::parse(&challenge, &self.network).expect("sound");
            assert_eq!(challenge.challenged(), Some(identity(from).id().short()));
            (ping, challenged) = (self.ping(from, Attempt::Challenged(challenge.token())), true);
        }
        let auth = Unverified::parse(&ping, &self.network).expect("sound").auth();
        let received = if challenged { self.receive(to, &ping).ok() } else { None };
        // Without a challenge the ping has been received above.
        let asker = match received {
            Some(received) => Asker::of(addr(from), &received.datagram),
            None => Asker { addr: addr(from), id: identity(from).id(), transaction: 7, auth },
        };
        self.nodes[to].answer(self.now, asker, &Message::Pong { observed: addr(from) }).expect("it fits");
        let pong = self.nodes[to].poll().expect("a pong").bytes().to_vec();
        let answer = self.receive(from, &pong).expect("an answer that the asker can check");
        assert_eq!(answer.standing, Standing::Validated);
        (auth, answer.datagram.auth(), challenged)
    }
}

#[test]
fn a_first_contact_is_signed_and_the_third_exchange_has_macs() {
    let mut pair = Pair::acquainted();
    assert_eq!(pair.exchange(1), MAC, "the other node may ask with a MAC at once");
    assert_eq!(pair.nodes[0].peers().counters().agreed, 1);
}

#[test]
fn a_timeout_follows_the_answers_of_the_peer_and_is_the_callers_for_a_node_without_a_place() {
    let mut pair = Pair::acquainted();
    let (id, first) = (identity(1).id(), Duration::from_millis(700));
    let peers = &mut pair.nodes[0].peers;
    assert_eq!(peers.timeout(&id, first), first, "nothing is measured yet");
    peers.note_answer(&id, None);
    assert_eq!(peers.rtt(&id), None);
    peers.note_answer(&id, Some(Duration::from_millis(100)));
    assert_eq!(peers.rtt(&id), Some(Duration::from_millis(100)));
    assert_eq!(peers.timeout(&id, first), Duration::from_millis(300));
    let stranger = identity(7).id();
    peers.note_answer(&stranger, Some(Duration::from_millis(100)));
    assert_eq!(peers.timeout(&stranger, first), first);
}

#[test]
fn unanswered_requests_count_until_any_answer_and_a_node_without_a_place_is_remembered_too() {
    let mut pair = Pair::acquainted();
    let now = pair.now;
    let peers = &mut pair.nodes[0].peers;
    for id in [identity(1).id(), identity(7).id()] {
        assert_eq!(peers.note_unanswered(now, &id), 1);
        assert_eq!(peers.note_unanswered(now, &id), 2);
        assert_eq!(peers.unanswered(&id), 2);
        assert!(peers.is_silent(now, &id) && !peers.is_silent(now + Duration::from_secs(120), &id));
        peers.note_answer(&id, None);
        assert_eq!(peers.unanswered(&id), 0);
        peers.note_unanswered(now, &id);
        peers.note_reached(now + Duration::from_secs(5), &id);
        assert_eq!(peers.unanswered(&id), 0);
    }
    assert_eq!(peers.heard(&identity(1).id()), Some(now + Duration::from_secs(5)));
    assert_eq!(peers.heard(&identity(7).id()), None);
}

#[test]
fn after_a_restart_of_the_asker_two_signed_exchanges_renew_the_keys() {
    let mut pair = Pair::acquainted();
    pair.restart(0);
    assert_eq!([pair.exchange(0), pair.exchange(0), pair.exchange(0)], [SIGNED, SIGNED, MAC]);
    assert_eq!(pair.nodes[1].peers().counters().restarts, 1);
    assert_eq!(pair.nodes[1].peers().counters().agreed, 1, "the root is still that of the first agreement");
}

#[test]
fn after_a_restart_of_the_other_node_a_challenge_saves_the_request() {
    let mut pair = Pair::acquainted();
    pair.restart(1);
    assert_eq!(pair.exchange(0), (Auth::Signed, Auth::Signed, true));
    // The challenge's token let the restarted node take the key from the repeated request. The asker cannot know that.
    assert_eq!([pair.exchange(0), pair.exchange(0)], [SIGNED, MAC]);
    assert_eq!(pair.exchange(1), MAC);
}

#[test]
fn after_a_restart_of_both_the_keys_are_new() {
    let mut pair = Pair::acquainted();
    let old = pair.ping(0, Attempt::First);
    pair.restart(0);
    pair.restart(1);
    assert_eq!([pair.exchange(0), pair.exchange(0), pair.exchange(0)], [SIGNED, SIGNED, MAC]);
    assert!(pair.receive(1, &old).is_err(), "a datagram of the epochs before");
}

#[test]
fn a_datagram_is_received_once_whatever_authenticates_it() {
    let mut pair = Pair::acquainted();
    for attempt in [Attempt::First, Attempt::Again] {
        let ping = pair.ping(0, attempt);
        assert!(pair.receive(1, &ping).is_ok());
        assert_eq!(pair.receive(1, &ping).err(), Some(Rejected::Replayed), "{attempt:?}");
    }
}

#[test]
fn no_recording_of_the_run_before_brings_that_run_back() {
    let mut pair = Pair::acquainted();
    // Signed, with a token that stays valid for minutes, and never delivered.
    let old = pair.ping(0, Attempt::Again);
    pair.restart(0);
    assert_eq!([pair.exchange(0), pair.exchange(0)], [SIGNED, SIGNED]);
    let received = pair.receive(1, &old).expect("it is answered");
    assert_eq!(received.standing, Standing::Unproven);
    assert_eq!(pair.exchange(0), MAC, "the present run goes on");
}

#[test]
fn a_signed_datagram_without_a_token_changes_no_epoch() {
    let mut pair = Pair::acquainted();
    let mut next = Pair::new();
    next.restart(0);
    let first = next.ping(0, Attempt::First);
    assert_eq!(pair.receive(1, &first).expect("it is answered").standing, Standing::Unproven);
    assert_eq!(pair.exchange(0), MAC);
}

#[test]
fn every_flipped_bit_of_a_mac_datagram_is_refused_and_costs_no_signature_check() {
    let mut pair = Pair::acquainted();
    let ping = pair.ping(0, Attempt::First);
    for bit in 0..ping.len() * 8 {
        let mut wrong = ping.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let Ok(datagram) = Unverified::parse(&wrong, &pair.network) else { continue };
        let now = pair.now;
        let received = inbox::receive(&mut pair.nodes[1], now, addr(0), datagram, false, |_| Hold::Loose);
        assert_eq!(received.err(), Some(Rejected::Refused(Refused::Mac)), "bit {bit}");
    }
    assert!(pair.receive(1, &ping).is_ok(), "none of them used up its number");
    assert_eq!(pair.nodes[1].peers().counters().challenges, 1, "one address, one moment, one challenge");
}

#[test]
fn challenges_are_bounded_for_one_address_and_for_all_and_come_again_later() {
    let mut pair = Pair::acquainted();
    pair.restart(1);
    let ping = pair.ping(0, Attempt::First);
    let mut challenge = |from: SocketAddr, now: Instant| {
        let datagram = Unverified::parse(&ping, &pair.network).expect("sound");
        let sent = pair.nodes[1].challenge(now, from, &datagram);
        pair.nodes[1].poll();
        sent.map(|bytes| assert!(bytes < ping.len(), "it amplifies nothing")).is_some()
    };
    let now = Instant::from_secs(1000);
    assert!(challenge(addr(0), now) && !challenge(addr(0), now));
    let others = (0..1000u16).filter(|port| challenge(([10, 0, 0, 9], 1000 + port).into(), now)).count();
    assert!(others < 100, "{others}");
    assert!(challenge(addr(0), now + Duration::from_secs(1)));
}

#[test]
fn a_mac_from_another_address_authenticates_and_validates_nothing_until_a_token_does() {
    let mut pair = Pair::acquainted();
    let (now, elsewhere) = (pair.now, addr(77));
    let ping = pair.ping(0, Attempt::First);
    let datagram = Unverified::parse(&ping, &pair.network).expect("sound");
    let received = inbox::receive(&mut pair.nodes[1], now, elsewhere, datagram, false, |_| Hold::Loose);
    assert_eq!(received.expect("its sender is known").standing, Standing::Fresh);
    assert_eq!(pair.exchange(0), MAC, "the validated address stays");
}

#[test]
fn of_two_peers_with_one_short_id_each_is_known_by_its_tag() {
    let mut pair = Pair::acquainted();
    let id = identity(0).id();
    let own = End { id: identity(1).id(), epoch: pair.nodes[1].epoch() };
    let network = pair.network.clone();
    // Another key whose id collides in its first eight bytes.
    let mut colliding = id;
    colliding.0[31] ^= 1;
    let peers = &mut pair.nodes[1].peers;
    let epoch = Epoch::new(50);
    let mut twin = Peer::new(Instant::from_secs(1000), identity(2).public(), colliding, epoch, 1, addr(2));
    let root = Root::of(&network, &identity(1), &identity(2).public()).expect("a sound key");
    twin.set_root(root, own, &network);
    assert!(peers.sets.enter(twin, |_| Hold::Loose).is_some());
    assert_eq!(peers.sets.with_short(id.short()).count(), 2);
    let ping = pair.ping(0, Attempt::First);
    assert_eq!(pair.receive(1, &ping).expect("the tag of one fits").datagram.id(), id);
}

#[test]
fn agreements_are_bounded_and_made_up_for_later() {
    let network = Network::new("test");
    let (mut node, now) = (testing::outbox(&network, identity(0), false, 50), Instant::from_secs(1000));
    let mut strangers: Vec<Outbox> = (0..60u8)
        .map(|number| {
            let secret = [100 + number; 32];
            testing::outbox(&network, Identity::from_secret(&secret), false, 7)
        })
        .collect();
    let meet = |node: &mut Outbox, stranger: &mut Outbox, now: Instant| {
        let id = stranger.identity().id();
        let token = node.peers().token_for(now, addr(9), &id);
        let ask = Ask {
            to: addr(0),
            recipient: Some(identity(0).id()),
            transaction: 1,
            attempt: Attempt::Challenged(token),
        };
        stranger.request(now, ask, &PING).expect("it fits");
        let bytes = stranger.poll().expect("a ping").bytes().to_vec();
        let datagram = Unverified::parse(&bytes, &network).expect("sound");
        inbox::receive(node, now, addr(9), datagram, false, |_| Hold::Loose).expect("it has a token");
    };
    strangers.iter_mut().for_each(|stranger| meet(&mut node, stranger, now));
    assert_eq!(node.peers().counters().agreed, u64::from(AGREEMENTS_PER_SECOND));
    assert_eq!(node.peers().len(), 60, "a peer without a key has a place all the same");
    let later = now + Duration::from_secs(1);
    strangers.iter_mut().for_each(|stranger| meet(&mut node, stranger, later));
    assert_eq!(node.peers().counters().agreed, 60);
}
