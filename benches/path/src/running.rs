//! The subjects that run, each at a director of its own.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::sleep;

use crate::engines::PacketReport;
use crate::load::LoadOrder;
use crate::network::{NetworkMachine, SERVER_PORT, TestNetwork, server_addresses, virtual_address};
use crate::process::Child;
use crate::spec::{Measure, Redirect, Subject};

/// What is longest of all that a child does: the program goes through the verifier.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The network of a run, and its client and server.
#[derive(Debug)]
pub(crate) struct Stage {
    // Before the network: the processes end first.
    client: Child,
    server: Child,
    pub(crate) network: TestNetwork,
    folder: PathBuf,
    core: usize,
}

/// A subject that runs.
#[derive(Debug)]
pub(crate) struct RunningSubject {
    pub(crate) subject: Subject,
    /// Of its director.
    number: u8,
    targets: Vec<SocketAddr>,
    child: Option<Child>,
}

/// The figures of one measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadFigures {
    pub(crate) units: u64,
    pub(crate) cpu_nanos: u64,
    pub(crate) wall_nanos: u64,
}

impl LoadFigures {
    pub(crate) fn sum(parts: &[Self]) -> Self {
        let sum = |value: fn(&Self) -> u64| parts.iter().map(value).sum();
        Self {
            units: sum(|it| it.units),
            cpu_nanos: sum(|it| it.cpu_nanos),
            wall_nanos: sum(|it| it.wall_nanos),
        }
    }
}

impl Stage {
    /// Makes the network, and starts the client and the server.
    pub(crate) async fn build(folder: &Path, core: usize) -> Result<Self> {
        let network = TestNetwork::build()?;
        let start = |machine, name: &str| {
            let namespace = format!("--namespace={}", network.namespace(machine));
            Child::start(folder, name, Some(core), [namespace, name.to_owned()])
        };
        let mut server = start(NetworkMachine::Server, "server")?;
        let mut client = start(NetworkMachine::Client, "client")?;
        server.expect("ready", START_TIMEOUT).await?;
        client.expect("ready", START_TIMEOUT).await?;
        Ok(Self { client, server, network, folder: folder.to_owned(), core })
    }

