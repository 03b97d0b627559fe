//! Keys of the configuration file that no setting has. A newer version's settings must not stop an older node, so they are left
//! out, with a warning that names the nearest setting: most are misspelt.

use super::error::Origin;
use super::{sections, settings};
use core::fmt;

/// Unknown keys that are named; further ones are counted.
const NAMED_MAX: usize = 20;
/// The longest key in bytes for which a similar one is looked for.
const KEY_BYTES_MAX: usize = 64;
/// The least similarity (Jaro) of a key that is suggested, as for misspelt flags.
const SIMILARITY_MIN: f64 = 0.7;

/// A key that no setting has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownKey {
    /// Its place.
    pub origin: Origin,
    /// The key; after the section's name and a point if it stands in one.
    pub key: String,
    /// The setting whose name is most like it.
    pub nearest: Option<String>,
}

impl fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: there is no setting `{}`, so it is left out; ", self.origin, self.key)?;
        match &self.nearest {
            Some(nearest) => write!(f, "did you mean `{nearest}`?"),
            None => f.write_str("`elver config sample` lists the settings"),
        }
    }
}

/// The unknown keys of one file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnknownKeys {
    /// The first of them, in the order of the file.
    pub named: Vec<UnknownKey>,
    /// The number of the others.
    pub others: usize,
}

impl UnknownKeys {
    pub(super) fn add(&mut self, origin: impl FnOnce() -> Origin, key: String) {
        if self.named.len() == NAMED_MAX {
            self.others += 1;
            return;
        }
        let nearest = nearest(&key);
        self.named.push(UnknownKey { origin: origin(), key, nearest });
    }

    /// One message for each key that is named, and one for the others.
    pub fn messages(&self) -> impl Iterator<Item = String> + '_ {
        let others =
            (self.others > 0).then(|| format!("{} further keys are unknown, and left out", self.others));
        self.named.iter().map(ToString::to_string).chain(others)
    }

    /// Whether the file has none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

/// The key or section most like `key`, if any is like it.
fn nearest(key: &str) -> Option<String> {
    if key.len() > KEY_BYTES_MAX {
        return None;
    }
    let of_sections = sections::SETTINGS.iter().map(sections::Setting::path);
    let sections = sections::sections().into_iter().map(str::to_owned);
    settings::keys()
        .into_iter()
        .chain(of_sections)
        .chain(sections)
        .map(|known| (strsim::jaro(key, &known), known))
        .filter(|(similarity, _)| *similarity > SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_like_the_one_that_was_meant() {
        for (key, meant) in [
            ("qouta", "quota"),
            ("replicsa", "replicas"),
            ("upload-rate", "upload_rate"),
            ("gossip.intervall", "gossip.interval"),
            ("gosip", "gossip"),
            ("repair.cutoff_wait", "repair.cut_off_wait"),
        ] {
            assert_eq!(nearest(key).as_deref(), Some(meant), "{key}");
        }
        for key in ["", "zzz", &"quota".repeat(100_000)] {
            assert_eq!(nearest(key), None);
        }
    }

    #[test]
    fn of_very_many_unknown_keys_the_first_are_named_and_the_others_counted() {
        let mut unknown = UnknownKeys::default();
        for number in 0..NAMED_MAX + 3 {
            unknown.add(|| Origin::Line("f".into(), number), format!("x{number}"));
        }
        let messages: Vec<String> = unknown.messages().collect();
        assert_eq!(messages.len(), NAMED_MAX + 1);
        assert!(messages[0].starts_with("f, line 0: there is no setting `x0`"), "{messages:?}");
        assert!(messages[NAMED_MAX].starts_with("3 further keys"), "{messages:?}");
    }
}
