//! `limit`.

use super::Context;
use super::exit::{CommandError, Exit};
use super::status::limits_line;
use crate::config::values::{parse_rate, parse_streams, parse_uploads};
use crate::node::command::{Command, Reply};
use serde_json::json;

pub(super) const AFTER_HELP: &str = "\
Rates are bytes a second, such as 2MiB; 0 is unlimited. They limit content only. A change holds until the node stops;
`elver node --help` shows the settings that keep it.

Examples:
  elver limit                                  show the limits
  elver limit --upload 2MiB --download 0       2 MiB/s out, unlimited in
  elver limit --peer-upload 500k --uploads 4   4 peers at a time, 500 KiB/s each";

#[derive(clap::Args, Debug)]
pub(super) struct LimitArguments {
    /// Bytes a second to all peers together
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    upload: Option<u64>,
    /// Bytes a second from all peers together
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    download: Option<u64>,
    /// Bytes a second to one peer
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    peer_upload: Option<u64>,
    /// Bytes a second from one peer
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    peer_download: Option<u64>,
    /// TCP connections at a time, 33 to 4000
    #[arg(long, value_name = "N", value_parser = parse_streams)]
    streams: Option<usize>,
    /// Peers that receive content at a time
    #[arg(long, value_name = "N", value_parser = parse_uploads)]
    uploads: Option<usize>,
}

/// Changes the limits given as flags, and shows all limits.
pub(super) fn run(context: &mut Context, arguments: &LimitArguments) -> Result<Exit, CommandError> {
    let LimitArguments { upload, download, peer_upload, peer_download, streams, uploads } = *arguments;
    let command = Command::Limit { upload, download, peer_upload, peer_download, streams, uploads };
    let reply = context.request(&command, "")?;
    let Reply::Limit { rates, streams, uploads } = reply else {
        return Err(context.unexpected(&reply));
    };
    if context.output.json {
        context.output.object(&json!({ "rates": rates, "streams": streams, "uploads": uploads }))?;
    } else {
        context.output.line(&limits_line(&rates, streams as u32, uploads as u32))?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::FakeDaemon;
    use crate::limits::Rates;
    use crate::node::command::Response;

    #[test]
    fn limits_given_as_flags_are_changed_and_all_are_shown() {
        let rates = Rates { upload: 2 << 20, ..Rates::default() };
        let daemon =
            FakeDaemon::answering(&[Response::Done(Reply::Limit { rates, streams: 64, uploads: 4 })]);
        let (mut context, results, _) = daemon.context(false);
        let arguments = LimitArguments {
            upload: Some(2 << 20),
            download: None,
            peer_upload: None,
            peer_download: None,
            streams: None,
            uploads: Some(4),
        };
        assert_eq!(run(&mut context, &arguments), Ok(Exit::Done));
        assert!(results.text().starts_with("2.0 MiB/s out, unlimited in"), "{}", results.text());
        let expected = Command::Limit {
            upload: Some(2 << 20),
            download: None,
            peer_upload: None,
            peer_download: None,
            streams: None,
            uploads: Some(4),
        };
        assert_eq!(daemon.heard(), vec![expected]);
    }
}
