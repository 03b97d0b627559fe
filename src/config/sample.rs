//! A sample of the configuration file: every setting, explained by the text of its flag, with its default. It is made of the
//! declarations, so that it cannot lag behind them.

use super::{sections, settings};

/// The width to which explanations are wrapped.
const COLUMNS: usize = 100;

/// Values for settings whose default is no value but a rule, or none.
const EXAMPLES: [(&str, &str); 10] = [
    ("listen", "\"[::]:3583\""),
    ("http", "\"127.0.0.1:3584\""),
    ("http_token_file", "\"http.token\""),
    ("bootstrap", "[\"192.0.2.7:3583\", \"[2001:db8::7]:3583\"]"),
    ("leaf", "false"),
    ("network_key", "\"my-fleet.key\""),
    ("keep_free", "\"1GiB\""),
    ("pieces", "2048"),
    ("socket", "\"/run/elver/control.sock\""),
    ("socket_group", "990"),
];

/// The sample file. Every setting is commented out, so it configures nothing as it is.
pub fn sample() -> String {
    let mut text = String::from(
        "# The settings of an Elver node. Each line that is commented out shows a default, or an example where there is none.\n\
         # A flag of `elver node` overrides a variable ELVER_…, and a variable overrides this file. `elver config check` reads it;\n\
         # SIGHUP makes a running node read it again.\n",
    );
    for flag in settings::flags().get_arguments() {
        let key = flag.get_id().as_str();
        let help = flag.get_long_help().or(flag.get_help()).map(ToString::to_string).unwrap_or_default();
        let (about, default) = parts(&help);
        text.push('\n');
        comment(&mut text, about);
        let example = EXAMPLES.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        match (example, default) {
            (Some(value), Some(rule)) => {
                comment(&mut text, &format!("Default: {rule}."));
                text.push_str(&format!("#{key} = {value}\n"));
            }
            (Some(value), None) => text.push_str(&format!("#{key} = {value}\n")),
            (None, default) => text.push_str(&format!("#{key} = {}\n", value_of(default.unwrap_or("0")))),
        }
    }
    let mut last = "";
    for setting in &sections::SETTINGS {
        if setting.section != last {
            text.push_str(&format!("\n#[{}]\n", setting.section));
            last = setting.section;
        }
        comment(&mut text, setting.about);
        text.push_str(&format!("#{} = {}\n", setting.name, value_of(setting.default)));
    }
    text
}

/// The explanation in a flag's help, and its default.
fn parts(help: &str) -> (&str, Option<&str>) {
    let about = help.split(" [env: ").next().unwrap_or(help);
    let default = help.split(" [default: ").nth(1).and_then(|rest| rest.strip_suffix(']'));
    (about, default)
}

/// A default as a value of the file.
fn value_of(default: &str) -> String {
    match default.parse::<u64>().is_ok() || default.parse::<bool>().is_ok() {
        true => default.to_owned(),
        false => format!("\"{default}\""),
    }
}

/// Adds a text as comment lines.
fn comment(to: &mut String, text: &str) {
    let mut columns = COLUMNS;
    for word in text.split_whitespace() {
        let length = word.chars().count() + 1;
        if columns + length > COLUMNS {
            if columns != COLUMNS {
                to.push('\n');
            }
            to.push('#');
            columns = 1;
        }
        to.push(' ');
        to.push_str(word);
        columns += length;
    }
    to.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::config::Settings;
    use std::path::Path;

    #[test]
    fn the_sample_beside_the_packages_is_the_one_that_follows_from_the_declarations() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/packaging/elver.toml");
        if std::env::var_os("ELVER_BLESS").is_some() {
            std::fs::write(&file, sample()).unwrap();
        }
        let kept = std::fs::read_to_string(&file).unwrap();
        assert!(kept == sample(), "write it again: ELVER_BLESS=1 cargo test --lib config::sample");
    }

    #[test]
    fn the_sample_configures_nothing_until_its_lines_are_uncommented() {
        assert_eq!(from_file(&sample()), Ok(Settings::default()));
        let live = |line: &&str| line.starts_with("#[") || line.contains(" = ") && !line.starts_with("# ");
        let sample = sample();
        let lines: Vec<&str> = sample.lines().filter(live).map(|line| &line[1..]).collect();
        let settings = from_file(&lines.join("\n")).unwrap();
        let differing = settings.differing(&Settings::default());
        let known = settings::keys().len() + sections::SETTINGS.len();
        assert_eq!(differing.len(), known, "every setting has a line of its own: {differing:?}");
    }

    #[test]
    fn a_default_in_the_sample_is_the_default() {
        let sample = sample();
        let without_example = |line: &&str| {
            let key = line.trim_start_matches('#').split(" = ").next().unwrap_or_default();
            line.contains(" = ") && !line.starts_with("# ") && EXAMPLES.iter().all(|(name, _)| *name != key)
        };
        let top: Vec<&str> = sample.lines().take_while(|line| !line.starts_with("#[")).collect();
        let lines: Vec<&str> = top.iter().copied().filter(without_example).map(|line| &line[1..]).collect();
        let (set, unset) = (from_file(&lines.join("\n")).unwrap(), Settings::default());
        assert_eq!(format!("{:?}", config(set)), format!("{:?}", config(unset)));
    }

    #[test]
    fn the_openwrt_package_knows_every_setting() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/packaging/openwrt/files/elver.init");
        let script = std::fs::read_to_string(script).unwrap();
        let listed = script.split_once("KEYS=\"").and_then(|(_, rest)| rest.split_once('"')).unwrap().0;
        let listed: Vec<&str> = listed.split_whitespace().collect();
        let of_sections = sections::SETTINGS.iter().map(|setting| setting.path().replace('.', "_"));
        let known: Vec<String> = settings::keys().into_iter().chain(of_sections).collect();
        assert_eq!(listed, known);
    }
}
