//! `.elverignore`: what of a directory is left out of its set. The lines are those of gitignore(5) without `[…]`.
//!
//! - Empty lines and lines that begin with `#` say nothing. Spaces at the end of a line count only after a backslash.
//! - `*` stands for any characters of a name, `?` for one byte, `**` between slashes for any number of directories. A backslash takes the
//!   meaning from the character after it.
//! - A slash at the end: directories only. A slash elsewhere: the path is that from the directory of the file. No slash: the name, in
//!   this directory and below.
//! - `!` takes an entry back in. The last line that matches counts, and lines of a deeper directory come after those above.

use std::io::{self, Read};

/// The longest file of patterns, in bytes.
const BYTES_MAX: u64 = 64 << 10;

/// The patterns of one directory.
#[derive(Default, Debug)]
pub(super) struct Patterns(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    /// The components, `**` among them.
    components: Vec<Vec<u8>>,
    directories_only: bool,
    takes_back: bool,
}

impl Patterns {
    /// Reads the patterns of a file.
    pub(super) fn read(file: impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        if file.take(BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > BYTES_MAX {
            let why = format!("it has more than {BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(Patterns(bytes.split(|byte| *byte == b'\n').filter_map(Pattern::parse).collect()))
    }

    /// Whether the last pattern that matches leaves the entry out (`true`) or takes it back in; `None` when no pattern matches.
    /// `path` is the entry's, below the directory of these patterns.
    pub(super) fn decide(&self, path: &[u8], is_directory: bool) -> Option<bool> {
        let path: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let matching = self.0.iter().rev().find(|pattern| pattern.matches(&path, is_directory))?;
        Some(!matching.takes_back)
    }
}

impl Pattern {
    fn parse(line: &[u8]) -> Option<Pattern> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut end = line.len();
        while end > 0 && line[end - 1] == b' ' && !(end > 1 && line[end - 2] == b'\\') {
            end -= 1;
        }
        let line = &line[..end];
        if line.starts_with(b"#") {
            return None;
        }
        let (takes_back, line) = line.strip_prefix(b"!").map_or((false, line), |rest| (true, rest));
        let (directories_only, line) = line.strip_suffix(b"/").map_or((false, line), |rest| (true, rest));
        let from_here = line.contains(&b'/');
        let line = line.strip_prefix(b"/").unwrap_or(line);
        if line.is_empty() {
            return None;
        }
        let mut components: Vec<Vec<u8>> = line.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        if !from_here {
            components.insert(0, b"**".to_vec());
        }
        components.dedup_by(|next, before| next == b"**" && before == b"**");
        Some(Pattern { components, directories_only, takes_back })
    }

    fn matches(&self, path: &[&[u8]], is_directory: bool) -> bool {
        let is_any = |component: &Vec<u8>| component == b"**";
        (is_directory || !self.directories_only)
            && matches_with(&self.components, path, is_any, |pattern, name| matches_name(pattern, name))
            // `a/**` is what is in `a`, and not `a`.
            && !(self.components.last().is_some_and(is_any) && path.len() < self.components.len())
    }
}

fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    let mut tokens = Vec::new();
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        tokens.push(match byte {
            b'*' => Token::Any,
            b'?' => Token::One,
            b'\\' => Token::Byte(*bytes.next().unwrap_or(&b'\\')),
            byte => Token::Byte(*byte),
        });
    }
    matches_with(
        &tokens,
        name,
        |token| *token == Token::Any,
        |token, byte| match token {
            Token::One => true,
            Token::Byte(expected) => expected == byte,
            Token::Any => false,
        },
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Any,
    One,
    Byte(u8),
}

/// Whether `items` match `pattern`, of which some parts stand for any number of items. It goes back only to the last of these, so the
/// time is at most the product of both lengths.
fn matches_with<P, T>(
    pattern: &[P],
    items: &[T],
    is_any: impl Fn(&P) -> bool,
    matches: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut item, mut back) = (0, 0, None);
    while item < items.len() {
        match pattern.get(at) {
            Some(part) if is_any(part) => {
                back = Some((at + 1, item));
                at += 1;
            }
            Some(part) if matches(part, &items[item]) => {
                at += 1;
                item += 1;
            }
            _ => {
                let Some((after, from)) = back else { return false };
                back = Some((after, from + 1));
                (at, item) = (after, from + 1);
            }
        }
    }
    pattern[at..].iter().all(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether these lines leave out the path; a slash at its end makes it a directory.
    fn left_out(lines: &str, path: &str) -> bool {
        let patterns = Patterns::read(lines.as_bytes()).unwrap();
        let name = path.trim_end_matches('/');
        patterns.decide(name.as_bytes(), name != path).unwrap_or(false)
    }

    #[test]
    fn a_pattern_without_a_slash_is_a_name_at_any_depth() {
        for (lines, path, expected) in [
            ("*.o", "a.o", true),
            ("*.o", "d/e/a.o", true),
            ("*.o", "a.out", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("#a", "#a", false),
            ("\\#a", "#a", true),
            ("\\!a", "!a", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a  ", "a", true),
            ("a\\ ", "a ", true),
            ("a\r", "a", true),
            ("[ab]", "a", false),
        ] {
            assert_eq!(left_out(lines, path), expected, "{lines:?} {path}");
        }
    }

    #[test]
    fn slashes_bind_a_pattern_to_its_directory() {
        for (lines, path, expected) in [
            ("/a", "a", true),
            ("/a", "d/a", false),
            ("d/a", "d/a", true),
            ("d/a", "e/d/a", false),
            ("d/*", "d/x", true),
            ("d/*", "d/x/y", false),
            ("d/**", "d/x/y", true),
            ("d/**", "d/", false),
            ("**", "d", true),
            ("**/a", "x/y/a", true),
            ("**/a", "a", true),
            ("d/**/a", "d/a", true),
            ("d/**/a", "d/x/y/a", true),
            ("d/**/a", "d/x/y/b", false),
            ("cache/", "cache/", true),
            ("cache/", "x/cache/", true),
            ("cache/", "cache", false),
            ("/", "a", false),
        ] {
            assert_eq!(left_out(lines, path), expected, "{lines:?} {path}");
        }
    }

    #[test]
    fn the_last_line_that_matches_counts() {
        assert!(!left_out("*.log\n!keep.log", "keep.log"));
        assert!(left_out("!keep.log\n*.log", "keep.log"));
        assert!(left_out("*.log\n\n!keep.log", "d/other.log"));
    }

    #[test]
    fn patterns_of_hostile_length_end_soon() {
        let stars = "**/".repeat(5000) + &"*a".repeat(5000) + "b";
        assert!(!left_out(&stars, &"a/".repeat(900).replace("a/", "aaaaaaaaaaaaaaa/")));
        assert!(Patterns::read(&vec![b'a'; 1 << 17][..]).is_err());
    }
}
