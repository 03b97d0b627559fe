//! The counters of the DHT.

use crate::counters::counters;

counters! {
    /// The counters of the DHT.
    pub struct DhtCounters {
        /// Requests answered.
        answered = "dht_answered",
        /// Requests sent, repetitions not included.
        asked = "dht_asked",
        /// Requests sent again because the answer was late.
        repeated = "dht_repeated",
        /// Requests that were never answered.
        unanswered = "dht_unanswered",
        /// Answers that match no outstanding request, or come from another node than the request went to.
        unexpected = "dht_unexpected",
        /// Answers that were shortened because the address was not validated.
        shortened = "dht_shortened",
        /// Stores refused for want of a valid token.
        token_refused = "dht_token_refused",
        /// Stores refused because the table is full.
        store_full = "dht_store_full",
        /// Value and provider records whose signature does not verify.
        bad_signature = "dht_bad_signature",
        /// Records in answers that were not checked, because the node that answered had used up its share of the checks.
        found_over_budget = "dht_found_over_budget",
        /// Nodes that others named and whose keys do not show the work that the network asks for.
        without_work = "dht_without_work",
        /// Lookups that ran into the time limit.
        lookup_timed_out = "dht_lookup_timed_out",
        /// Lookups refused because too many are under way.
        lookup_refused = "dht_lookup_refused",
        /// Announcements and publications that used the lookup cache instead of a lookup.
        region_used = "dht_region_used",
        /// Contacts dropped because they did not answer.
        contact_lost = "dht_contact_lost",
        /// Pongs that contradict what others observe of this node's address.
        contradicted = "dht_contradicted",
        /// Rounds of bootstrapping without an answer.
        bootstrap_failed = "dht_bootstrap_failed",
    }
}
