//! The clock and the source of entropy: no other module reads either.

use crate::time::Instant;

/// The monotonic clock. Its origin is the start of the driver.
pub(super) struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Clock { origin: std::time::Instant::now() }
    }

    pub(super) fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// 32 unpredictable bytes, from /dev/urandom where a system-call filter or an old kernel refuses getrandom(2).
pub(crate) fn entropy() -> std::io::Result<[u8; 32]> {
    use std::io::Read;
    let mut bytes = [0; 32];
    match rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()) {
        Ok(filled) if filled == bytes.len() => {}
        _ => std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?,
    }
    Ok(bytes)
}