    /// Starts a program of this benchmark, or another one, on a director's machine.
    pub(crate) fn start_at_director(
        &self,
        number: u8,
        name: &str,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Child> {
        let namespace = self.network.namespace(NetworkMachine::Director(number));
        let mut line: Vec<OsString> = vec![format!("--namespace={namespace}").into()];
        line.extend(arguments);
        Child::start(&self.folder, name, Some(self.core), line)
    }

    /// Starts a subject at the director of this number.
    pub(crate) async fn start(&mut self, subject: Subject, number: u8) -> Result<RunningSubject> {
        if subject == Subject::Direct {
            self.network.connect_directly(number)?;
        } else {
            self.network.add_director(number)?;
        }
        let servers = server_addresses(number);
        let mut listen = virtual_address(number);
        if subject.method().is_tunnel() {
            self.network.unpack_tunnels(number)?;
        }
        if subject.method().answers_directly() {
            self.network.answer_directly(number)?;
            // Packets keep their port.
            listen.set_port(SERVER_PORT);
        }
        let child = match subject {
            Subject::Direct | Subject::Forwarding | Subject::ForwardingAa => None,
            Subject::Nft => {
                let rules = nft_rules(listen, servers);
                self.network.set_nft_rules(NetworkMachine::Director(number), &rules)?;
                None
            }
            Subject::Haproxy => {
                self.network.add_virtual_address(number)?;
                let file = self.folder.join("haproxy.cfg");
                std::fs::write(&file, haproxy_config(listen, servers))?;
                let line = ["exec", "haproxy", "--", "-db", "-f"].map(OsString::from);
                Some(self.start_at_director(
                    number,
                    subject.name(),
                    line.into_iter().chain([file.into_os_string()]),
                )?)
            }
            Subject::Proxy
            | Subject::PacketTable
            | Subject::PacketUpcall
            | Subject::PacketTablePeer
            | Subject::PacketUpcallPeer
            | Subject::PacketDirect
            | Subject::PacketDirectPeer
            | Subject::PacketIpip
            | Subject::PacketIpipPeer
            | Subject::PacketGue => {
                self.network.add_virtual_address(number)?;
                let mut line = match subject.asks_scheduler() {
                    None => vec!["proxy".to_owned()],
                    Some(asks_scheduler) => {
                        let folder = self.network.pin_folder(subject.name());
                        let mut line = vec!["packet".to_owned()];
                        line.extend(asks_scheduler.then(|| "--asks-scheduler".to_owned()));
                        let is_peer = subject.redirect() == Some(Redirect::Peer);
                        line.extend(is_peer.then(|| "--redirect-peer".to_owned()));
                        line.push(format!("--method={}", subject.method().name()));
                        line.push(folder.display().to_string());
                        line
                    }
                };
                line.push(listen.to_string());
                line.extend(servers.map(|server| server.to_string()));
                let line = line.into_iter().map(OsString::from);
                let mut child = self.start_at_director(number, subject.name(), line)?;
                child.expect("ready", START_TIMEOUT).await?;
                Some(child)
            }
        };
        let is_service =
            !matches!(subject, Subject::Direct | Subject::Forwarding | Subject::ForwardingAa);
        let targets = if is_service { vec![listen] } else { servers.to_vec() };
        let mut running = RunningSubject { subject, number, targets, child };
        running.wait_until_serving(&self.network).await?;
        if subject.redirect() == Some(Redirect::Peer) {
            // The engine looks for hardware addresses every second.
            sleep(Duration::from_millis(1500)).await;
        }
        Ok(running)
    }

    /// Measures the processor time of all that takes part in a load.
    pub(crate) async fn measure(
        &mut self,
        running: &mut RunningSubject,
        measure: Measure,
        time: Duration,
    ) -> Result<LoadFigures> {
        let mut processes = vec![self.server.id()?];
        if let Some(child) = &mut running.child {
            child.check()?;
            processes.push(child.id()?);
        }
        let targets = running.targets.clone();
        let order = LoadOrder { measure, time, targets, processes };
        self.client.write_line(&order.line()).await?;
        let line = self.client.expect("done", 2 * time + Duration::from_secs(30)).await?;
        let fields: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
        let Ok(&[units, cpu_nanos, wall_nanos]) = fields.as_deref() else {
            bail!("the load printed {line:?}");
        };
        Ok(LoadFigures { units, cpu_nanos, wall_nanos })
    }
}

impl RunningSubject {
    async fn wait_until_serving(&mut self, network: &TestNetwork) -> Result<()> {
        let target = self.targets[0];
        for _ in 0..100 {
            if let Some(child) = &mut self.child {
                child.check()?;
            }
            let connected = network.within(NetworkMachine::Client, || {
                Ok(TcpStream::connect_timeout(&target, Duration::from_millis(200)).is_ok())
            });
            if connected? {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("{}: does not serve on {target}", self.subject.name())
    }

    /// Returns what a packet engine tells of itself; `None` of other subjects.
    pub(crate) async fn report(&mut self) -> Result<Option<PacketReport>> {
        if self.subject.asks_scheduler().is_none() {
            return Ok(None);
        }
        let child = self.child.as_mut().context("no process")?;
        report_of(child).await.map(Some)
    }

    /// Ends the subject; fails if it has ended before.
    pub(crate) async fn end(mut self) -> Result<()> {
        match self.child.take() {
            Some(mut child) => {
                child.check()?;
                child.end().await
            }
            None => Ok(()),
        }
    }

    pub(crate) fn describe(&self) -> String {
        format!("{} at director {}", self.subject.name(), self.number)
    }
}

/// Asks the process of a packet engine for its report.
pub(crate) async fn report_of(engine: &mut Child) -> Result<PacketReport> {
    engine.write_line("report").await?;
    PacketReport::parse(&engine.expect("report", START_TIMEOUT).await?)
}

/// Fails unless the engine decided the connections as it was told to.
pub(crate) fn check_report(report: PacketReport, asks_scheduler: bool) -> Result<()> {
    let PacketReport { upcalls, table_decisions, .. } = report;
    match asks_scheduler {
        true => ensure!(upcalls > 0, "the scheduler was never asked"),
        false => ensure!(upcalls == 0, "the scheduler was asked {upcalls} times"),
    }
    ensure!(asks_scheduler || table_decisions > 0, "the table has decided nothing");
    Ok(())
}

fn nft_rules(listen: SocketAddr, servers: [SocketAddr; 2]) -> String {
    let [a, b] = servers.map(|server| format!("{} . {}", server.ip(), server.port()));
    format!(
        "table ip bench {{\n  chain incoming {{\n    type nat hook prerouting priority dstnat;\n    \
         ip daddr {} tcp dport {} dnat ip to numgen inc mod 2 map {{ 0 : {a}, 1 : {b} }}\n  }}\n}}\n",
        listen.ip(),
        listen.port(),
    )
}

fn haproxy_config(listen: SocketAddr, servers: [SocketAddr; 2]) -> String {
    let [a, b] = servers;
    format!(
        "global\n  nbthread 1\n  maxconn 2000\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen bench\n  bind {listen}\n  balance roundrobin\n  server a {a}\n  server b {b}\n"
    )
}
