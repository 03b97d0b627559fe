//! One machine under attack: forged states, replays, floods.

use super::super::*;
use super::config;
use super::net::{Net, address, identity};
use crate::identity::Identity;
use crate::time::Duration;
use crate::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Epoch, Unverified, write};
use crate::wire::gossip::{GossipBody, Hops};
use crate::wire::network::Network;
use crate::wire::state::{About, StateMark};

const NOW: Instant = Instant::from_secs(1000);

/// A machine and its outbox. The test plays all other nodes.
struct Lone {
    gossip: Gossip,
    outbox: Outbox,
    network: Network,
    sequence: u64,
    /// The standing of the datagrams that are handed in.
    standing: Standing,
}

impl Lone {
    fn new(config: GossipConfig) -> Self {
        let (network, own) = (Network::new("test"), identity(0));
        let gossip = Gossip::new(config, own.public(), false, 1 << 32, [5; 32], NOW);
        let outbox = crate::peers::testing::outbox(&network, own, false, 1);
        Lone { gossip, outbox, network, sequence: 0, standing: Standing::Fresh }
    }

    fn hand_in(
        &mut self,
        now: Instant,
        sender: &Identity,
        from: SocketAddr,
        message: &Message<'_>,
    ) -> Vec<Vec<u8>> {
        self.sequence += 1;
        self.hand_in_numbered(now, sender, from, (self.sequence, 7), message)
    }

    /// Hands in one datagram, and returns the datagrams that the machine sends in return.
    fn hand_in_numbered(
        &mut self,
        now: Instant,
        sender: &Identity,
        from: SocketAddr,
        (sequence, transaction): (u64, u64),
        message: &Message<'_>,
    ) -> Vec<Vec<u8>> {
        let own = self.outbox.identity().id();
        let envelope = Envelope {
            recipient: Some(own),
            leaf: false,
            epoch: Epoch::new(1),
            sequence,
            transaction,
            token: 0,
        };
        let mut bytes = [0; DATAGRAM_BYTES_MAX];
        let length = write(&mut bytes, &self.network, sender, &envelope, message).unwrap();
        let datagram = Unverified::parse(&bytes[..length], &self.network).unwrap();
        let datagram = datagram.verify(&self.network, &own).unwrap();
        self.gossip.handle_datagram(now, from, &datagram, self.standing, &mut self.outbox);
        self.sent().into_iter().map(|(_, bytes)| bytes).collect()
    }

    fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let taken = |sent: &crate::peers::outbox::Datagram| (sent.to(), sent.bytes().to_vec());
        core::iter::from_fn(|| self.outbox.poll().map(taken)).collect()
    }

    /// Advances the time while no other node answers. Returns what the machine sends.
    fn run_until(&mut self, until: Instant) -> Vec<(Instant, SocketAddr, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(due) = self.gossip.next_deadline().filter(|due| *due <= until) {
            self.gossip.handle_timeout(due, &mut self.outbox);
            all.extend(self.sent().into_iter().map(|(to, bytes)| (due, to, bytes)));
        }
        all
    }

    fn state(&self, index: usize, sequence: u64) -> NodeState {
        let about = About { addrs: [Some(address(index)), None], ..About::default() };
        NodeState::new(&self.network, &identity(index), &about, sequence)
    }

    fn meet(&mut self, now: Instant, index: usize) -> Contact {
        let contact = Contact::new(identity(index).public(), address(index));
        self.gossip.note_alive(now, contact);
        contact
    }
}

/// The hops of `states` states, all of them news.
fn news(states: usize) -> Hops {
    let mut hops = Hops::NO_NEWS;
    (0..states).for_each(|index| hops.set(index, 0));
    hops
}

fn gossip(states: &[NodeState]) -> Message<'_> {
    Message::Gossip(GossipBody {
        states,
        digest: &[],
        nearest: 0,
        whole: false,
        hops: news(states.len()),
        suspicions: &[],
    })
}

