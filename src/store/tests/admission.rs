use super::*;
use crate::claim::UNCLAIMED_SECONDS_MAX;

#[test]
fn an_offer_of_a_stored_piece_only_raises_its_copies_and_lifetime() {
    let mut store = store(1 << 20);
    keep(&mut store, &offer(1, 500));
    let short = Offer { mode: Mode::UNKNOWN, ..claimed(offer(1, 500), (7, 10), 2) };
    assert_eq!(store.admit(NOW, peer(1), &short), Admission::Raise { replicas: 7, expires: 100 });
    let kept = meta(1, 500, 100);
    assert_eq!(store.piece(&key(1)), Some(PieceMeta { replicas: 7, claim: short.claim, ..kept }));
    let later = NOW + Duration::from_secs(50);
    let long = claimed(offer(1, 500), (3, 100), 3);
    assert_eq!(store.admit(later, peer(1), &long), Admission::Raise { replicas: 7, expires: 150 });
    let kept = meta(1, 500, 150);
    assert_eq!(store.piece(&key(1)), Some(PieceMeta { replicas: 7, claim: long.claim, ..kept }));
}

#[test]
fn an_offer_without_a_newer_claim_raises_nothing() {
    let mut store = store(1 << 20);
    let first = claimed(offer(1, 500), (3, 100), 5);
    keep(&mut store, &first);
    let kept = store.piece(&key(1));
    let later = NOW + Duration::from_secs(50);
    let unclaimed = Offer { replicas: 20, lifetime: 1_000_000, ..offer(1, 500) };
    for again in [unclaimed, first, claimed(offer(1, 500), (20, 1_000_000), 4)] {
        assert_eq!(store.admit(later, peer(1), &again), Admission::Have);
        assert_eq!(store.piece(&key(1)), kept);
    }
}

#[test]
fn a_discarded_piece_is_deleted_from_its_space() {
    let mut store = store(500 + PIECE_OVERHEAD_BYTES);
    let incoming = admit(&mut store, &offer(1, 500));
    assert_eq!(store.admit(NOW, peer(1), &offer(2, 0)), Admission::Refuse(Refusal::NoSpace));
    store.discarded(incoming);
    store.discarded(incoming);
    assert_eq!(ops(&mut store), [DiskOp::Remove(Place::Incoming(incoming))]);
    let next = admit(&mut store, &offer(2, 500));
    assert_ne!(next, incoming);
}

#[test]
fn an_impossible_offer_is_invalid() {
    let mut store = store(1 << 30);
    assert_eq!(
        store.admit(NOW, peer(1), &Offer { replicas: 0, ..offer(1, 1) }),
        Admission::Refuse(Refusal::Invalid)
    );
}

#[test]
fn of_too_many_offers_at_once_the_last_is_told_that_the_node_is_busy() {
    let mut store = store(1 << 30);
    let most = Limits::default().streams_max as u8;
    (0..most).for_each(|byte| assert!(admit(&mut store, &offer(byte, 1)) == u64::from(byte)));
    assert_eq!(store.admit(NOW, peer(1), &offer(most, 1)), Admission::Refuse(Refusal::Busy));
}

#[test]
fn promises_of_one_party_do_not_keep_the_pieces_of_others_out() {
    let mut store = store(1 << 20);
    let crowd = |identity: u8| Holder { identity: [identity; 8], ..peer(1) };
    let most = Limits::default().streams_max as u8;
    let first = admit(&mut store, &offer(0, 1000));
    for byte in 1..most {
        assert!(matches!(store.admit(NOW, crowd(byte), &offer(byte, 12_000)), Admission::Send { .. }));
    }
    let busy = Admission::Refuse(Refusal::Busy);
    assert_eq!(store.admit(NOW, crowd(200), &offer(200, 200_000)), busy, "its party has promises enough");
    let Admission::Send { incoming } = store.admit(NOW, peer(2), &offer(201, 200_000)) else {
        panic!("another party has no place");
    };
    assert!(store.arrives(NOW, incoming));
    assert!(!store.arrives(NOW, first), "the oldest promise of the party that has most has ended");
    assert_eq!(store.meta_of(first), None);
}

