//! Subjects as processes: how each is configured, started, checked and ended.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::sleep;

use crate::backend::Backends;
use crate::machine::Peers;
use crate::process::{Child, Cores};
use crate::subject::Subject;
use crate::traffic::Traffic;

/// What all subjects of a run have in common.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// A temporary folder: configurations, and what children say on stderr.
    pub(crate) folder: PathBuf,
    pub(crate) cores: Cores,
    pub(crate) peers: Peers,
    pub(crate) backends: Backends,
}

/// A subject that takes traffic.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) subject: Subject,
    /// Where clients send it.
    pub(crate) targets: Vec<SocketAddr>,
    /// `None` for [`Subject::Direct`].
    pub(crate) child: Option<Child>,
}

impl Running {
    /// Starts a subject, and comes back when traffic has gone through it.
    pub(crate) async fn start(stage: &Stage, subject: Subject, traffic: Traffic) -> Result<Self> {
        let backends = stage.backends.of(traffic);
        let port = free_port(traffic)?;
        let core = Some(stage.cores.forwarder);
        let peer = |name: &str| format!("{name}-{port}");
        let mut running = match subject {
            Subject::Direct => Self { subject, targets: backends.to_vec(), child: None },
            Subject::Lvs => {
                let (address, child) = lvs(stage, traffic, core, 1).await?;
                Self { subject, targets: vec![address], child: Some(child) }
            }
            Subject::Haproxy | Subject::HaproxyAgain | Subject::HaproxySplice => {
                let text = haproxy(port, backends, subject == Subject::HaproxySplice);
                let program = stage.peers.haproxy.as_deref().context("no haproxy")?;
                let file = written(stage, &peer("haproxy.cfg"), &text)?;
                let arguments = ["-db".into(), "-f".into(), file.into_os_string()];
                Self::peer(stage, subject, port, program, &arguments)?
            }
            Subject::Nginx | Subject::NginxAgain => {
                let text = nginx(&stage.peers, &stage.folder, port, backends, traffic);
                let program = stage.peers.nginx.as_deref().context("no nginx")?;
                let file = written(stage, &peer("nginx.conf"), &text)?;
                let arguments = ["-c".into(), file.into_os_string()];
                Self::peer(stage, subject, port, program, &arguments)?
            }
        };
        running.wait_until_it_serves(traffic).await?;
        Ok(running)
    }

    fn peer(
        stage: &Stage,
        subject: Subject,
        port: u16,
        program: &Path,
        arguments: &[OsString],
    ) -> Result<Self> {
        let mut line: Vec<OsString> = vec!["exec".into(), program.into(), "--".into()];
        line.extend_from_slice(arguments);
        let name = format!("{}-{port}", subject.name());
        let child = Child::start(&stage.folder, &name, Some(stage.cores.forwarder), line)?;
        let targets = vec![(Ipv4Addr::LOCALHOST, port).into()];
        Ok(Self { subject, targets, child: Some(child) })
    }

    async fn wait_until_it_serves(&mut self, traffic: Traffic) -> Result<()> {
        let target = self.targets[0];
        for _ in 0..100 {
            if let Some(child) = &mut self.child {
                child.check()?;
            }
            if answers(target, traffic) {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("{}: does not serve on {target}", self.subject.name())
    }

    /// Ends it; an error if it had ended before.
    pub(crate) async fn end(mut self) -> Result<()> {
        match self.child.take() {
            Some(mut child) => {
                child.check()?;
                child.end().await
            }
            None => Ok(()),
        }
    }
}

/// Starts this crate's forwarder with so many workers.
pub(crate) async fn lvs(
    stage: &Stage,
    traffic: Traffic,
    core: Option<usize>,
    workers: usize,
) -> Result<(SocketAddr, Child)> {
    let mut arguments = vec!["lvs".to_owned(), format!("--workers={workers}")];
    if traffic != Traffic::Tcp {
        arguments.push("--udp".to_owned());
    }
    arguments.extend(stage.backends.of(traffic).iter().map(SocketAddr::to_string));
    let mut child = Child::start(&stage.folder, "lvs", core, arguments)?;
    let address = child.expect("ready", Duration::from_secs(5)).await?;
    Ok((address.parse().context("not an address")?, child))
}

/// A port that nobody had a moment ago; a subject that does not get it fails loudly.
fn free_port(traffic: Traffic) -> Result<u16> {
    let any = (Ipv4Addr::LOCALHOST, 0);
    let address = match traffic {
        Traffic::Tcp => TcpListener::bind(any)?.local_addr()?,
        Traffic::Echo | Traffic::Sink => UdpSocket::bind(any)?.local_addr()?,
    };
    Ok(address.port())
}

/// Does a connection, or a datagram and its echo, go through?
fn answers(target: SocketAddr, traffic: Traffic) -> bool {
    let patience = Duration::from_millis(50);
    if traffic == Traffic::Tcp {
        return TcpStream::connect_timeout(&target, patience).is_ok();
    }
    let ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(patience))?;
        socket.connect(target)?;
        socket.send(b"there?")?;
        socket.recv(&mut [0; 16])
    };
    ask().is_ok()
}

fn written(stage: &Stage, name: &str, text: &str) -> Result<PathBuf> {
    let path = stage.folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn haproxy(port: u16, backends: &[SocketAddr], is_splicing: bool) -> String {
    // Splicing takes two descriptors more a connection, and such a HAProxy refuses to start with
    // more than it could hold.
    let connections = if is_splicing { 2_000 } else { 9_500 };
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn {connections}\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
    );
    if is_splicing {
        text.push_str("  option splice-request\n  option splice-response\n");
    }
    let _ = writeln!(
        text,
        "listen bench\n  bind 127.0.0.1:{port}\n  balance roundrobin\n  maxconn {connections}"
    );
    for (i, address) in backends.iter().enumerate() {
        let _ = writeln!(text, "  server s{i} {address}");
    }
    text
}

/// One process that is its own worker: what a worker would do, and nobody is left when it is killed.
fn nginx(
    peers: &Peers,
    folder: &Path,
    port: u16,
    backends: &[SocketAddr],
    traffic: Traffic,
) -> String {
    let folder = folder.display();
    let mut text = String::new();
    if let Some(module) = &peers.nginx_stream {
        let _ = writeln!(text, "load_module {};", module.display());
    }
    let _ = writeln!(
        text,
        "daemon off;\nmaster_process off;\npid {folder}/nginx-{port}.pid;\n\
         error_log stderr error;\nevents {{ worker_connections 19000; }}\n\
         stream {{\n  upstream backends {{"
    );
    for address in backends {
        let _ = writeln!(text, "    server {address};");
    }
    let (udp, timeout) = match traffic {
        Traffic::Tcp => ("", 60),
        // Sessions of clients that have gone stay for so long.
        Traffic::Echo | Traffic::Sink => (" udp", 10),
    };
    let _ = writeln!(
        text,
        "  }}\n  server {{\n    listen 127.0.0.1:{port}{udp};\n    proxy_pass backends;\n    \
         proxy_timeout {timeout}s;\n  }}\n}}"
    );
    text
}
