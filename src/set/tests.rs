use super::*;
use Record::{Directory, End, File, Link};

fn file(name: &[u8]) -> Record<'_> {
    let file = SetFile { hash: Key([7; 32]), length: 5, modified: 1_700_000_000, mode: 0o644 };
    File { name, file }
}

fn directory(name: &[u8]) -> Record<'_> {
    Directory { name, mode: 0o755 }
}

fn link<'a>(name: &'a [u8], target: &'a [u8]) -> Record<'a> {
    Link { name, target }
}

/// The list of these records, written without any check.
fn raw(records: &[Record<'_>]) -> Vec<u8> {
    let mut list = Vec::new();
    Encoder::begin(true, &mut list);
    for record in records {
        // Each record gets a position of its own, so that only what a record itself cannot say is refused.
        match *record {
            End => list.push(0),
            Directory { name, mode } => {
                list.extend([1, name.len() as u8]);
                list.extend(mode.to_le_bytes());
                list.extend(name);
            }
            File { name, file } => {
                list.extend([2, name.len() as u8]);
                list.extend(file.mode.to_le_bytes());
                list.extend(file.length.to_le_bytes());
                list.extend(file.modified.to_le_bytes());
                list.extend(file.hash.0);
                list.extend(name);
            }
            Link { name, target } => {
                list.extend([3, name.len() as u8]);
                list.extend((target.len() as u16).to_le_bytes());
                list.extend(name);
                list.extend(target);
            }
        }
    }
    list
}

/// Reads a list in pieces of `step` bytes. Returns what is in it: the paths, with a slash after those of directories.
fn read(list: &[u8], step: usize) -> Result<Vec<String>, Invalid> {
    let (mut decoder, mut at, mut end, mut paths) = (Decoder::default(), 0, 0, Vec::new());
    loop {
        match decoder.decode(&list[at..end], end == list.len())? {
            Decoded::More => end = (end + step).min(list.len()),
            Decoded::Head => at += HEAD_BYTES,
            Decoded::Record(record, length) => {
                let directory = String::from_utf8_lossy(decoder.directory()).into_owned();
                match record {
                    Directory { .. } => paths.push(directory + "/"),
                    File { name, .. } | Link { name, .. } => {
                        let name = String::from_utf8_lossy(name);
                        let slash = if directory.is_empty() { "" } else { "/" };
                        paths.push(format!("{directory}{slash}{name}"));
                    }
                    End => {}
                }
                at += length;
            }
            Decoded::Over => return Ok(paths),
        }
    }
}

fn refusal(records: &[Record<'_>]) -> Option<Invalid> {
    read(&raw(records), 1 << 20).err()
}

const TREE: &[Record<'static>] = &[
    Directory { name: b"a", mode: 0o700 },
    Directory { name: b"empty", mode: 0o755 },
    End,
    Link { name: b"up", target: b"../b-\xff" },
    End,
    Directory { name: b"a-b", mode: 0o755 },
    End,
    File { name: b"b-\xff", file: SetFile { hash: Key([1; 32]), length: 9, modified: -3, mode: 0o604 } },
    End,
];

fn encoded(times: bool, records: &[Record<'_>]) -> Result<Vec<u8>, Invalid> {
    let mut list = Vec::new();
    let mut encoder = Encoder::begin(times, &mut list);
    for record in records {
        encoder.push(record, &mut list)?;
    }
    assert!(encoder.is_over());
    Ok(list)
}

#[test]
fn a_list_is_read_as_it_was_written_in_pieces_of_any_length() {
    let list = encoded(true, TREE).unwrap();
    assert_eq!(list, raw(TREE));
    for step in [1, 2, 7, 1000] {
        let paths = read(&list, step).unwrap();
        assert_eq!(paths, ["a/", "a/empty/", "a/up", "a-b/", "b-\u{fffd}"]);
    }
    let empty = encoded(false, &[End]).unwrap();
    assert_eq!((empty.len(), read(&empty, 3)), (17, Ok(vec![])));
}

#[test]
fn the_layout_does_not_change() {
    let hash = blake3::hash(&encoded(true, TREE).unwrap()).to_string();
    assert_eq!(hash, "1af029044f155c87904199ae4a0645b0383ebe90e1ccaad021ec3ec78ce55644");
}

#[test]
fn a_list_that_was_cut_off_or_goes_on_is_refused() {
    let list = encoded(true, TREE).unwrap();
    for length in 0..list.len() {
        let why = read(&list[..length], 1000).unwrap_err();
        assert!(matches!(why, Invalid::NoSet | Invalid::Truncated), "{length}: {why}");
    }
    assert_eq!(read(&[&list[..], b"\0"].concat(), 1000), Err(Invalid::Trailing));
    assert_eq!(read(b"elverse", 1), Err(Invalid::NoSet));
}

#[test]
fn every_changed_bit_of_the_head_is_refused() {
    let list = encoded(true, TREE).unwrap();
    for bit in (0..HEAD_BYTES * 8).filter(|bit| *bit != 80) {
        let mut changed = list.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let why = read(&changed, 1000).unwrap_err();
        assert!(matches!(why, Invalid::NoSet | Invalid::Version(_) | Invalid::Reserved), "{bit}: {why}");
    }
    let mut without_times = list;
    without_times[10] = 0;
    assert_eq!(read(&without_times, 1000), Err(Invalid::Time));
}

#[test]
fn no_name_leaves_its_directory() {
    for name in [&b""[..], b".", b"..", b"/", b"/etc", b"a/b", b"../x", b"x\0"] {
        assert_eq!(refusal(&[file(name), End]), Some(Invalid::Name), "{name:?}");
        assert_eq!(refusal(&[directory(name), End, End]), Some(Invalid::Name), "{name:?}");
        assert_eq!(refusal(&[link(name, b"x"), End]), Some(Invalid::Name), "{name:?}");
    }
    for name in [&b"..."[..], b" ", b"-", b"\n", &[0xff; 255]] {
        assert_eq!(refusal(&[file(name), End]), None, "{name:?}");
    }
}

#[test]
fn names_ascend_and_occur_once_so_that_nothing_is_inside_a_file_or_a_link() {
    for [first, second] in [[&b"b"[..], b"a"], [b"a", b"a"], [b"a-", b"a"]] {
        let records = [file(first), link(second, b"x"), End];
        assert_eq!(refusal(&records), Some(Invalid::Order));
        let records = [link(first, b"x"), directory(second), file(b"through"), End, End];
        assert_eq!(refusal(&records), Some(Invalid::Order));
    }
    // The order is that of one directory.
    assert_eq!(refusal(&[directory(b"b"), file(b"a"), End, file(b"c"), End]), None);
    // Names that differ only in case are two files.
    assert_eq!(refusal(&[file(b"A"), file(b"a"), End]), None);
}

#[test]
fn a_link_stays_in_the_set_wherever_other_links_lead() {
    for (target, depth) in
        [(&b"x"[..], 0), (b"./x//y/", 0), (b"../x", 1), (b".././../x", 2), (b"..", 1), (b"...", 0)]
    {
        assert!(stays_inside(target, depth), "{target:?}");
    }
    let long = [b'x'; TARGET_BYTES_MAX + 1];
    for (target, depth) in [
        (&b""[..], 1),
        (b"/x", 1),
        (b"..", 0),
        (b"../../x", 1),
        (b"x/../y", 9),
        (b"x/..", 9),
        (b"x\0", 0),
        (&long, 0),
    ] {
        assert!(!stays_inside(target, depth), "{target:?}");
    }
    assert_eq!(refusal(&[link(b"out", b"../x"), End]), Some(Invalid::Target));
    assert_eq!(refusal(&[directory(b"d"), link(b"in", b"../x"), End, End]), None);
}

#[test]
fn no_mode_kind_length_or_time_beyond_its_bounds_is_read() {
    assert_eq!(refusal(&[Directory { name: b"d", mode: 0o1777 }, End, End]), Some(Invalid::Mode));
    let made = |mode, length, modified| {
        let file = SetFile { hash: Key([7; 32]), length, modified, mode };
        refusal(&[File { name: b"f", file }, End])
    };
    assert_eq!(made(0o4755, 0, 0), Some(Invalid::Mode));
    assert_eq!(made(0o777, crate::manifest::FILE_BYTES_MAX, TIME_MAX), None);
    assert_eq!(made(0, crate::manifest::FILE_BYTES_MAX + 1, 0), Some(Invalid::Length));
    assert_eq!(made(0, 0, -TIME_MAX - 1), Some(Invalid::Time));
    // A device, as a later version might number it.
    let mut list = raw(&[]);
    list.extend([4, 1, 0, 0, b'x', 0]);
    assert_eq!(read(&list, 1000), Err(Invalid::Kind(4)));
}

#[test]
fn paths_and_their_depth_are_bounded() {
    let deep = |levels: usize, name: &'static [u8]| {
        let down = core::iter::repeat_n(directory(name), levels);
        let records: Vec<_> = down.chain(core::iter::repeat_n(End, levels + 1)).collect();
        refusal(&records)
    };
    assert_eq!(deep(DEPTH_MAX, b"d"), None);
    assert_eq!(deep(DEPTH_MAX + 1, b"d"), Some(Invalid::Path));
    assert_eq!(deep(12, &[b'd'; 255]), None);
    assert_eq!(deep(13, &[b'd'; 255]), Some(Invalid::Path));
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    assert_eq!(encoded(true, &[file(b"..")]), Err(Invalid::Name));
    assert_eq!(encoded(true, &[file(b"b"), file(b"a")]), Err(Invalid::Order));
    assert_eq!(encoded(false, &[file(b"a")]), Err(Invalid::Time));
    assert_eq!(encoded(true, &[End, End]), Err(Invalid::Trailing));
}