#[test]
fn a_published_file_counts_as_a_copy_and_a_downloaded_one_does_not() {
    let mut store = store(1 << 20);
    let file = manifest(1, 800);
    let offer = Offer { key: file.hash(), ..offer(1, 800) };
    let downloaded = Share { synced: false, ..share(&file, path("/a")) };
    store.claim(&downloaded, None).unwrap();
    let incoming = admit(&mut store, &offer);
    store.discarded(incoming);
    store.claim(&Share { synced: true, replicas: 3, ..downloaded }, None).unwrap();
    assert_eq!(store.admit(NOW, peer(1), &offer), Admission::Have);
}

/// A piece of 744 bytes, which takes 1,000 on disk.
fn brick(byte: u8) -> Offer {
    claimed(offer(byte, 744), (3, 1000), 1)
}

/// Stores a piece that a peer brings, if the store takes it.
fn bring(store: &mut Store, now: Instant, from: u8, offer: &Offer) -> bool {
    let Admission::Send { incoming } = store.admit(now, peer(from), offer) else { return false };
    store.arrives(now, incoming) && store.committed(incoming).is_some()
}

/// The number of pieces that a peer brought.
fn brought_by(store: &Store, from: u8) -> usize {
    let brought = Brought(*peer(from).party.as_bytes());
    store.pieces().filter(|piece| piece.brought == brought).count()
}

#[test]
fn a_party_that_filled_the_store_gives_way_to_others_and_keeps_twice_as_much() {
    let mut store = store(30_000);
    let at = |second: u64| NOW + Duration::from_secs(second);
    let filled = (0..40).filter(|byte| bring(&mut store, at(u64::from(*byte)), 1, &brick(*byte))).count();
    assert_eq!(filled, 30, "while there is room nothing is refused");
    assert_eq!(store.stats().displaced, 0, "no party displaces its own");
    let taken = (100..140).filter(|byte| bring(&mut store, at(u64::from(*byte)), 2, &brick(*byte))).count();
    assert_eq!(taken, 10);
    assert_eq!(brought_by(&store, 1), 20);
    let more = (150..190).filter(|byte| bring(&mut store, at(u64::from(*byte)), 3, &brick(*byte))).count();
    assert_eq!(more, 6, "a third party has its part, too");
    let stats = store.stats();
    assert_eq!(stats.displaced as usize, taken + more);
    assert!(stats.piece_bytes <= 30_000, "the quota holds");
}

#[test]
fn bytes_that_do_not_verify_displace_no_more_than_pieces_do() {
    let mut store = store(30_000);
    (0..30).for_each(|byte| assert!(bring(&mut store, NOW, 1, &brick(byte))));
    for byte in 100..200 {
        let now = NOW + Duration::from_secs(u64::from(byte));
        if let Admission::Send { incoming } = store.admit(now, peer(2), &brick(byte)) {
            store.arrives(now, incoming);
            store.discarded(incoming);
        }
    }
    assert!(brought_by(&store, 1) >= 20, "{} are left", brought_by(&store, 1));
}

#[test]
fn a_promise_displaces_nothing_and_the_quota_holds_while_pieces_arrive() {
    let mut store = store(10_000);
    (0..10).for_each(|byte| assert!(bring(&mut store, NOW, 1, &brick(byte))));
    let at = |byte: u8| NOW + Duration::from_secs(u64::from(byte));
    let admitted = (100..120).filter_map(|byte| match store.admit(at(byte), peer(2), &brick(byte)) {
        Admission::Send { incoming } => Some(incoming),
        _ => None,
    });
    let admitted: Vec<u64> = admitted.collect();
    assert_eq!(admitted.len(), 4, "five would have half as much as the other party");
    assert_eq!(store.stats().pieces, 10);
    let incoming = admitted[0];
    assert!(store.arrives(at(150), incoming));
    let stats = store.stats();
    assert_eq!(stats.pieces, 9);
    assert_eq!(stats.reserved_bytes, 1000);
}

/// The pieces of `from` that arrive until one is refused.
fn arriving(store: &mut Store, from: Holder, first: u8) -> usize {
    let mut arriving = 0;
    while let Admission::Send { incoming } = store.admit(NOW, from, &brick(first + arriving)) {
        assert!(store.arrives(NOW, incoming));
        arriving += 1;
    }
    usize::from(arriving)
}

