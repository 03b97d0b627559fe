//! The HTTP gateway beside nginx: the same file to the same client, over loopback.

use crate::Outcome;
use crate::node::{Node, Usage, WorkDir};
use crate::transfer::write_source;
use elver::id::Key;
use elver::node::command::{Command, Reply};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Measure the HTTP gateway: MB/s and processor seconds a GiB with its own file and with another node's, beside nginx if it is
/// installed; and its memory with many slow readers.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Size of the file in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Connections at a time; with several, each fetches a part of the file.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    connections: Vec<u64>,
    /// The number of runs, the servers in turns.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Readers that take a few bytes a second, to measure memory; 0 leaves it out.
    #[arg(long, default_value_t = 200)]
    slow: usize,
    /// The directory for files and nodes during the run.
    #[arg(long)]
    work: Option<PathBuf>,
}

/// What serves the file.
struct Server {
    name: &'static str,
    addr: SocketAddr,
    path: String,
    process: u32,
}

/// nginx, until it is dropped.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn run(binary: &Path, arguments: &Arguments) -> Outcome<()> {
    let work = WorkDir::new(arguments.work.as_deref())?;
    let (root, bytes) = (work.join("data"), arguments.mib << 20);
    fs::create_dir_all(&root)?;
    write_source(&root.join("file"), arguments.mib)?;
    let extra = ["--http", "127.0.0.1:0", "--reads", "256", "--http-clients", "256"];
    let owner = Node::start(binary, work.join("owner"), None, &extra)?;
    let other = Node::start(binary, work.join("other"), Some(owner.addr), &extra)?;
    other.wait_for_peers(1)?;
    let put = Command::Put { path: root.join("file"), replicas: Some(0), lifetime: None };
    let Reply::Put { hash, .. } = owner.request(&put)? else {
        return Err("put was answered with something else".into());
    };
    let gateway = |name, node: &Node| -> Outcome<Server> {
        let addr = node.status()?.http.ok_or("the node has no gateway")?;
        Ok(Server { name, addr, path: format!("/{hash}"), process: node.process_id() })
    };
    let mut servers = vec![gateway("elver, own file", &owner)?, gateway("elver, of another node", &other)?];
    let nginx = nginx(&work)?;
    servers.extend(nginx.as_ref().map(|(nginx, addr)| Server {
        name: "nginx",
        addr: *addr,
        path: "/file".to_owned(),
        process: nginx.0.id(),
    }));
    for server in &servers {
        fetch(server, bytes, 1, Some(hash))?;
    }
    for count in &arguments.connections {
        let mut results: Vec<Vec<(f64, f64)>> = vec![Vec::new(); servers.len()];
        for run in 0..arguments.runs as usize {
            for turn in 0..servers.len() {
                let at = (run + turn) % servers.len();
                results[at].push(fetch(&servers[at], bytes, *count, None)?);
            }
        }
        println!("{} MiB over {count} connections: medians of {} runs", arguments.mib, arguments.runs);
        for (server, results) in servers.iter().zip(results) {
            let of = |which: fn(&(f64, f64)) -> f64| median(results.iter().map(which).collect());
            let (seconds, cpu) = (of(|result| result.0), of(|result| result.1));
            let (rate, cost) = (bytes as f64 / 1e6 / seconds, cpu / (bytes as f64 / f64::from(1 << 30)));
            println!("  {:<24} {rate:>6.0} MB/s, {cost:.2} processor seconds a GiB", server.name);
        }
    }
    if arguments.slow > 0 {
        slow(&servers[0], arguments.slow)?;
    }
    Ok(())
}

/// Fetches the file, one part on each connection. Returns the seconds, and the server's processor seconds. `verify` is the hash to check
/// a single part against, for which the client needs time of its own.
fn fetch(server: &Server, bytes: u64, count: u64, verify: Option<Key>) -> Outcome<(f64, f64)> {
    let before = Usage::of(server.process)?;
    let began = Instant::now();
    let parts: Vec<blake3::Hash> = std::thread::scope(|scope| {
        let part = |index: u64| (bytes * index / count, bytes * (index + 1) / count);
        let threads: Vec<_> = (0..count)
            .map(|index| scope.spawn(move || take(server, part(index), verify.is_some())))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a client")).collect::<Result<_, String>>()
    })?;
    let seconds = began.elapsed().as_secs_f64();
    if verify.is_some_and(|hash| parts[0].as_bytes() != &hash.0) {
        return Err(format!("{} sent other bytes", server.name).into());
    }
    Ok((seconds, Usage::of(server.process)?.cpu - before.cpu))
}

