//! The counters of membership.

use crate::counters::counters;

counters! {
    /// The counters of membership.
    pub struct GossipCounters {
        /// Rounds.
        rounds = "gossip_rounds",
        /// Gossip requests sent.
        asked = "gossip_asked",
        /// Gossip requests answered.
        answered = "gossip_answered",
        /// Gossip requests that timed out.
        unanswered = "gossip_unanswered",
        /// Answers that match no outstanding request, or come from another node than the request went to.
        unexpected = "gossip_unexpected",
        /// Replies that were shortened because the address was not validated.
        shortened = "gossip_shortened",
        /// States that were news to this node.
        states_learned = "gossip_states_learned",
        /// States whose signature does not verify.
        state_forged = "gossip_state_forged",
        /// States that were dropped because the budget of signature checks was spent.
        state_over_budget = "gossip_state_over_budget",
        /// States of nodes whose keys do not show the work that the network asks for.
        without_work = "gossip_without_work",
        /// Nodes that found no place in the view.
        view_full = "gossip_view_full",
        /// Pings that were not sent because the party of an address that others named had its share.
        named_over_budget = "gossip_named_over_budget",
        /// Rumours displaced by newer ones before they had been sent often enough.
        rumour_dropped = "gossip_rumour_dropped",
        /// Members probed.
        probes = "gossip_probes",
        /// Of those, probes without an answer.
        probes_failed = "gossip_probes_failed",
        /// Relays asked to probe a member.
        probes_indirect = "gossip_probes_indirect",
        /// Members probed for others.
        probes_relayed = "gossip_probes_relayed",
        /// Probes for others that were refused.
        probes_refused = "gossip_probes_refused",
        /// Suspicions of this node that it refuted.
        refuted = "gossip_refuted",
        /// Times that this node noticed that it had been asleep.
        asleep = "gossip_asleep",
        /// Requests or events for which the table had no room.
        table_full = "gossip_table_full",
    }
}
