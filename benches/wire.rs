//! The cost of a datagram: parsing it without cryptography, signing it, verifying it, and the same with a MAC.

use criterion::Criterion;
use elver::id::{Key, NodeId};
use elver::identity::{Identity, verify};
use elver::wire::contact::{Contact, WireContact};
use elver::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Epoch, MacKey, Unverified, write, write_mac};
use elver::wire::header::Header;
use elver::wire::message::{Message, PADDING_BYTES, Want};
use elver::wire::network::Network;
use std::hint::black_box;
use std::net::SocketAddr;

const MAC_KEY: MacKey = MacKey([7; 32]);

struct Fixture {
    network: Network,
    sender: Identity,
    recipient: NodeId,
    contacts: Vec<WireContact>,
}

impl Fixture {
    fn new() -> Self {
        let contact = |number: u8| {
            let public = Identity::from_secret(&[100 + number; 32]).public();
            WireContact::new(&Contact::new(public, SocketAddr::from(([192, 0, 2, number], 3583))), 10)
        };
        Fixture {
            network: Network::new("bench"),
            sender: Identity::from_secret(&[1; 32]),
            recipient: Identity::from_secret(&[2; 32]).id(),
            contacts: (1..20).map(contact).collect(),
        }
    }

    /// A message of each size: the smallest, a padded first request, the largest answer.
    fn messages(&self) -> [(&'static str, Message<'_>); 3] {
        [
            ("ping", Message::Ping { padding: 0 }),
            ("find", Message::Find { target: Key([5; 32]), want: Want::Providers, padding: PADDING_BYTES }),
            ("found", Message::Found { contacts: &self.contacts, providers: &[], record: None }),
        ]
    }

    fn write(&self, out: &mut [u8; DATAGRAM_BYTES_MAX], message: &Message<'_>) -> usize {
        write(out, &self.network, &self.sender, &self.envelope(), message).expect("a message that fits")
    }

    fn datagram_with_mac(&self, message: &Message<'_>) -> Vec<u8> {
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write_mac(&mut out, &self.network, &self.sender, &MAC_KEY, &self.envelope(), message);
        out[..length.expect("a message that fits")].to_vec()
    }

    fn envelope(&self) -> Envelope {
        let recipient = Some(self.recipient);
        Envelope { recipient, leaf: false, epoch: Epoch::new(1), sequence: 1, transaction: 2, token: 3 }
    }

    fn datagram(&self, message: &Message<'_>) -> Vec<u8> {
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = self.write(&mut out, message);
        out[..length].to_vec()
    }
}

fn reading(criterion: &mut Criterion) {
    let fixture = Fixture::new();
    let mut group = criterion.benchmark_group("read without cryptography");
    let ping = fixture.datagram(&Message::Ping { padding: 0 });
    group.bench_function("header", |bencher| {
        bencher.iter(|| Header::parse(black_box(&ping), black_box(fixture.network.id())).is_ok())
    });
    for (name, message) in fixture.messages() {
        let bytes = fixture.datagram(&message);
        group.bench_function(name, |bencher| {
            bencher.iter(|| Unverified::parse(black_box(&bytes), black_box(&fixture.network)).is_ok())
        });
    }
    group.finish();
}

fn proving(criterion: &mut Criterion) {
    let fixture = Fixture::new();
    let mut group = criterion.benchmark_group("prove");
    let digest = [7; 32];
    let signature = fixture.sender.sign(&digest);
    group.bench_function("sign", |bencher| bencher.iter(|| fixture.sender.sign(black_box(&digest))));
    group.bench_function("verify", |bencher| {
        bencher
            .iter(|| verify(black_box(&fixture.sender.public()), black_box(&digest), black_box(&signature)))
    });
    group.finish();
}

fn whole(criterion: &mut Criterion) {
    let fixture = Fixture::new();
    let mut group = criterion.benchmark_group("whole datagram");
    for (name, message) in fixture.messages() {
        let bytes = fixture.datagram(&message);
        let mut out = [0; DATAGRAM_BYTES_MAX];
        group.bench_function(format!("write and sign {name}"), |bencher| {
            bencher.iter(|| fixture.write(&mut out, black_box(&message)))
        });
        group.bench_function(format!("read and verify {name}"), |bencher| {
            bencher.iter(|| {
                let datagram = Unverified::parse(black_box(&bytes), &fixture.network);
                datagram.and_then(|datagram| datagram.verify(&fixture.network, &fixture.recipient)).is_ok()
            })
        });
        let (bytes, public, id) =
            (fixture.datagram_with_mac(&message), fixture.sender.public(), fixture.sender.id());
        group.bench_function(format!("write {name} with a MAC"), |bencher| {
            let Fixture { network, sender, .. } = &fixture;
            let envelope = fixture.envelope();
            bencher.iter(|| write_mac(&mut out, network, sender, &MAC_KEY, &envelope, black_box(&message)))
        });
        group.bench_function(format!("read {name} and check its MAC"), |bencher| {
            bencher.iter(|| {
                let datagram = Unverified::parse(black_box(&bytes), &fixture.network);
                datagram
                    .and_then(|datagram| datagram.authenticate(&fixture.network, &MAC_KEY, &public, &id))
                    .is_ok()
            })
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    reading(&mut criterion);
    proving(&mut criterion);
    whole(&mut criterion);
    criterion.final_summary();
}