/// Fetches a part of the file and drops it. Returns its hash if that is asked for.
fn take(server: &Server, (start, end): (u64, u64), verify: bool) -> Result<blake3::Hash, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", server.name);
    let mut socket = ask(server, Some((start, end))).map_err(failed)?;
    let (mut buffer, mut taken, mut head) = (vec![0; 256 << 10], 0, Vec::new());
    let mut hasher = blake3::Hasher::new();
    loop {
        let length = socket.read(&mut buffer).map_err(failed)?;
        if length == 0 {
            break;
        }
        let mut content = &buffer[..length];
        if taken == 0 {
            head.extend_from_slice(content);
            let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            if !head.starts_with(b"HTTP/1.1 206") {
                return Err(format!("{}: {}", server.name, String::from_utf8_lossy(&head[..at])));
            }
            content = &head[at + 4..];
        }
        if verify {
            hasher.update(content);
        }
        taken += content.len() as u64;
    }
    match taken == end - start {
        true => Ok(hasher.finalize()),
        false => Err(format!("{}: {taken} bytes of {}", server.name, end - start)),
    }
}

fn ask(server: &Server, range: Option<(u64, u64)>) -> std::io::Result<TcpStream> {
    let mut socket = TcpStream::connect(server.addr)?;
    let range = range.map(|(start, end)| format!("Range: bytes={start}-{}\r\n", end - 1)).unwrap_or_default();
    write!(socket, "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{range}\r\n", server.path)?;
    Ok(socket)
}

/// Measures a gateway's memory while many readers take a few bytes a second.
fn slow(server: &Server, count: usize) -> Outcome<()> {
    let before = Usage::of(server.process)?;
    let mut readers: Vec<TcpStream> = (0..count).map(|_| ask(server, None)).collect::<Result<_, _>>()?;
    let mut most = before;
    for _ in 0..20 {
        for reader in &mut readers {
            reader.set_nonblocking(true)?;
            match reader.read(&mut [0; 2048]) {
                Ok(0) => return Err("a slow reader was cut off".into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        let now = Usage::of(server.process)?;
        (most.resident, most.anonymous) =
            (most.resident.max(now.resident), most.anonymous.max(now.anonymous));
        std::thread::sleep(Duration::from_millis(500));
    }
    println!(
        "{count} slow readers: resident {} KiB ({} KiB of it anonymous), before them {} KiB ({} KiB)",
        most.resident, most.anonymous, before.resident, before.anonymous
    );
    Ok(())
}

/// Starts nginx on the directory `data`, if it is installed.
fn nginx(work: &WorkDir) -> Outcome<Option<(Nginx, SocketAddr)>> {
    let (at, addr) = (work.join(""), TcpListener::bind("127.0.0.1:0")?.local_addr()?);
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", at.display()))
        .join(" ");
    let config = format!(
        "user root; daemon off; master_process off; worker_processes 1; pid {0}/pid; error_log {0}/error;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; sendfile on; sendfile_max_chunk 2m; tcp_nopush on; {temporary}\n\
         server {{ listen {addr}; root {0}/data; }} }}\n",
        at.display()
    );
    let path = work.join("nginx.conf");
    fs::write(&path, config)?;
    let mut command = std::process::Command::new("nginx");
    command.arg("-c").arg(&path).arg("-p").arg(&at).stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        println!("nginx is not installed: it is left out");
        return Ok(None);
    };
    let nginx = Nginx(child);
    let began = Instant::now();
    while TcpStream::connect(addr).is_err() {
        if began.elapsed() > Duration::from_secs(10) {
            return Err("nginx does not answer".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some((nginx, addr)))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
