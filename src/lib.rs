//! Elver: a peer-to-peer node small enough for a router.
//!
//! Put a file in at any node; every other node can find it, fetch it from whoever holds it, check every byte, and become a
//! source for the next one. No server, no wall clock, no trust in whoever is at the other end.
//!
//! # Embedding a node
//!
//! [`net::Driver`] is a node on this machine's sockets and disk. A program gives it commands and turns its loop:
//!
//! ```no_run
//! use elver::net::{Config, Driver};
//! use elver::node::command::{Command, Response};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut driver = Driver::start(Config {
//!     dir: "/var/lib/kiosk/elver".into(),
//!     bootstrap: vec!["192.0.2.7:3583".parse()?],
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
//! A program with a loop of its own takes [`node::Node`] instead: inputs and the time go in, outputs come out, and nothing in it
//! touches the world. The simulator does the same.
//!
//! # The tour
//!
//! The house has floors, and imports go downward only. A test walks the source and fails when one does not, or when this table
//! tells other floors.
//!
//! | floor | modules | what lives there |
//! |---|---|---|
//! | 0 | [`limits`] [`time`] [`id`] [`identity`] [`rng`] [`manifest`] [`io`] `counters` | plain values: every bound; an instant that cannot read a clock; keys and their distance; how a file is cut and proven, and whether there can be such a piece; what the core asks of the world; named counts |
//! | 1 | [`wire`] | fixed layouts, read in place: datagrams (unverified, verified), records, stream frames |
//! | 2 | [`dht`] [`transfer`] [`store`] [`gossip`] [`replication`] | one state machine each: finding nodes and records · moving pieces over streams · knowing what is here · knowing who is there · keeping enough copies |
//! | 3 | [`node`] | the machines joined: inputs, outputs, and what goes from one machine to another |
//! | 4 | [`disk`] [`net`] `sim` | drivers: files, sockets, the only clock, the only entropy; the simulated world (with the feature `sim`) |
//! | 5 | `config` `cli` `main` | the command line (with the feature `cli`) |
//!
//! Everything below the drivers is a pure state machine in the manner of quinn-proto: `handle_*` takes an input with the
//! present time, `poll_*` gives outputs until there are none, `next_deadline` follows from the state.
//!
//! A datagram's way: [`net`] receives it → [`node::Node::handle_datagram`] parses it in place
//! ([`wire::datagram::Unverified`]), asks whether it was expected and whether its sender may cost a signature check, verifies it
//! ([`wire::datagram::Verified`]) → [`dht::Dht`] acts and puts answers into the [`wire::outbox::Outbox`] → [`net`] sends them.
//! Nothing is allocated on this way.
//!
//! A piece's way: a peer asks over a stream → [`transfer::Transfer`] raises a question → [`store::Store`] says where the bytes
//! lie → the core names an [`io::Extent`] → [`net`] has the kernel send it. On the other side the core names an
//! [`io::Sink`], the driver writes and hashes, and the core hears what it hashed to. No content passes through the core.

mod counters;
pub mod id;
pub mod identity;
pub mod io;
pub mod limits;
pub mod manifest;
pub mod rng;
pub mod time;

pub mod wire;

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
