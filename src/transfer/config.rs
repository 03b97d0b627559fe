//! The configuration of the transfer machine.

use crate::limits::Limits;
use crate::peers::blame::BanTimes;
use crate::peers::party::Parties;
use crate::time::Duration;

/// The configuration of a [`Transfer`](super::Transfer).
#[derive(Clone, Debug)]
pub struct TransferConfig {
    /// Every bound.
    pub limits: Limits,
    /// How parties are told apart.
    pub parties: Parties,
    /// Whether this node is a leaf.
    pub leaf: bool,
    /// The port that this node listens on.
    pub port: u16,
    /// The timeouts.
    pub timing: Timing,
}

/// Timeouts, one for each thing that can be awaited.
#[derive(Clone, Debug)]
pub struct Timing {
    /// For a connection. The driver enforces it: [`StreamOutput::Connect`](super::StreamOutput::Connect) carries the deadline.
    pub dial: Duration,
    /// For the other end to prove its identity.
    pub handshake: Duration,
    /// For progress on a requested piece, before the stream is closed.
    pub stall: Duration,
    /// For any activity on a stream, before it is closed.
    pub idle: Duration,
    /// For the answer to an offer, for the content of an accepted offer, and for the message that it is durable.
    pub answer: Duration,
    /// For a stream to the target of a copy.
    pub push: Duration,
    /// For progress on a requested piece, before an idle source is asked for it, too.
    pub patience: Duration,
    /// Between two rounds of questions to a source that has nothing to give. Doubles while the answers bring nothing new.
    pub ask_again: Duration,
    /// The upper bound of [`ask_again`](Timing::ask_again).
    pub ask_again_max: Duration,
    /// How long a peer's request waits for a slot before this node answers that it is busy.
    pub choke: Duration,
    /// How long a source is not asked after it answered that it is busy.
    pub pause: Duration,
    /// Before a source is dialled a second time.
    pub retry_first: Duration,
    /// Before a source is dialled a third time.
    pub retry_second: Duration,
    /// Before a source that was given up may be tried again, if it is added again.
    pub forgive: Duration,
    /// Between two [`TransferEvent::SourcesNeeded`](super::TransferEvent::SourcesNeeded) for one download.
    pub needed: Duration,
    /// How long a download waits for a source that has not been reached yet, before it asks for others.
    pub hope: Duration,
    /// Of bans.
    pub ban: BanTimes,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Timing {
            dial: seconds(5),
            handshake: seconds(5),
            stall: seconds(10),
            idle: seconds(60),
            answer: seconds(45),
            push: seconds(60),
            patience: seconds(3),
            ask_again: seconds(5),
            ask_again_max: seconds(40),
            choke: seconds(2),
            pause: seconds(1),
            retry_first: seconds(1),
            retry_second: seconds(5),
            forgive: seconds(60),
            needed: Duration::from_millis(500),
            hope: seconds(1),
            ban: BanTimes::default(),
        }
    }
}

impl TransferConfig {
    /// The configuration with the default timeouts, in an open network.
    pub fn new(limits: Limits, leaf: bool, port: u16) -> Self {
        TransferConfig { limits, parties: Parties::default(), leaf, port, timing: Timing::default() }
    }
}
