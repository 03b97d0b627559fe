//! Datagrams in flight. The queue names each one by its slot. Slots are reused.

use crate::wire::datagram::DATAGRAM_BYTES_MAX;
use core::net::SocketAddr;

/// A datagram in flight.
#[derive(Clone, Copy)]
pub(super) struct Packet {
    /// The address that it was sent from.
    pub(super) from: SocketAddr,
    /// The host that it arrives at.
    pub(super) to: u32,
    length: u16,
    bytes: [u8; DATAGRAM_BYTES_MAX],
}

impl Packet {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// All datagrams in flight.
#[derive(Default)]
pub(super) struct Packets {
    slots: Vec<Packet>,
    free: Vec<u32>,
}

impl Packets {
    /// Stores a datagram and returns its slot.
    pub(super) fn put(&mut self, from: SocketAddr, to: usize, bytes: &[u8]) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Packet { from, to: 0, length: 0, bytes: [0; DATAGRAM_BYTES_MAX] });
            self.slots.len() as u32 - 1
        });
        let packet = &mut self.slots[slot as usize];
        (packet.from, packet.to, packet.length) = (from, to as u32, bytes.len() as u16);
        packet.bytes[..bytes.len()].copy_from_slice(bytes);
        slot
    }

    /// Returns the datagram in a slot and frees the slot.
    pub(super) fn take(&mut self, slot: u32) -> Packet {
        self.free.push(slot);
        self.slots[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_and_a_shorter_datagram_shows_nothing_of_the_one_before() {
        let from = SocketAddr::from(([10, 0, 0, 1], 1));
        let mut packets = Packets::default();
        let first = packets.put(from, 3, &[7; 100]);
        let second = packets.put(from, 4, &[8; 50]);
        assert_ne!(first, second);
        assert_eq!(packets.take(first).bytes(), [7; 100]);
        assert_eq!(packets.put(from, 5, &[9; 10]), first);
        let packet = packets.take(first);
        assert_eq!(packet.to, 5);
        assert_eq!(packet.bytes(), &[9; 10][..]);
    }
}
