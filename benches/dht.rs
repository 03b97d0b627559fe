//! What choosing the nearest contacts costs: the 20 closest of 10,000 to a key, as a search of a full table would.

use criterion::{Criterion, Throughput};
use elver::dht::closest::closest;
use elver::id::{Key, NodeId, PublicKey};
use elver::rng::Rng;
use elver::wire::contact::Contact;
use std::hint::black_box;
use std::net::SocketAddr;

const CONTACTS: usize = 10_000;
const WANTED: usize = 20;

/// Contacts all over the key space. Their public keys are no points of the curve: nobody looks.
fn contacts(rng: &mut Rng) -> Vec<Contact> {
    let contact = |id: [u8; 32]| Contact {
        id: NodeId(id),
        public: PublicKey(id),
        addr: SocketAddr::from(([192, 0, 2, 7], 3583)),
    };
    (0..CONTACTS).map(|_| contact(rng.bytes())).collect()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut rng = Rng::new([1; 32]);
    let contacts = contacts(&mut rng);
    let targets: Vec<Key> = (0..64).map(|_| Key(rng.bytes())).collect();
    let mut targets = targets.iter().cycle();

    let mut group = criterion.benchmark_group("closest 20 of 10,000 contacts");
    group.throughput(Throughput::Elements(CONTACTS as u64));
    group.bench_function("closest", |bencher| {
        bencher.iter(|| {
            let target = targets.next().expect("a cycle has no end");
            closest(black_box(&contacts).iter(), black_box(target), WANTED)
        })
    });
    // What it would cost without a bound on what is kept.
    group.bench_function("sort all", |bencher| {
        bencher.iter(|| {
            let target = targets.next().expect("a cycle has no end");
            let mut all: Vec<_> = black_box(&contacts).iter().collect();
            all.sort_unstable_by_key(|contact| contact.id.distance(target));
            all.truncate(WANTED);
            all
        })
    });
    group.finish();
    criterion.final_summary();
}
