//! Seeds for the targets whose input is a sequence of steps. `fuzz/README.md` says where each format is described.

use crate::Outcome;
use elver::disk::Disk;
use elver::io::{Brought, DiskId, DiskOp, FileStamp, Mode, PieceMeta, Place, Share, ShareState};
use elver::manifest::Content;
use elver::node::command::{Command, Part};
use elver::sim::blob::Blob;
use elver::sim::population::{Joining, build};
use elver::sim::workload::Workload;
use elver::sim::world::{Plan, World};
use elver::time::Duration;
use elver::wire::datagram::Unverified;
use elver::wire::frame::FRAME_HEAD_BYTES;
use elver::wire::header::HEADER_BYTES;
use elver::wire::network::Network;
use std::fs;
use std::path::Path;

/// A seed: its target, its name, its bytes.
type Seed = (&'static str, String, Vec<u8>);

/// The steps of the targets `node` and `pair` that the seeds use.
mod node {
    pub(super) const REQUEST: u8 = 0;
    pub(super) const ANSWER: u8 = 1;
    pub(super) const GOSSIP: u8 = 3;
    pub(super) const VALUE: u8 = 4;
    pub(super) const ANNOUNCE: u8 = 5;
    pub(super) const ACCEPT: u8 = 7;
    pub(super) const FRAME: u8 = 9;
    pub(super) const KNOWN_FRAME: u8 = 10;
    pub(super) const ANSWER_FRAME: u8 = 11;
    pub(super) const DISK: u8 = 14;
    pub(super) const COMMAND: u8 = 15;
    pub(super) const TIME: u8 = 16;
    pub(super) const ALL_HONEST: u8 = 18;
}

/// The number of recorded datagrams in one seed.
const DATAGRAMS_PER_SEED: usize = 8;
/// The number of peers in the target `node`.
const PEERS: u8 = 4;

/// Appends a byte string as the targets read it.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Sequences for the target `node` that commands and peers make.
pub(super) fn of_commands() -> Vec<Seed> {
    let rounds = [node::ALL_HONEST, 7];
    let mut seeds = Vec::new();
    for kind in 0..18 {
        for (file, number) in [(1, 7), (3, 7), (3, 0x61)] {
            let mut bytes = vec![0];
            bytes.extend(rounds.repeat(2));
            bytes.extend([node::COMMAND, 0, file, 7]);
            bytes.extend(rounds.repeat(2));
            bytes.extend([node::COMMAND, kind, file, number]);
            bytes.extend(rounds.repeat(6));
            bytes.extend([node::TIME, 13]);
            bytes.extend(rounds);
            seeds.push(("node", format!("command-{kind}-{file}-{number}"), bytes));
        }
        // The file is with the peers only.
        let mut bytes = vec![kind % 8];
        bytes.extend(rounds.repeat(2));
        bytes.extend([node::COMMAND, kind, 3, 1]);
        bytes.extend(rounds.repeat(8));
        seeds.push(("node", format!("command-{kind}-elsewhere"), bytes));
    }
    for kind in 0..12 {
        let mut bytes = vec![0];
        bytes.extend(rounds.repeat(2));
        bytes.extend([node::COMMAND, 0, 3, 7]);
        bytes.extend(rounds);
        bytes.extend([node::ACCEPT, 0]);
        for piece in 0..6 {
            bytes.extend([node::KNOWN_FRAME, 0, kind, piece, 3 + piece * 8]);
            bytes.extend([node::ANSWER_FRAME, 0, 0, node::DISK, 0, 0]);
        }
        bytes.extend(rounds.repeat(3));
        seeds.push(("node", format!("frames-{kind}"), bytes));
    }
    let mut bytes = vec![2];
    for peer in 0..PEERS {
        bytes.extend([node::GOSSIP, peer, 2, peer, 64, peer + 1, 0, 0, 6]);
        bytes.extend([node::ANNOUNCE, peer, 3, 4, node::VALUE, peer, 1]);
        put(&mut bytes, b"value");
        bytes.extend([7, 0]);
        bytes.extend(rounds);
    }
    seeds.push(("node", "statements".to_owned(), bytes));
    seeds
}

/// The frames of the test vectors, each on a new stream of the target `node`.
pub(super) fn of_frames(frames: &[(String, Vec<u8>)]) -> Vec<Seed> {
    let seed = |(name, frame): &(String, Vec<u8>)| {
        let mut bytes = vec![0, node::ALL_HONEST, 2, node::ACCEPT, 1];
        for _ in 0..2 {
            bytes.extend([node::FRAME, 0, frame[4]]);
            put(&mut bytes, &frame[FRAME_HEAD_BYTES..]);
        }
        bytes.extend([node::ALL_HONEST, 2]);
        ("node", format!("frame-{name}"), bytes)
    };
    frames.iter().map(seed).collect()
}

/// What one node of a small simulated network receives while files are put and fetched.
pub(super) fn of_simulation() -> Vec<Seed> {
    let (mut world, mut work) = (World::new(Plan::new(1)), Workload::default());
    build(&mut world, 8, Joining::OneByOne(Duration::from_secs(20)));
    world.record(4000);
    work.put(&mut world, 1, 700_000, 3);
    let until = world.now() + Duration::from_secs(90);
    while let Some(event) = world.next(until) {
        work.take(&world, &event);
    }
    if let Some(file) = work.files.first().cloned() {
        work.get(&mut world, 5, &file);
    }
    world.run_for(Duration::from_secs(30));
    let recorded = world.recorded();
    let network = Network::of("simulation", &world.hosts[2].identity());
    let heard: Vec<_> = recorded.iter().filter(|(host, ..)| *host == 2).collect();
    let mut seeds = Vec::new();
    for (number, datagrams) in heard.chunks(DATAGRAMS_PER_SEED).enumerate() {
        let mut steps = vec![0, node::ALL_HONEST, 3];
        for (_, from, bytes) in datagrams {
            let Ok(datagram) = Unverified::parse(bytes, &network) else { continue };
            let Some(payload) = bytes.get(HEADER_BYTES..bytes.len() - datagram.auth().tail_bytes()) else {
                continue;
            };
            let peer = from.ip().to_string().bytes().fold(0, u8::wrapping_add) % PEERS;
            let kind = datagram.kind();
            match kind.is_answer() {
                true => steps.extend([node::ANSWER, peer, 0, kind as u8]),
                false => steps.extend([node::REQUEST, peer, 0, 0, kind as u8]),
            }
            put(&mut steps, payload);
            steps.extend([node::TIME, 9]);
        }
        seeds.push(("node", format!("simulation-{number}"), steps));
    }
    seeds
}

/// Sequences for the target `pair`.
pub(super) fn of_pairs() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for file in 0..5 {
        for (weather, fates) in [("calm", 0), ("wet", 5), ("wild", 7)] {
            let mut bytes = vec![file];
            bytes.extend([0, 0, file, 2]);
            let fates: Vec<u8> = (0..120).map(|packet: u8| if packet % 5 == 0 { fates } else { 0 }).collect();
            bytes.push(6);
            put(&mut bytes, &fates);
            bytes.extend([5, 12, 1, 1, file, 5, 13, 2, 1, file, 9, 0, 5, 12]);
            bytes.extend([3, 0, 1]);
            put(&mut bytes, b"value");
            bytes.extend([5, 11, 4, 1, 1, 5, 12, 7, 0, 1, 5, 13, 8, 1, 5, 12, 8, 0, 5, 10]);
            seeds.push(("pair", format!("{weather}-{file}"), bytes));
        }
    }
    seeds
}