fn suspecting<'a>(states: &'a [NodeState], suspicions: &'a [StateMark]) -> Message<'a> {
    Message::Gossip(GossipBody {
        states,
        digest: &[],
        nearest: 0,
        whole: false,
        hops: Hops::NO_NEWS,
        suspicions,
    })
}

fn liveness(lone: &Lone, index: usize) -> Option<Liveness> {
    lone.gossip.member(&identity(index).id()).map(|member| member.liveness)
}

#[test]
fn an_older_state_of_a_member_changes_nothing() {
    let mut lone = Lone::new(config());
    lone.meet(NOW, 1);
    let (own, new, old) = (lone.state(1, 5), lone.state(2, 9), lone.state(2, 8));
    lone.hand_in(NOW, &identity(1), address(1), &gossip(&[own, new]));
    assert_eq!(lone.gossip.member(&identity(2).id()).unwrap().state, Some(new));
    lone.hand_in(NOW, &identity(1), address(1), &gossip(&[own, old]));
    assert_eq!(lone.gossip.member(&identity(2).id()).unwrap().state, Some(new));
}

#[test]
fn a_state_of_another_network_is_refused() {
    let mut lone = Lone::new(config());
    lone.meet(NOW, 1);
    let own = lone.state(1, 5);
    let elsewhere = Network::new("elsewhere");
    let foreign = NodeState::new(&elsewhere, &identity(3), &About::default(), 9);
    lone.hand_in(NOW, &identity(1), address(1), &gossip(&[own, foreign]));
    assert_eq!(liveness(&lone, 3), None);
    assert_eq!(lone.gossip.counters.state_forged, 1);
}

#[test]
fn a_known_state_costs_no_signature_check() {
    let config = GossipConfig { state_checks_per_second_max: 10, ..config() };
    let mut lone = Lone::new(config);
    lone.meet(NOW, 1);
    let states = [lone.state(1, 5), lone.state(2, 9)];
    for _ in 0..50 {
        lone.hand_in(NOW, &identity(1), address(1), &gossip(&states));
    }
    assert_eq!(lone.gossip.counters.state_over_budget, 0);
    for sequence in 10..60 {
        let states = [states[0], lone.state(2, sequence)];
        lone.hand_in(NOW, &identity(1), address(1), &gossip(&states));
    }
    assert_eq!(lone.gossip.counters.state_over_budget, 42, "of 52 signatures ten were checked");
}

#[test]
fn a_third_party_can_neither_revive_nor_kill_a_member() {
    let mut lone = Lone::new(config());
    lone.meet(NOW, 1);
    lone.meet(NOW, 2);
    let own = lone.state(1, 5);
    lone.hand_in(NOW, &identity(1), address(1), &gossip(&[own, lone.state(2, 5)]));
    lone.hand_in(NOW, &identity(1), address(1), &gossip(&[own, lone.state(3, 5)]));
    assert_eq!(liveness(&lone, 3), Some(Liveness::Unproven));

    // A suspicion makes the machine probe, and nothing else.
    let soon = NOW + Duration::from_secs(7);
    lone.run_until(soon);
    lone.gossip.note_alive(soon, Contact::new(identity(1).public(), address(1)));
    let marks = [StateMark::new(identity(2).id().short(), 5)];
    lone.hand_in(soon, &identity(1), address(1), &suspecting(&[own], &marks));
    assert!(matches!(liveness(&lone, 2), Some(Liveness::Live | Liveness::Suspect)));

    // Two members are silent, while a third sends newer and newer states of theirs.
    for second in (8..1200).step_by(5) {
        let now = NOW + Duration::from_secs(second);
        lone.run_until(now);
        lone.gossip.note_alive(now, Contact::new(identity(1).public(), address(1)));
        let relayed = lone.state(2, 100 + second);
        lone.hand_in(now, &identity(1), address(1), &gossip(&[own, relayed]));
    }
    assert_eq!(liveness(&lone, 1), Some(Liveness::Live));
    assert_eq!(liveness(&lone, 2), Some(Liveness::Evicted));
    assert!(lone.gossip.neighbourhood().all(|member| member.contact.id == identity(1).id()));
}

