//! A director without a configuration file: with three built-in servers, or with servers of yours.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;

use lvs::director::DirectorConfig;

use crate::display::Display;
use crate::program::{Error, Program};
use crate::server;
use crate::signals::Asked;

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// The address that clients connect to, without a configuration.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        conflicts_with = "config"
    )]
    listen: SocketAddr,
    /// The scheduler: `wrr`, `wlc`, `bounded(maglev, factor=1.5)`, ...
    #[arg(long, value_name = "RULE", default_value = "wrr", conflicts_with = "config")]
    scheduler: String,
    /// A server; repeat it for each one. By default, three small built-in web servers.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    server: Vec<SocketAddr>,
    /// The path of HTTP health checks, which servers must answer with 200. By default, servers must
    /// accept connections.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    health: Option<String>,
    /// The interval and the timeout of health checks, in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000, conflicts_with = "config")]
    interval: u64,
    /// The address of the status page; `none` for no status page.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9000",
        conflicts_with = "config"
    )]
    admin: String,
}

/// Runs a director and shows its counters, until a signal ends it.
pub(crate) async fn run(args: DemoArgs) -> Result<(), Error> {
    let config = DirectorConfig::parse(&args.configuration().await?)?;
    let mut program = Program::start(config, None).await?;
    let mut display = Display::start(program.director.clone())?;
    let mut refresh = tokio::time::interval(display.period());
    let mut events = program.director.health_events();
    loop {
        tokio::select! {
            _ = refresh.tick() => display.update()?,
            Some(event) = events.next() => display.say(&event?.to_string())?,
            asked = program.signals.next() => if asked == Asked::Stop { break },
        }
    }
    display.say("draining for up to 10s; Ctrl-C again ends at once")?;
    let mut stopped = std::pin::pin!(program.stop());
    let drained = loop {
        tokio::select! {
            drained = &mut stopped => break drained,
            _ = refresh.tick() => display.update()?,
        }
    };
    Ok(display.say(&drained)?)
}

impl DemoArgs {
    /// Returns the configuration that the arguments describe, as TOML.
    async fn configuration(&self) -> io::Result<String> {
        let Self { listen, scheduler, health, interval, .. } = self;
        let health = match health {
            Some(path) => format!("type = \"http\", path = {path:?}"),
            None => "type = \"tcp\"".to_owned(),
        };
        let mut text = String::new();
        if self.admin != "none" {
            let _ = writeln!(text, "[admin]\nlisten = {:?}", self.admin);
        }
        let _ = writeln!(
            text,
            "[[service]]\nname = \"web\"\nlisten = \"{listen}\"\nscheduler = {scheduler:?}\n\
             health = {{ {health}, interval = \"{interval}ms\" }}\nejection = {{}}"
        );
        for server in &self.server {
            let _ = writeln!(text, "[[service.server]]\naddress = \"{server}\"");
        }
        if self.server.is_empty() {
            for (name, weight) in [("alpha", 3), ("beta", 2), ("gamma", 1)] {
                let address = server::start(name).await?;
                let _ = writeln!(
                    text,
                    "[[service.server]]\nname = \"{name}\"\naddress = \"{address}\"\n\
                     weight = {weight}"
                );
            }
        }
        Ok(text)
    }
}