/// The files of a real node's directory, for the target `disk`.
pub(super) fn of_disk() -> Outcome<Vec<Seed>> {
    let scratch = tempfile::tempdir()?;
    let root = scratch.path().join("node");
    let (mut disk, ..) = Disk::open(&root)?;
    let (content, file) = (Blob::random(100, 1), Blob::random(700_000, 3));
    let (key, manifest) = (content.manifest().hash(), file.manifest());
    let meta = PieceMeta {
        key,
        content: Content::File,
        length: 100,
        input_offset: 0,
        replicas: 3,
        mode: Mode::of(0o644),
        expires: 1 << 30,
        claim: None,
        brought: Brought::default(),
    };
    let share = |place| Share {
        hash: manifest.hash(),
        length: manifest.length(),
        place,
        stamp: FileStamp { length: manifest.length(), modified: 1, changed: 1, ..FileStamp::default() },
        state: ShareState::Present,
        replicas: 3,
        lifetime: 3600,
        replicated: true,
        synced: true,
    };
    let shares = [Place::File(Path::new("/user/file").into()), Place::Cache(manifest.hash())].map(share);
    let mut world = World::new(Plan::new(2));
    build(&mut world, 4, Joining::Remembered);
    let mut ops = vec![
        DiskOp::SavePeers(world.hosts[0].disk.recover().peers),
        DiskOp::SaveRecords(vec![1; 120]),
        DiskOp::SaveScrub(vec![2; 48]),
        DiskOp::WritePiece { meta, bytes: content.bytes().to_vec() },
        DiskOp::Raise { key, replicas: 4, expires: 1 << 31, claim: None },
    ];
    ops.extend(shares.map(|share| DiskOp::SaveShare { share, manifest: Some(manifest.clone()) }));
    for (number, op) in ops.into_iter().enumerate() {
        disk.submit(DiskId(number as u64), op);
        for _ in 0..64 {
            disk.run(1 << 20);
        }
        while disk.poll_done().is_some() {}
    }
    drop(disk);
    let piece = format!("pieces/{}/{key}", &key.to_string()[..2]);
    // The file, its number, and how the target makes its checksums right.
    let files = [
        ("ages".to_owned(), 0, 2),
        ("ages.copy".to_owned(), 1, 2),
        ("peers".to_owned(), 2, 0),
        ("records".to_owned(), 3, 0),
        ("scrub".to_owned(), 4, 0),
        ("raises".to_owned(), 5, 3),
        ("shares.log".to_owned(), 6, 0),
        (format!("shares/{}", manifest.hash()), 7, 0),
        (piece, 8, 4),
        ("identity.key".to_owned(), 13, 0),
    ];
    let (mut seeds, mut all) = (Vec::new(), Vec::new());
    for (name, number, seal) in files {
        let Ok(bytes) = fs::read(root.join(&name)) else { continue };
        let mut one = vec![number, seal];
        put(&mut one, &bytes);
        all.extend_from_slice(&one);
        seeds.push(("disk", name.split('/').next().unwrap_or_default().to_owned(), one));
    }
    seeds.push(("disk", "all".to_owned(), all));
    Ok(seeds)
}