#[test]
fn a_request_that_may_be_a_recording_only_has_its_sender_probed() {
    let mut lone = Lone::new(config());
    lone.meet(NOW, 1);
    let own = lone.state(1, 5);
    let later = NOW + Duration::from_secs(4);
    let heard = |lone: &Lone| lone.gossip.member(&identity(1).id()).unwrap().heard;
    lone.standing = Standing::Unproven;
    assert_eq!(lone.hand_in(later, &identity(1), address(1), &gossip(&[own])).len(), 1, "it is answered");
    assert_eq!(heard(&lone), Some(NOW));
    let probes = lone.run_until(later + Duration::from_millis(500));
    assert!(probes.iter().any(|(_, to, _)| *to == address(1)), "{probes:?}");
    lone.standing = Standing::Fresh;
    lone.hand_in(later, &identity(1), address(1), &gossip(&[own]));
    assert_eq!(heard(&lone), Some(later));
}

#[test]
fn a_member_that_said_goodbye_returns_in_another_epoch_only() {
    let mut lone = Lone::new(config());
    let contact = lone.meet(NOW, 1);
    let (soon, own) = (NOW + Duration::from_secs(1), lone.state(1, 1 << 32 | 5));
    lone.gossip.note_leave(NOW, &contact.id, lone.outbox.epoch(), true, 1 << 32 | 5);
    lone.hand_in(soon, &identity(1), address(1), &gossip(&[own]));
    assert_eq!(liveness(&lone, 1), Some(Liveness::Left { for_good: true }), "a late request of the same run");
    let mut back = Lone::new(config());
    back.meet(NOW, 1);
    back.gossip.note_leave(NOW, &contact.id, Epoch::new(77), true, 1 << 32 | 5);
    back.hand_in(soon, &identity(1), address(1), &gossip(&[back.state(1, 2 << 32 | 1)]));
    assert_eq!(liveness(&back, 1), Some(Liveness::Live), "the next run, a second later");
}

#[test]
fn a_suspected_node_refutes_no_more_often_than_it_must() {
    let mut lone = Lone::new(config());
    lone.meet(NOW, 1);
    let own = lone.state(1, 5);
    let short = lone.gossip.own_id.short();
    let before = lone.gossip.sequence();
    for _ in 0..20 {
        let marks = [StateMark::new(short, lone.gossip.sequence())];
        let answer = lone.hand_in(NOW, &identity(1), address(1), &suspecting(&[own], &marks));
        assert_eq!(answer.len(), 1);
    }
    assert_eq!(lone.gossip.sequence() - before, 2);
    assert_eq!(lone.gossip.counters.refuted, 2);
    assert_eq!(lone.gossip.statistics().local_health, 2);
    let marks = [StateMark::new(short, u64::MAX)];
    let later = NOW + Duration::from_secs(4);
    lone.hand_in(later, &identity(1), address(1), &suspecting(&[own], &marks));
    assert_eq!(
        lone.gossip.counters.refuted, 2,
        "a number that the node has never used is no reason to refute"
    );
    // A state of an earlier run that it does not remember.
    let forgotten = lone.state(0, 9 << 32);
    lone.hand_in(later, &identity(1), address(1), &gossip(&[own, forgotten]));
    assert_eq!(lone.gossip.sequence(), (9 << 32) + 1);
}

#[test]
fn an_unvalidated_address_is_sent_at_most_three_times_what_it_sent() {
    let mut lone = Lone::new(config());
    for index in 1..60 {
        lone.meet(NOW, index);
        let own = lone.state(index, 5);
        lone.hand_in(NOW, &identity(index), address(index), &gossip(&[own]));
    }
    let states = [lone.state(100, 5)];
    let victim = SocketAddr::from(([192, 0, 2, 9], 9));
    let body = GossipBody {
        states: &states,
        digest: &[],
        nearest: 0,
        whole: true,
        hops: Hops::NO_NEWS,
        suspicions: &[],
    };
    let request = 48 + 96 + 8 + 160;
    let mut sent = 0;
    for round in 0..20 {
        let answers = lone.hand_in(NOW, &identity(100), victim, &Message::Gossip(body));
        assert_eq!(answers.len(), 1, "round {round}");
        sent += answers[0].len();
    }
    let later = lone.run_until(NOW + Duration::from_secs(600));
    sent += later.iter().filter(|(_, to, _)| *to == victim).map(|(_, _, bytes)| bytes.len()).sum::<usize>();
    assert!(sent <= 3 * 20 * request, "{sent} bytes for {}", 20 * request);
    assert!(lone.gossip.counters.shortened >= 20);
}

