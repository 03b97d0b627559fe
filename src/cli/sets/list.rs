//! Reading a list: from the node, or from a file beside the target.

use super::Address;
use crate::cli::Context;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::progress::Meter;
use crate::cli::read::read_to;
use crate::id::Key;
use crate::set::{
    Decoded, Decoder, HEAD_BYTES, Invalid, LIST_BYTES_MAX, MAGIC, RECORD_BYTES_MAX, Record, SetFile,
};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Bytes read from a file at a time; more than the longest record.
const BLOCK_BYTES: usize = 64 << 10;
const _: () = assert!(BLOCK_BYTES > RECORD_BYTES_MAX);

/// Gives each record to `take`, with the path of its directory: of a directory's record its own path, of an END that of the directory
/// around it.
pub(super) struct Feed {
    decoder: Decoder,
    /// Bytes of a record that goes on.
    rest: Vec<u8>,
}

impl Feed {
    pub(super) fn new() -> Self {
        Feed { decoder: Decoder::default(), rest: Vec::new() }
    }

    /// Whether the files of the list have times.
    pub(super) fn has_times(&self) -> bool {
        self.decoder.has_times()
    }

    /// Takes further bytes of the list. `last` says that there are no others.
    pub(super) fn bytes<E: From<Invalid>>(
        &mut self,
        bytes: &[u8],
        last: bool,
        mut take: impl FnMut(&[u8], Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match self.decoder.decode(&self.rest[at..], last)? {
                Decoded::Head => at += HEAD_BYTES,
                Decoded::Record(record, length) => {
                    take(self.decoder.directory(), record)?;
                    at += length;
                }
                Decoded::More | Decoded::Over => break,
            }
        }
        self.rest.drain(..at);
        Ok(())
    }
}

/// An error of the command, or a list that is none.
pub(super) enum Fault {
    Command(CommandError),
    Invalid(Invalid),
}

impl From<CommandError> for Fault {
    fn from(error: CommandError) -> Self {
        Fault::Command(error)
    }
}

impl From<Invalid> for Fault {
    fn from(error: Invalid) -> Self {
        Fault::Invalid(error)
    }
}

impl Fault {
    fn explain(self, hash: &Key) -> CommandError {
        match self {
            Fault::Command(error) => error,
            Fault::Invalid(Invalid::NoSet) => {
                CommandError::failed(format!("{hash} is a file and no set: get it with `elver get {hash}`"))
            }
            Fault::Invalid(why) => CommandError::failed(format!(
                "{hash} is no set that can be trusted: {why}; nothing of it is used"
            )),
        }
    }
}

/// Whether a file begins as a list does.
pub(in crate::cli) fn is_list(mut file: impl Read) -> bool {
    let mut head = [0; MAGIC.len()];
    file.read_exact(&mut head).is_ok() && head == MAGIC
}

/// Reads a list from the node as it arrives; every byte is verified. `each` also gets its bytes. Returns whether its files have times.
pub(super) fn stream(
    context: &Context,
    hash: Key,
    timeout: Option<u32>,
    mut each: impl FnMut(&[u8]) -> Result<(), CommandError>,
    mut take: impl FnMut(&[u8], Record<'_>) -> Result<(), CommandError>,
) -> Result<bool, CommandError> {
    let mut feed = Feed::new();
    let meter = Meter::new(context.progress(), &hash.to_string());
    let mut fault = None;
    let done = read_to(context, hash, None, timeout, meter, |content, bytes| {
        let fed = match content.file_length > LIST_BYTES_MAX {
            // Too long for a list: the first bytes tell which message fits.
            true if is_list(bytes) => Err(Fault::from(Invalid::TooLong)),
            true => Err(Fault::from(Invalid::NoSet)),
            false => each(bytes).map_err(Fault::from).and_then(|()| {
                feed.bytes(bytes, false, |path, record| take(path, record).map_err(Fault::from))
            }),
        };
        fault = fed.err();
        Ok(fault.is_none())
    });
    let fed = match fault {
        Some(fault) => Err(fault),
        None => done
            .map_err(Fault::from)
            .and_then(|_| feed.bytes(&[], true, |path, record| take(path, record).map_err(Fault::from))),
    };
    fed.map_err(|fault| fault.explain(&hash))?;
    Ok(feed.has_times())
}

/// Reads a list from a file, from its start. The list was verified when it was written to the file.
pub(super) fn each_record(
    mut file: &File,
    mut take: impl FnMut(&[u8], Record<'_>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let unreadable = |error| CommandError::failed(format!("cannot read the list of the set again: {error}"));
    let (mut feed, mut block) = (Feed::new(), vec![0; BLOCK_BYTES]);
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    loop {
        let read = match file.read(&mut block) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read.map_err(unreadable)?,
        };
        let fed =
            feed.bytes(&block[..read], read == 0, |path, record| take(path, record).map_err(Fault::from));
        fed.map_err(|fault| match fault {
            Fault::Command(error) => error,
            Fault::Invalid(why) => {
                CommandError::failed(format!("the list of the set was changed meanwhile: {why}"))
            }
        })?;
        if read == 0 {
            return Ok(());
        }
    }
}

/// Gives the address of each file of a set to `take`. The list is read to its end before the first.
pub(in crate::cli) fn each_file(
    context: &mut Context,
    address: &Address,
    mut take: impl FnMut(&mut Context, Key) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut hashes = Vec::new();
    stream(
        context,
        address.hash,
        None,
        |_| Ok(()),
        |_, record| {
            if let Record::File { file, .. } = record {
                hashes.push(file.hash);
            }
            Ok(())
        },
    )?;
    hashes.into_iter().try_for_each(|hash| take(context, hash))
}

/// What an address in a set leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) enum Found {
    /// A file.
    File(SetFile),
    /// A directory, or the set itself.
    Directory,
}

