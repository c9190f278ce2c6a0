//! The balancer: a director of this crate, or HAProxy, with keepalived where there are two of them.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lvs::director::{Director, DirectorConfig};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::process::{Error, Namespace, Process, is_installed, wait_until};

/// The product that balances.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Product {
    Lvs,
    Haproxy,
}

impl Product {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lvs => "lvs",
            Self::Haproxy => "HAProxy",
        }
    }

    /// Returns the product's name of weighted round robin.
    pub(crate) fn round_robin(self) -> &'static str {
        match self {
            Self::Lvs => "wrr",
            Self::Haproxy => "roundrobin",
        }
    }

    pub(crate) fn is_installed(self, pair: bool) -> bool {
        match self {
            Self::Lvs => true,
            Self::Haproxy => is_installed("haproxy") && (!pair || is_installed("keepalived")),
        }
    }
}

/// A real server in a balancer's configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Real {
    pub(crate) address: SocketAddr,
    pub(crate) weight: u32,
    pub(crate) max_connections: Option<u32>,
}

/// A virtual address that two directors share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vrrp {
    pub(crate) address: &'static str,
    pub(crate) priority: u8,
}

/// The interval and the timeout of health checks; two failures take a server down.
pub(crate) const CHECK: Duration = Duration::from_millis(100);
/// The interval of VRRP advertisements.
pub(crate) const ADVERT: Duration = Duration::from_millis(100);

/// The configuration of a balancer, for either product.
#[derive(Clone, Debug)]
pub(crate) struct BalancerSpec<'a> {
    pub(crate) listen: SocketAddr,
    pub(crate) servers: &'a [Real],
    pub(crate) scheduler: &'a str,
    pub(crate) vrrp: Option<Vrrp>,
}

/// A running balancer: the process of a director, or those of HAProxy and keepalived.
#[derive(Debug)]
pub(crate) struct Balancer {
    product: Product,
    proxy: Process,
    keepalived: Option<Process>,
    /// The file into which keepalived writes the process id of its VRRP child.
    child: PathBuf,
}

impl Balancer {
    pub(crate) fn start(
        product: Product,
        namespace: &Namespace,
        (folder, name): (&Path, &str),
        spec: &BalancerSpec<'_>,
    ) -> Result<Self, Error> {
        let write = |suffix: &str, text: String| {
            let path = folder.join(format!("{name}.{suffix}"));
            std::fs::write(&path, text).map(|()| path.to_string_lossy().into_owned())
        };
        let child = folder.join(format!("{name}.vrrp.pid"));
        let _ = std::fs::remove_file(&child);
        let (proxy, keepalived_process) = match product {
            Product::Lvs => {
                let config = write("toml", director_toml(spec))?;
                let args = ["director", "--config", &config];
                (Process::start_role(namespace, (folder, name), &args)?, None)
            }
            Product::Haproxy => {
                let config = write("haproxy", haproxy_conf(spec))?;
                let args = ["-db", "-f", &config];
                let proxy = Process::start(namespace, (folder, name), Path::new("haproxy"), &args)?;
                let start = |vrrp| {
                    let config = write("keepalived", keepalived_conf(vrrp))?;
                    let parent = folder.join(format!("{name}.pid"));
                    let _ = std::fs::remove_file(&parent);
                    let (parent, child) = (parent.to_string_lossy(), child.to_string_lossy());
                    let args = ["-n", "-l", "-P", "-f", &config, "-p", &*parent, "-r", &*child];
                    let name = format!("{name}.vrrp");
                    Process::start(namespace, (folder, &name), Path::new("keepalived"), &args)
                };
                (proxy, spec.vrrp.map(start).transpose()?)
            }
        };
        Ok(Self { product, proxy, keepalived: keepalived_process, child })
    }

    pub(crate) fn product(&self) -> Product {
        self.product
    }

    /// Returns the process that forwards connections.
    pub(crate) fn proxy(&self) -> &Process {
        &self.proxy
    }

