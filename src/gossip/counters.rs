//! What membership counts.

use crate::counters::counters;

counters! {
    /// What membership counts.
    pub struct GossipCounters {
        /// Rounds.
        rounds = "gossip_rounds",
        /// Gossips sent.
        asked = "gossip_asked",
        /// Gossips answered.
        answered = "gossip_answered",
        /// Gossips that were not answered.
        unanswered = "gossip_unanswered",
        /// Answers that belong to no request, or come from the wrong node.
        unexpected = "gossip_unexpected",
        /// Replies that were shortened because the address was not proven.
        shortened = "gossip_shortened",
        /// States that were news.
        states_learned = "gossip_states_learned",
        /// States whose signature did not fit.
        state_forged = "gossip_state_forged",
        /// States that were not looked at because too many had to be checked.
        state_over_budget = "gossip_state_over_budget",
        /// Members that found no place in the view.
        view_full = "gossip_view_full",
        /// Members that were refused because too many share their IP prefix.
        prefix_full = "gossip_prefix_full",
        /// Rumours that were displaced by newer ones before they had been told often enough.
        rumour_dropped = "gossip_rumour_dropped",
        /// Members asked whether they are there.
        probes = "gossip_probes",
        /// Of those, how many did not answer.
        probes_failed = "gossip_probes_failed",
        /// Other members asked to probe one.
        probes_indirect = "gossip_probes_indirect",
        /// Members probed for others.
        probes_relayed = "gossip_probes_relayed",
        /// Probes for others that were not made.
        probes_refused = "gossip_probes_refused",
        /// Times that this node was suspected and said that it is there.
        refuted = "gossip_refuted",
        /// Times that this node found that it had been asleep.
        asleep = "gossip_asleep",
        /// Requests or events for which there was no room.
        table_full = "gossip_table_full",
    }
}
