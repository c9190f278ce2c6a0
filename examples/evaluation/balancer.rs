//! The balancer: a director of this crate, or HAProxy, with keepalived where there are two of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lvs::director::{Director, DirectorConfig};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::balancer_spec::{BalancerSpec, Product};
use crate::process::{Error, Namespace, Process, wait_until};

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
        let director = |text| {
            let args = ["director", "--config", &write("toml", text)?];
            Process::start_role(namespace, (folder, name), &args)
        };
        let (proxy, keepalived_process) = match product {
            Product::LvsProxy => (director(spec.proxy_toml())?, None),
            Product::LvsPacket => (director(spec.packet_toml())?, None),
            Product::Haproxy => {
                let config = write("haproxy", spec.haproxy_conf())?;
                let args = ["-db", "-f", &config];
                let proxy = Process::start(namespace, (folder, name), Path::new("haproxy"), &args)?;
                let start = |text| {
                    let config = write("keepalived", text)?;
                    let parent = folder.join(format!("{name}.pid"));
                    let _ = std::fs::remove_file(&parent);
                    let (parent, child) = (parent.to_string_lossy(), child.to_string_lossy());
                    let args = ["-n", "-l", "-P", "-f", &config, "-p", &*parent, "-r", &*child];
                    let name = format!("{name}.vrrp");
                    Process::start(namespace, (folder, &name), Path::new("keepalived"), &args)
                };
                (proxy, spec.keepalived_conf().map(start).transpose()?)
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
