//! What the gateway counts.

use super::answer::Status;
use super::request::Refusal;
use crate::counters::counters;

counters! {
    /// The counters of the gateway.
    pub(in crate::net) struct Counters {
        /// Connections accepted.
        connections = "http_connections",
        /// Connections closed while they were idle, to make room for others.
        connections_replaced = "http_connections_replaced",
        /// Requests on connections for which there was no room.
        turned_away = "http_turned_away",
        /// Requests that were read completely.
        requests = "http_requests",
        /// Requests that are no HTTP, or that could be read in two ways.
        requests_malformed = "http_requests_malformed",
        /// Requests with too large a head or body.
        requests_too_large = "http_requests_too_large",
        /// Requests that took too long to come.
        requests_slow = "http_requests_slow",
        /// Requests without the token, from a foreign page, or for a foreign host.
        requests_denied = "http_requests_denied",
        /// Connections closed because their readers took too little.
        readers_slow = "http_readers_slow",
        /// Answers that were cut off, because the rest of the content could not be had.
        answers_cut = "http_answers_cut",
        /// Answers of status 2xx.
        answers_2xx = "http_answers_2xx",
        /// Answers of status 3xx.
        answers_3xx = "http_answers_3xx",
        /// Answers of status 4xx.
        answers_4xx = "http_answers_4xx",
        /// Answers of status 5xx.
        answers_5xx = "http_answers_5xx",
        /// Bytes of content sent.
        content_bytes = "http_content_bytes",
    }
}

impl Counters {
    /// Counts an answer.
    pub(super) fn count_answer(&mut self, status: Status) {
        *match status.code() / 100 {
            2 => &mut self.answers_2xx,
            3 => &mut self.answers_3xx,
            4 => &mut self.answers_4xx,
            _ => &mut self.answers_5xx,
        } += 1;
    }

    /// Counts a request that was not understood.
    pub(super) fn count_refusal(&mut self, refusal: Refusal) {
        *match refusal {
            Refusal::HeadTooLarge | Refusal::BodyTooLarge => &mut self.requests_too_large,
            Refusal::Malformed(_) | Refusal::NoLength | Refusal::Coded | Refusal::Version => {
                &mut self.requests_malformed
            }
        } += 1;
    }

    /// Counts an answer that denies access.
    pub(super) fn count_denial(&mut self, status: Status) {
        if matches!(status, Status::UNAUTHORIZED | Status::FORBIDDEN | Status::MISDIRECTED) {
            self.requests_denied += 1;
        }
    }
}
