//! Content from the node to an output, as it arrives.

use super::Context;
use super::client::Client;
use super::exit::{CommandError, Exit};
use super::output::Output;
use super::progress::Meter;
use crate::id::Key;
use crate::node::command::{Command, Part, Reply, Response};

/// What was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Done {
    /// The first byte.
    pub(super) start: u64,
    /// How many bytes.
    pub(super) bytes: u64,
    /// How many nodes they came from.
    pub(super) sources: u32,
}

/// Writes a file, or a part of it, to `output`. `None` when nobody reads that to its end.
pub(super) fn read(
    context: &Context,
    hash: Key,
    part: Option<Part>,
    timeout: Option<u32>,
    mut meter: Meter,
    output: &mut Output,
) -> Result<Option<Done>, CommandError> {
    let mut client = Client::connect(&context.dir)?;
    client.send(&Command::Read { hash, part, timeout })?;
    let mut written = Written::default();
    loop {
        match client.receive()? {
            Response::Progress(progress) => meter.show(&progress),
            Response::Content(content) => {
                client.receive_content(content, |bytes| {
                    // The node has verified every byte. Between its disk and this output there are still a file that
                    // another program of this user's could write to, and this program: what leaves is hashed again.
                    written.hasher.update(bytes);
                    written.bytes += bytes.len() as u64;
                    output.bytes(bytes)
                })?;
                output.flush()?;
            }
            Response::Done(Reply::Read { start, bytes, sources, .. }) => {
                output.flush()?;
                let done = Done { start, bytes, sources };
                return match output.is_closed() {
                    true => Ok(None),
                    false => written.check(hash, part, bytes).map(|()| Some(done)),
                };
            }
            Response::Done(reply) => return Err(context.unexpected(&reply)),
            Response::Failed(failure) => {
                return Err(CommandError::new(failure.reason.into(), failure.message));
            }
        }
        if output.is_closed() {
            // Nobody reads on. Closing the connection takes the command back.
            return Ok(None);
        }
    }
}

/// What has been written.
#[derive(Default)]
struct Written {
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Written {
    fn check(&self, hash: Key, part: Option<Part>, bytes: u64) -> Result<(), CommandError> {
        // A part has no hash of its own; each of its chunks was verified by the node.
        let right = part.is_some() || self.hasher.finalize() == blake3::Hash::from_bytes(hash.0);
        if right && self.bytes == bytes {
            return Ok(());
        }
        let message = format!(
            "what was written is not {hash}: something wrote to the node's files meanwhile; get it again"
        );
        Err(CommandError::new(Exit::Unverified, message))
    }
}