/// What users write, for the target `control`.
pub(super) fn of_control() -> Outcome<Vec<Seed>> {
    let hash = Blob::random(100, 1).manifest().hash();
    let commands = [
        Command::Put { path: "/user/file".into(), replicas: Some(3), lifetime: None },
        Command::Get { hash, target: Some("/got".into()), force: true, mode: Some(0o644), timeout: Some(3) },
        Command::GetEntry {
            hash,
            directory: "/set".into(),
            place: "a/b".into(),
            mode: Some(0o640),
            modified: Some(1_700_000_000),
            timeout: None,
        },
        Command::Explain { hash, timeout: None },
        Command::Remove { hash },
        Command::List { after: None },
        Command::Set { name: "name".to_owned(), value: b"value".to_vec(), lifetime: Some(60) },
        Command::Unset { name: "name".to_owned() },
        Command::Values,
        Command::Peers,
        Command::Forgive { peer: None },
        Command::Status,
        Command::Scrub { background: true },
        Command::Id,
        Command::Leave { timeout: Some(1) },
        Command::Read { hash, part: Some(Part::Last(7)), timeout: None },
    ];
    let lines: Vec<String> = commands.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let mut seeds: Vec<Seed> = Vec::new();
    let mut seed = |kind: u8, name: String, text: &str| {
        seeds.push(("control", name, [&[kind], text.as_bytes()].concat()));
    };
    for (number, line) in lines.iter().enumerate() {
        seed(0, format!("line-{number}"), &line.replacen('{', "{\"id\":7,", 1));
    }
    seed(0, "lines".to_owned(), &lines.join("\n"));
    let toml = "listen = \"[::]:3583\"\nbootstrap = [\"192.0.2.7:3583\", \"[2001:db8::7]:3583\"]\nreplicas = 3\n\
        quota = \"1GiB\"\nleaf = false\nnetwork = \"elver\"\nttl = \"365d\"\nupload_rate = \"2MiB\"\nstreams = 64\n\
        downloads = 8\n[gossip]\ninterval = 5\n[membership]\nevicted = \"15m\"\n[repair]\nurgent = 60\n";
    seed(1, "file".to_owned(), toml);
    let variables = "ELVER_LISTEN=127.0.0.1:0\nELVER_BOOTSTRAP=192.0.2.7:3583, [::1]:1\nELVER_QUOTA=1GiB\n\
        ELVER_GOSSIP_INTERVAL=2\nELVER_LEAF=yes\nELVER_DIR=/x\nELVER_KEEP_FREE=5%\nELVER_SCRUB=30d";
    seed(2, "variables".to_owned(), variables);
    seed(
        3,
        "flags".to_owned(),
        "--listen=[::]:1\n--replicas=3\n--leaf=true\n--quota\n1 GB\n--ttl=2h\n--streams=40",
    );
    for (number, word) in
        ["1.5GiB", "300", "2h 30m", "365d", "64KiB/s", "0", "18446744073709551615"].iter().enumerate()
    {
        seed(4, format!("word-{number}"), word);
    }
    seed(4, "key".to_owned(), &hash.to_string());
    let fields = [
        "Range: bytes=0-1023\r\nIf-Range: \"0\"\r\n",
        "Range: bytes=-5\r\nIf-None-Match: W/\"0\", *\r\nConnection: close\r\n",
        "Authorization: Basic OnNlc2FtZS1zZXNhbWUtc2VzYW1l\r\nOrigin: http://localhost\r\nSec-Fetch-Site: cross-site\r\n",
        "Authorization: Bearer sesame-sesame-sesame\r\nContent-Length: 0\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    ];
    let paths = [
        format!("/{hash}/a.mp4?x"),
        "/".to_owned(),
        "/metrics".to_owned(),
        format!("/api/ls?hash={hash}&path=%2Fa"),
    ];
    let requests = paths
        .iter()
        .zip(fields)
        .map(|(path, fields)| format!("GET {path} HTTP/1.1\r\nHost: localhost:3584\r\n{fields}\r\n"));
    let mut requests: Vec<String> = requests.collect();
    let unset = &lines[6];
    requests.push(format!(
        "POST /api/command HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer sesame-sesame-sesame\r\nContent-Length: {}\r\n\r\n{unset}",
        unset.len()
    ));
    for (number, request) in requests.iter().enumerate() {
        seed(5, format!("request-{number}"), request);
    }
    seed(5, "requests".to_owned(), &requests.concat());
    Ok(seeds)
}
