//! The program's output: results on standard output, everything else on standard error.

use super::exit::CommandError;
use super::visible::visible;
use serde::Serialize;
use serde_json::json;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// The destination and the form of results, warnings and errors.
pub struct Output {
    /// Whether results and errors are JSON objects, one a line.
    pub json: bool,
    /// Whether remarks are left out.
    pub quiet: bool,
    results: Box<dyn Write>,
    /// The name of the results' destination, for messages.
    name: String,
    remarks: Box<dyn Write>,
    /// The reader of the results closed its pipe. Further results are dropped, so that a command that changes something
    /// completes and returns its true exit code.
    closed: bool,
}

impl Output {
    /// Output to standard output and standard error.
    pub fn standard(json: bool, quiet: bool) -> Self {
        Output::new(json, quiet, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// Output to these writers.
    pub fn new(json: bool, quiet: bool, results: Box<dyn Write>, remarks: Box<dyn Write>) -> Self {
        Output { json, quiet, results, name: "to standard output".to_owned(), remarks, closed: false }
    }

    /// Content alone, to a file.
    pub fn to_file(path: &Path, file: File) -> Self {
        let output = Output::new(false, true, Box::new(file), Box::new(io::sink()));
        Output { name: shown(path), ..output }
    }

    /// Writes a line of the result.
    pub fn line(&mut self, line: &str) -> Result<(), CommandError> {
        self.bytes(line.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Writes a line of the result that is a JSON object.
    pub fn object(&mut self, object: &impl Serialize) -> Result<(), CommandError> {
        let value = serde_json::to_value(object)
            .map_err(|error| CommandError::failed(format!("cannot write the result as JSON: {error}")))?;
        self.line(&value.to_string())
    }

    /// Writes bytes of the result as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        if self.closed {
            return Ok(());
        }
        let written = self.results.write_all(bytes);
        self.after(written)
    }

    /// Flushes the results.
    pub fn flush(&mut self) -> Result<(), CommandError> {
        if self.closed {
            return Ok(());
        }
        let flushed = self.results.flush();
        self.after(flushed)
    }

    /// Whether the reader of the results closed its pipe.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes a message that is neither a result nor an error, unless `--quiet` was given.
    pub fn remark(&mut self, message: &str) {
        if !self.quiet {
            self.say(message);
        }
    }

    /// Writes a warning.
    pub fn warn(&mut self, message: &str) {
        self.say(&format!("warning: {message}"));
    }

    /// Writes why a command failed: as text on standard error, and with `--json` also as an object among the results.
    pub fn error(&mut self, error: &CommandError) {
        self.say(&format!("error: {error}"));
        if self.json {
            let object = json!({"error": {
                "code": error.exit.code(),
                "reason": error.exit.reason(),
                "message": error.message,
            }});
            // An error here has no further place to go.
            let _ = self.object(&object).and_then(|()| self.flush());
        }
    }

    fn say(&mut self, message: &str) {
        // One write, so that lines of other processes do not mix with it. A message may have names in it that other nodes chose.
        let _ = self.remarks.write_all(format!("elver: {}\n", visible(message)).as_bytes());
    }

    fn after(&mut self, result: io::Result<()>) -> Result<(), CommandError> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(CommandError::write_failed(&self.name, &error)),
            Ok(()) => Ok(()),
        }
    }
}

/// A line as `b3sum` writes it and `b3sum --check` reads it: a name with a newline or a backslash is escaped, and a backslash
/// before the hash marks it.
pub fn sum_line(hash: &impl ToString, name: &Path) -> String {
    let name = name.to_string_lossy();
    let mark = if name.contains(['\\', '\n']) { "\\" } else { "" };
    format!("{mark}{}  {}", hash.to_string(), name.replace('\\', "\\\\").replace('\n', "\\n"))
}

