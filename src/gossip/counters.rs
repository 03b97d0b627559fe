//! What the machine counts.

/// The things that are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counter {
    /// Rounds.
    Rounds,
    /// Gossips sent.
    Asked,
    /// Gossips answered.
    Answered,
    /// Gossips that were not answered.
    Unanswered,
    /// Answers that belong to no request, or come from the wrong node.
    Unexpected,
    /// Replies that were shortened because the address was not proven.
    Shortened,
    /// States that were news.
    StatesLearned,
    /// States whose signature did not fit.
    StateForged,
    /// States that were not looked at because too many had to be checked.
    StateOverBudget,
    /// Members that found no place in the view.
    ViewFull,
    /// Members that were refused because too many share their IP prefix.
    PrefixFull,
    /// Rumours that were displaced by newer ones before they had been told often enough.
    RumourDropped,
    /// Members asked whether they are there.
    Probes,
    /// Of those, how many did not answer.
    ProbesFailed,
    /// Other members asked to probe one.
    ProbesIndirect,
    /// Members probed for others.
    ProbesRelayed,
    /// Probes for others that were not made.
    ProbesRefused,
    /// Times that this node was suspected and said that it is there.
    Refuted,
    /// Times that this node found that it had been asleep.
    Asleep,
    /// Requests or events for which there was no room.
    TableFull,
}

const NAMES: [&str; 20] = [
    "gossip_rounds",
    "gossip_asked",
    "gossip_answered",
    "gossip_unanswered",
    "gossip_unexpected",
    "gossip_shortened",
    "gossip_states_learned",
    "gossip_state_forged",
    "gossip_state_over_budget",
    "gossip_view_full",
    "gossip_prefix_full",
    "gossip_rumour_dropped",
    "gossip_probes",
    "gossip_probes_failed",
    "gossip_probes_indirect",
    "gossip_probes_relayed",
    "gossip_probes_refused",
    "gossip_refuted",
    "gossip_asleep",
    "gossip_table_full",
];

const _: () = assert!(Counter::TableFull as usize + 1 == NAMES.len());

/// One number for each [`Counter`].
#[derive(Default)]
pub(super) struct Counters([u64; NAMES.len()]);

impl Counters {
    /// Counts one.
    pub(super) fn count(&mut self, counter: Counter) {
        self.0[counter as usize] += 1;
    }

    /// How many were counted.
    #[cfg(test)]
    pub(super) fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// Every counter with its name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.0)
    }
}
