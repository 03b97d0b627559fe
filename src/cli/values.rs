//! `set`, `unset`, `values` and `lookup`.

use super::Context;
use super::exit::{CommandError, Exit};
use super::output::counted;
use crate::config::units::{format_duration, parse_duration};
use crate::id::PublicKey;
use crate::node::command::{Command, Reply};
use crate::wire::record::{LIFETIME_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX, is_name};
use core::fmt;
use core::fmt::Write;
use core::str::FromStr;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStringExt;

pub(super) const SET_AFTER_HELP: &str = "\
A later value replaces an earlier one of the same name. Only this node can replace it: values are signed.

Examples:
  elver set motd 'the river is rising'        prints PUBLICKEY/motd
  elver set latest \"$(b3sum --no-names f)\"    a name for a file that changes";

pub(super) const LOOKUP_AFTER_HELP: &str = "\
Asks the nodes closest to the value's key, and ends when a majority of them agree on the newest value. The publisher's node
answers from its own record. When no node has the value, or too few answer, the value that this node keeps or found within the
last hour is shown, with a note on standard error; with --fresh the command then fails (exit code 3 or 4).

Writes the value's bytes unchanged; with --json as \"value\", or in hexadecimal as \"value_hex\" when it is not UTF-8.";

#[derive(clap::Args, Debug)]
pub(super) struct SetArguments {
    /// The value's name: 1 to 64 bytes, without control characters and /
    #[arg(value_parser = parse_name)]
    name: String,
    /// The value: at most 896 bytes
    #[arg(allow_negative_numbers = true)]
    value: OsString,
    /// How long other nodes keep the value after this node last published it, at most 30d [default: the node's]
    #[arg(long, value_name = "T", value_parser = parse_lifetime)]
    ttl: Option<u32>,
}

#[derive(clap::Args, Debug)]
pub(super) struct UnsetArguments {
    /// The value's name
    #[arg(value_parser = parse_name)]
    name: String,
}

#[derive(clap::Args, Debug)]
pub(super) struct LookupArguments {
    /// The value's address, PUBLICKEY/NAME, as `elver set` prints it
    address: Address,
    /// Accept only what the network answers now, not what this node publishes or has found within the last hour
    #[arg(long)]
    fresh: bool,
}

/// The address of a value.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Address {
    publisher: PublicKey,
    name: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.publisher, self.name)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (publisher, name) =
            text.split_once('/').ok_or("expected PUBLICKEY/NAME as `elver set` prints it")?;
        let publisher =
            publisher.parse().map_err(|error| format!("in the part before the first /: {error}"))?;
        Ok(Address { publisher, name: parse_name(name)? })
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes, no control characters and no /")),
    }
}

fn parse_lifetime(text: &str) -> Result<u32, String> {
    match parse_duration(text) {
        Ok(seconds) if seconds <= LIFETIME_MAX => Ok(seconds),
        Ok(_) => Err(format!("values are kept for at most {}", format_duration(LIFETIME_MAX.into()))),
        Err(error) => Err(error.to_string()),
    }
}

/// Stops publishing a value.
pub(super) fn unset(context: &mut Context, arguments: &UnsetArguments) -> Result<Exit, CommandError> {
    let reply = context.request(&Command::Unset { name: arguments.name.clone() }, &arguments.name)?;
    let Reply::Unset { publisher, name, lifetime } = reply else {
        return Err(context.unexpected(&reply));
    };
    let address = Address { publisher, name };
    if context.output.json {
        context
            .output
            .object(&json!({ "address": address.to_string(), "forgotten_within_seconds": lifetime }))?;
    } else {
        let within = format_duration(lifetime.into());
        context
            .output
            .line(&format!("{address} is no longer published; other nodes drop it within {within}"))?;
    }
    Ok(Exit::Done)
}

/// Lists the values that this node publishes.
pub(super) fn list(context: &mut Context) -> Result<Exit, CommandError> {
    let reply = context.request(&Command::Values, "")?;
    let Reply::Values { publisher, values } = reply else {
        return Err(context.unexpected(&reply));
    };
    for own in values {
        let address = Address { publisher, name: own.name };
        if context.output.json {
            context.output.object(&json!({
                "address": address.to_string(), "bytes": own.value.len(), "sequence": own.sequence,
                "lifetime": own.lifetime,
            }))?;
        } else {
            let ttl = format_duration(own.lifetime.into());
            let bytes = counted(own.value.len() as u64, "byte");
            context.output.line(&format!("{address}  {bytes}  kept for {ttl}"))?;
        }
    }
    Ok(Exit::Done)
}

/// Publishes a value.
pub(super) fn set(context: &mut Context, arguments: &SetArguments) -> Result<Exit, CommandError> {
    let value = arguments.value.clone().into_vec();
    if value.len() > VALUE_BYTES_MAX {
        let message = format!(
            "the value has {} bytes, more than the {VALUE_BYTES_MAX} allowed; put it as a file and set the file's hash as the value",
            value.len()
        );
        return Err(CommandError::new(Exit::Usage, message));
    }
    let command = Command::Set { name: arguments.name.clone(), value, lifetime: arguments.ttl };
    let reply = context.request(&command, &arguments.name)?;
    let Reply::Set { publisher, name, copies, sequence } = reply else {
        return Err(context.unexpected(&reply));
    };
    let address = Address { publisher, name };
    if context.output.json {
        context.output.object(&json!({
            "address": address.to_string(), "publisher": address.publisher, "name": address.name,
            "copies": copies, "sequence": sequence,
        }))?;
    } else {
        context.output.line(&address.to_string())?;
    }
    Ok(Exit::Done)
}