/// Finds a path in a set. The set is read to its end, so that a list that breaks off gives nothing.
pub(in crate::cli) fn find(
    context: &Context,
    address: &Address,
    timeout: Option<u32>,
) -> Result<Found, CommandError> {
    let scope = Scope::new(address.path());
    let mut found = scope.is_all().then_some(Ok(Found::Directory));
    if found.is_none() {
        stream(
            context,
            address.hash,
            timeout,
            |_| Ok(()),
            |directory, record| {
                if let Some(what) = scope.found(directory, &record) {
                    found = Some(what);
                }
                Ok(())
            },
        )?;
    }
    found.unwrap_or_else(|| Err(scope.missing(address)))
}

/// The part of a set below a path.
pub(super) struct Scope {
    path: Vec<u8>,
    /// The directories between the path and the present record; `None` outside.
    depth: Option<usize>,
    /// Whether the path was there.
    seen: bool,
}

impl Scope {
    pub(super) fn new(path: &[u8]) -> Self {
        let all = path.is_empty();
        Scope { path: path.to_vec(), depth: all.then_some(0), seen: all }
    }

    fn is_all(&self) -> bool {
        self.path.is_empty()
    }

    /// Whether a record is inside. The END of the part's own directory is.
    pub(super) fn contains(&mut self, directory: &[u8], record: &Record<'_>) -> bool {
        match (&mut self.depth, record) {
            (Some(depth), Record::Directory { .. }) => *depth += 1,
            (Some(0), Record::End) => self.depth = None,
            (Some(depth), Record::End) => *depth -= 1,
            (Some(_), _) => {}
            (None, Record::Directory { .. }) if directory == self.path => {
                // The records that follow are inside.
                (self.depth, self.seen) = (Some(0), true);
                return false;
            }
            (None, _) => return false,
        }
        true
    }

    /// What the path leads to, if this record is it.
    fn found(&self, directory: &[u8], record: &Record<'_>) -> Option<Result<Found, CommandError>> {
        let is = |name: &[u8]| match directory {
            b"" => name == self.path,
            directory => {
                self.path.strip_prefix(directory).and_then(|rest| rest.strip_prefix(b"/")) == Some(name)
            }
        };
        match record {
            Record::Directory { .. } if directory == self.path => Some(Ok(Found::Directory)),
            Record::File { name, file } if is(name) => Some(Ok(Found::File(*file))),
            Record::Link { name, target } if is(name) => Some(Err(CommandError::failed(format!(
                "{} is a symbolic link to {}: get that, or the directory of both",
                String::from_utf8_lossy(&self.path).escape_debug(),
                String::from_utf8_lossy(target).escape_debug(),
            )))),
            _ => None,
        }
    }

    /// The error when the path is not there; `None` when it was.
    pub(super) fn check(&self, address: &Address) -> Result<(), CommandError> {
        if self.seen { Ok(()) } else { Err(self.missing(address)) }
    }

    fn missing(&self, address: &Address) -> CommandError {
        let path = String::from_utf8_lossy(&self.path);
        let message = format!(
            "there is no {} in the set {}: `elver ls {}/` lists what is",
            path.escape_debug(),
            address.hash,
            address.hash
        );
        CommandError::new(Exit::NotFound, message)
    }
}
