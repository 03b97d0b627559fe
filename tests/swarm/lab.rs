//! Machines in network namespaces of their own, all plugged into one switch, so that a test can pull cables and change addresses.

use crate::network::Node;
use crate::support::{Ended, Scratch, finish, program};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

/// The port that every node of a laboratory listens on.
pub(crate) const PORT: u16 = 3583;

/// Machines on one switch. They end with the test.
pub(crate) struct Lab {
    switch: Child,
    pub(crate) dir: Scratch,
}

impl Lab {
    /// A switch with machines 1 to `machines`; see [`Lab::address`].
    ///
    /// # Panics
    /// If this user may not make namespaces: a test that needs them then proves nothing.
    pub(crate) fn start(machines: u8) -> Lab {
        let mut script = String::from(
            "set -e; mount -t tmpfs none /run; mkdir -p /run/netns; ip link set lo up; \
             ip link add name switch type bridge; ip link set switch up",
        );
        for machine in 1..=machines {
            let address = Lab::address(machine);
            script += &format!(
                "; ip netns add m{machine}; ip link add name p{machine} type veth peer name eth netns m{machine}; \
                 ip link set p{machine} master switch up; ip -n m{machine} link set lo up; \
                 ip -n m{machine} link set eth up; ip -n m{machine} addr add {address}/24 dev eth"
            );
        }
        let mut switch = Command::new("unshare")
            .args(["-rnm", "sh", "-c", &format!("{script}; echo ready; exec sleep 600")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        let ready = switch.stdout.take().unwrap().read_exact(&mut said);
        let lab = Lab { switch, dir: Scratch::new() };
        ready.expect(
            "network namespaces: user namespaces have to be allowed (sysctl user.max_user_namespaces)",
        );
        lab
    }

    /// The first address of a machine.
    pub(crate) fn address(machine: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, machine)
    }

    /// Starts a node on a machine, at its first address.
    pub(crate) fn node(&self, machine: u8, bootstrap: &[&Node], extra: &[&str]) -> Node {
        self.node_at(machine, (Lab::address(machine), PORT).into(), bootstrap, extra)
    }

    /// Starts a node on a machine that listens on this address.
    pub(crate) fn node_at(
        &self,
        machine: u8,
        listen: SocketAddr,
        bootstrap: &[&Node],
        extra: &[&str],
    ) -> Node {
        let mut command = self.inside(&format!("--net=/proc/{}/root/run/netns/m{machine}", self.switch.id()));
        command.arg(program().get_program()).stdin(Stdio::null());
        let bootstrap: Vec<SocketAddr> = bootstrap.iter().map(|node| node.addr).collect();
        // Tests of other things name the nodes that a node knows.
        let lan = if extra.contains(&"--lan") { &[][..] } else { &["--no-lan"] };
        let home = self.dir.path().join(format!("m{machine}"));
        Node::start_as(command, home, listen, &bootstrap, &[&["-v"], lan, extra].concat())
    }

    /// Plugs a machine's cable into the switch, or pulls it. The machine itself does not notice.
    pub(crate) fn plug(&self, machine: u8, plugged: bool) {
        let to = if plugged { "master switch" } else { "nomaster" };
        self.run(&format!("ip link set p{machine} {to}"));
    }

    /// Runs a shell command on the switch. `ip -n m1` acts on machine 1.
    pub(crate) fn run(&self, command: &str) {
        let ended: Ended = finish(self.inside("-n").args(["sh", "-c", command]));
        ended.expect(0);
    }

    /// A command that runs what is appended to it, in this network namespace.
    fn inside(&self, network: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-U", network, "-m", "--preserve-credentials", "-t", &self.switch.id().to_string()]);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.switch.kill();
        let _ = self.switch.wait();
    }
}
