//! How this node learned of a contact.

/// How this node learned of a contact.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Origin {
    /// It answered at a bootstrap address.
    Bootstrap,
    /// It was a contact before, in this run or the last.
    Remembered,
    /// It told a link of this machine that it is there.
    Link,
    /// Another node named it.
    #[default]
    Told,
    /// It sent a request.
    Called,
}