#[test]
fn what_is_arriving_from_one_party_leaves_an_eighth_to_others() {
    let mut store = store(40_000);
    assert_eq!(arriving(&mut store, peer(1), 0), 35);
    assert_eq!(store.stats().refused_share, 1);
    assert_eq!(store.admit(NOW, peer(1), &brick(99)), Admission::Refuse(Refusal::Busy));
    assert_eq!(arriving(&mut store, peer(2), 100), 5);
}

#[test]
fn what_is_arriving_from_one_party_beside_another_takes_a_quarter() {
    let mut store = store(40_000);
    let Admission::Send { .. } = store.admit(NOW, peer(2), &brick(100)) else { panic!("there is room") };
    assert_eq!(arriving(&mut store, peer(1), 0), 10);
    assert_eq!(store.admit(NOW, peer(1), &brick(99)), Admission::Refuse(Refusal::Busy));
}

#[test]
fn a_single_piece_arrives_however_little_room_there_is() {
    let mut store = store(1500);
    assert!(bring(&mut store, NOW, 1, &brick(1)));
}

#[test]
fn a_replayed_claim_does_not_begin_anew_after_its_piece_has_expired() {
    let mut store = store(1 << 20);
    let claimed = brick(1);
    assert!(bring(&mut store, NOW, 1, &claimed));
    let over = NOW + Duration::from_secs(1000);
    store.handle_timeout(over);
    assert!(store.piece(&key(1)).is_none());
    assert!(bring(&mut store, over, 2, &claimed), "its content is taken as that of an unclaimed piece");
    let kept = store.piece(&key(1)).unwrap();
    assert_eq!(kept.claim, None);
    assert_eq!(kept.replicas, 1, "it is not repaired");
    assert!(kept.expires <= 1000 + u64::from(UNCLAIMED_SECONDS_MAX));
    assert_eq!(store.admit(over, peer(2), &claimed), Admission::Have, "and raises nothing");
    assert_eq!(store.piece(&key(1)).unwrap(), kept);
    let again = self::claimed(offer(1, 744), (3, 1000), 2);
    assert!(
        matches!(store.admit(over, peer(2), &again), Admission::Raise { replicas: 3, .. }),
        "a new claim"
    );
}

#[test]
fn a_claim_goes_on_where_it_was_when_its_piece_returns() {
    let mut store = store(1 << 20);
    assert!(bring(&mut store, NOW, 1, &brick(1)));
    store.remove_piece(&key(1));
    assert!(bring(&mut store, NOW + Duration::from_secs(600), 2, &brick(1)));
    assert_eq!(store.piece(&key(1)).map(|piece| piece.expires), Some(1000), "as when it was first heard of");
}

#[test]
fn claims_that_are_replayed_in_turns_keep_a_piece_no_longer_than_their_lifetimes() {
    let mut store = store(1 << 20);
    let by = |publisher: u8, replicas, lifetime, sequence| {
        let claim = PieceClaim::unsigned(PublicKey([publisher; 32]), replicas, lifetime, sequence);
        Offer { replicas, lifetime, claim: Some(claim), ..offer(1, 744) }
    };
    // One of the two publishers shortened its claim, so that each of these replaces the one before.
    let claims = [by(1, 3, 900, 1), by(1, 3, 10, 2), by(2, 2, 100, 1)];
    assert!(bring(&mut store, NOW, 1, &claims[0]));
    for round in 0..300 {
        store.admit(NOW + Duration::from_secs(round * 10), peer(3), &claims[round as usize % 3]);
    }
    let expires = store.piece(&key(1)).map_or(0, |piece| piece.expires);
    assert!(expires <= 900 + 10 + 100, "{expires}");
}

/// The offer of a piece with another publisher's claim, for longer and for more copies.
fn raising(byte: u8) -> Offer {
    let claim = PieceClaim::unsigned(PublicKey([200; 32]), 20, 9000, 1);
    Offer { replicas: 20, lifetime: 9000, claim: Some(claim), ..brick(byte) }
}

