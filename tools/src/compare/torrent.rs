//! A torrent file and a tracker for the BitTorrent programs.

use crate::Outcome;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Writes a torrent of one file that names one tracker.
pub(super) fn write(source: &Path, torrent: &Path, tracker: SocketAddr) -> Outcome<()> {
    let file = fs::File::open(source)?;
    let length = file.metadata()?.len();
    let piece_bytes: usize = if length >= 128 << 20 { 1 << 20 } else { 256 << 10 };
    let mut pieces = Vec::new();
    let mut piece = Vec::with_capacity(piece_bytes);
    while (&file).take(piece_bytes as u64).read_to_end(&mut piece)? > 0 {
        pieces.extend_from_slice(&sha1(&piece));
        piece.clear();
    }
    let name = source.file_name().unwrap_or_default().as_encoded_bytes();
    let announce = format!("http://{tracker}/announce");
    let mut out =
        format!("d8:announce{}:{announce}4:infod6:lengthi{length}e4:name{}:", announce.len(), name.len())
            .into_bytes();
    out.extend_from_slice(name);
    out.extend_from_slice(format!("12:piece lengthi{piece_bytes}e6:pieces{}:", pieces.len()).as_bytes());
    out.extend_from_slice(&pieces);
    out.extend_from_slice(b"7:privatei1eee");
    fs::write(torrent, out)?;
    Ok(())
}

/// SHA-1 (FIPS 180-4), the hash of a torrent's pieces.
fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let whole = bytes.len() / 64 * 64;
    let mut last = bytes[whole..].to_vec();
    last.push(0x80);
    while last.len() % 64 != 56 {
        last.push(0);
    }
    last.extend_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    for block in bytes[..whole].chunks_exact(64).chain(last.chunks_exact(64)) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mixed, constant) = match at / 20 {
                0 => (b & c | !b & d, 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => (b & c | b & d | c & d, 0x8f1b_bcdc_u32),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// The last announcement of a program to the tracker.
#[derive(Clone, Copy, Default)]
pub(super) struct Announced {
    /// Whether the program has the whole file.
    pub(super) complete: bool,
    /// The bytes that the program reports as sent, once it has announced for the last time.
    pub(super) uploaded: Option<u64>,
    here: bool,
}

/// The address of the program that listens on a port.
pub(super) type AddressOf = fn(u16) -> Ipv4Addr;

/// A tracker for one torrent. Its thread runs until this program ends.
#[derive(Clone)]
pub(super) struct Tracker {
    pub(super) addr: SocketAddr,
    peers: Arc<Mutex<BTreeMap<u16, Announced>>>,
    address_of: AddressOf,
}

impl Tracker {
    /// Starts a tracker. `address_of` gives the address of the program that listens on a port.
    pub(super) fn start(ip: IpAddr, address_of: AddressOf) -> Outcome<Tracker> {
        let listener = TcpListener::bind((ip, 0))?;
        let tracker = Tracker { addr: listener.local_addr()?, peers: Arc::default(), address_of };
        let serving = tracker.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tracker = serving.clone();
                std::thread::spawn(move || tracker.answer(stream));
            }
        });
        Ok(tracker)
    }

    /// The last announcement of the program that listens on this port.
    pub(super) fn announced(&self, port: u16) -> Announced {
        self.peers.lock().expect("no holder panics").get(&port).copied().unwrap_or_default()
    }

    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let request = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        let query = request.split_whitespace().nth(1)?.split_once('?')?.1.to_owned();
        let value = |name: &str| {
            query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
        };
        let number = |name: &str| value(name).and_then(|(_, value)| value.parse::<u64>().ok());
        let (port, event) = (number("port")? as u16, value("event").map_or("", |(_, event)| event));
        let mut peers = self.peers.lock().expect("no holder panics");
        let entry = peers.entry(port).or_default();
        entry.here = event != "stopped";
        entry.complete |= number("left") == Some(0);
        if !entry.here {
            entry.uploaded = number("uploaded");
        }
        let others = peers.iter().filter(|(other, announced)| **other != port && announced.here);
        let list: Vec<u8> = others
            .flat_map(|(&port, _)| [&(self.address_of)(port).octets()[..], &port.to_be_bytes()].concat())
            .collect();
        let mut body = format!("d8:intervali60e12:min intervali5e5:peers{}:", list.len()).into_bytes();
        body.extend_from_slice(&list);
        body.push(b'e');
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn sha1_is_what_the_standard_says_at_every_padding() {
        assert_eq!(hex(&sha1(b"")), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(hex(&sha1(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex(&sha1(two_blocks)), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        assert_eq!(hex(&sha1(&[b'a'; 1_000_000])), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    }
}
