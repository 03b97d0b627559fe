//! Networks whose nodes all have addresses of one owner work like any other network.

use crate::network::{Node, file, wait_for};
use crate::support::{LIMIT, Scratch, program, wait_until};
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The number of nodes in each network: `ELVER_TEST_NODES`, or a default above eight.
fn count() -> usize {
    std::env::var("ELVER_TEST_NODES").ok().and_then(|count| count.parse().ok()).unwrap_or(12)
}

/// A network namespace that ends with the test.
struct Namespace(Child);

impl Namespace {
    /// A namespace that has these addresses.
    ///
    /// # Panics
    /// If this user may not make namespaces: a test that needs one then proves nothing.
    fn with(addresses: &[IpAddr]) -> Namespace {
        let mut script = String::from("ip link set lo up");
        for address in addresses {
            // Duplicate address detection would delay the first datagrams.
            let prefix = if address.is_ipv4() { "24 dev lo" } else { "64 dev lo nodad" };
            script += &format!(" && ip addr add {address}/{prefix}");
        }
        let mut child = Command::new("unshare")
            .args(["-rn", "sh", "-c", &format!("{script} && echo ready && exec sleep 600")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        let ready = child.stdout.take().unwrap().read_exact(&mut said);
        let namespace = Namespace(child);
        ready.expect(
            "a network namespace: user namespaces have to be allowed (sysctl user.max_user_namespaces)",
        );
        namespace
    }

    /// The program, started in the namespace.
    fn program(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-U", "-n", "--preserve-credentials", "-t", &self.0.id().to_string()]);
        command.arg(program().get_program()).stdin(Stdio::null());
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Checks that nodes at the addresses from `address` see each other, place a file, and find it.
fn works_like_any_other(address: impl Fn(u8) -> IpAddr) {
    let addresses: Vec<IpAddr> = (1..=count() as u8).map(address).collect();
    let namespace = Namespace::with(&addresses);
    let dir = Scratch::new();
    let first = SocketAddr::new(addresses[0], 3583);
    let mut nodes: Vec<Node> = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let home = dir.path().join(format!("n{index}"));
        let bootstrap = if index == 0 { &[][..] } else { &[first][..] };
        let listen = SocketAddr::new(*address, 3583);
        nodes.push(Node::start_as(namespace.program(), home, listen, bootstrap, &[]));
    }
    let others = nodes.len() as u32 - 1;
    // All nodes share this machine's processors: each checks a few signatures of every other.
    let limit = LIMIT + Duration::from_secs(nodes.len() as u64);
    // Each in turn: asking all of them again and again would take their processors.
    for node in &nodes {
        wait_until("every node to see every other", limit, || {
            let live = node.status().gossip.map_or(0, |gossip| gossip.live);
            (live >= others).then_some(())
        });
    }
    let source = file(&dir, "source", 77, 600_000);
    let hash = nodes[1].put(&source, &["--replicas", "5"]);
    wait_for("the copies", || {
        nodes[1].files().iter().any(|file| file.hash.to_string() == hash && file.copies >= 5)
    });
    let target = dir.path().join("target");
    let (code, said) = nodes[nodes.len() - 1].get(&hash, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
}

#[test]
fn nodes_in_one_public_ipv4_prefix_see_each_other_and_share_files() {
    works_like_any_other(|index| Ipv4Addr::new(198, 51, 100, index).into());
}

#[test]
fn nodes_in_one_prefix_of_the_shared_range_see_each_other_and_share_files() {
    works_like_any_other(|index| Ipv4Addr::new(100, 64, 7, index).into());
}

#[test]
fn nodes_on_one_ipv6_link_see_each_other_and_share_files() {
    works_like_any_other(|index| Ipv6Addr::new(0x2001, 0xdb8, 7, 7, 0, 0, 0, index.into()).into());
}
