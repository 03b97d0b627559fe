//! Copies a file from the node to an output, as it arrives.

use super::Context;
use super::client::Client;
use super::exit::{CommandError, Exit};
use super::output::Output;
use super::progress::Meter;
use crate::id::Key;
use crate::node::command::{Command, Content, Part, Reply, Response};

/// A completed read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Done {
    /// The offset of its first byte.
    pub(super) start: u64,
    /// Its length in bytes.
    pub(super) bytes: u64,
    /// The number of nodes that sent content.
    pub(super) sources: u32,
}

/// Writes a file, or a part of it, to `output`. `None` when the reader of `output` closes its pipe before the end.
pub(super) fn read(
    context: &Context,
    hash: Key,
    part: Option<Part>,
    timeout: Option<u32>,
    meter: Meter,
    output: &mut Output,
) -> Result<Option<Done>, CommandError> {
    let done = read_to(context, hash, part, timeout, meter, |_, bytes| {
        output.bytes(bytes)?;
        output.flush()?;
        Ok(!output.is_closed())
    })?;
    output.flush()?;
    Ok(done.filter(|_| !output.is_closed()))
}

/// Gives the bytes of a file, or of a part of it, to `take` in their order. `None` when `take` returns `false`, which ends the read.
pub(super) fn read_to(
    context: &Context,
    hash: Key,
    part: Option<Part>,
    timeout: Option<u32>,
    mut meter: Meter,
    mut take: impl FnMut(&Content, &[u8]) -> Result<bool, CommandError>,
) -> Result<Option<Done>, CommandError> {
    let mut client = Client::open(&context.door)?;
    client.send(&Command::Read { hash, part, timeout })?;
    let mut written = Written::default();
    loop {
        let mut goes_on = true;
        match client.receive()? {
            Response::Progress(progress) => meter.show(&progress),
            Response::Content(content) => {
                client.receive_content(content, |bytes| {
                    // The node has verified every byte. After that, another program of this user can still write into the
                    // node's files, so the bytes are hashed again here.
                    written.hasher.update(bytes);
                    written.bytes += bytes.len() as u64;
                    goes_on = goes_on && take(&content, bytes)?;
                    Ok::<(), CommandError>(())
                })?;
            }
            Response::Done(Reply::Read { start, bytes, sources, .. }) => {
                return written.check(hash, part, bytes).map(|()| Some(Done { start, bytes, sources }));
            }
            Response::Done(reply) => return Err(context.unexpected(&reply)),
            Response::Failed(failure) => {
                return Err(CommandError::new(failure.reason.into(), failure.message));
            }
        }
        if !goes_on {
            // Closing the connection cancels the command.
            return Ok(None);
        }
    }
}

/// The bytes written so far.
#[derive(Default)]
struct Written {
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Written {
    fn check(&self, hash: Key, part: Option<Part>, bytes: u64) -> Result<(), CommandError> {
        // A part has no hash of its own. The node verified each of its chunks.
        let right = part.is_some() || self.hasher.finalize() == blake3::Hash::from_bytes(hash.0);
        if right && self.bytes == bytes {
            return Ok(());
        }
        let message = format!(
            "the output is not {hash}: another program changed the node's files meanwhile; discard it and get it again"
        );
        Err(CommandError::new(Exit::Unverified, message))
    }
}
