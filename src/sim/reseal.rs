//! Frame seals for adversaries: an adversary opens the frames of its own node and seals other frames in their place.

use crate::wire::frame::{Ephemeral, Frame, Hello, Parsed, StreamKeys};
use crate::wire::network::Network;

/// The handshake of one stream as the adversary's host sees it, and then the stream's keys. An adversary knows its own node's
/// secrets. With stand-in signatures, the hellos reveal the ephemeral ones. With real signatures it cannot open any frame.
pub(super) struct Reseal {
    network: Network,
    dialled: bool,
    ours: Option<Hello>,
    theirs: Option<Hello>,
    /// Two copies of the stream's keys: one to open the node's frames, one for the adversary's own frames and those that arrive.
    keys: Option<(StreamKeys, StreamKeys)>,
    /// Whether the other end's proof has arrived, after which its frames are sealed.
    proven: bool,
    /// What has arrived and is no complete frame yet, for [`open`](Reseal::open).
    inbox: Vec<u8>,
}

impl Reseal {
    /// For a new stream. `dialled` is true if the adversary's node dialled it, false if the node accepted it.
    pub(super) fn new(network: &Network, dialled: bool) -> Self {
        Reseal {
            network: network.clone(),
            dialled,
            ours: None,
            theirs: None,
            keys: None,
            proven: false,
            inbox: Vec::new(),
        }
    }

    /// Opens a frame that the node wrote. `None` for frames of the handshake, and for content.
    pub(super) fn said<'a>(&mut self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        if let Some((node, _)) = &mut self.keys {
            let Ok(Parsed::Frame(frame, length)) = Frame::open(bytes, &mut node.ours) else { return None };
            return (length == bytes.len()).then_some(frame);
        }
        match Frame::parse(bytes) {
            Ok(Parsed::Frame(Frame::Hello(hello), _)) => self.ours = Some(*hello),
            Ok(Parsed::Frame(Frame::Proof { .. }, _)) => self.agree(),
            _ => {}
        }
        None
    }

    /// Reads the other end's hello, its first frame, from bytes that arrive for the node.
    pub(super) fn heard(&mut self, bytes: &[u8]) {
        if self.theirs.is_none() {
            if let Ok(Parsed::Frame(Frame::Hello(hello), _)) = Frame::parse(bytes) {
                self.theirs = Some(*hello);
            }
        }
    }

    /// Hands every frame of the other end in bytes that arrive for the node to `take`, from the first byte of the stream on. Content
    /// must not have been requested. Bytes that are no frames end the reading.
    pub(super) fn open(&mut self, bytes: &[u8], mut take: impl FnMut(Frame<'_>)) {
        self.heard(bytes);
        self.inbox.extend_from_slice(bytes);
        let mut at = 0;
        while at < self.inbox.len() {
            let rest = &self.inbox[at..];
            let parsed = match &mut self.keys {
                Some((_, adversary)) if self.proven => Frame::open(rest, &mut adversary.theirs),
                _ => Frame::parse(rest),
            };
            let Ok(Parsed::Frame(frame, length)) = parsed else { break };
            self.proven |= matches!(frame, Frame::Proof { .. });
            take(frame);
            at += length;
        }
        self.inbox.drain(..at);
    }

    /// Seals a frame and appends it to `out`. The other end accepts it as the node's next frame.
    pub(super) fn seal(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        if let Some((_, adversary)) = &mut self.keys {
            frame.write_sealed(out, &mut adversary.ours);
        }
    }

    fn agree(&mut self) {
        let (Some(ours), Some(theirs)) = (&self.ours, &self.theirs) else { return };
        let ephemeral = Ephemeral::new(&self.network, ours.ephemeral);
        let keys = || ephemeral.agree(&self.network, self.dialled, ours, theirs);
        self.keys = keys().zip(keys());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Key;
    use crate::identity::Identity;

    #[test]
    fn frames_that_are_put_before_a_nodes_own_pass_for_the_nodes() {
        let identity = Identity::stand_in(&[1; 32]);
        let network = Network::of("test", &identity);
        let ends = [3, 4].map(|secret| Ephemeral::new(&network, [secret; 32]));
        let [ours, theirs] =
            ends.each_ref().map(|end| Hello::new(network.id(), identity.public(), end.public(), 1, false));
        let mut node = ends[0].agree(&network, true, &ours, &theirs).expect("keys");
        let mut other = ends[1].agree(&network, false, &theirs, &ours).expect("keys");
        let unsealed = |frame: Frame<'_>| {
            let mut bytes = Vec::new();
            frame.write(&mut bytes);
            bytes
        };
        let mut reseal = Reseal::new(&network, true);
        assert_eq!(reseal.said(&unsealed(Frame::Hello(&ours))), None);
        reseal.heard(&unsealed(Frame::Hello(&theirs)));
        assert_eq!(reseal.said(&unsealed(Frame::Proof { signature: &[0; 64] })), None);
        let said = [Frame::Unverified { key: Key([1; 32]) }, Frame::Cancel { request: 5 }];
        let mut sealed = Vec::new();
        said[1].write_sealed(&mut sealed, &mut node.ours);
        assert_eq!(reseal.said(&sealed), Some(said[1]));
        let mut bytes = Vec::new();
        said.iter().for_each(|frame| reseal.seal(frame, &mut bytes));
        let Ok(Parsed::Frame(first, length)) = Frame::open(&bytes, &mut other.theirs) else {
            panic!("no frame")
        };
        assert_eq!(first, said[0]);
        let rest = bytes[length..].to_vec();
        assert_eq!(Frame::open(&rest, &mut other.theirs), Ok(Parsed::Frame(said[1], rest.len())));
    }
}
