//! The secret of the HTTP gateway, in its file: one line of text.

use crate::net::HttpToken;
use core::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The longest file in bytes.
const FILE_BYTES_MAX: u64 = 1024;

/// Why there is no token.
#[derive(Debug)]
pub enum HttpTokenError {
    /// The file cannot be read.
    System(io::Error),
    /// Other users can read or change it. It has this mode.
    Exposed(u32),
    /// It contains no token.
    NoToken,
}

impl fmt::Display for HttpTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpTokenError::System(error) => error.fmt(f),
            HttpTokenError::Exposed(mode) => write!(
                f,
                "other users can read or change the file (mode {mode:04o}), so the token may be known: choose another, and run \
                 chmod 600 on the file"
            ),
            HttpTokenError::NoToken => write!(
                f,
                "a token is one line of {} to {} visible ASCII characters; `head -c 24 /dev/urandom | base64` makes one",
                HttpToken::CHARACTERS_MIN,
                HttpToken::CHARACTERS_MAX
            ),
        }
    }
}

impl std::error::Error for HttpTokenError {}

impl From<io::Error> for HttpTokenError {
    fn from(error: io::Error) -> Self {
        HttpTokenError::System(error)
    }
}

/// Reads a token from its file.
pub fn read(path: &Path) -> Result<HttpToken, HttpTokenError> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(HttpTokenError::NoToken);
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(HttpTokenError::Exposed(mode));
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    core::str::from_utf8(&text).ok().and_then(HttpToken::new).ok_or(HttpTokenError::NoToken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    #[test]
    fn a_token_is_read_from_a_file_of_its_owner_alone() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("token");
        let put = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            read(&path)
        };
        assert!(put("sesame-sesame-sesame\n", 0o600).is_ok());
        assert!(matches!(put("sesame-sesame-sesame\n", 0o640), Err(HttpTokenError::Exposed(0o640))));
        assert!(matches!(put("sesame\n", 0o600), Err(HttpTokenError::NoToken)));
        assert!(matches!(put(&"x".repeat(2000), 0o600), Err(HttpTokenError::NoToken)));
        assert!(matches!(read(dir.path()), Err(HttpTokenError::NoToken)));
        assert!(matches!(read(&dir.path().join("none")), Err(HttpTokenError::System(_))));
    }
}