/// The members that the reply to a gossip with this digest tells of. Node 70 sends the gossip.
fn told_of(lone: &mut Lone, digest: &[StateMark]) -> Vec<NodeId> {
    let states = [lone.state(70, 5)];
    let body = GossipBody {
        states: &states,
        digest,
        nearest: 0,
        whole: false,
        hops: Hops::NO_NEWS,
        suspicions: &[],
    };
    let answers = lone.hand_in(NOW, &identity(70), address(70), &Message::Gossip(body));
    let reply = Unverified::parse(&answers[0], &lone.network).unwrap();
    let reply = reply.verify(&lone.network, &identity(70).id()).unwrap();
    let Message::GossipReply(reply) = reply.message() else { panic!("another message") };
    reply.states[1..].iter().map(|state| state.public().node_id()).collect()
}

#[test]
fn a_reply_fills_the_gaps_in_a_run_of_a_digest_but_not_in_one_that_is_named_backwards() {
    let mut lone = Lone::new(config());
    for index in 1..30 {
        lone.meet(NOW, index);
        let own = lone.state(index, 5);
        let alone = GossipBody {
            states: &[own],
            digest: &[],
            nearest: 0,
            whole: false,
            hops: Hops::NO_NEWS,
            suspicions: &[],
        };
        lone.hand_in(NOW, &identity(index), address(index), &Message::Gossip(alone));
    }
    lone.meet(NOW, 70);
    let asker = identity(70).id().key();
    let mut ids: Vec<NodeId> = (1..30).map(|index| identity(index).id()).collect();
    ids.sort_by_key(|id| id.distance(&asker));
    let mut run: Vec<StateMark> =
        [10, 11, 14, 15].iter().map(|&rank: &usize| StateMark::new(ids[rank].short(), 5)).collect();
    let mut told = told_of(&mut lone, &run);
    told.sort_by_key(|id| id.distance(&asker));
    assert_eq!(told, [ids[12], ids[13]]);
    run.reverse();
    assert_eq!(told_of(&mut lone, &run), []);
}

#[test]
fn the_view_is_bounded_and_keeps_the_nearest() {
    let config = GossipConfig { view_max: 128, state_checks_per_second_max: 10_000, ..config() };
    let mut lone = Lone::new(config);
    lone.meet(NOW, 1);
    let own = lone.state(1, 5);
    let mut ids: Vec<_> = (1..1500).map(|index| identity(index).id()).collect();
    for index in 2..1500 {
        let now = NOW + Duration::from_millis(10 * index as u64);
        let relayed = lone.state(index, 5);
        lone.hand_in(now, &identity(1), address(1), &gossip(&[own, relayed]));
        assert!(lone.gossip.members().count() <= 128);
    }
    let key = lone.gossip.own_id.key();
    ids.sort_by_key(|id| id.distance(&key));
    for id in &ids[..40] {
        assert!(lone.gossip.member(id).is_some(), "one of the nearest is missing");
    }
    assert_eq!(liveness(&lone, 1), Some(Liveness::Live), "a contacted member stays");
    assert!(lone.gossip.counters.view_full > 0);
}

/// A node of index `index` in a public prefix.
fn in_prefix(index: usize) -> Contact {
    Contact::new(
        identity(index).public(),
        SocketAddr::from(([8, 8, 8, index as u8], 1 + (index / 256) as u16)),
    )
}

