//! Where the processes of a cluster run: in network namespaces, or on loopback without root.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use crate::balancer_spec::Product;
use crate::network::{MANY_CLIENTS, Machine, Network, SERVERS, VIRTUAL};
use crate::plan::CLIENT_TIMEOUT;
use crate::process::{Error, Namespace, free_address};

/// The network of a cluster, or loopback.
pub(crate) struct Testbed {
    network: Option<Network>,
}

impl Testbed {
    /// Builds what a product's cluster needs.
    pub(crate) fn build(is_in_namespaces: bool, product: Option<Product>) -> Result<Self, Error> {
        let mut network = is_in_namespaces.then(Network::build).transpose()?;
        if let Some(network) = &mut network
            && product == Some(Product::LvsPacket)
        {
            network.mount_bpf()?;
        }
        Ok(Self { network })
    }

    /// Returns the network; `None` on loopback.
    pub(crate) fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    pub(crate) fn namespace(&self, machine: Machine) -> Namespace {
        self.network().map_or_else(Namespace::default, |network| network.namespace(machine))
    }

    /// Returns the folder for what outlives the packet engine of a director.
    pub(crate) fn pin_folder(&self, machine: Machine) -> Option<PathBuf> {
        self.network()?.pin_folder(machine)
    }

    /// Returns the address of a real server, by its number.
    pub(crate) fn server_address(&self, number: u8) -> Result<SocketAddr, Error> {
        match self.network {
            Some(_) => Ok(SocketAddr::new(SERVERS.parse()?, 9000 + u16::from(number))),
            None => free_address(),
        }
    }

    /// Returns the address of the virtual service.
    pub(crate) fn service_address(&self) -> Result<SocketAddr, Error> {
        match self.network {
            Some(_) => Ok(SocketAddr::new(VIRTUAL.parse()?, 80)),
            None => free_address(),
        }
    }

    /// Returns the first two octets of the addresses of many clients.
    pub(crate) fn many_clients(&self) -> [u8; 2] {
        if self.network.is_some() { MANY_CLIENTS } else { [127, 1] }
    }

    /// Returns whether a server or a virtual service answers a client.
    pub(crate) fn answers(&self, address: SocketAddr) -> bool {
        let answer = self.get(Machine::Clients, address, "/health");
        answer.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// Returns the answer to a request that is sent at a machine.
    pub(crate) fn get(&self, machine: Machine, to: SocketAddr, path: &str) -> Option<String> {
        let exchange = || {
            let mut stream = TcpStream::connect_timeout(&to, CLIENT_TIMEOUT)?;
            stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
            let head = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        match self.network() {
            Some(network) => network.within(machine, exchange).ok()?.ok(),
            None => exchange().ok(),
        }
    }
}