/// A number with its noun: `1 node`, `3 nodes`.
pub fn counted(count: impl Into<u64>, noun: &str) -> String {
    match count.into() {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

/// A path on one line, with what could steer the terminal escaped.
pub fn shown(path: &Path) -> String {
    visible(&path.to_string_lossy()).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::exit::Exit;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A writer that keeps the text, for a test to read.
    #[derive(Clone, Default)]
    pub(in crate::cli) struct Kept(Rc<RefCell<Vec<u8>>>);

    impl Kept {
        pub(in crate::cli) fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.borrow()).into_owned()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An output whose results and remarks are kept.
    pub(in crate::cli) fn kept(json: bool) -> (Output, Kept, Kept) {
        let (results, remarks) = (Kept::default(), Kept::default());
        let output = Output::new(json, false, Box::new(results.clone()), Box::new(remarks.clone()));
        (output, results, remarks)
    }

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_broken_pipe_is_no_error_and_a_full_disk_is_one() {
        let output = |kind| Output::new(false, false, Box::new(Broken(kind)), Box::new(io::sink()));
        let mut broken = output(io::ErrorKind::BrokenPipe);
        assert_eq!(broken.line("x"), Ok(()));
        assert!(broken.is_closed());
        let full = output(io::ErrorKind::StorageFull).line("x").unwrap_err();
        assert_eq!(full.exit, Exit::NoSpace);
        assert!(full.message.starts_with("cannot write to standard output: "), "{full}");
        assert_eq!(output(io::ErrorKind::Other).line("x").unwrap_err().exit, Exit::Failed);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let path = Path::new("/dev/full");
        let file = File::options().write(true).open(path).unwrap();
        let full = Output::to_file(path, file).bytes(b"x").unwrap_err();
        assert_eq!(full.exit, Exit::NoSpace);
        assert!(full.message.starts_with("cannot write /dev/full: "), "{full}");
    }

    #[test]
    fn an_error_is_text_and_with_json_also_an_object() {
        let error = CommandError::new(Exit::NotFound, "nobody has it");
        let (mut output, results, remarks) = kept(false);
        output.error(&error);
        assert_eq!(results.text().as_str(), "");
        assert_eq!(remarks.text().as_str(), "elver: error: nobody has it\n");
        let (mut output, results, _) = kept(true);
        output.error(&error);
        let object: serde_json::Value = serde_json::from_str(&results.text()).unwrap();
        assert_eq!(object, json!({"error": {"code": 3, "reason": "not_found", "message": "nobody has it"}}));
    }

    #[test]
    fn a_number_of_one_has_a_noun_in_the_singular() {
        assert_eq!([0u32, 1, 2].map(|count| counted(count, "node")), ["0 nodes", "1 node", "2 nodes"]);
    }

    #[test]
    fn names_are_escaped_as_b3sum_does() {
        let line = |name: &str| sum_line(&"HASH", Path::new(name));
        assert_eq!(line("a b"), "HASH  a b");
        assert_eq!(line("a\nb"), "\\HASH  a\\nb");
        assert_eq!(line("a\\b"), "\\HASH  a\\\\b");
        assert_eq!(line("a\\\nb\r"), "\\HASH  a\\\\\\nb\r");
    }

    #[test]
    fn a_message_with_a_name_of_another_node_stays_one_line_and_steers_nothing() {
        let error = CommandError::failed("cannot write /d/a\nelver: b\u{1b}]0;c\u{7}\u{202e}d: no");
        let expected = "cannot write /d/a\\nelver: b\\u{1b}]0;c\\u{7}\\u{202e}d: no\n";
        let (mut output, _, remarks) = kept(false);
        output.error(&error);
        output.warn(&error.message);
        output.remark(&error.message);
        assert_eq!(
            remarks.text(),
            format!("elver: error: {expected}elver: warning: {expected}elver: {expected}")
        );
    }

    #[test]
    fn control_characters_in_a_path_do_not_reach_the_terminal() {
        assert_eq!(shown(Path::new("/tmp/ä\u{1b}[2J\n")), "/tmp/ä\\u{1b}[2J\\n");
    }
}