/// The members at addresses of that prefix.
fn of_prefix(lone: &Lone) -> usize {
    let inside = |member: &Member| member.contact.addr.ip().to_string().starts_with("8.8.8.");
    lone.gossip.members().filter(inside).count()
}

#[test]
fn a_network_in_one_prefix_fills_the_view_like_any_other() {
    let mut lone = Lone::new(config());
    for index in 1..250 {
        lone.gossip.note_alive(NOW, in_prefix(index));
    }
    assert_eq!(of_prefix(&lone), 249);
}

#[test]
fn a_prefix_that_fills_the_view_leaves_every_other_member_its_place() {
    let mut lone = Lone::new(GossipConfig { view_max: 128, ..config() });
    for index in 1..20 {
        lone.meet(NOW, index);
    }
    for index in 20..1500 {
        let now = NOW + Duration::from_millis(50 * index as u64);
        lone.gossip.note_alive(now, in_prefix(index));
    }
    assert!((1..20).all(|index| liveness(&lone, index) == Some(Liveness::Live)));
    assert_eq!(of_prefix(&lone), 128 - 19);
    // Another node that is near finds a place in the full view.
    let key = lone.gossip.own_id.key();
    let near = (2000..4000).min_by_key(|&index| identity(index).id().distance(&key)).unwrap();
    lone.gossip
        .note_alive(NOW + Duration::from_secs(90), Contact::new(identity(near).public(), address(near)));
    assert_eq!(liveness(&lone, near), Some(Liveness::Live));
    assert_eq!(of_prefix(&lone), 128 - 20);
}

#[test]
fn members_that_were_only_named_give_way_to_one_that_answers() {
    let mut lone = Lone::new(GossipConfig { view_max: 128, ..config() });
    lone.meet(NOW, 1);
    let own = lone.state(1, 5);
    for index in 2..250 {
        let about = About { addrs: [Some(in_prefix(index).addr), None], ..About::default() };
        let state = NodeState::new(&lone.network, &identity(index), &about, 5);
        let now = NOW + Duration::from_millis(20 * index as u64);
        lone.hand_in(now, &identity(1), address(1), &gossip(&[own, state]));
    }
    lone.gossip.note_alive(NOW + Duration::from_secs(9), in_prefix(300));
    assert_eq!(liveness(&lone, 300), Some(Liveness::Live));
}

#[test]
fn a_relay_probes_contacted_members_only_and_within_its_rate_limit() {
    let mut lone = Lone::new(config());
    let (asker, target) = (lone.meet(NOW, 1), lone.meet(NOW, 2));
    let own = lone.state(1, 5);
    lone.hand_in(NOW, &identity(1), asker.addr, &gossip(&[own, lone.state(3, 5)]));
    let ask = |lone: &mut Lone, target: NodeId| {
        lone.hand_in(NOW, &identity(1), address(1), &Message::Probe { target });
    };
    let unproven = identity(3).id();
    ask(&mut lone, unproven);
    ask(&mut lone, identity(9).id());
    assert_eq!(lone.gossip.counters.probes_refused, 2);
    assert_eq!(lone.gossip.counters.probes_relayed, 0);
    for _ in 0..50 {
        ask(&mut lone, target.id);
    }
    assert_eq!(lone.gossip.counters.probes_relayed, 8);
}

#[test]
fn a_node_that_asks_for_a_probe_of_itself_is_dialled_back_only_at_a_validated_address() {
    let mut lone = Lone::new(config());
    let asker = lone.meet(NOW, 1);
    let dials = |lone: &mut Lone| {
        let events = core::iter::from_fn(|| lone.gossip.poll_event());
        events
            .filter(|event| matches!(event, GossipEvent::DialBack { contact, .. } if *contact == asker))
            .count()
    };
    let ask = |lone: &mut Lone, standing: Standing| {
        lone.standing = standing;
        lone.hand_in(NOW, &identity(1), asker.addr, &Message::Probe { target: asker.id }).len()
    };
    for standing in [Standing::Fresh, Standing::Unproven] {
        assert_eq!(ask(&mut lone, standing), 1, "it is told that it was not tried");
        assert_eq!(dials(&mut lone), 0);
    }
    assert_eq!(ask(&mut lone, Standing::Validated), 0, "the answer comes after the dial");
    assert_eq!(dials(&mut lone), 1);
}

