//! Executes commands in the kernel.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::process::{Command, Stdio};

use lvs::ipvs::{
    IpvsClient, IpvsDaemon, IpvsError, IpvsRequest, IpvsServiceKey, IpvsServiceStatus,
};

use super::arguments::IpvsArguments;
use super::command::{IpvsCommand, ListFormat};
use super::error::{IpvsArgumentError, IpvsCommandError};
use super::names::{NameLookup, ip_text};
use super::sort::{sort_servers, sort_services};
use super::text::AddressWriter;
use super::{connections, help, listing, restore, save};
use crate::error::CliError;
use crate::output;

/// Of the network namespace of the process.
const CONNECTIONS_FILE: &str = "/proc/net/ip_vs_conn";

/// The commands of a process, which share a socket.
#[derive(Debug)]
pub(super) struct IpvsSession {
    program: &'static str,
    client: Option<IpvsClient>,
    names: NameLookup,
}

impl IpvsSession {
    /// Makes a session of a program with this name. Nothing is asked of the kernel yet.
    pub(super) fn new(program: &'static str) -> Self {
        Self { program, client: None, names: NameLookup::of_system() }
    }

    pub(super) fn parse(&self, words: &[String]) -> Result<IpvsCommand, IpvsCommandError> {
        let arguments = IpvsArguments::parse(words)?;
        Ok(IpvsCommand::new(&arguments, &self.names)?)
    }

    pub(super) fn execute(&mut self, command: IpvsCommand) -> Result<(), CliError> {
        match command {
            IpvsCommand::Change(request) => Ok(self.change(request)?),
            IpvsCommand::List(service, format) => print(&self.list(service, &format)?),
            IpvsCommand::Connections { is_numeric, with_engine } => {
                print_connections(is_numeric, with_engine)
            }
            IpvsCommand::Timeouts => print(&self.timeouts()?),
            IpvsCommand::Daemons => print(&self.daemons()?),
            IpvsCommand::Save { is_numeric } => print(&self.save(is_numeric)?),
            IpvsCommand::Restore => self.restore(restore::lines(io::stdin().lock())),
            IpvsCommand::Help => print(&help::usage(self.program)),
            IpvsCommand::Version => print(help::VERSION),
        }
    }

    /// Executes lines as the arguments of commands. As of ipvsadm, what the kernel refuses is reported, and
    /// the last line decides whether all succeed; the first line with wrong arguments is the last.
    fn restore(&mut self, lines: impl Iterator<Item = io::Result<String>>) -> Result<(), CliError> {
        let mut last: Result<(), CliError> = Ok(());
        for (n, line) in lines.enumerate() {
            let of_line =
                |source| IpvsCommandError::Line { number: n + 1, source: Box::new(source) };
            let words = restore::words(&line.map_err(IpvsCommandError::Input)?);
            if words.is_empty() {
                continue;
            }
            if let Err(CliError::Ipvs(error)) = &last {
                output::complain(&format!("error: {error}\n"));
            }
            last = match self.parse(&words).map_err(of_line)? {
                IpvsCommand::Restore => {
                    return Err(of_line(IpvsArgumentError::NestedRestore.into()).into());
                }
                IpvsCommand::Change(request) => {
                    self.change(request).map_err(|error| of_line(error).into())
                }
                command => self.execute(command),
            };
        }
        last
    }

    /// Removes all services, and executes lines. Comments begin with `#`.
    pub(super) fn replace_all(&mut self) -> Result<(), CliError> {
        let lines = restore::read_all(io::stdin().lock()).map_err(IpvsCommandError::Input)?;
        self.change(IpvsRequest::Flush)?;
        self.restore(lines.into_iter().map(Ok))
    }

    fn change(&mut self, request: IpvsRequest) -> Result<(), IpvsCommandError> {
        let client = self.client()?;
        let changed = match &request {
            IpvsRequest::StopDaemon(state) => client.stop_daemon(*state),
            request => client.apply(request),
        };
        changed.map_err(IpvsCommandError::Change)
    }

