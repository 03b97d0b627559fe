//! Settings in a file: TOML, with a section for the settings that have no flags.

use super::error::{ConfigError, Origin};
use super::sections;
use super::settings::{NO_LIST, Reader, Settings, Text};
use super::unknown::UnknownKeys;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// The longest configuration file in bytes. A longer one is some other file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The settings in a file, and the keys that are none. A missing file has none; if it is `required`, it is an error.
pub(super) fn read(file: &Path, required: bool) -> Result<(Settings, UnknownKeys), ConfigError> {
    let absent =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let mut content = String::new();
    match File::open(file).and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut content)) {
        Err(error) if !required && absent(&error) => Ok(Default::default()),
        Err(error) => Err(ConfigError::Unreadable(file.to_owned(), error)),
        Ok(_) if content.len() as u64 > FILE_BYTES_MAX => Err(ConfigError::Unreadable(
            file.to_owned(),
            io::Error::other("longer than 1 MiB, so it is no configuration"),
        )),
        Ok(_) => parse(&content, file),
    }
}

/// The settings in a file's content, and the keys that are none. `file` is for messages.
pub(super) fn parse(content: &str, file: &Path) -> Result<(Settings, UnknownKeys), ConfigError> {
    let origin = |offset: usize| Origin::Line(file.to_owned(), line_of(content, offset));
    let table = DeTable::parse(content).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        ConfigError::Syntax(origin(offset), error.message().replace('\n', ", "))
    })?;
    let (mut reader, mut unknown) = (Reader::new(), UnknownKeys::default());
    for (key, value) in in_order(table.get_ref()) {
        let name = key.get_ref().as_ref();
        let wrong =
            |reason| ConfigError::Value { origin: origin(value.span().start), key: name.to_owned(), reason };
        let is_section = sections::sections().contains(&name);
        match value.get_ref() {
            _ if reader.takes_list(name).is_some() => {
                text_of(value.get_ref()).and_then(|text| reader.set(name, text)).map_err(wrong)?;
            }
            DeValue::Table(table) if is_section => {
                parse_section(&mut reader.settings, &mut unknown, name, table, &origin)?;
            }
            _ if is_section => {
                return Err(wrong(format!("it is a section: write [{name}], and its settings under that")));
            }
            _ => unknown.add(|| origin(key.span().start), name.to_owned()),
        }
    }
    Ok((reader.settings, unknown))
}

fn parse_section(
    settings: &mut Settings,
    unknown: &mut UnknownKeys,
    section: &str,
    table: &DeTable<'_>,
    origin: &dyn Fn(usize) -> Origin,
) -> Result<(), ConfigError> {
    for (key, value) in in_order(table) {
        let path = format!("{section}.{}", key.get_ref());
        let Some(setting) = sections::find(section, key.get_ref()) else {
            unknown.add(|| origin(key.span().start), path);
            continue;
        };
        let text = match value.get_ref() {
            DeValue::Float(number) => Ok(Text::One(number.as_str().to_owned())),
            other => text_of(other),
        };
        let set = text.and_then(|text| match text {
            Text::One(text) => settings.sections.set(setting, text),
            Text::Many(_) => Err(NO_LIST.to_owned()),
        });
        set.map_err(|reason| ConfigError::Value { origin: origin(value.span().start), key: path, reason })?;
    }
    Ok(())
}

type Entry<'t, 'c> = (&'t toml::Spanned<toml::de::DeString<'c>>, &'t toml::Spanned<DeValue<'c>>);

/// The entries in the order of the file. The parser sorts a table by name, but a reader expects the first error of the file
/// first.
fn in_order<'t, 'c>(table: &'t DeTable<'c>) -> Vec<Entry<'t, 'c>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn text_of(value: &DeValue<'_>) -> Result<Text, String> {
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        other => Err(format!("a value of type {} is not expected here", other.type_str())),
    };
    match value {
        DeValue::Array(values) => {
            let values: Result<_, _> = values.iter().map(|value| scalar(value.get_ref())).collect();
            Ok(Text::Many(values?))
        }
        one => scalar(one).map(Text::One),
    }
}