/// Finds a value.
pub(super) fn lookup(context: &mut Context, arguments: &LookupArguments) -> Result<Exit, CommandError> {
    let Address { publisher, name } = arguments.address.clone();
    let command = Command::Lookup { publisher, name, fresh: arguments.fresh };
    let reply = context.request(&command, &arguments.address.name)?;
    let Reply::Lookup { publisher, name, value, sequence, asked, from_memory } = reply else {
        return Err(context.unexpected(&reply));
    };
    if from_memory {
        context.output.warn(
            "the network did not confirm this value: it is the newest that this node keeps or found within the last hour (see --fresh)",
        );
    }
    if context.output.json {
        let address = Address { publisher, name };
        let mut object = Map::new();
        object.insert("address".to_owned(), address.to_string().into());
        object.insert("publisher".to_owned(), address.publisher.to_string().into());
        object.insert("name".to_owned(), address.name.into());
        object.insert("sequence".to_owned(), sequence.into());
        object.insert("asked".to_owned(), asked.into());
        object.insert("from_memory".to_owned(), from_memory.into());
        let (key, text) = match String::from_utf8(value) {
            Ok(text) => ("value", text),
            Err(error) => ("value_hex", hexadecimal(error.as_bytes())),
        };
        object.insert(key.to_owned(), text.into());
        context.output.object(&Value::Object(object))?;
        return Ok(Exit::Done);
    }
    context.output.bytes(&value)?;
    if std::io::stdout().is_terminal() && !value.ends_with(b"\n") {
        context.output.bytes(b"\n")?;
    }
    Ok(Exit::Done)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::Door;
    use crate::cli::output::tests::kept;
    use crate::cli::testing::FakeDaemon;
    use crate::node::command::Response;

    fn answer(json: bool, value: &[u8]) -> String {
        said(json, value, false).0
    }

    /// What is written to standard output and to standard error.
    fn said(json: bool, value: &[u8], from_memory: bool) -> (String, String) {
        let (publisher, name, value) = (PublicKey([7; 32]), "n".to_owned(), value.to_vec());
        let reply = Reply::Lookup { publisher, name, value, sequence: 2, asked: 9, from_memory };
        let daemon = FakeDaemon::answering(&[Response::Done(reply)]);
        let (mut context, results, remarks) = daemon.context(json);
        let address = Address { publisher, name: "n".to_owned() };
        assert_eq!(lookup(&mut context, &LookupArguments { address, fresh: false }), Ok(Exit::Done));
        (results.text(), remarks.text())
    }

    #[test]
    fn an_address_survives_text_and_anything_else_is_refused() {
        let text = format!("{}/näme x", "ab".repeat(32));
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        for wrong in
            ["", "x", "x/y", &"ab".repeat(32), &format!("{}/", "ab".repeat(32)), &format!("{text}/b")]
        {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_value_is_written_unchanged() {
        assert_eq!(answer(false, b"water"), "water");
    }

    #[test]
    fn a_value_that_no_node_confirms_comes_with_a_note() {
        let (results, remarks) = said(false, b"water", true);
        assert_eq!(results, "water");
        assert!(remarks.contains("within the last hour"), "{remarks}");
        assert_eq!(said(false, b"water", false).1, "");
    }

    #[test]
    fn a_value_in_json_is_text_if_it_is_utf8_and_else_hexadecimal() {
        let object: Value = serde_json::from_str(&answer(true, b"wat\ner")).unwrap();
        assert_eq!(object["value"].as_str(), Some("wat\ner"));
        assert_eq!(object["asked"].as_u64(), Some(9));
        let object: Value = serde_json::from_str(&answer(true, b"\xff\x00")).unwrap();
        assert_eq!(object["value_hex"].as_str(), Some("ff00"));
        assert_eq!(object.get("value"), None);
    }

    #[test]
    fn set_prints_the_address() {
        let publisher = PublicKey([7; 32]);
        let reply = Reply::Set { publisher, name: "n".to_owned(), copies: 3, sequence: 1 };
        let daemon = FakeDaemon::answering(&[Response::Done(reply)]);
        let (mut context, results, _) = daemon.context(false);
        let arguments = SetArguments { name: "n".to_owned(), value: "v".into(), ttl: Some(60) };
        assert_eq!(set(&mut context, &arguments), Ok(Exit::Done));
        assert_eq!(results.text(), format!("{publisher}/n\n"));
        let expected = Command::Set { name: "n".to_owned(), value: b"v".to_vec(), lifetime: Some(60) };
        assert_eq!(daemon.heard(), vec![expected]);
    }

    #[test]
    fn a_value_that_is_too_long_is_refused_without_a_daemon() {
        let (output, _, _) = kept(false);
        let mut context = Context {
            dir: "/nonexistent".into(),
            door: Door::Dir("/nonexistent".into()),
            output,
            progress: None,
        };
        let arguments = SetArguments { name: "n".to_owned(), value: "v".repeat(897).into(), ttl: None };
        assert_eq!(set(&mut context, &arguments).unwrap_err().exit, Exit::Usage);
    }
}
