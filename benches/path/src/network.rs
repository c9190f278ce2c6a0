//! The network of a run: a client and a server, and a director between them for each subject.
//!
//! ```text
//! client 10.N.1.2 -- 10.N.1.1 director N, virtual 10.N.9.1 -- server 10.N.2.2, 10.N.2.3
//! client 10.N.2.1 ------------------------------------------- server 10.N.2.2, 10.N.2.3   without a director
//! client 10.N.3.1 ------------------------------------------- server 10.N.3.2, virtual 10.N.9.1   direct routing, tunnels
//! ```
//! Each machine is a network namespace. The client has an address for each subject, so that answers return
//! by the same director.

use std::fmt;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread;

use anyhow::{Context, Error, Result, anyhow, ensure};
use aya::Ebpf;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::decapsulation::attach_decapsulation;

/// The port of the server.
pub(crate) const SERVER_PORT: u16 = 8080;
/// The port of the virtual services.
pub(crate) const SERVICE_PORT: u16 = 80;

/// A machine of the network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NetworkMachine {
    Client,
    Server,
    /// The director of the subject of this number.
    Director(u8),
}

/// A device with Ethernet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EthernetDevice {
    pub(crate) index: u32,
    pub(crate) mac: [u8; 6],
}

/// As an argument, of the number and the hardware address: `2/02:00:00:00:00:01`.
impl fmt::Display for EthernetDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, mac_text(self.mac))
    }
}

impl FromStr for EthernetDevice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (index, mac) = text.split_once('/').context("no hardware address")?;
        let mac = mac.split(':').map(|octet| u8::from_str_radix(octet, 16));
        let mac = mac.collect::<Result<Vec<_>, _>>()?.try_into();
        let mac = mac.map_err(|_| anyhow!("a hardware address has six octets"))?;
        Ok(Self { index: index.parse()?, mac })
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// The network namespaces of a run, and a BPF file system; all of it is gone when it is dropped.
#[derive(Debug)]
pub(crate) struct TestNetwork {
    name: String,
    folder: PathBuf,
    machines: Vec<NetworkMachine>,
    /// What takes packets out of others at the server; it does while it is held.
    unpacking: Vec<Ebpf>,
}

impl TestNetwork {
    /// Makes the client, the server and the file system.
    pub(crate) fn build() -> Result<Self> {
        ensure!(rustix::process::getuid().is_root(), "network namespaces need root");
        let name = format!("lvspath{}", std::process::id());
        let folder = Path::new("/run").join(&name);
        fs::create_dir(&folder).with_context(|| format!("{}", folder.display()))?;
        let mut network = Self { name, folder, machines: Vec::new(), unpacking: Vec::new() };
        mount("bpf", &network.folder, "bpf", MountFlags::empty(), None)
            .context("the kernel mounts no BPF file system")?;
        network.add_machine(NetworkMachine::Client)?;
        network.add_machine(NetworkMachine::Server)?;
        Ok(network)
    }

    fn add_machine(&mut self, machine: NetworkMachine) -> Result<()> {
        run_ip(&format!("netns add {}", self.namespace(machine)))?;
        self.machines.push(machine);
        self.run_ip_at(machine, "link set lo up")?;
        // Tens of thousands of ports are in TIME_WAIT.
        self.set(machine, "ipv4/ip_local_port_range", "1024 65535")
    }

    /// Connects the client and the server by wire `number`, without a director.
    pub(crate) fn connect_directly(&self, number: u8) -> Result<()> {
        let (client, server) = (NetworkMachine::Client, NetworkMachine::Server);
        self.connect_machines(number, (client, "c"), (server, "s"), 2)?;
        self.run_ip_at(server, &format!("address add 10.{number}.2.3/24 dev s{number}"))
    }

    /// Connects the client and the server by a director of this number.
    pub(crate) fn add_director(&mut self, number: u8) -> Result<()> {
        let director = NetworkMachine::Director(number);
        self.add_machine(director)?;
        self.set(director, "ipv4/ip_forward", "1")?;
        self.connect_machines(number, (director, "to-client"), (NetworkMachine::Client, "c"), 1)?;
        self.connect_machines(number, (director, "to-server"), (NetworkMachine::Server, "s"), 2)?;
        let another = format!("address add 10.{number}.2.3/24 dev s{number}");
        self.run_ip_at(NetworkMachine::Server, &another)?;
        for (machine, network) in [(NetworkMachine::Client, 1), (NetworkMachine::Server, 2)] {
            let route = format!("route add 10.{number}.0.0/16 via 10.{number}.{network}.1");
            self.run_ip_at(machine, &route)?;
        }
        Ok(())
    }

    /// Gives the server the virtual address of a director, and a wire to the client for its answers.
    pub(crate) fn answer_directly(&self, number: u8) -> Result<()> {
        let (client, server) = (NetworkMachine::Client, NetworkMachine::Server);
        self.connect_machines(number, (client, "cd"), (server, "sd"), 3)?;
        self.run_ip_at(server, &format!("route add 10.{number}.1.0/24 via 10.{number}.3.1"))?;
        let address = virtual_address(number).ip();
        self.run_ip_at(server, &format!("address add {address}/32 dev lo"))
    }

    /// Has the server unpack what comes from a director by tunnels.
    pub(crate) fn unpack_tunnels(&mut self, number: u8) -> Result<()> {
        let device = format!("s{number}");
        let attach = || attach_decapsulation(&device).map_err(|error| anyhow!(error));
        let attached = self.within(NetworkMachine::Server, attach)?;
        self.unpacking.push(attached);
        Ok(())
    }