#[test]
fn a_party_that_fills_a_store_raises_no_piece_of_another_there() {
    let mut store = store(30_000);
    assert!(bring(&mut store, NOW, 2, &brick(200)));
    (0..29).for_each(|byte| assert!(bring(&mut store, NOW, 1, &brick(byte))));
    let kept = store.piece(&key(200));
    assert_eq!(store.admit(NOW, peer(1), &raising(200)), Admission::Have);
    assert_eq!(store.piece(&key(200)), kept, "it has most of a full store");
    let raise = store.admit(NOW, peer(3), &raising(200));
    assert!(matches!(raise, Admission::Raise { replicas: 20, .. }), "{raise:?}");
    assert_eq!((brought_by(&store, 2), brought_by(&store, 3)), (0, 1), "it counts for its raiser");
}

#[test]
fn raises_are_taken_while_there_is_room_and_end_when_their_party_gives_way() {
    let mut store = store(30_000);
    (0..20).for_each(|byte| assert!(bring(&mut store, NOW, 2 + byte, &brick(byte))));
    for byte in 0..20 {
        let raise = store.admit(NOW, peer(1), &raising(byte));
        assert!(matches!(raise, Admission::Raise { .. }), "there is room: {raise:?}");
    }
    (20..30).for_each(|byte| assert!(bring(&mut store, NOW, 1, &brick(byte))));
    assert_eq!(brought_by(&store, 1), 30);
    assert!(bring(&mut store, NOW, 50, &brick(50)));
    assert_eq!(brought_by(&store, 1), 9, "its raises have ended, and one of its own pieces made room");
    for byte in 0..20 {
        let kept = store.piece(&key(byte)).expect("no piece of another is lost");
        assert_eq!((kept.replicas, kept.expires), (3, 1000));
    }
}

/// A store with a piece whose publisher renewed its claim at 900 s, after another publisher had raised the piece.
fn raised_and_renewed() -> Store {
    let mut store = store(30_000);
    assert!(bring(&mut store, NOW, 2, &brick(1)));
    assert!(matches!(store.admit(NOW, peer(1), &raising(1)), Admission::Raise { .. }));
    let renewed = claimed(offer(1, 744), (3, 8500), 2);
    assert_eq!(store.admit(NOW + Duration::from_secs(900), peer(2), &renewed), Admission::Have);
    assert_eq!(store.piece(&key(1)).map(|piece| (piece.replicas, piece.expires)), Some((20, 9000)));
    store
}

#[test]
fn a_raised_piece_falls_back_to_the_renewed_claim_of_its_publisher() {
    let mut store = raised_and_renewed();
    (20..49).for_each(|byte| assert!(bring(&mut store, NOW, 1, &brick(byte))));
    let late = NOW + Duration::from_secs(2000);
    (50..54).for_each(|byte| assert!(bring(&mut store, late, byte, &brick(byte))));
    let kept = store.piece(&key(1)).expect("its publisher wants it");
    assert_eq!((kept.replicas, kept.expires), (3, 9400));
}

#[test]
fn a_piece_whose_raise_is_over_stays_for_its_publisher() {
    let mut store = raised_and_renewed();
    store.handle_timeout(NOW + Duration::from_secs(9000));
    assert_eq!(store.piece(&key(1)).map(|piece| piece.expires), Some(9400));
    store.handle_timeout(NOW + Duration::from_secs(9400));
    assert_eq!(store.piece(&key(1)), None);
}

#[test]
fn a_neighbour_that_brings_the_pieces_of_others_does_not_seem_to_fill_the_store() {
    let mut store = store(30_000);
    // The first neighbour repairs ten pieces of each of two publishers, and the second puts ten of its own.
    for byte in 0..20 {
        let bringer = Bringer { node: peer(1), payer: peer(100 + byte / 10).party };
        let Admission::Send { incoming } = store.admit(NOW, bringer, &brick(byte)) else {
            panic!("there is room")
        };
        assert!(store.arrives(NOW, incoming) && store.committed(incoming).is_some());
    }
    (20..30).for_each(|byte| assert!(bring(&mut store, NOW, 2, &brick(byte))));
    let taken = (100..140)
        .filter(|byte| bring(&mut store, NOW + Duration::from_secs(u64::from(*byte)), 3, &brick(*byte)));
    assert_eq!(taken.count(), 4, "less than half of what each has");
    let of = |store: &Store, payer| brought_by(store, payer);
    assert_eq!((of(&store, 100), of(&store, 101), of(&store, 2)), (9, 8, 9));
}
