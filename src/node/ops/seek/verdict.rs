//! When a search fails, and why.

use super::sources::Search;
use crate::node::command::FailureReason;
use crate::node::status;
use crate::transfer::DownloadState;

/// What is sought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) enum Sought {
    /// The root.
    Root,
    /// The chunks.
    Chunks,
}

/// Why a search cannot succeed, when its lookups have ended and all its sources have been asked. `None` while it still can.
pub(in crate::node) fn hopeless(
    sought: Sought,
    search: &Search,
    state: &DownloadState,
) -> Option<(FailureReason, String)> {
    if search.is_looking() || search.lookups() == 0 || !state.idle {
        return None;
    }
    let (asked, providers, banned) = (search.asked(), search.found(), state.banned);
    match sought {
        Sought::Root if banned > 0 => {
            let why = format!("{}, and no other has it", status::sent_wrong_content(banned));
            Some((FailureReason::Unverified, why))
        }
        Sought::Root if asked == 0 && state.not_found == 0 => {
            let why = "this node could reach no other node to ask: see `elver peers`".to_owned();
            Some((FailureReason::Unreachable, why))
        }
        Sought::Root if providers > 0 && state.not_found < providers && state.failed > 0 => {
            let why = format!("{} of the nodes that should have it could not be reached", state.failed);
            Some((FailureReason::Unreachable, why))
        }
        Sought::Root => Some((
            FailureReason::NotFound,
            format!("no node that was asked has it; {}", status::asked(asked)),
        )),
        Sought::Chunks if banned > 0 && state.connected == 0 && search.lookups() > 1 => {
            let why = format!("{}, and no other has the rest", status::sent_wrong_content(banned));
            Some((FailureReason::Unverified, why))
        }
        _ => None,
    }
}

/// Why a download without progress fails. `missing` is the number of missing chunks and of all chunks, once they are known.
pub(in crate::node) fn timed_out(
    missing: Option<(usize, usize)>,
    search: &Search,
    state: &DownloadState,
) -> (FailureReason, String) {
    let (reason, cause) = match state.banned {
        0 => (FailureReason::Unreachable, "no node that has the rest can be reached".to_owned()),
        banned => (FailureReason::Unverified, status::sent_wrong_content(banned)),
    };
    let why = match missing {
        Some((missing, of)) => format!("{missing} of {of} chunks are missing, and {cause}"),
        None => format!("no answer in time; {}", status::asked(search.asked())),
    };
    (reason, why)
}