    /// Adds the virtual address of a director to it.
    pub(crate) fn add_virtual_address(&self, number: u8) -> Result<()> {
        let address = virtual_address(number).ip();
        let director = NetworkMachine::Director(number);
        self.run_ip_at(director, &format!("address add {address}/32 dev lo"))
    }

    /// Tells a director of clients from 10.128.0.0 on, and of the hardware addresses of its neighbours, which nobody asks
    /// for while only programs run. Returns its devices to the client and to the server.
    pub(crate) fn add_neighbours(&self, number: u8) -> Result<[EthernetDevice; 2]> {
        let director = NetworkMachine::Director(number);
        let router = IpAddr::from([10, number, 1, 2]);
        self.run_ip_at(director, &format!("route add 10.128.0.0/9 via {router}"))?;
        let add = |machine, far: &str, near: &str, addresses: &[IpAddr]| {
            let mac = mac_text(self.device(machine, &format!("{far}{number}"))?.mac);
            for address in addresses {
                let place = format!("{address} lladdr {mac} dev {near}{number}");
                self.run_ip_at(director, &format!("neighbour replace {place} nud permanent"))?;
            }
            self.device(director, &format!("{near}{number}"))
        };
        let servers = server_addresses(number).map(|server| server.ip());
        Ok([
            add(NetworkMachine::Client, "c", "to-client", &[router])?,
            add(NetworkMachine::Server, "s", "to-server", &servers)?,
        ])
    }

    fn device(&self, machine: NetworkMachine, name: &str) -> Result<EthernetDevice> {
        let line = run_ip(&format!("-n {} -o link show dev {name}", self.namespace(machine)))?;
        // 2: c1@if3: <BROADCAST,..> .. link/ether 02:00:00:00:00:01 brd ..
        let index = line.split(':').next().unwrap_or_default();
        let mac = line.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        let device = format!("{index}/{}", mac.unwrap_or_default());
        device.parse().with_context(|| format!("ip printed {line:?}"))
    }

    fn connect_machines(
        &self,
        number: u8,
        near: (NetworkMachine, &str),
        far: (NetworkMachine, &str),
        network: u8,
    ) -> Result<()> {
        let device = |(_, name): (_, &str)| format!("{name}{number}");
        let (near_device, far_device) = (device(near), device(far));
        let (near_namespace, far_namespace) = (self.namespace(near.0), self.namespace(far.0));
        run_ip(&format!(
            "link add {near_device} netns {near_namespace} type veth \
             peer name {far_device} netns {far_namespace}"
        ))?;
        for (machine, device, host) in [(near.0, near_device, 1), (far.0, far_device, 2)] {
            self.run_ip_at(machine, &format!("link set {device} up"))?;
            let address = format!("10.{number}.{network}.{host}/24");
            self.run_ip_at(machine, &format!("address add {address} dev {device}"))?;
        }
        Ok(())
    }

    pub(crate) fn namespace(&self, machine: NetworkMachine) -> String {
        match machine {
            NetworkMachine::Client => format!("{}-client", self.name),
            NetworkMachine::Server => format!("{}-server", self.name),
            NetworkMachine::Director(number) => format!("{}-director{number}", self.name),
        }
    }

    /// Returns a folder for what an engine pins.
    pub(crate) fn pin_folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn run_ip_at(&self, machine: NetworkMachine, arguments: &str) -> Result<()> {
        run_ip(&format!("-n {} {arguments}", self.namespace(machine))).map(drop)
    }

    /// Sets a parameter of a machine's network.
    fn set(&self, machine: NetworkMachine, key: &str, value: &str) -> Result<()> {
        self.within(machine, || {
            let path = Path::new("/proc/sys/net").join(key);
            fs::write(&path, value).with_context(|| format!("{}", path.display()))
        })
    }

    /// Gives rules to `nft` on a machine.
    pub(crate) fn set_nft_rules(&self, machine: NetworkMachine, rules: &str) -> Result<()> {
        use std::io::Write as _;
        self.within(machine, || {
            let mut command = Command::new("nft");
            let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
            let mut input = child.stdin.take().context("a child without stdin")?;
            input.write_all(rules.as_bytes())?;
            drop(input);
            let status = child.wait()?;
            ensure!(status.success(), "nft: {status}");
            Ok(())
        })
    }

    /// Runs a function in a thread on a machine.
    pub(crate) fn within<R: Send>(
        &self,
        machine: NetworkMachine,
        run: impl FnOnce() -> Result<R> + Send,
    ) -> Result<R> {
        let namespace = self.namespace(machine);
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter_namespace(&namespace)?;
                run()
            });
            thread.join().map_err(|_| anyhow!("a thread has panicked"))?
        })
    }
}

impl Drop for TestNetwork {
    fn drop(&mut self) {
        for &machine in &self.machines {
            let _ = run_ip(&format!("netns delete {}", self.namespace(machine)));
        }
        let _ = unmount(&self.folder, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Moves the calling thread to a network namespace, for good.
pub(crate) fn enter_namespace(name: &str) -> Result<()> {
    let namespace =
        File::open(Path::new("/run/netns").join(name)).with_context(|| name.to_owned())?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter {name}"))
}

/// Runs `ip`, and returns what it prints.
fn run_ip(arguments: &str) -> Result<String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    let output = output.context("cannot run ip")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the addresses of the server behind a director.
pub(crate) fn server_addresses(number: u8) -> [SocketAddr; 2] {
    [2, 3].map(|host| (Ipv4Addr::new(10, number, 2, host), SERVER_PORT).into())
}

/// Returns the address of the virtual service at a director.
pub(crate) fn virtual_address(number: u8) -> SocketAddr {
    (Ipv4Addr::new(10, number, 9, 1), SERVICE_PORT).into()
}