#[test]
fn the_crash_of_a_member_behind_many_ids_of_one_site_is_looked_into() {
    let mut lone = Lone::new(config());
    (10..310).for_each(|index| lone.gossip.note_alive(NOW, in_prefix(index)));
    let others: Vec<Contact> = (1..9).map(|index| lone.meet(NOW, index)).collect();
    let position = |lone: &Lone, contact: &Contact| lone.gossip.members.find(contact.id.short()).unwrap();
    let farthest = others.iter().max_by_key(|contact| position(&lone, contact)).unwrap();
    assert!(position(&lone, farthest) > 3 * config().neighbours, "ids of the site are nearer");
    let mark = StateMark::new(farthest.id.short(), 9);
    lone.gossip.hear_suspicion(NOW + config().silent_after, &mark);
    assert!(lone.gossip.queue.contains(&farthest.id.short()));
}

#[test]
fn one_relay_of_three_at_most_is_of_a_site_that_surrounds_the_member() {
    let mut lone = Lone::new(config());
    let target = lone.meet(NOW, 1);
    for index in 2..5 {
        lone.meet(NOW, index);
    }
    for index in 10..110 {
        lone.gossip.note_alive(NOW, in_prefix(index));
    }
    let position = lone.gossip.members.find(target.id.short()).unwrap();
    for _ in 0..20 {
        assert_eq!(lone.gossip.ask_relays(NOW, position, &mut lone.outbox), 3);
        let asked = lone.sent();
        let of_site = asked.iter().filter(|(to, _)| to.ip().to_string().starts_with("8.8.8."));
        assert!(of_site.count() <= 1);
        lone.gossip.transactions.clear();
    }
}

#[test]
fn relays_of_one_site_are_asked_where_there_are_no_others() {
    let mut lone = Lone::new(config());
    (10..30).for_each(|index| lone.gossip.note_alive(NOW, in_prefix(index)));
    assert_eq!(lone.gossip.ask_relays(NOW, 7, &mut lone.outbox), 3);
}

#[test]
fn relays_that_vouch_for_a_member_delay_its_eviction_but_do_not_prevent_it() {
    let mut net = Net::settled(8, &config());
    net.crash(5);
    let until = net.now + Duration::from_secs(400);
    while net.now < until {
        net.run_secs(1);
        for node in (0..8).filter(|&node| node != 5) {
            let short = net.nodes[5].contact.id.short();
            let gossip = &mut net.nodes[node].gossip;
            if let Some(position) = gossip.members.find(short) {
                gossip.members.entry_mut(position).vouched = net.now;
            }
        }
    }
    assert!((0..8).filter(|&n| n != 5).all(|n| net.liveness(n, 5) != Some(Liveness::Live)));
}

#[test]
fn a_node_that_receives_nothing_suspects_itself_first() {
    let mut lone = Lone::new(config());
    for index in 1..12 {
        lone.meet(NOW, index);
    }
    lone.run_until(NOW + Duration::from_secs(70));
    assert_eq!(lone.gossip.statistics().local_health, 8);
    let is_blamed = |member: &Member| matches!(member.liveness, Liveness::Unresponsive);
    assert!(!lone.gossip.members().any(|member| is_blamed(&member)), "bad local health extends the timeouts");
    lone.run_until(NOW + Duration::from_secs(45 * 9 + 30));
    assert!(lone.gossip.members().all(|member| is_blamed(&member)));
}

#[test]
fn a_leaf_is_answered_and_is_no_member() {
    let mut lone = Lone::new(config());
    let about = About { leaf: true, addrs: [Some(address(4)), None], ..About::default() };
    let leaf = NodeState::new(&lone.network, &identity(4), &about, 5);
    lone.meet(NOW, 1);
    let own = lone.state(1, 5);
    lone.hand_in(NOW, &identity(1), address(1), &gossip(&[own, leaf]));
    assert_eq!(liveness(&lone, 4), None);
}

