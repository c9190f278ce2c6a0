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

/// What all subjects of a run share.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// A temporary folder for configurations and the stderr of children.
    pub(crate) folder: PathBuf,
    pub(crate) cores: Cores,
    pub(crate) peers: Peers,
    pub(crate) backends: Backends,
}

/// A running subject.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) subject: Subject,
    /// The addresses that clients connect to.
    pub(crate) targets: Vec<SocketAddr>,
    /// `None` for [`Subject::Direct`].
    pub(crate) child: Option<Child>,
}

impl Running {
    /// Starts a subject, and returns when it forwards traffic.
    pub(crate) async fn start(stage: &Stage, subject: Subject, traffic: Traffic) -> Result<Self> {
        let backends = stage.backends.addresses(traffic);
        let port = free_port(traffic)?;
        let core = Some(stage.cores.forwarder);
        let peer = |name: &str| format!("{name}-{port}");
        let mut running = match subject {
            Subject::Direct => Self { subject, targets: backends.to_vec(), child: None },
            Subject::Lvs | Subject::LvsBefore => {
                let before = stage.peers.before.as_deref();
                let program = before.filter(|_| subject == Subject::LvsBefore);
                let (address, child) = lvs(stage, program, traffic, core, 1).await?;
                Self { subject, targets: vec![address], child: Some(child) }
            }
            Subject::Haproxy | Subject::HaproxyAgain | Subject::HaproxySplice => {
                let text = haproxy(port, backends, subject == Subject::HaproxySplice);
                let program = stage.peers.haproxy.as_deref().context("no haproxy")?;
                let file = write_config(stage, &peer("haproxy.cfg"), &text)?;
                let arguments = ["-db".into(), "-f".into(), file.into_os_string()];
                Self::peer(stage, subject, port, program, &arguments)?
            }
            Subject::Nginx | Subject::NginxAgain => {
                let text = nginx(&stage.peers, &stage.folder, port, backends, traffic);
                let program = stage.peers.nginx.as_deref().context("no nginx")?;
                let file = write_config(stage, &peer("nginx.conf"), &text)?;
                let arguments = ["-c".into(), file.into_os_string()];
                Self::peer(stage, subject, port, program, &arguments)?
            }
        };
        running.wait_until_serving(traffic).await?;
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

    async fn wait_until_serving(&mut self, traffic: Traffic) -> Result<()> {
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
}

/// Starts this crate's forwarder with a number of worker threads, as this program has it or another
/// build of it.
pub(crate) async fn lvs(
    stage: &Stage,
    program: Option<&Path>,
    traffic: Traffic,
    core: Option<usize>,
    workers: usize,
) -> Result<(SocketAddr, Child)> {
    let mut arguments = vec!["lvs".to_owned(), format!("--workers={workers}")];
    if traffic != Traffic::Tcp {
        arguments.push("--udp".to_owned());
    }
    arguments.extend(stage.backends.addresses(traffic).iter().map(SocketAddr::to_string));
    let mut child = match program {
        Some(program) => {
            Child::start_program(&stage.folder, "lvs-before", program, core, arguments)?
        }
        None => Child::start(&stage.folder, "lvs", core, arguments)?,
    };
    let address = child.expect("ready", Duration::from_secs(5)).await?;
    Ok((address.parse().context("invalid address of the forwarder")?, child))
}

/// Returns a free port; a subject fails if another program takes it meanwhile.
fn free_port(traffic: Traffic) -> Result<u16> {
    let any = (Ipv4Addr::LOCALHOST, 0);
    let address = match traffic {
        Traffic::Tcp => TcpListener::bind(any)?.local_addr()?,
        Traffic::Echo | Traffic::Sink => UdpSocket::bind(any)?.local_addr()?,
    };
    Ok(address.port())
}

/// Tells whether a connection, or a datagram and its echo, is forwarded.
fn answers(target: SocketAddr, traffic: Traffic) -> bool {
    let timeout = Duration::from_millis(50);
    if traffic == Traffic::Tcp {
        return TcpStream::connect_timeout(&target, timeout).is_ok();
    }
    let exchange = || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(timeout))?;
        socket.connect(target)?;
        socket.send(b"probe")?;
        socket.recv(&mut [0; 16])
    };
    exchange().is_ok()
}

fn write_config(stage: &Stage, name: &str, text: &str) -> Result<PathBuf> {
    let path = stage.folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn haproxy(port: u16, backends: &[SocketAddr], is_splicing: bool) -> String {
    // Splicing takes two more descriptors per connection, and HAProxy refuses to start with a `maxconn`
    // above its limit of open files.
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

/// Returns a configuration with a single process, so that no worker is left when it is killed.
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
        // Sessions of clients that have ended are kept for this long.
        Traffic::Echo | Traffic::Sink => (" udp", 10),
    };
    let _ = writeln!(
        text,
        "  }}\n  server {{\n    listen 127.0.0.1:{port}{udp};\n    proxy_pass backends;\n    \
         proxy_timeout {timeout}s;\n  }}\n}}"
    );
    text
}
