//! The measured programs, and the commands by which each offers and fetches a file.

use super::process::Process;
use super::torrent::{self, Tracker};
use crate::Outcome;
use elver::cli::client::Client;
use elver::id::Key;
use elver::node::command::{Command as Order, Reply, Status};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The time limit for a program to offer a file.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// The port of the first program. The others have the ports after it.
const FIRST_PORT: u16 = 20_000;

/// A program, in one of its configurations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Program {
    /// Elver; the fetching node starts before the clock.
    Elver,
    /// Elver; the clock starts with the fetching node.
    ElverCold,
    /// Elver; the node reads and writes arriving content instead of splicing it.
    ElverCopied,
    /// aria2, over BitTorrent.
    Aria2,
    /// rqbit with its default number of workers.
    Rqbit,
    /// rqbit with one worker.
    RqbitOne,
    /// libtorrent, driven by a short script.
    Libtorrent,
    /// The Transmission daemon.
    Transmission,
    /// sendme, over QUIC.
    Sendme,
    /// nginx with sendfile, and curl writing to a file: nothing is verified.
    Nginx,
}

/// The network in which the programs of a run are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Net {
    /// 10.9.0.0/24, in a network namespace of their own.
    Own,
    /// 127.0.0.0/8.
    Loopback,
}

impl Net {
    pub(super) fn ip(self, index: usize) -> IpAddr {
        let last = u8::try_from(index + 1).unwrap_or(u8::MAX);
        IpAddr::V4(match self {
            Net::Own => Ipv4Addr::new(10, 9, 0, last),
            Net::Loopback => Ipv4Addr::new(127, 0, 0, last),
        })
    }

    fn address_of(self) -> torrent::AddressOf {
        fn last(port: u16) -> u8 {
            u8::try_from(port.saturating_sub(FIRST_PORT) + 1).unwrap_or(u8::MAX)
        }
        match self {
            Net::Own => |port| Ipv4Addr::new(10, 9, 0, last(port)),
            Net::Loopback => |port| Ipv4Addr::new(127, 0, 0, last(port)),
        }
    }
}

/// The settings that all runs share.
pub(super) struct Tools {
    pub(super) elver: PathBuf,
    pub(super) bin_dir: Option<PathBuf>,
    pub(super) python: PathBuf,
    pub(super) net: Net,
}

impl Tools {
    /// The path of a program, if it is installed.
    fn find(&self, name: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let dirs = self.bin_dir.iter().cloned().chain(std::env::split_paths(&path)).chain(usual);
        dirs.map(|dir| dir.join(name)).find(|path| path.is_file())
    }

    /// The reason why a program cannot be measured here. `None` when it can.
    pub(super) fn lacks(&self, program: Program) -> Option<String> {
        let lacking = |names: &[&str]| {
            let name = names.iter().find(|name| self.find(name).is_none())?;
            Some(format!("{name} is not installed"))
        };
        match program {
            Program::Elver | Program::ElverCold | Program::ElverCopied => None,
            Program::Aria2 => lacking(&["aria2c"]),
            Program::Rqbit | Program::RqbitOne => lacking(&["rqbit"]),
            Program::Sendme => lacking(&["sendme"]),
            Program::Nginx => lacking(&["nginx", "curl"]),
            Program::Transmission if self.net == Net::Loopback => Some(
                "it refuses peers on 127.0.0.0/8, and only root may make a network of its own".to_owned(),
            ),
            Program::Transmission => lacking(&["transmission-daemon"]),
            Program::Libtorrent => {
                let imports = Command::new(&self.python).args(["-c", "import libtorrent"]).output();
                let there = imports.is_ok_and(|output| output.status.success());
                (!there).then(|| format!("{} has no module libtorrent", self.python.display()))
            }
        }
    }
}