    /// Returns the VRRP child of keepalived, which holds the addresses.
    fn child(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(&self.child).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        let Some(keepalived) = &self.keepalived else { return self.proxy.signal(signal) };
        if signal == Signal::TERM {
            // HAProxy keeps running until the address is released.
            return keepalived.signal(signal);
        }
        // The child first: after its parent's death it would send a last advertisement. The parent is
        // stopped meanwhile: it would start another child.
        keepalived.signal(Signal::STOP)?;
        if let Some(child) = self.child() {
            let _ = kill_process(child, signal);
        }
        keepalived.signal(signal)?;
        self.proxy.signal(signal)
    }

    /// Kills the balancer and its child processes.
    pub(crate) fn end(self) -> Result<(), Error> {
        if self.keepalived.is_none() {
            return Ok(());
        }
        let child = self.child();
        self.signal(Signal::KILL)?;
        drop(self);
        // The child is not a child of this process: it has ended when it is gone or a zombie.
        let is_alive = |child: Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero()));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        wait_until("keepalived has ended", || child.is_none_or(|child| !is_alive(child)))
    }
}

/// Runs this program as a director.
pub(crate) fn run(config: &Path) -> Result<(), Error> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let director = Director::start(DirectorConfig::load(config)?).await?;
        terminate.recv().await;
        director.stop(Duration::from_secs(1)).await;
        Ok(())
    })
}

fn director_toml(spec: &BalancerSpec<'_>) -> String {
    let BalancerSpec { listen, servers, scheduler, vrrp } = spec;
    let check = CHECK.as_millis();
    let mut text = format!(
        "[[service]]\nname = \"web\"\nlisten = \"{listen}\"\nscheduler = {scheduler:?}\n\
         tcp = {{ cut_on_down = true, connect_timeout = \"1s\" }}\n\
         health = {{ type = \"http\", path = \"/health\", interval = \"{check}ms\", \
         timeout = \"{check}ms\", rise = 1, fall = 2 }}\n"
    );
    for server in *servers {
        let Real { address, weight, max_connections } = server;
        let max_connections = max_connections.map_or_else(String::new, |max_connections| {
            format!("max_connections = {max_connections}\n")
        });
        let _ = write!(
            text,
            "[[service.server]]\naddress = \"{address}\"\nweight = {weight}\n{max_connections}"
        );
    }
    if let Some(Vrrp { address, priority }) = vrrp {
        let advert = ADVERT.as_millis();
        let _ = write!(
            text,
            "[vrrp]\ninterface = \"eth0\"\nvirtual_router_id = 51\npriority = {priority}\n\
             advert_interval = \"{advert}ms\"\naddresses = [\"{address}/24\"]\n"
        );
    }
    text
}

fn haproxy_conf(spec: &BalancerSpec<'_>) -> String {
    let BalancerSpec { listen, servers, scheduler, vrrp } = spec;
    let transparent = if vrrp.is_some() { " transparent" } else { "" };
    let check = CHECK.as_millis();
    let mut text = format!(
        "global\n maxconn 8000\ndefaults\n mode tcp\n retries 3\n option redispatch 1\n \
         timeout connect 1s\n timeout client 60s\n timeout server 60s\n timeout check {check}ms\n\
         listen web\n bind {listen}{transparent}\n balance {scheduler}\n \
         option httpchk GET /health\n \
         default-server check inter {check}ms rise 1 fall 2 on-marked-down shutdown-sessions\n"
    );
    for (number, server) in servers.iter().enumerate() {
        let Real { address, weight, max_connections } = server;
        let max_connections = max_connections
            .map_or_else(String::new, |max_connections| format!(" maxconn {max_connections}"));
        let _ = writeln!(text, " server s{number} {address} weight {weight}{max_connections}");
    }
    text
}

fn keepalived_conf(Vrrp { address, priority }: Vrrp) -> String {
    let advert = ADVERT.as_secs_f64();
    format!(
        "global_defs {{\n vrrp_version 3\n vrrp_rt_priority 10\n}}\nvrrp_instance V {{\n \
         interface eth0\n virtual_router_id 51\n priority {priority}\n advert_int {advert}\n \
         virtual_ipaddress {{\n {address}/24\n }}\n}}\n"
    )
}
