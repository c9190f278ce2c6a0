//! What balances: a director of this crate, or HAProxy, with keepalived where there are two.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lvs::director::{Director, DirectorConfig};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::process::{Error, Place, Process, is_there, until};

/// Whose balancer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Whose {
    Ours,
    Theirs,
}

impl Whose {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "lvs",
            Self::Theirs => "HAProxy",
        }
    }

    /// Round robin by weight, as each calls it.
    pub(crate) fn round_robin(self) -> &'static str {
        match self {
            Self::Ours => "wrr",
            Self::Theirs => "roundrobin",
        }
    }

    pub(crate) fn is_there(self, pair: bool) -> bool {
        match self {
            Self::Ours => true,
            Self::Theirs => is_there("haproxy") && (!pair || is_there("keepalived")),
        }
    }
}

/// A real server, as a balancer knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Real {
    pub(crate) address: SocketAddr,
    pub(crate) weight: u32,
    pub(crate) most: Option<u32>,
}

/// A virtual address that two share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vrrp {
    pub(crate) address: &'static str,
    pub(crate) priority: u8,
}

/// From one check of a server to the next, and how long it may take; two failures take it down.
pub(crate) const CHECK: Duration = Duration::from_millis(100);
/// From one advertisement of a director to the next.
pub(crate) const ADVERT: Duration = Duration::from_millis(100);

/// What is to be balanced.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) listen: SocketAddr,
    pub(crate) servers: &'a [Real],
    pub(crate) rule: &'a str,
    pub(crate) vrrp: Option<Vrrp>,
}

/// A balancer that runs: a process, or HAProxy's and keepalived's.
#[derive(Debug)]
pub(crate) struct Balancer {
    whose: Whose,
    carrier: Process,
    router: Option<Process>,
    /// Where keepalived says which of its processes has the addresses: a child of its own.
    child: PathBuf,
}

impl Balancer {
    pub(crate) fn start(
        whose: Whose,
        place: &Place,
        (folder, name): (&Path, &str),
        wanted: &Wanted<'_>,
    ) -> Result<Self, Error> {
        let write = |suffix: &str, text: String| {
            let path = folder.join(format!("{name}.{suffix}"));
            std::fs::write(&path, text).map(|()| path.to_string_lossy().into_owned())
        };
        let child = folder.join(format!("{name}.vrrp.pid"));
        let _ = std::fs::remove_file(&child);
        let (carrier, router) = match whose {
            Whose::Ours => {
                let config = write("toml", ours(wanted))?;
                let words = ["director", "--config", &config];
                (Process::part(place, (folder, name), &words)?, None)
            }
            Whose::Theirs => {
                let config = write("haproxy", haproxy(wanted))?;
                let words = ["-db", "-f", &config];
                let carrier = Process::start(place, (folder, name), Path::new("haproxy"), &words)?;
                let start = |vrrp| {
                    let config = write("keepalived", keepalived(vrrp))?;
                    let parent = folder.join(format!("{name}.pid"));
                    let _ = std::fs::remove_file(&parent);
                    let (parent, child) = (parent.to_string_lossy(), child.to_string_lossy());
                    let words = ["-n", "-l", "-P", "-f", &config, "-p", &*parent, "-r", &*child];
                    let name = format!("{name}.router");
                    Process::start(place, (folder, &name), Path::new("keepalived"), &words)
                };
                (carrier, wanted.vrrp.map(start).transpose()?)
            }
        };
        Ok(Self { whose, carrier, router, child })
    }

    pub(crate) fn whose(&self) -> Whose {
        self.whose
    }

    /// What carries.
    pub(crate) fn carrier(&self) -> &Process {
        &self.carrier
    }

    /// The process of keepalived that has the addresses.
    fn child(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(&self.child).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        let Some(router) = &self.router else { return self.carrier.signal(signal) };
        if signal == Signal::TERM {
            // Clients are served until the address has gone.
            return router.signal(signal);
        }
        // The child first: told by its parent's death it would say farewell. And the parent held up
        // meanwhile: it would start another child.
        router.signal(Signal::STOP)?;
        if let Some(child) = self.child() {
            let _ = kill_process(child, signal);
        }
        router.signal(signal)?;
        self.carrier.signal(signal)
    }

    /// Ends it, and whatever it started.
    pub(crate) fn end(self) -> Result<(), Error> {
        if self.router.is_none() {
            return Ok(());
        }
        let child = self.child();
        self.signal(Signal::KILL)?;
        drop(self);
        // It is not ours to wait for: gone, or dead and not yet buried.
        let is_alive = |child: Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero()));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        until("keepalived is dead", || child.is_none_or(|child| !is_alive(child)))
    }
}

/// This program as a director.
pub(crate) fn run(config: &Path) -> Result<(), Error> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let director = Director::start(DirectorConfig::load(config)?).await?;
        terminate.recv().await;
        director.stop(Duration::from_secs(1)).await;
        Ok(())
    })
}

fn ours(wanted: &Wanted<'_>) -> String {
    let Wanted { listen, servers, rule, vrrp } = wanted;
    let check = CHECK.as_millis();
    let mut text = format!(
        "[[service]]\nname = \"web\"\nlisten = \"{listen}\"\nscheduler = {rule:?}\n\
         tcp = {{ cut_on_down = true, connect_timeout = \"1s\" }}\n\
         health = {{ type = \"http\", path = \"/health\", interval = \"{check}ms\", \
         timeout = \"{check}ms\", rise = 1, fall = 2 }}\n"
    );
    for server in *servers {
        let Real { address, weight, most } = server;
        let most = most.map_or_else(String::new, |most| format!("max_connections = {most}\n"));
        let _ =
            write!(text, "[[service.server]]\naddress = \"{address}\"\nweight = {weight}\n{most}");
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

fn haproxy(wanted: &Wanted<'_>) -> String {
    let Wanted { listen, servers, rule, vrrp } = wanted;
    let transparent = if vrrp.is_some() { " transparent" } else { "" };
    let check = CHECK.as_millis();
    let mut text = format!(
        "global\n maxconn 8000\ndefaults\n mode tcp\n retries 3\n option redispatch 1\n \
         timeout connect 1s\n timeout client 60s\n timeout server 60s\n timeout check {check}ms\n\
         listen web\n bind {listen}{transparent}\n balance {rule}\n \
         option httpchk GET /health\n \
         default-server check inter {check}ms rise 1 fall 2 on-marked-down shutdown-sessions\n"
    );
    for (number, server) in servers.iter().enumerate() {
        let Real { address, weight, most } = server;
        let most = most.map_or_else(String::new, |most| format!(" maxconn {most}"));
        let _ = writeln!(text, " server s{number} {address} weight {weight}{most}");
    }
    text
}

fn keepalived(Vrrp { address, priority }: Vrrp) -> String {
    let advert = ADVERT.as_secs_f64();
    format!(
        "global_defs {{\n vrrp_version 3\n vrrp_rt_priority 10\n}}\nvrrp_instance V {{\n \
         interface eth0\n virtual_router_id 51\n priority {priority}\n advert_int {advert}\n \
         virtual_ipaddress {{\n {address}/24\n }}\n}}\n"
    )
}