#[test]
fn a_member_that_has_become_a_leaf_is_forgotten_by_nodes_that_only_hear_of_it_and_they_pass_it_on() {
    let mut lone = Lone::new(config());
    lone.meet(NOW, 1);
    lone.meet(NOW, 4);
    let (own, before) = (lone.state(1, 5), lone.state(4, 6));
    let about = About { leaf: true, addrs: [Some(address(4)), None], ..About::default() };
    let leaf = NodeState::new(&lone.network, &identity(4), &about, 7);
    let rumours = lone.gossip.statistics().rumours;
    lone.hand_in(NOW, &identity(1), address(1), &gossip(&[own, leaf]));
    assert_eq!(liveness(&lone, 4), None);
    assert!(lone.gossip.statistics().rumours > rumours);
    lone.hand_in(NOW, &identity(1), address(1), &gossip(&[own, before]));
    assert_eq!(liveness(&lone, 4), None, "an older state does not bring it back");
}

#[test]
fn messages_of_any_content_are_handled_without_a_panic() {
    let mut lone = Lone::new(GossipConfig { view_max: 100, ..config() });
    let mut rng = Rng::new([3; 32]);
    let kinds = [Kind::Gossip, Kind::GossipReply, Kind::Probe, Kind::ProbeReply, Kind::Pong];
    let mut taken = 0;
    for step in 0..1500_u64 {
        let now = NOW + Duration::from_millis(step * 37);
        let mut payload = vec![0; [0, 8, 16, 24, 40, 168, 184, 344, 701][rng.below(9) as usize]];
        for byte in &mut payload {
            *byte = if rng.below(60) == 0 { rng.u64() as u8 } else { 0 };
        }
        let kind = kinds[rng.below(5) as usize];
        if let Ok(message) = Message::parse(kind, &payload) {
            let sender = 1 + rng.below(30) as usize;
            lone.hand_in_numbered(now, &identity(sender), address(sender), (step, rng.u64()), &message);
            taken += 1;
        }
        // Well-formed messages with impossible values, too.
        let index = 1 + rng.below(60) as usize;
        let states = [lone.state(index, rng.u64() | 1), lone.state(1 + rng.below(60) as usize, u64::MAX)];
        let marks: Vec<_> = (0..rng.below(40))
            .map(|_| {
                let short = match rng.below(3) {
                    0 => rng.bytes(),
                    1 => lone.gossip.own_id.short(),
                    _ => identity(1 + rng.below(60) as usize).id().short(),
                };
                StateMark::new(short, rng.u64())
            })
            .collect();
        let nearest = rng.below(marks.len() as u64 + 1) as usize;
        let body = GossipBody {
            states: &states,
            digest: &marks,
            nearest: nearest as u8,
            whole: nearest == marks.len(),
            hops: news(rng.below(states.len() as u64 + 1) as usize),
            suspicions: &marks[..marks.len().min(3)],
        };
        if step % 8 == 0 {
            let sender = rng.below(60) as usize + 1;
            lone.hand_in_numbered(
                now,
                &identity(sender),
                address(sender),
                (rng.u64(), 7),
                &Message::Gossip(body),
            );
        }
        lone.run_until(now);
        while lone.gossip.poll_event().is_some() {}
    }
    assert!(taken > 0 && lone.gossip.members().count() <= 100);
}

#[test]
fn a_member_counts_for_the_party_where_it_answers_and_not_for_the_one_it_claims() {
    let mut lone = Lone::new(GossipConfig { view_max: 128, ..config() });
    for index in 1..20 {
        lone.meet(NOW, index);
    }
    let own = lone.state(1, 5);
    for index in 20..500 {
        let now = NOW + Duration::from_millis(50 * index as u64);
        let claimed = SocketAddr::from(([9, (index % 251) as u8, (index / 251) as u8, 1], 1));
        let about = About { addrs: [Some(claimed), None], ..About::default() };
        let state = NodeState::new(&lone.network, &identity(index), &about, 5);
        lone.hand_in(now, &identity(1), address(1), &gossip(&[own, state]));
        lone.gossip.note_alive(now, in_prefix(index));
    }
    assert!((1..20).all(|index| liveness(&lone, index) == Some(Liveness::Live)));
}

