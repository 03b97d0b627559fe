//! What the machine counts.

/// The things that are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counter {
    /// Requests answered.
    Answered,
    /// Requests sent, repetitions not included.
    Asked,
    /// Requests sent again because the answer was late.
    Repeated,
    /// Requests that were never answered.
    Unanswered,
    /// Answers that belong to no request, or come from the wrong node.
    Unexpected,
    /// Answers that were shortened because the address was not proven.
    Shortened,
    /// Stores refused for want of a valid token.
    TokenRefused,
    /// Stores refused because the table is full.
    StoreFull,
    /// Records and providers whose signature does not fit.
    BadSignature,
    /// Lookups that ran into the time limit.
    LookupTimedOut,
    /// Lookups refused because too many are under way.
    LookupRefused,
    /// Announcements and publications that used a region instead of a lookup.
    RegionUsed,
    /// Contacts dropped because they did not answer.
    ContactLost,
    /// Rounds of bootstrapping that reached nobody.
    BootstrapFailed,
}

const NAMES: [&str; 14] = [
    "dht_answered",
    "dht_asked",
    "dht_repeated",
    "dht_unanswered",
    "dht_unexpected",
    "dht_shortened",
    "dht_token_refused",
    "dht_store_full",
    "dht_bad_signature",
    "dht_lookup_timed_out",
    "dht_lookup_refused",
    "dht_region_used",
    "dht_contact_lost",
    "dht_bootstrap_failed",
];

const _: () = assert!(Counter::BootstrapFailed as usize + 1 == NAMES.len());

/// One number for each [`Counter`].
#[derive(Default)]
pub(super) struct Counters([u64; NAMES.len()]);

impl Counters {
    /// Counts one.
    pub(super) fn count(&mut self, counter: Counter) {
        self.0[counter as usize] += 1;
    }

    /// Every counter with its name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.0)
    }
}
