//! The counters of the servers: a table that is redrawn in place on a terminal, lines elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::Duration;

use lvs::director::{Director, ServerStatus, ServiceStatus};

use crate::output::{check_reader, print_in_background};

/// Shows the counters of each server.
#[derive(Debug)]
pub(crate) struct Display {
    director: Director,
    terminal: bool,
    /// The last event, shown below the counters.
    notice: String,
    /// The text that was shown last.
    shown: String,
}

impl Display {
    pub(crate) fn new(director: Director) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { director, terminal, notice: String::new(), shown: String::new() }
    }

    /// Prints the addresses, and commands to try.
    pub(crate) fn show_addresses(&self) -> io::Result<()> {
        let status = self.director.status();
        let service = &status.services[0];
        let url = format!("http://{}/", service.listen.join(","));
        let mut text = format!(
            "listening on {url}, {} servers behind it, scheduler {}\n\n  \
             try:    curl {url}\n  \
             often:  for i in $(seq 12); do curl -s {url}; done\n",
            service.servers.len(),
            service.scheduler,
        );
        if let Some(admin) = self.director.admin_address() {
            let _ = writeln!(text, "  look:   http://{admin}/");
        }
        text += "  end:    Ctrl-C\n\n";
        print_in_background(&text)
    }

    /// Returns how often to [update](Self::update).
    pub(crate) fn period(&self) -> Duration {
        if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(1) }
    }

    /// Shows the counters, if they have changed. Fails also if an earlier text had no reader.
    pub(crate) fn update(&mut self) -> io::Result<()> {
        let status = self.director.status();
        let service = &status.services[0];
        let now = if self.terminal { self.table(service) } else { line(service) };
        if now == self.shown {
            return check_reader();
        }
        let mut text = String::new();
        if self.terminal && !self.shown.is_empty() {
            // Moves to the table's first line, and clears the rest of the screen.
            let _ = write!(text, "\r\x1b[{}A\x1b[J", self.shown.lines().count());
        }
        text += &now;
        self.shown = now;
        print_in_background(&text)
    }

    /// Shows an event below the counters.
    pub(crate) fn say(&mut self, notice: &str) -> io::Result<()> {
        self.notice = format!("{notice}\n");
        self.update()?;
        if self.terminal { Ok(()) } else { print_in_background(&self.notice) }
    }

    fn table(&self, service: &ServiceStatus) -> String {
        let total: u64 = service.servers.iter().map(|server| server.outcomes.ok).sum();
        let mut table = format!(
            "  {:8} {:21} {:10} {:>6} {:>8} {:>9} {:>7}  {}\n",
            "server", "address", "state", "weight", "active", "served", "failed", "share"
        );
        for server in &service.servers {
            let outcomes = server.outcomes;
            let percent = (outcomes.ok * 100 + total / 2).checked_div(total).unwrap_or(0);
            let _ = writeln!(
                table,
                "  {:8} {:21} {:10} {:>6} {:>8} {:>9} {:>7}  {percent:>3} % {}",
                name(server),
                server.address,
                server.state,
                server.weight,
                server.active,
                outcomes.ok,
                outcomes.failures(),
                "#".repeat(percent as usize / 5),
            );
        }
        let _ = writeln!(
            table,
            "\n  {} connections, {} refused, {} bytes to clients",
            service.totals.accepted,
            service.totals.refused.unwrap_or(0),
            service.totals.bytes_to_clients.unwrap_or(0),
        );
        table + &self.notice
    }
}

fn line(service: &ServiceStatus) -> String {
    let mut line = String::from("served:");
    for server in &service.servers {
        let _ = write!(line, " {} {}", name(server), server.outcomes.ok);
    }
    let _ = writeln!(line, ", refused {}", service.totals.refused.unwrap_or(0));
    line
}

fn name(server: &ServerStatus) -> &str {
    server.name.as_deref().unwrap_or(&server.address)
}
