//! The handshake: both ends send a hello, then each signs both hellos.
//!
//! Each hello carries an ephemeral key. It makes each pair of hellos unique, so a recorded proof fits no other stream, and it
//! gives the two ends a secret from which the tags of the later frames follow. The signed message names the role of the signer,
//! so neither end can return the other's proof as its own.

use super::close::HandshakeError;
use crate::id::NodeId;
use crate::identity::{Identity, Signature};
use crate::wire::frame::{Ephemeral, Frame, Hello, StreamKeys};
use crate::wire::network::Network;
use zerocopy::IntoBytes;

/// A handshake under way.
pub(in crate::transfer) struct Handshake {
    dialled: bool,
    ephemeral: Ephemeral,
    ours: Hello,
    theirs: Option<Hello>,
}

/// What a valid frame of the other end leads to.
pub(in crate::transfer) enum Step {
    /// The hello arrived: send this proof.
    Prove(Signature),
    /// The proof arrived and verifies: the other end is authenticated, and further frames are sealed with these keys.
    Authenticated(Hello, StreamKeys),
}

impl Handshake {
    /// Begins a handshake with this hello, which has the public key of `ephemeral`. `dialled` is true at the end that connected.
    pub(in crate::transfer) fn new(dialled: bool, ephemeral: Ephemeral, ours: Hello) -> Self {
        debug_assert_eq!(ephemeral.public(), ours.ephemeral, "the hello is of this key");
        Handshake { dialled, ephemeral, ours, theirs: None }
    }

    /// Takes the other end's next frame. `expected` is the node that was dialled, if this end dialled.
    pub(in crate::transfer) fn handle(
        &mut self,
        frame: &Frame<'_>,
        network: &Network,
        identity: &Identity,
        expected: Option<&NodeId>,
    ) -> Result<Step, HandshakeError> {
        match (frame, self.theirs) {
            (Frame::Hello(hello), None) => {
                if hello.network() != network.id() {
                    return Err(HandshakeError::Network);
                }
                if hello.public == identity.public() {
                    return Err(HandshakeError::OwnKey);
                }
                if !network.admits(&hello.public) {
                    return Err(HandshakeError::Work);
                }
                if expected.is_some_and(|id| *id != hello.public.node_id()) {
                    return Err(HandshakeError::Identity);
                }
                self.theirs = Some(**hello);
                Ok(Step::Prove(identity.sign(&self.digest(network, self.dialled, hello))))
            }
            (Frame::Proof { signature }, Some(theirs)) => {
                let digest = self.digest(network, !self.dialled, &theirs);
                if !network.verify(&theirs.public, &digest, signature) {
                    return Err(HandshakeError::Signature);
                }
                let keys = self.ephemeral.agree(network, self.dialled, &self.ours, &theirs);
                keys.map(|keys| Step::Authenticated(theirs, keys)).ok_or(HandshakeError::Key)
            }
            _ => Err(HandshakeError::Order),
        }
    }

    /// The message that the connecting end signs, or the accepting end.
    fn digest(&self, network: &Network, by_connector: bool, theirs: &Hello) -> [u8; 32] {
        let (connector, acceptor) = match self.dialled {
            true => (&self.ours, theirs),
            false => (theirs, &self.ours),
        };
        network.handshake_digest(by_connector, connector.as_bytes(), acceptor.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IdWork;

    fn node(seed: u8, dialled: bool) -> (Identity, Handshake) {
        node_with(seed, [seed; 32], dialled)
    }

    fn node_with(seed: u8, secret: [u8; 32], dialled: bool) -> (Identity, Handshake) {
        let identity = Identity::from_secret(&[seed; 32]);
        let network = Network::new("test");
        let ephemeral = Ephemeral::new(&network, secret);
        let hello = Hello::new(network.id(), identity.public(), ephemeral.public(), 1, false);
        (identity, Handshake::new(dialled, ephemeral, hello))
    }

    #[test]
    fn a_reflected_proof_and_a_replayed_proof_are_refused() {
        let network = Network::new("test");
        let ((a, mut from_a), (b, mut from_b)) = (node(1, true), node(2, false));
        let hello_a = from_a.ours;
        let hello_b = from_b.ours;
        let Ok(Step::Prove(proof_b)) = from_b.handle(&Frame::Hello(&hello_a), &network, &b, None) else {
            panic!("b refused")
        };
        let Ok(Step::Prove(proof_a)) = from_a.handle(&Frame::Hello(&hello_b), &network, &a, Some(&b.id()))
        else {
            panic!("a refused")
        };
        let own = from_a.handle(&Frame::Proof { signature: &proof_a }, &network, &a, None);
        assert!(matches!(own, Err(HandshakeError::Signature)));
        let theirs = from_a.handle(&Frame::Proof { signature: &proof_b }, &network, &a, None);
        assert!(matches!(theirs, Ok(Step::Authenticated(..))));
        // The same hello of b on a new stream, for which a draws a new key.
        let (_, mut again) = node_with(1, [9; 32], true);
        assert!(again.handle(&Frame::Hello(&hello_b), &network, &a, None).is_ok());
        let replayed = again.handle(&Frame::Proof { signature: &proof_b }, &network, &a, None);
        assert!(matches!(replayed, Err(HandshakeError::Signature)));
    }

    #[test]
    fn a_proven_peer_whose_ephemeral_key_gives_no_secret_is_refused() {
        let network = Network::new("test");
        let (a, mut from_a) = node(1, true);
        let b = Identity::from_secret(&[2; 32]);
        let hello = Hello::new(network.id(), b.public(), [0; 32], 1, false);
        assert!(from_a.handle(&Frame::Hello(&hello), &network, &a, None).is_ok());
        let proof = b.sign(&from_a.digest(&network, false, &hello));
        let proven = from_a.handle(&Frame::Proof { signature: &proof }, &network, &a, None);
        assert!(matches!(proven, Err(HandshakeError::Key)));
    }

    #[test]
    fn a_hello_without_the_work_that_the_network_asks_for_is_refused_before_anything_is_signed() {
        let (a, mut from_a) = node(1, true);
        let hello = node(2, false).1.ours;
        let shown = IdWork::shown(&hello.public) as u8;
        let asking = |bits| Network::new("test").with_id_work(IdWork::new(bits).unwrap());
        let refused = from_a.handle(&Frame::Hello(&hello), &asking(shown + 1), &a, None);
        assert!(matches!(refused, Err(HandshakeError::Work)));
        assert!(from_a.handle(&Frame::Hello(&hello), &asking(shown), &a, None).is_ok());
    }

    #[test]
    fn ones_own_key_another_network_and_a_proof_before_the_hello_are_refused() {
        let network = Network::new("test");
        let (a, mut from_a) = node(1, true);
        let (_, from_b) = node(2, false);
        let hello = Hello::new(network.id(), a.public(), [9; 32], 1, false);
        assert!(matches!(
            from_a.handle(&Frame::Hello(&hello), &network, &a, None),
            Err(HandshakeError::OwnKey)
        ));
        let elsewhere = Hello::new(7, from_b.ours.public, [9; 32], 1, false);
        let refused = from_a.handle(&Frame::Hello(&elsewhere), &network, &a, None);
        assert!(matches!(refused, Err(HandshakeError::Network)));
        let proof = from_a.handle(&Frame::Proof { signature: &[0; 64] }, &network, &a, None);
        assert!(matches!(proof, Err(HandshakeError::Order)));
        let unexpected = from_a.handle(&Frame::Hello(&from_b.ours), &network, &a, Some(&a.id()));
        assert!(matches!(unexpected, Err(HandshakeError::Identity)));
    }
}
