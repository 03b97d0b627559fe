//! Addresses as users write them. A slash after the hash says that it is the address of a set.

use crate::id::Key;
use core::fmt;
use core::str::FromStr;

/// The address of a file, of a set, or of a path in a set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) struct Address {
    /// The hash of the file or of the set's list.
    pub(in crate::cli) hash: Key,
    /// The path in the set, empty for the set itself; `None` when the address names a file.
    pub(in crate::cli) path: Option<String>,
}

impl Address {
    /// The path in the set, as bytes; the address of a file counts as that of a set.
    pub(in crate::cli) fn path(&self) -> &[u8] {
        self.path.as_deref().unwrap_or_default().as_bytes()
    }
}

impl From<Key> for Address {
    fn from(hash: Key) -> Self {
        Address { hash, path: None }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (hash, path) = match text.split_once('/') {
            Some((hash, path)) => (hash, Some(path.trim_end_matches('/'))),
            None => (text, None),
        };
        let hash = hash.parse::<Key>().map_err(|error| error.to_string())?;
        if path.is_some_and(|path| {
            path.split('/').any(|name| matches!(name, "." | ".."))
                || path.contains("//")
                || path.starts_with('/')
        }) {
            return Err("a path in a set consists of names between single slashes".to_owned());
        }
        Ok(Address { hash, path: path.map(str::to_owned) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}/{path}", self.hash),
            None => write!(f, "{}", self.hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_makes_it_a_set_and_more_a_path_in_it() {
        let hash = Key([0xab; 32]);
        let parsed = |rest: &str| format!("{hash}{rest}").parse::<Address>();
        assert_eq!(parsed(""), Ok(Address { hash, path: None }));
        assert_eq!(parsed("/"), Ok(Address { hash, path: Some(String::new()) }));
        assert_eq!(parsed("/a/b"), Ok(Address { hash, path: Some("a/b".to_owned()) }));
        assert_eq!(parsed("/a/").unwrap().to_string(), format!("{hash}/a"));
        for wrong in ["/..", "/a/../b", "/./a", "/a//b", "//a", "0"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
