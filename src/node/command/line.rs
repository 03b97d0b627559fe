//! A line of the control protocol: one JSON object, with a command and the fields that are for the connection.

use super::Command;
use serde_json::Value;

/// The fields of a line beside its command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wrapping {
    /// Chosen by the client; repeated in the answers.
    pub number: Option<u64>,
    /// Whether a descriptor comes with it.
    pub descriptor: bool,
}

/// Parses a line. The error comes with the line's number, if that is readable.
pub fn parse_line(line: &[u8]) -> Result<(Wrapping, Command), (Option<u64>, serde_json::Error)> {
    let mut line: Value = serde_json::from_slice(line).map_err(|error| (None, error))?;
    let mut wrapping = Wrapping::default();
    if let Some(fields) = line.as_object_mut() {
        let number = fields.remove("id").unwrap_or_default();
        wrapping.number = serde_json::from_value(number).map_err(|error| (None, error))?;
        let descriptor = fields.remove("descriptor").unwrap_or_default();
        let descriptor: Option<bool> =
            serde_json::from_value(descriptor).map_err(|error| (wrapping.number, error))?;
        wrapping.descriptor = descriptor.unwrap_or(false);
    }
    let command = serde_json::from_value(line).map_err(|error| (wrapping.number, error))?;
    Ok((wrapping, command))
}

impl Command {
    /// The command's name in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Put { .. } => "put",
            Command::Get { .. } | Command::GetEntry { .. } => "get",
            Command::Explain { .. } => "explain",
            Command::Remove { .. } => "rm",
            Command::List { .. } => "ls",
            Command::Set { .. } => "set",
            Command::Unset { .. } => "unset",
            Command::Values => "values",
            Command::Lookup { .. } => "lookup",
            Command::Peers => "peers",
            Command::Status => "status",
            Command::Scrub { .. } => "scrub",
            Command::Events { .. } => "events",
            Command::Id => "id",
            Command::Leave { .. } => "leave",
            Command::Limit { .. } => "limit",
            Command::Read { .. } => "read",
            Command::Forgive { .. } => "forgive",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_a_wrong_line_carries_its_number_if_that_is_readable() {
        let (wrapping, command) = parse_line(br#"{"id":7,"descriptor":true,"command":"id"}"#).unwrap();
        assert_eq!(wrapping, Wrapping { number: Some(7), descriptor: true });
        assert_eq!(command, Command::Id);
        assert_eq!(parse_line(br#"{"id":7,"command":"nothing"}"#).unwrap_err().0, Some(7));
        assert_eq!(parse_line(br#"{"id":"x","command":"id"}"#).unwrap_err().0, None);
        assert_eq!(parse_line(b"nothing").unwrap_err().0, None);
    }
}