#[test]
fn the_word_of_others_worsens_local_health_only_a_little() {
    let mut lone = Lone::new(config());
    lone.meet(NOW, 1);
    let own = lone.state(1, 5);
    let short = lone.gossip.own_id.short();
    for step in 0..40 {
        let now = NOW + Duration::from_secs(step * 5);
        let marks = [StateMark::new(short, lone.gossip.sequence())];
        lone.hand_in(now, &identity(1), address(1), &suspecting(&[own], &marks));
    }
    assert_eq!(lone.gossip.counters.refuted, 40);
    assert_eq!(lone.gossip.statistics().local_health, 2);
}

#[test]
fn a_goodbye_of_an_earlier_run_is_ignored() {
    let mut lone = Lone::new(config());
    let contact = lone.meet(NOW, 1);
    let (relay, relayed) = (lone.meet(NOW, 2), lone.state(1, 3 << 32 | 5));
    let own = lone.state(2, 5);
    lone.hand_in(NOW, &identity(2), relay.addr, &gossip(&[own, relayed]));
    lone.gossip.note_leave(NOW, &contact.id, Epoch::new(2), true, 2 << 32 | 900);
    assert_eq!(liveness(&lone, 1), Some(Liveness::Live));
    lone.gossip.note_leave(NOW, &contact.id, Epoch::new(3), true, 3 << 32 | 6);
    assert_eq!(liveness(&lone, 1), Some(Liveness::Left { for_good: true }));
}

#[test]
fn an_older_state_is_ignored_after_newer_news_has_passed() {
    let mut lone = Lone::new(config());
    lone.meet(NOW, 1);
    let own = lone.state(1, 5);
    let gone = About { addrs: [Some(address(2)), None], gone: true, ..About::default() };
    let gone = NodeState::new(&lone.network, &identity(2), &gone, 9);
    lone.hand_in(NOW, &identity(1), address(1), &gossip(&[own, gone]));
    let old = lone.state(2, 8);
    lone.hand_in(NOW, &identity(1), address(1), &suspecting(&[own, old], &[]));
    assert_eq!(liveness(&lone, 2), None);
    let back = lone.state(2, 10);
    lone.hand_in(NOW, &identity(1), address(1), &suspecting(&[own, back], &[]));
    assert_eq!(liveness(&lone, 2), Some(Liveness::Unproven));
}

#[test]
fn a_refutation_is_no_rumour_but_a_new_address_is() {
    let mut lone = Lone::new(config());
    lone.meet(NOW, 1);
    let own = lone.state(1, 5);
    let later = NOW + Duration::from_secs(3600);
    let marks = [StateMark::new(lone.gossip.own_id.short(), lone.gossip.sequence())];
    let (network, asker) = (lone.network.clone(), identity(1).id());
    let told = |sent: &[Vec<u8>]| {
        let datagram = Unverified::parse(&sent[0], &network).unwrap().verify(&network, &asker).unwrap();
        let Message::GossipReply(body) = datagram.message() else { panic!("{datagram:?}") };
        (body.states[0].sequence(), body.hops.get(0))
    };
    let before = lone.gossip.sequence();
    let sent = lone.hand_in(later, &identity(1), address(1), &suspecting(&[own], &marks));
    assert_eq!(told(&sent), (before + 1, None));
    // A new address is news.
    let moved = OwnState { addrs: [Some(address(77)), None], ..OwnState::default() };
    lone.gossip.set_own(later, moved);
    let sent = lone.hand_in(later, &identity(1), address(1), &suspecting(&[own], &[]));
    assert_eq!(told(&sent), (before + 2, Some(0)));
}