/// One run of one program: a seed with index 0, and the fetchers.
pub(super) struct Run<'a> {
    program: Program,
    tools: &'a Tools,
    source: &'a Path,
    work: PathBuf,
    /// Whether several fetchers run at a time, and have to find each other.
    swarm: bool,
    tracker: Option<Tracker>,
    hash: Option<Key>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        program: Program,
        tools: &'a Tools,
        source: &'a Path,
        work: PathBuf,
        swarm: bool,
    ) -> Outcome<Run<'a>> {
        fs::create_dir_all(&work)?;
        fs::set_permissions(&work, fs::Permissions::from_mode(0o755))?;
        let mut run = Run { program, tools, source, work, swarm, tracker: None, hash: None };
        let torrents =
            [Program::Aria2, Program::Rqbit, Program::RqbitOne, Program::Libtorrent, Program::Transmission];
        if torrents.contains(&program) {
            let tracker = Tracker::start(tools.net.ip(63), tools.net.address_of())?;
            torrent::write(source, &run.torrent(), tracker.addr)?;
            run.tracker = Some(tracker);
        }
        Ok(run)
    }

    /// The directory of this run.
    pub(super) fn work(&self) -> &Path {
        &self.work
    }

    fn torrent(&self) -> PathBuf {
        self.work.join("file.torrent")
    }

    fn dir(&self, index: usize) -> PathBuf {
        self.work.join(format!("n{index}"))
    }

    fn data(&self, index: usize) -> PathBuf {
        self.dir(index).join("data")
    }

    fn port(index: usize) -> u16 {
        FIRST_PORT + index as u16
    }

    fn addr(&self, index: usize) -> SocketAddr {
        SocketAddr::new(self.tools.net.ip(index), Run::port(index))
    }

    /// The path of the fetched file.
    pub(super) fn target(&self, index: usize) -> PathBuf {
        self.data(index).join(self.source.file_name().unwrap_or_default())
    }

    /// The file that appears when the fetch is done, for a program that does not end by itself.
    pub(super) fn mark(&self, index: usize) -> Option<PathBuf> {
        let marks = [Program::Aria2, Program::Libtorrent, Program::Transmission];
        marks.contains(&self.program).then(|| self.dir(index).join("done"))
    }

    fn command(&self, name: &str) -> Outcome<Command> {
        Ok(Command::new(self.tools.find(name).ok_or_else(|| format!("{name} is not installed"))?))
    }

    fn prepare_dir(&self, index: usize) -> Outcome<PathBuf> {
        let dir = self.dir(index);
        fs::create_dir_all(dir.join("data"))?;
        for path in [&dir, &dir.join("data")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        if index == 0 {
            fs::hard_link(self.source, self.target(0))?;
        }
        let hook = dir.join("done.sh");
        fs::write(&hook, format!("#!/bin/sh\n: > {}\n", dir.join("done").display()))?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        Ok(dir)
    }

    /// Starts the seed and waits until it offers the file.
    pub(super) fn seed(&mut self) -> Outcome<Process> {
        let dir = self.prepare_dir(0)?;
        let mut process = match self.program {
            Program::Elver | Program::ElverCold | Program::ElverCopied => self.elver_node(0, &dir)?,
            _ => Process::start(&mut self.offer(&dir)?, &dir, "seed")?,
        };
        let began = Instant::now();
        while !self.is_offered(&process)? {
            if process.has_ended()? || began.elapsed() > READY_LIMIT {
                return Err(format!("the seed is not ready: {}", process.said()).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.hash.is_some() {
            return Ok(process);
        }
        // A program may report that it is ready shortly before it serves the file.
        std::thread::sleep(Duration::from_secs(1));
        Ok(process)
    }

    fn is_offered(&mut self, seed: &Process) -> Outcome<bool> {
        Ok(match self.program {
            Program::Elver | Program::ElverCold | Program::ElverCopied => {
                let put = Order::Put { path: self.target(0), replicas: Some(0), lifetime: None };
                match Client::request(&self.dir(0), &put, |_| {}) {
                    Ok(Reply::Put { hash, .. }) => self.hash = Some(hash),
                    other => return Err(format!("put was answered with {other:?}").into()),
                }
                true
            }
            Program::Sendme => ticket(&seed.said()).is_some(),
            Program::Nginx => TcpStream::connect(self.addr(0)).is_ok(),
            _ => self.tracker.as_ref().is_some_and(|tracker| tracker.announced(Run::port(0)).complete),
        })
    }

    /// Starts the process that the fetching side needs before the clock starts, if any.
    pub(super) fn ahead(&self, index: usize) -> Outcome<Option<Process>> {
        match self.program {
            Program::Elver | Program::ElverCopied => {
                let node = self.elver_node(index, &self.prepare_dir(index)?)?;
                let began = Instant::now();
                while self.status(index)?.peers == 0 {
                    if began.elapsed() > READY_LIMIT {
                        return Err("the node found no other".into());
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(Some(node))
            }
            _ => {
                self.prepare_dir(index)?;
                Ok(None)
            }
        }
    }

    /// Starts to fetch. The last process is the one that ends, or sets its mark, when the file is there.
    pub(super) fn fetch(&self, index: usize, seed: &Process) -> Outcome<Vec<Process>> {
        let dir = self.dir(index);
        let mut processes = Vec::new();
        if self.program == Program::ElverCold {
            processes.push(self.elver_node(index, &dir)?);
        }
        let mut command = match self.program {
            Program::Elver | Program::ElverCold | Program::ElverCopied => {
                let hash = self.hash.ok_or("nothing was put")?;
                let mut command = Command::new(&self.tools.elver);
                command.arg("--dir").arg(&dir).args(["--quiet", "get", &hash.to_string(), "--output"]);
                command.arg(self.target(index));
                command
            }
            Program::Sendme => {
                let mut command = self.command("sendme")?;
                let said = seed.said();
                let ticket = ticket(&said).ok_or("sendme gave no ticket")?;
                command.args(["receive", "--relay", "disabled", "--no-progress", "--magic-ipv4-addr"]);
                command.arg(self.addr(index).to_string()).arg(ticket);
                return Ok(vec![Process::start(&mut command, &self.data(index), "fetch")?]);
            }
            Program::Nginx => {
                let mut command = self.command("curl")?;
                let name = self.source.file_name().unwrap_or_default().to_string_lossy().into_owned();
                command.args(["-sS", "--interface", &self.tools.net.ip(index).to_string(), "-o"]);
                command.arg(self.target(index)).arg(format!("http://{}/{name}", self.addr(0)));
                command
            }
            Program::Rqbit | Program::RqbitOne => {
                let mut command = self.rqbit(index)?;
                if !self.swarm {
                    command.arg("--disable-trackers");
                }
                command.args(["download", "-e", "-o"]).arg(self.data(index));
                if !self.swarm {
                    command.args(["--initial-peers", &self.addr(0).to_string()]);
                }
                command.arg(self.torrent());
                command
            }
            Program::Aria2 => self.aria2(index)?,
            Program::Libtorrent => self.libtorrent(index)?,
            Program::Transmission => self.transmission(index)?,
        };
        processes.push(Process::start(&mut command, &dir, "fetch")?);
        Ok(processes)
    }

    /// The bytes that the seed reports as sent. To be asked before the seed is stopped, and again after.
    pub(super) fn sent(&self) -> Option<u64> {
        match self.program {
            Program::Elver | Program::ElverCold | Program::ElverCopied => {
                self.status(0).ok().map(|status| status.uploaded_bytes)
            }
            Program::Libtorrent => fs::read_to_string(self.dir(0).join("uploaded")).ok()?.trim().parse().ok(),
            _ => self.tracker.as_ref()?.announced(Run::port(0)).uploaded,
        }
    }

    fn status(&self, index: usize) -> Outcome<Status> {
        match Client::request(&self.dir(index), &Order::Status, |_| {})? {
            Reply::Status(status) => Ok(*status),
            other => Err(format!("status was answered with {other:?}").into()),
        }
    }

    /// Starts a node and waits until it accepts commands.
    fn elver_node(&self, index: usize, dir: &Path) -> Outcome<Process> {
        let mut command = Command::new(&self.tools.elver);
        command.arg("--dir").arg(dir).args(["node", "--listen", &self.addr(index).to_string()]);
        if index > 0 {
            command.args(["--bootstrap", &self.addr(0).to_string()]);
        }
        if self.program == Program::ElverCopied {
            command.arg("--no-splice");
        }
        let mut process = Process::start(&mut command, dir, "node")?;
        let began = Instant::now();
        while Client::connect(dir).is_err() {
            if process.has_ended()? || began.elapsed() > READY_LIMIT {
                return Err(format!("the node did not start: {}", process.said()).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(process)
    }

    fn offer(&self, dir: &Path) -> Outcome<Command> {
        match self.program {
            Program::Aria2 => self.aria2(0),
            Program::Libtorrent => self.libtorrent(0),
            Program::Transmission => self.transmission(0),
            Program::Nginx => self.nginx(dir),
            Program::Sendme => {
                let mut command = self.command("sendme")?;
                command.args(["send", "--relay", "disabled", "--no-progress", "--ticket-type", "addresses"]);
                command.args(["--magic-ipv4-addr", &self.addr(0).to_string()]).arg(self.target(0));
                Ok(command)
            }
            _ => {
                let mut command = self.rqbit(0)?;
                command.args(["download", "--overwrite", "-o"]).arg(self.data(0)).arg(self.torrent());
                Ok(command)
            }
        }
    }

    fn aria2(&self, index: usize) -> Outcome<Command> {
        let mut command = self.command("aria2c")?;
        let interval = if self.swarm { "--bt-tracker-interval=5" } else { "--bt-tracker-interval=0" };
        command.args([
            "--no-conf",
            "--enable-dht=false",
            "--enable-dht6=false",
            "--bt-enable-lpd=false",
            "--enable-peer-exchange=false",
            "--bt-min-crypto-level=plain",
            "--bt-require-crypto=false",
            "--file-allocation=none",
            "--summary-interval=0",
            "--show-console-readout=false",
            "--seed-ratio=0.0",
            "--bt-max-peers=0",
            "--async-dns=false",
            "--disable-ipv6=true",
            "--follow-torrent=mem",
            interval,
        ]);
        command.arg(format!("--dir={}", self.data(index).display()));
        command.arg(format!("--listen-port={}", Run::port(index)));
        command.arg(format!("--interface={}", self.tools.net.ip(index)));
        command.arg(format!("--on-bt-download-complete={}", self.dir(index).join("done.sh").display()));
        if index == 0 {
            command.args(["--bt-seed-unverified=true", "--check-integrity=false", "--allow-overwrite=true"]);
        }
        command.arg(self.torrent());
        Ok(command)
    }

    fn rqbit(&self, index: usize) -> Outcome<Command> {
        let mut command = self.command("rqbit")?;
        if self.program == Program::RqbitOne {
            command.arg("-s");
        }
        let ip = self.tools.net.ip(index);
        command.args(["-v", "warn", "--disable-dht", "--disable-dht-persistence", "--disable-lsd"]);
        command.args(["--disable-upnp-port-forward", "--listen-port", &Run::port(index).to_string()]);
        command.args(["--listen-ip", &ip.to_string(), "--http-api-listen-addr"]);
        command.arg(SocketAddr::new(ip, 3030 + index as u16).to_string());
        Ok(command)
    }

    fn transmission(&self, index: usize) -> Outcome<Command> {
        let dir = self.dir(index);
        let (config, watch) = (dir.join("config"), dir.join("watch"));
        fs::create_dir_all(&config)?;
        fs::create_dir_all(&watch)?;
        let settings = serde_json::json!({
            "bind-address-ipv4": self.tools.net.ip(index).to_string(), "bind-address-ipv6": "::1",
            "peer-port": Run::port(index), "peer-port-random-on-start": false, "dht-enabled": false,
            "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false, "encryption": 0,
            "port-forwarding-enabled": false, "rpc-enabled": false, "download-dir": self.data(index),
            "incomplete-dir-enabled": false, "rename-partial-files": false, "watch-dir": watch,
            "watch-dir-enabled": true, "trash-original-torrent-files": false, "start-added-torrents": true,
            "script-torrent-done-enabled": true, "script-torrent-done-filename": dir.join("done.sh"),
            "speed-limit-up-enabled": false, "speed-limit-down-enabled": false, "upload-slots-per-torrent": 14,
        });
        fs::write(config.join("settings.json"), settings.to_string())?;
        fs::copy(self.torrent(), watch.join("file.torrent"))?;
        let mut command = self.command("transmission-daemon")?;
        command.args(["-f", "-g"]).arg(config);
        Ok(command)
    }

    fn libtorrent(&self, index: usize) -> Outcome<Command> {
        let script = self.work.join("node.py");
        fs::write(&script, LIBTORRENT)?;
        let (dir, role) = (self.dir(index), if index == 0 { "seed" } else { "fetch" });
        let mut command = Command::new(&self.tools.python);
        command.arg(script).arg(self.addr(index).to_string()).arg(self.torrent()).arg(dir).arg(role);
        if index > 0 && !self.swarm {
            command.args([self.tools.net.ip(0).to_string(), Run::port(0).to_string()]);
        }
        Ok(command)
    }

    fn nginx(&self, dir: &Path) -> Outcome<Command> {
        let at = dir.display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};"))
            .join(" ");
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; sendfile on; sendfile_max_chunk 2m; tcp_nopush on; {temporary}\n\
             server {{ listen {}; root {at}/data; }} }}\n",
            self.addr(0)
        );
        fs::write(dir.join("nginx.conf"), config)?;
        let mut command = self.command("nginx")?;
        command.arg("-c").arg(dir.join("nginx.conf")).arg("-p").arg(dir);
        Ok(command)
    }
}

/// The ticket in the output of sendme.
fn ticket(said: &str) -> Option<&str> {
    said.split_whitespace().find(|word| word.starts_with("blob") && word.len() > 50)
}

/// Offers or fetches one torrent until the process is ended. It finds peers through the tracker only.
const LIBTORRENT: &str = r#"
import os, signal, sys
import libtorrent as lt
address, torrent, folder, role = sys.argv[1:5]
host = address.rsplit(":", 1)[0]
session = lt.session({
    "listen_interfaces": address, "outgoing_interfaces": host, "announce_ip": host, "enable_dht": False,
    "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False, "enable_incoming_utp": False,
    "enable_outgoing_utp": False, "in_enc_policy": int(lt.enc_policy.pe_disabled),
    "out_enc_policy": int(lt.enc_policy.pe_disabled), "allow_multiple_connections_per_ip": True,
    "unchoke_slots_limit": -1, "alert_mask": lt.alert.category_t.status_notification,
})
running = True
def end(*_):
    global running
    running = False
signal.signal(signal.SIGTERM, end)
what = lt.add_torrent_params()
what.ti, what.save_path = lt.torrent_info(torrent), os.path.join(folder, "data")
if role == "seed":
    what.flags |= lt.torrent_flags.seed_mode
what.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
handle = session.add_torrent(what)
if len(sys.argv) > 6:
    handle.connect_peer((sys.argv[5], int(sys.argv[6])))
while running:
    session.wait_for_alert(500)
    for alert in session.pop_alerts():
        if role == "fetch" and isinstance(alert, lt.torrent_finished_alert):
            open(os.path.join(folder, "done"), "w").close()
with open(os.path.join(folder, "uploaded"), "w") as file:
    file.write(str(handle.status().total_payload_upload))
"#;
