//! What the table counts.

use crate::counters::counters;

counters! {
    /// What the table counts.
    pub struct DhtCounters {
        /// Requests answered.
        answered = "dht_answered",
        /// Requests sent, repetitions not included.
        asked = "dht_asked",
        /// Requests sent again because the answer was late.
        repeated = "dht_repeated",
        /// Requests that were never answered.
        unanswered = "dht_unanswered",
        /// Answers that belong to no request, or come from the wrong node.
        unexpected = "dht_unexpected",
        /// Answers that were shortened because the address was not proven.
        shortened = "dht_shortened",
        /// Stores refused for want of a valid token.
        token_refused = "dht_token_refused",
        /// Stores refused because the table is full.
        store_full = "dht_store_full",
        /// Records and providers whose signature does not fit.
        bad_signature = "dht_bad_signature",
        /// Lookups that ran into the time limit.
        lookup_timed_out = "dht_lookup_timed_out",
        /// Lookups refused because too many are under way.
        lookup_refused = "dht_lookup_refused",
        /// Announcements and publications that used a region instead of a lookup.
        region_used = "dht_region_used",
        /// Contacts dropped because they did not answer.
        contact_lost = "dht_contact_lost",
        /// Rounds of bootstrapping that reached nobody.
        bootstrap_failed = "dht_bootstrap_failed",
    }
}