/// The number of the line that a byte is on, counted from 1.
fn line_of(content: &str, offset: usize) -> usize {
    1 + content.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::super::sections::SETTINGS;
    use super::super::testing::*;
    use super::*;
    use crate::time::Duration;

    #[test]
    fn settings_are_read_from_the_file() {
        let settings = from_file(concat!(
            "listen = '127.0.0.1:4000'\nbootstrap = ['192.0.2.7:1', '[2001:db8::7]:2']\nreplicas = 5\n",
            "quota = '2MiB'\nleaf = true\nnetwork = 'home'\nttl = '12h'\n"
        ));
        let config = config(settings.unwrap());
        assert_eq!(config.listen, Some("127.0.0.1:4000".parse().unwrap()));
        assert_eq!(config.bootstrap.len(), 2);
        assert_eq!(config.replicas, 5);
        assert_eq!(config.limits.quota_bytes, 2 << 20);
        assert!(config.leaf);
        assert_eq!(config.network, "home");
        assert_eq!(config.lifetime_seconds, 43_200);
    }

    #[test]
    fn every_setting_of_a_section_is_read_from_the_file_and_from_its_variable() {
        let content = concat!(
            "replicas = 2\n[gossip]\ninterval = 0.5\npeers = 2\nview = 96\n",
            "[membership]\nmonitored = 4\nsilent = 1.5\nunresponsive = '4.5s'\nevicted = '1m'\n",
            "[repair]\nurgent = 3\nrank = 1\nsettle = 2.5\nsurplus = '1h'\nreconcile = 20\n",
            "transfers = 7\nrate = '1MiB'\ncut_off_percent = 30\ncut_off_wait = 15\n"
        );
        let pairs = pairs_of(content);
        assert_eq!(pairs.len(), SETTINGS.len());
        let pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        for settings in [from_file(content).unwrap(), from_variables(&pairs).unwrap()] {
            let crate::net::Config { gossip, replication, .. } = config(settings);
            let millis = Duration::from_millis;
            assert_eq!(gossip.interval, millis(500));
            assert_eq!(gossip.fanout, 2);
            assert_eq!(gossip.view_max, 96);
            assert_eq!(gossip.monitored, 4);
            assert_eq!(gossip.silent_after, millis(1500));
            assert_eq!(gossip.unresponsive_after, millis(4500));
            assert_eq!(gossip.evicted_after, millis(60_000));
            assert_eq!(replication.urgent_after, millis(3000));
            assert_eq!(replication.rank_wait, millis(1000));
            assert_eq!(replication.settle, millis(2500));
            assert_eq!(replication.surplus_after, millis(3_600_000));
            assert_eq!(replication.reconcile_interval, millis(20_000));
            assert_eq!(replication.transfers_max, 7);
            assert_eq!(replication.bytes_per_second, 1 << 20);
            assert_eq!(replication.cut_off_percent, 30);
            assert_eq!(replication.cut_off_wait, millis(15_000));
        }
    }

    /// The settings under the sections of a file as variables.
    fn pairs_of(content: &str) -> Vec<(String, String)> {
        let (mut pairs, mut section) = (Vec::new(), "");
        for line in content.lines() {
            match line.split_once(" = ") {
                None => section = line.trim_matches(['[', ']']),
                Some((key, value)) if !section.is_empty() => {
                    let name = format!("ELVER_{section}_{key}").to_uppercase();
                    pairs.push((name, value.trim_matches('\'').to_owned()));
                }
                Some(_) => {}
            }
        }
        pairs
    }

    #[test]
    fn numbers_may_stand_without_quotes() {
        let settings = from_file("quota = 4096\nttl = 60").unwrap();
        assert_eq!(settings.quota, Some(4096));
        assert_eq!(settings.ttl, Some(60));
    }

    #[test]
    fn a_single_peer_may_stand_without_brackets() {
        assert_eq!(from_file("bootstrap = '192.0.2.7:1'").unwrap().bootstrap.unwrap().len(), 1);
    }

    #[test]
    fn an_error_in_the_file_names_file_line_and_key() {
        for (content, expected) in [
            ("# quota\n\nquota = '5 parsecs'", "/x/elver.toml, line 3: `quota`: `5 parsecs` is no size"),
            ("leaf = 3", "line 1: `leaf`: `3` is neither true nor false"),
            ("replicas = 300", "`replicas`: `300` is no number from 0 to 255"),
            ("replicas = -1", "`replicas`: `-1` is no number from 0 to 255"),
            ("replicas = 1.5", "`replicas`: a value of type float is not expected here"),
            ("quota = 0x10", "`quota`: a value of type integer is not expected here"),
            ("quota = [1]", "`quota`: takes one value, not a list"),
            ("[quota]", "`quota`: a value of type table is not expected here"),
            ("listen = 'here'", "`listen`: `here` is no address; expected IP:PORT"),
            ("bootstrap = ['192.0.2.7:0']", "`bootstrap`: `192.0.2.7:0` has port 0"),
            ("network = ''", "`network`: a network's name is not empty"),
            ("ttl = '9999999d'", "`ttl`: `9999999d` is too large"),
            ("gossip = 5", "line 1: `gossip`: it is a section: write [gossip]"),
            ("[repair]\nrank = 'soon'", "line 2: `repair.rank`: `soon` is no duration"),
            ("[repair]\ntransfers = 1.5", "line 2: `repair.transfers`: `1.5` is no number"),
            ("[repair]\nrank = [1]", "line 2: `repair.rank`: takes one value, not a list"),
            ("[repair.rank]", "`repair.rank`: a value of type table is not expected here"),
            ("quota = 1\nquota = 2", "line 2: "),
            ("quota = \n", "line 1: "),
            ("upload_rate = 100", "`upload_rate`: `100` is too little: at least 16KiB a second"),
            ("download_rate = 'fast'", "`download_rate`: `fast` is no size"),
            ("streams = 5", "`streams`: `5` is no number from 33 to 4000"),
            ("uploads = 0", "`uploads`: `0` is no number from 1 to 4000"),
            ("queue = 'long'", "`queue`: `long` is no number from 0 to 1000000"),
            (
                "shares = 99999999999999999999",
                "`shares`: `99999999999999999999` is no number from 1 to 10000000",
            ),
        ] {
            let message = from_file(content).expect_err(content);
            assert!(message.contains(expected), "{content:?} gave {message:?}");
            assert!(!message.contains('\n'), "{message:?}");
        }
    }

    #[test]
    fn an_unknown_key_is_left_out_with_a_warning_that_names_the_nearest() {
        for (content, expected) in [
            (
                "\nreplicsa = 3",
                "/x/elver.toml, line 2: there is no setting `replicsa`, so it is left out; did you mean `replicas`?",
            ),
            (
                "[gossip]\nintervall = 5",
                "line 2: there is no setting `gossip.intervall`, so it is left out; did you mean `gossip.interval`?",
            ),
            (
                "[gosip]\ninterval = 5",
                "line 1: there is no setting `gosip`, so it is left out; did you mean `gossip`?",
            ),
            ("help = true", "there is no setting `help`, so it is left out; "),
            ("zzz.y.x = [{}]", "there is no setting `zzz`, so it is left out; `elver config sample`"),
            ("\"upload-rate\" = 1", "did you mean `upload_rate`?"),
        ] {
            let (settings, unknown) = parse(content, Path::new("/x/elver.toml")).unwrap();
            assert_eq!(settings, Settings::default(), "{content:?}");
            let messages: Vec<String> = unknown.messages().collect();
            let [message] = &messages[..] else { panic!("{content:?} gave {messages:?}") };
            assert!(message.contains(expected), "{content:?} gave {message:?}");
        }
        assert_eq!(from_file("qouta = 8\nquota = 7").unwrap().quota, Some(7), "the others count");
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing_unless_it_was_asked_for() {
        for path in ["/nonexistent/elver.toml", "/dev/null/elver.toml"] {
            assert_eq!(read(Path::new(path), false).unwrap(), Default::default());
            assert!(matches!(read(Path::new(path), true), Err(ConfigError::Unreadable(..))));
        }
    }

    #[test]
    fn a_file_without_end_is_not_read_to_it() {
        assert!(matches!(read(Path::new("/dev/zero"), false), Err(ConfigError::Unreadable(..))));
    }
}