    fn list(
        &mut self,
        service: Option<IpvsServiceKey>,
        format: &ListFormat,
    ) -> Result<String, IpvsCommandError> {
        let client = self.client()?;
        let mut addresses = AddressWriter::new(format.is_numeric);
        let (mut text, services) = match service {
            Some(key) => (String::new(), vec![client.service(&key)?]),
            None => {
                let services = read_services(client, format.is_unsorted)?;
                (listing::version_line(&client.info()?), services)
            }
        };
        text += &listing::header(format.columns);
        for status in services {
            let key = status.service.key;
            text += &listing::service_line(&status, format, &mut addresses);
            let mut servers = client.destinations(&key)?;
            if !format.is_unsorted {
                servers = sort_servers(servers, |server| server.destination.address);
            }
            for server in servers {
                text += &listing::server_line(&server, &key, format, &mut addresses);
            }
        }
        Ok(text)
    }

    fn save(&mut self, is_numeric: bool) -> Result<String, IpvsCommandError> {
        let client = self.client()?;
        let mut addresses = AddressWriter::new(is_numeric);
        let mut text = String::new();
        for status in read_services(client, false)? {
            let key = status.service.key;
            let named = save::service_arguments(&key, &mut addresses);
            text += &save::add_service_line(&status.service, &named);
            let servers = client.destinations(&key)?;
            for server in sort_servers(servers, |server| server.destination.address) {
                text += &save::add_server_line(&server.destination, &key, &named, &mut addresses);
            }
        }
        Ok(text)
    }

    fn timeouts(&mut self) -> Result<String, IpvsCommandError> {
        let timeouts = self.client()?.timeouts()?;
        let (tcp, tcp_fin, udp) = (timeouts.tcp_secs, timeouts.tcp_fin_secs, timeouts.udp_secs);
        Ok(format!("Timeout (tcp tcpfin udp): {tcp} {tcp_fin} {udp}\n"))
    }

    fn daemons(&mut self) -> Result<String, IpvsCommandError> {
        Ok(self.client()?.daemons()?.iter().map(daemon_line).collect())
    }

    fn client(&mut self) -> Result<&mut IpvsClient, IpvsCommandError> {
        if self.client.is_none() {
            self.client = Some(open().map_err(IpvsCommandError::Open)?);
        }
        self.client.as_mut().ok_or(IpvsCommandError::Open(IpvsError::NoFamily))
    }
}

/// Opens a socket. As ipvsadm does, it loads the module if the kernel has no IPVS yet.
fn open() -> Result<IpvsClient, IpvsError> {
    match IpvsClient::open() {
        Err(IpvsError::NoFamily) => {
            let mut modprobe = Command::new("/sbin/modprobe");
            modprobe.args(["--", "ip_vs"]).stdin(Stdio::null());
            // If it fails, the kernel still has no IPVS, and the error says so.
            let _ = modprobe.stdout(Stdio::null()).stderr(Stdio::null()).status();
            IpvsClient::open()
        }
        result => result,
    }
}

fn read_services(
    client: &mut IpvsClient,
    is_unsorted: bool,
) -> Result<Vec<IpvsServiceStatus>, IpvsError> {
    let services = client.services()?;
    if is_unsorted {
        return Ok(services);
    }
    Ok(sort_services(services, |status| status.service.key))
}

fn daemon_line(daemon: &IpvsDaemon) -> String {
    let (state, interface, id) = (daemon.state, &daemon.interface, daemon.sync_id);
    let mut text = format!("{state} sync daemon (mcast={interface}, syncid={id}");
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text += &format!(", {name}={value}");
        }
    };
    let number = |number: u16| (number != 0).then(|| number.to_string());
    add("maxlen", number(daemon.max_message_len));
    add("group", daemon.group.map(ip_text));
    add("port", number(daemon.port));
    add("ttl", number(daemon.ttl.into()));
    text + ")\n"
}

fn print_connections(is_numeric: bool, with_engine: bool) -> Result<(), CliError> {
    let describe = |source| IpvsCommandError::Connections { path: CONNECTIONS_FILE, source };
    let file = File::open(CONNECTIONS_FILE).map_err(describe)?;
    let mut addresses = AddressWriter::new(is_numeric);
    let mut output = BufWriter::new(io::stdout().lock());
    let mut write = |text: &str| output.write_all(text.as_bytes()).map_err(CliError::Output);
    write(&connections::header(with_engine))?;
    for line in connections::lines(BufReader::new(file), &mut addresses, with_engine) {
        write(&line.map_err(describe)?)?;
    }
    output.flush().map_err(CliError::Output)
}

fn print(text: &str) -> Result<(), CliError> {
    output::print(text).map_err(CliError::Output)
}
