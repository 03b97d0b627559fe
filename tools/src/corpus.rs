//! Seeds for the fuzzers, in the input format of each target: the wire's test vectors, and sequences made by commands, by a simulated
//! network and by a real directory.

mod sequences;

use crate::Outcome;
use elver::wire::header::{Auth, HEADER_BYTES};
use std::fs;
use std::path::{Path, PathBuf};

/// Write seeds for the fuzz targets: test vectors, and what simulated nodes receive.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The vectors. The default is those of the source that this program was built from.
    #[arg(long)]
    vectors: Option<PathBuf>,
    /// The directory for a folder of seeds for each target. The default is `fuzz/corpus` of that source.
    #[arg(long)]
    corpus: Option<PathBuf>,
}

/// The range of the tag in a frame.
const FRAME_TAG: core::ops::Range<usize> = 8..elver::wire::frame::FRAME_HEAD_BYTES;

pub(crate) fn run(arguments: &Arguments) -> Outcome<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let vectors = arguments.vectors.clone().unwrap_or_else(|| source.join("tests/vectors"));
    let corpus = arguments.corpus.clone().unwrap_or_else(|| source.join("fuzz/corpus"));
    let mut count = 0;
    for (target, name, bytes) in seeds(&vectors)? {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)?;
        count += 1;
    }
    println!("{count} seeds in {}", corpus.display());
    Ok(())
}

/// The seeds. Each is a target, the seed's name, and its bytes.
fn seeds(vectors: &Path) -> Outcome<Vec<(&'static str, String, Vec<u8>)>> {
    let mut seeds = Vec::new();
    for folder in ["datagrams", "datagrams-mac", "challenges"] {
        for (name, bytes) in read(&vectors.join(folder))? {
            // The first byte tells the target how to read the rest: as a datagram, or as a payload of that kind to sign.
            let tail = bytes.get(2).copied().and_then(Auth::from_number).map(Auth::tail_bytes);
            let payload = tail.and_then(|tail| bytes.get(HEADER_BYTES..bytes.len().checked_sub(tail)?));
            let payload = payload.ok_or_else(|| format!("{name} is no datagram"))?;
            seeds.push(("datagram", format!("{folder}-{name}-payload"), [&bytes[1..2], payload].concat()));
            seeds.push(("datagram", format!("{folder}-{name}"), [&[0], &bytes[..]].concat()));
        }
    }
    let mut frames = read(&vectors.join("frames"))?;
    // The target reads frames that are not sealed, so that its input reaches the code behind the tag check.
    frames.iter_mut().filter_map(|(_, bytes)| bytes.get_mut(FRAME_TAG)).for_each(|tag| tag.fill(0));
    // The first byte sets the size of the pieces in which the stream arrives.
    let stream: Vec<u8> = frames.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    seeds.push(("frames", "stream".to_owned(), [&[0x35], &stream[..]].concat()));
    seeds.extend(sequences::of_frames(&frames));
    for (name, bytes) in frames {
        seeds.push(("frames", name, [&[0xff], &bytes[..]].concat()));
    }
    for (name, bytes) in read(&vectors.join("manifests"))? {
        seeds.push(("manifest", name, bytes));
    }
    seeds.extend(sequences::of_commands());
    seeds.extend(sequences::of_simulation());
    seeds.extend(sequences::of_pairs());
    seeds.extend(sequences::of_disk()?);
    seeds.extend(sequences::of_control()?);
    Ok(seeds)
}

/// The vectors of a folder, with their names.
fn read(folder: &Path) -> Outcome<Vec<(String, Vec<u8>)>> {
    let cannot = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let mut vectors = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| cannot(folder, &error))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "hex") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|error| cannot(&path, &error))?;
        let bytes = from_hex(&text).ok_or_else(|| cannot(&path, &"not hexadecimal"))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        vectors.push((name, bytes));
    }
    match vectors.is_empty() {
        true => Err(cannot(folder, &"no vectors").into()),
        false => Ok(vectors),
    }
}

/// Bytes from hexadecimal digits; lines that start with `#` are comments.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.trim().chars());
    let digits: Vec<u8> = digits.map(|digit| Some(digit.to_digit(16)? as u8)).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use elver::wire::frame::{Frame, Parsed};

    fn vectors() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors")
    }

    #[test]
    fn every_fuzz_target_has_seeds() {
        let seeds = seeds(&vectors()).unwrap();
        let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
        for target in fs::read_dir(targets).unwrap() {
            let target = target.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
            assert!(seeds.iter().any(|(of, ..)| *of == target), "{target}");
        }
    }

    #[test]
    fn a_seed_of_the_frames_is_a_frame_after_the_byte_that_says_how_it_is_cut() {
        for (_, name, bytes) in seeds(&vectors()).unwrap().iter().filter(|(target, ..)| *target == "frames") {
            assert!(matches!(Frame::parse(&bytes[1..]), Ok(Parsed::Frame(..))), "{name}");
        }
    }

    #[test]
    fn what_is_no_vector_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("no vectors"));
        for content in ["0", "xy"] {
            fs::write(dir.path().join("odd.hex"), content).unwrap();
            assert!(read(dir.path()).unwrap_err().to_string().contains("odd.hex"), "{content}");
        }
    }
}
