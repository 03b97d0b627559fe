//! The content of the log of shares: the last record on each place.

use super::record::{FILE_HEAD, RECORD_BYTES_MAX, Record, decode};
use crate::io::{Place, Share};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

/// The bytes of the log in memory while it is read.
const READ_BYTES: usize = 64 << 10;

/// The content of the log.
#[derive(Default)]
pub(in crate::disk) struct Contents {
    /// The shares, in the order in which they were made.
    pub(in crate::disk) claims: Vec<Share>,
    /// The number of superseded records.
    pub(super) stale: usize,
    /// The number of damaged bytes.
    pub(super) damaged: u64,
    /// Whether records follow damaged bytes, which a power cut alone does not cause.
    pub(super) torn_inside: bool,
    /// Whether the log exists and has this version.
    pub(in crate::disk) found: bool,
}

/// What the records of one place have in common: the beginning of a hash of its path, or of its address in the cache.
pub(super) type PlaceId = [u8; 16];

pub(super) fn place_id(share: &Share) -> PlaceId {
    let mut hasher = blake3::Hasher::new();
    match &share.place {
        Place::File(path) => hasher.update(path.as_os_str().as_bytes()),
        // No path begins with a zero.
        _ => hasher.update(&[0]).update(&share.hash.0),
    };
    let hash = hasher.finalize();
    core::array::from_fn(|index| hash.as_bytes()[index])
}

/// The last record on each place. The claims lie in one piece of memory, which goes as a whole when the node has taken them up.
#[derive(Default)]
pub(super) struct Table {
    /// `None` where one has ended, or come again further behind.
    claims: Vec<Option<Share>>,
    places: BTreeMap<PlaceId, u32>,
    records: u64,
}

impl Table {
    pub(super) fn take(&mut self, claims: Vec<Share>) {
        for share in claims {
            self.apply(Record { share, ends: false, length: 0 });
        }
    }

    pub(super) fn apply(&mut self, record: Record) {
        self.records += 1;
        let place = place_id(&record.share);
        let known = self.places.get(&place).map(|index| *index as usize);
        let same = known.filter(|index| {
            self.claims[*index].as_ref().is_some_and(|share| share.hash == record.share.hash)
        });
        match (record.ends, same) {
            (true, Some(index)) => {
                self.claims[index] = None;
                self.places.remove(&place);
            }
            // A share of the same place with another address is newer and stays.
            (true, None) => {}
            // A share that is saved again keeps its position in the order.
            (false, Some(index)) => self.claims[index] = Some(record.share),
            (false, None) => {
                if let Some(index) = known {
                    self.claims[index] = None;
                }
                self.places.insert(place, self.claims.len() as u32);
                self.claims.push(Some(record.share));
            }
        }
    }

    pub(super) fn into_claims(self) -> Vec<Share> {
        self.claims.into_iter().flatten().collect()
    }
}

/// Reads a log: the last record on each place.
pub(super) fn read_all(mut log: impl Read) -> io::Result<Contents> {
    let (mut table, mut contents) = (Table::default(), Contents::default());
    let mut buffer: Vec<u8> = Vec::with_capacity(READ_BYTES);
    let mut at = 0;
    let mut over = false;
    let mut damage = false;
    while !(over && at >= buffer.len()) {
        if buffer.len() - at < RECORD_BYTES_MAX && !over {
            buffer.drain(..at);
            at = 0;
            let missing = (READ_BYTES - buffer.len()) as u64;
            over = log.by_ref().take(missing).read_to_end(&mut buffer)? < missing as usize;
            if !contents.found {
                if !buffer.starts_with(&FILE_HEAD) {
                    return Ok(Contents::default());
                }
                contents.found = true;
                at = FILE_HEAD.len();
            }
            continue;
        }
        match decode(&buffer[at..]) {
            Some((record, _)) => {
                at += record.length;
                contents.torn_inside |= damage;
                table.apply(record);
            }
            None => {
                // Records begin at multiples of eight.
                let skipped = (buffer.len() - at).min(8);
                at += skipped;
                contents.damaged += skipped as u64;
                damage = true;
            }
        }
    }
    let records = table.records as usize;
    contents.claims = table.into_claims();
    contents.stale = records - contents.claims.len();
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::super::record::{CLAIM, END, encode};
    use super::*;
    use crate::id::Key;
    use crate::io::{FileStamp, Mode, ShareState};
    use std::path::Path;

    fn claim(name: &str, byte: u8) -> Share {
        Share {
            hash: Key([byte; 32]),
            length: 10,
            place: Place::File(Path::new(name).into()),
            stamp: FileStamp { length: 11, modified: -5, changed: 7, mode: Mode::of(0o755) },
            state: ShareState::Present,
            replicas: 3,
            lifetime: 77,
            replicated: true,
            synced: true,
        }
    }

    fn log_of(records: &[(Share, u8)]) -> Vec<u8> {
        let mut bytes = FILE_HEAD.to_vec();
        records.iter().for_each(|(share, kind)| encode(&mut bytes, share, *kind));
        bytes
    }

    #[test]
    fn the_last_record_on_a_place_counts_and_the_order_is_that_of_the_claims() {
        let cached = Share { place: Place::Cache(Key([4; 32])), ..claim("", 4) };
        let changed = Share { state: ShareState::Changed, synced: false, ..claim("/b", 2) };
        let records = [
            (claim("/c", 1), CLAIM),
            (claim("/b", 2), CLAIM),
            (claim("/a", 3), CLAIM),
            (cached.clone(), CLAIM),
            (changed.clone(), CLAIM),
            (claim("/c", 1), END),
            // The end of a claim that another one has replaced changes nothing.
            (claim("/a", 9), END),
        ];
        let contents = read_all(&log_of(&records)[..]).unwrap();
        assert_eq!(contents.claims, [changed, claim("/a", 3), cached]);
        assert_eq!(contents.stale, 4);
        assert_eq!(contents.damaged, 0);
        assert!(contents.found);
    }

    #[test]
    fn a_cut_log_keeps_what_was_whole_and_a_damaged_one_what_follows() {
        let records: Vec<(Share, u8)> =
            (0..200).map(|number| (claim(&format!("/{number:050}"), number as u8), CLAIM)).collect();
        let whole = log_of(&records);
        let record = (whole.len() - FILE_HEAD.len()) / records.len();
        for cut in [whole.len() - 1, whole.len() - record + 1, FILE_HEAD.len() + 5, FILE_HEAD.len()] {
            let contents = read_all(&whole[..cut]).unwrap();
            assert_eq!(contents.claims.len(), (cut - FILE_HEAD.len()) / record);
            assert!(!contents.torn_inside);
        }
        for byte in (FILE_HEAD.len()..FILE_HEAD.len() + 2 * record).step_by(3) {
            let mut wrong = whole.clone();
            wrong[byte] ^= 4;
            let contents = read_all(&wrong[..]).unwrap();
            assert_eq!(contents.claims.len(), records.len() - 1, "byte {byte}");
            assert!(contents.torn_inside && contents.damaged == record as u64);
        }
        let zeroed = vec![0; 5000];
        assert!(!read_all(&zeroed[..]).unwrap().found);
    }
}
