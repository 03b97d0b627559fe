//! Elver: a peer-to-peer node small enough for a router.
//!
//! Put a file in at any node. Every other node can find it, fetch it from its holders, verify every byte, and become a source for
//! the next. There is no server, no wall clock, and no trust in the peer at the other end.
//!
//! # Embedding a node
//!
//! [`net::Driver`] is a node on this machine's sockets and disk. A program gives it commands and runs turns of its loop:
//!
//! ```no_run
//! use elver::net::{Config, Driver};
//! use elver::node::command::{Command, Response};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut driver = Driver::start(Config {
//!     dir: "/var/lib/kiosk/elver".into(),
//!     bootstrap: vec!["node.example:3583".parse()?],
//!     handle_signals: false, // SIGTERM and SIGINT stay the program's own.
//!     ..Config::default()
//! })?;
//! let hash = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262".parse()?;
//! let target = Some("/var/lib/kiosk/menu.pdf".into());
//! let get = driver.command(Command::Get { hash, target, force: false, mode: None, timeout: Some(30) });
//!
//! 'waiting: loop {
//!     driver.turn(None)?;
//!     while let Some((id, response)) = driver.poll_response() {
//!         match response {
//!             Response::Progress(progress) => println!("{} of {} bytes", progress.done, progress.total),
//!             Response::Done(_) if id == get => break 'waiting,
//!             Response::Failed(failure) => return Err(failure.message.into()),
//!             Response::Done(_) | Response::Content(_) => {}
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A program with a loop of its own uses [`node::Node`] instead: inputs and the time go in, outputs come out, and the node itself
//! does no I/O. The simulator does the same.
//!
//! # The tour
//!
//! The source has floors, and imports go downward only. `tests/architecture.rs` fails when an import goes upward, or when this
//! table names other floors.
//!
//! | floor | modules | what lives there |
//! |---|---|---|
//! | 0 | [`claim`] [`limits`] [`time`] [`id`] [`identity`] [`rng`] [`manifest`] [`set`] [`io`] `counters` | plain values: a publisher's claim on a piece; every bound; an instant that cannot read a clock; keys and their distance; how a file is cut and proven, and whether there can be such a piece; how a directory is written as a list; what the core asks of the world; named counts |
//! | 1 | [`wire`] | fixed layouts, read in place: datagrams (unverified, verified), records, stream frames |
//! | 2 | [`peers`] | what every machine needs when it deals with peers, each rule once: the table of peers with their hop keys, tokens, replay windows, round-trip times and unanswered requests; liveness; blame; the budget of signature checks, token bucket, amplification, party of an address, contested places, outstanding requests |
//! | 3 | [`dht`] [`transfer`] [`store`] [`gossip`] [`replication`] | one state machine each: finding nodes and records · moving pieces over streams · the pieces that this node has · the nodes of the network and whether they are alive · keeping enough copies |
//! | 4 | [`node`] | the machines joined: inputs, outputs, and what goes from one machine to another |
//! | 5 | [`disk`] [`net`] `sim` | drivers: files, sockets, the only clock, the only entropy; the simulated world (with the feature `sim`) |
//! | 6 | `config` `cli` `main` | the command line (with the feature `cli`) |
//!
//! Everything below the drivers is a pure state machine in the manner of quinn-proto: `handle_*` takes an input with the
//! present time, `poll_*` gives outputs until there are none, `next_deadline` follows from the state.
//!
//! The path of a datagram: [`net`] receives it → [`node::Node::handle_datagram`] parses it in place
//! ([`wire::datagram::Unverified`]), authenticates it by its MAC or, if that is worth a signature check
//! (admission), by its signature ([`peers::inbox`], [`wire::datagram::Verified`]) → [`dht::Dht`] or another machine handles it and puts answers into the
//! [`peers::outbox::Outbox`] → [`net`] sends them. No step allocates memory.
//!
//! The path of a piece: a peer requests it over a stream → [`transfer::Transfer`] asks the node ([`transfer::Pieces`]) → [`store::Store`]
//! locates the bytes → the core outputs an [`io::Extent`] → [`net`] has the kernel send it. On the other side the core outputs an
//! [`io::Sink`], the driver writes and hashes the bytes, and the core gets the hash. No content passes through the core.
//!
//! # Glossary
//!
//! | term | meaning |
//! |---|---|
//! | adversary | a simulated node that attacks the others |
//! | admission | the decision whether a datagram gets a signature check |
//! | audit | asking the holders of a file which pieces they have: the command `explain` |
//! | authenticated | a sender whose signature or MAC was verified |
//! | blame | the record of a peer that sent wrong content; it grows into a ban |
//! | challenge | the answer to a request whose MAC the recipient cannot check: it asks for a signature |
//! | claim | the publisher's signed statement of a piece's number of copies and of their lifetime |
//! | chunk | a part of a file, a power of two from 256 KiB to 16 MiB; the unit of a download |
//! | co-downloaders | peers that download the same file and exchange its chunks |
//! | contact | a node's public key, id and address |
//! | contacted | a peer that has answered a request of this node |
//! | dial | an attempt to open a stream |
//! | epoch | one run of a node, by a random number |
//! | extent, sink | a run of bytes in a file: to be sent on a stream, to be received from one |
//! | gateway | the HTTP server of a node: files by their addresses, the node's state, a page |
//! | healthy, under-replicated, misplaced | a stored piece with enough live copies; with too few; on a node that is not among the closest to it |
//! | here | what a node tells the group of its link: that it is there |
//! | holder | a node that stores a piece for the network |
//! | hop key | the secret of two neighbours, from which the MACs of their datagrams are made |
//! | inbound store | a piece that another node offers and sends to this one |
//! | key | a point of the 256-bit key space: a hash that addresses a file, a chunk or a value |
//! | leaf | a node that looks up and downloads, but stores nothing for others |
//! | local health | how much a node doubts its own timing (Lifeguard); 0 is best |
//! | lookup | the iterative search for the nodes closest to a key (Kademlia) |
//! | lookup cache | the closest nodes that recent lookups found |
//! | machine | a state machine of floor 3 |
//! | maintenance | the periodic work of the routing table: refreshing buckets, pinging contacts |
//! | manifest | the chunks' keys of a file, which merge to its hash |
//! | member | a node in the gossip table |
//! | merge | taking over newer states of members from a gossip message |
//! | neighbour | a member among the closest to this node, which replication watches |
//! | party | the owner of an address, as far as the address tells; contested resources are divided among parties |
//! | partition suspicion | the assumption that this node lost its link, because many neighbours fell silent at once; it suspends repair |
//! | peeked header | the public fields of a datagram that the simulator reads for its statistics |
//! | piece | the unit of storage: a chunk, a manifest, or a file of one chunk |
//! | provider | a node that announced that it serves a file |
//! | push | sending a copy of a piece to another node |
//! | quorum | ⌊replicas/2⌋+1 synced copies: the piece counts as stored |
//! | record | a signed value record or provider record |
//! | repair | copying under-replicated pieces |
//! | replay window | the sequence numbers of a sender that were seen, by which repeated datagrams are refused |
//! | rumour | a member's state on its way through gossip |
//! | scrub | reading everything on disk again to find damage |
//! | self state | the signed state that this node publishes about itself |
//! | set | a directory, shared as its files and a list of them; its address is that of the list |
//! | share | the user's claim that the file at a path has a certain content, which the node serves from there |
//! | source | a peer from which a download requests chunks |
//! | source discovery | finding further sources during a download |
//! | stamp | a file's length and times when it was hashed |
//! | surplus | a stored piece of which closer nodes hold enough copies |
//! | target | the file that a download writes |
//! | turn | one pass of the loop |
//! | validated | an address at which a node has answered, so it may be sent more than it sent |
//! | window | the part of a streamed file that is on disk |
//! | world event | an event of the simulator outside the nodes: a crash, a cut link, a clock jump |

pub mod claim;
mod counters;
pub mod id;
pub mod identity;
pub mod io;
pub mod limits;
pub mod manifest;
pub mod rng;
pub mod set;
pub mod time;

pub mod wire;

pub mod peers;

pub mod dht;
pub mod gossip;
pub mod replication;
pub mod store;
pub mod transfer;

pub mod node;

pub mod disk;
pub mod net;
#[cfg(feature = "sim")]
pub mod sim;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod config;
