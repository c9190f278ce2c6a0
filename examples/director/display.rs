//! What the director shows: a table that is redrawn in place on a terminal, lines elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use lvs::Balancer;
use lvs::forward::Handle;

/// Shows what each server has done.
#[derive(Debug)]
pub(crate) struct Display {
    balancer: Balancer<SocketAddr>,
    handle: Handle,
    terminal: bool,
    /// What there is to say beside the counts.
    notice: String,
    /// What was shown last.
    shown: String,
}

impl Display {
    /// Says what runs where, and what to try.
    pub(crate) fn start(balancer: Balancer<SocketAddr>, handle: Handle) -> io::Result<Self> {
        let url = handle.local_addr().map_or_else(String::new, |at| format!("http://{at}/"));
        let rule = balancer.scheduler();
        let servers = balancer.snapshot().backends().len();
        writeln!(
            io::stdout(),
            "listening on {url}, {servers} servers behind it, scheduler {}\n\n  \
             try:    curl {url}\n  \
             often:  for i in $(seq 12); do curl -s {url}; done\n  \
             end:    Ctrl-C\n",
            rule.name(),
        )?;
        let terminal = io::stdout().is_terminal();
        Ok(Self { balancer, handle, terminal, notice: String::new(), shown: String::new() })
    }

    /// How often to [update](Self::update).
    pub(crate) fn period(&self) -> Duration {
        if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(1) }
    }

    /// Shows the counts, if they have changed.
    pub(crate) fn update(&mut self) -> io::Result<()> {
        let now = if self.terminal { self.table() } else { self.line() };
        if now == self.shown {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        if self.terminal && !self.shown.is_empty() {
            // Up to the table's first line, and clear from there.
            write!(out, "\r\x1b[{}A\x1b[J", self.shown.lines().count())?;
        }
        write!(out, "{now}")?;
        self.shown = now;
        out.flush()
    }

    /// Says something beside the counts.
    pub(crate) fn say(&mut self, notice: &str) -> io::Result<()> {
        self.notice = format!("{notice}\n");
        self.update()?;
        if self.terminal { Ok(()) } else { io::stdout().write_all(self.notice.as_bytes()) }
    }

    fn line(&self) -> String {
        let mut line = String::from("served:");
        for backend in self.balancer.snapshot().backends() {
            let _ = write!(line, " {} {}", backend.id(), backend.outcomes().ok);
        }
        let refused = self.handle.counters().refused.total();
        let _ = writeln!(line, ", refused {refused}");
        line
    }

    fn table(&self) -> String {
        let snapshot = self.balancer.snapshot();
        let all: u64 = snapshot.backends().iter().map(|backend| backend.outcomes().ok).sum();
        let mut table = format!(
            "  {:8} {:21} {:10} {:>6} {:>8} {:>9} {:>7}  {}\n",
            "server", "address", "state", "weight", "active", "served", "failed", "share"
        );
        for (backend, member) in snapshot.iter() {
            let outcomes = backend.outcomes();
            let percent = (outcomes.ok * 100 + all / 2).checked_div(all).unwrap_or(0);
            let _ = writeln!(
                table,
                "  {:8} {:21} {:10} {:>6} {:>8} {:>9} {:>7}  {percent:>3} % {}",
                backend.id().as_str(),
                backend.target().to_string(),
                member.state().name(),
                member.weight(),
                backend.load().total(),
                outcomes.ok,
                outcomes.failures(),
                "#".repeat(percent as usize / 5),
            );
        }
        let counters = self.handle.counters();
        let _ = writeln!(
            table,
            "\n  {} connections, {} refused, {} bytes to clients",
            counters.accepted,
            counters.refused.total(),
            counters.bytes_to_clients,
        );
        table + &self.notice
    }
}
