//! Settings in the environment: `ELVER_` and the key in capitals. A variable that is empty counts as unset.

use super::error::{ConfigError, Origin};
use super::sections::SETTINGS;
use super::settings::{Reader, Settings, Text, keys};
use std::ffi::OsString;

/// Looks up a variable of the environment. It is an argument, because a process has only one environment and tests need several.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment of this process.
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The settings in the environment. The values of a list are separated by commas or spaces.
pub(super) fn read(environment: Environment<'_>) -> Result<Settings, ConfigError> {
    let mut reader = Reader::new();
    for key in keys() {
        let name = format!("ELVER_{}", key.to_ascii_uppercase());
        variable(environment, name, &key, |value| {
            let text = match reader.takes_list(&key) {
                Some(true) => Text::Many(
                    value.split([',', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
                ),
                _ => Text::One(value),
            };
            reader.set(&key, text)
        })?;
    }
    let mut settings = reader.settings;
    for setting in &SETTINGS {
        let set = |value| settings.sections.set(setting, value);
        variable(environment, setting.variable(), &setting.path(), set)?;
    }
    Ok(settings)
}

/// Passes the value of a variable to `set`, if the variable has one. The error names the variable.
fn variable(
    environment: Environment<'_>,
    name: String,
    key: &str,
    set: impl FnOnce(String) -> Result<(), String>,
) -> Result<(), ConfigError> {
    let Some(value) = environment(&name).filter(|value| !value.is_empty()) else { return Ok(()) };
    let text = value.into_string().map_err(|_| "it is not UTF-8".to_owned());
    text.and_then(set).map_err(|reason| ConfigError::Value {
        origin: Origin::Variable(name),
        key: key.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn an_error_in_the_environment_names_the_variable() {
        let message = from_variables(&[("ELVER_BOOTSTRAP", "192.0.2.7:1, no/where")]).unwrap_err();
        let expected =
            "environment variable ELVER_BOOTSTRAP: `bootstrap`: `no/where` is neither an address nor a name";
        assert!(message.starts_with(expected), "{message}");
        let message = from_variables(&[("ELVER_REPAIR_RANK", "soon")]).unwrap_err();
        let expected = "environment variable ELVER_REPAIR_RANK: `repair.rank`: `soon` is no duration";
        assert!(message.starts_with(expected), "{message}");
    }

    #[test]
    fn a_variable_that_is_no_text_is_refused() {
        let odd = |name: &str| (name == "ELVER_NETWORK").then(|| OsString::from_vec(vec![0xff]));
        let message = read(&odd).unwrap_err().to_string();
        assert_eq!(message, "environment variable ELVER_NETWORK: `network`: it is not UTF-8");
    }

    #[test]
    fn a_list_is_separated_by_commas_or_spaces_and_an_empty_one_says_nothing() {
        let peers = |value| from_variables(&[("ELVER_BOOTSTRAP", value)]).unwrap().bootstrap;
        let both = vec!["192.0.2.7:1".parse().unwrap(), "192.0.2.8:2".parse().unwrap()];
        assert_eq!(peers("192.0.2.7:1,192.0.2.8:2"), Some(both.clone()));
        assert_eq!(peers(" 192.0.2.7:1, 192.0.2.8:2 "), Some(both));
        assert_eq!(peers(", "), None);
    }

    #[test]
    fn a_flag_without_a_value_needs_one_as_a_variable() {
        assert_eq!(from_variables(&[("ELVER_LEAF", "yes")]).unwrap().leaf, Some(true));
        assert_eq!(from_variables(&[("ELVER_LEAF", "")]).unwrap().leaf, None);
    }
}
