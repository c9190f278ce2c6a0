//! What this machine can run, and the reasons for what is left out.

use std::path::Path;
use std::process::Command;

use lvs::packet::{PacketEngine, PacketSettings};

use crate::balancer_spec::Product;
use crate::namespaces;
use crate::network::Machine;
use crate::process::{Error, Process};
use crate::testbed::Testbed;

/// What this machine can run.
#[derive(Debug)]
pub(crate) struct Available {
    /// Whether there may be network namespaces; without them everything runs on loopback.
    pub(crate) in_namespaces: bool,
    /// The reasons for which products are missing.
    packet: Option<String>,
    haproxy: Option<String>,
    keepalived: Option<String>,
}

impl Available {
    pub(crate) fn find(folder: &Path) -> Self {
        let in_namespaces = namespaces::can_run(&["ip"]);
        let packet = match in_namespaces {
            true => {
                try_packet_engine(folder).err().map(|error| error.to_string().trim().to_owned())
            }
            false => Some("it needs root, for network namespaces".to_owned()),
        };
        let missing =
            |program| (!is_installed(program)).then(|| format!("{program} is not installed"));
        let (haproxy, keepalived) = (missing("haproxy"), missing("keepalived"));
        Self { in_namespaces, packet, haproxy, keepalived }
    }

    /// Returns the reason for which a product cannot run, alone or as a pair.
    fn reason(&self, product: Product, is_pair: bool) -> Option<&str> {
        match product {
            Product::LvsProxy => None,
            Product::LvsPacket => self.packet.as_deref(),
            Product::Haproxy => {
                let keepalived = self.keepalived.as_deref().filter(|_| is_pair);
                self.haproxy.as_deref().or(keepalived)
            }
        }
    }

    pub(crate) fn has(&self, product: Product, is_pair: bool) -> bool {
        self.reason(product, is_pair).is_none()
    }

    /// Returns what is left out, each with the reason.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for product in Product::ALL {
            let name = product.name();
            if let Some(reason) = self.reason(product, false) {
                reasons.push(format!("{name} was left out: {reason}."));
            } else if let Some(reason) = self.reason(product, true) {
                reasons.push(format!("{name} was left out of the redundancy part: {reason}."));
            }
        }
        if !self.in_namespaces {
            reasons.push(
                "Failures of directors were left out, because network namespaces need root. Failures of \
                 real servers were run behind one director."
                    .to_owned(),
            );
        }
        reasons
    }
}

/// Starts the packet engine once, without a service.
fn try_packet_engine(folder: &Path) -> Result<(), Error> {
    let testbed = Testbed::build(true, Some(Product::LvsPacket))?;
    let machine = Machine::FirstDirector;
    let pin_folder = testbed.pin_folder(machine).ok_or("a network has a BPF file system")?;
    let args = ["packet-engine", "--pin-folder", &pin_folder.to_string_lossy()];
    Process::start_role(&testbed.namespace(machine), (folder, "packet-engine"), &args)?.wait()
}

/// Runs this program as the packet engine that is tried.
pub(crate) fn run(pin_folder: &Path) -> Result<(), Error> {
    let mut settings = PacketSettings::default();
    settings.pin_folder = pin_folder.to_owned();
    drop(PacketEngine::start(settings)?);
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let output = Command::new(program).arg("-v").output();
    output.is_ok_and(|output| output.status.success())
}
