//! `lvs run`: a director from a configuration, or the demonstration.

use std::net::SocketAddr;
use std::path::PathBuf;

use lvs::director::DirectorConfig;

use crate::demo::{self, DemoService};
use crate::error::CliError;
use crate::logs;
use crate::program::{ConfigSource, Program};

/// The options of `lvs run`. Without a default of clap's: `--config` excludes all that are given.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The address that clients connect to. Default: 127.0.0.1:8080.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The scheduler: `wrr`, `wlc`, `bounded(maglev, factor=1.5)`, ... Default: wrr.
    #[arg(long, value_name = "RULE")]
    scheduler: Option<String>,
    /// A server; repeat it for each one. By default, three small built-in web servers.
    #[arg(long, value_name = "ADDRESS")]
    server: Vec<SocketAddr>,
    /// The path of HTTP health checks, which servers must answer with 200. By default, servers must
    /// accept connections.
    #[arg(long, value_name = "PATH")]
    health: Option<String>,
    /// The interval and the timeout of health checks, in milliseconds. Default: 1000.
    #[arg(long, value_name = "MILLISECONDS")]
    interval: Option<u64>,
    /// The address of the status page; `none` for no status page. Default: 127.0.0.1:9000.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<String>,
    /// The token that the status page requires; it must have one on addresses other than loopback.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
}

impl RunArgs {
    /// Returns an option that is given and is for the demonstration.
    pub(crate) fn demo_option(&self) -> Option<&'static str> {
        let given = [
            ("--listen", self.listen.is_some()),
            ("--scheduler", self.scheduler.is_some()),
            ("--server", !self.server.is_empty()),
            ("--health", self.health.is_some()),
            ("--interval", self.interval.is_some()),
            ("--admin", self.admin.is_some()),
            ("--token", self.token.is_some()),
        ];
        given.into_iter().find_map(|(option, is_given)| is_given.then_some(option))
    }
}

pub(crate) async fn run(args: RunArgs) -> Result<(), CliError> {
    let raised = lvs::forward::raise_descriptor_limit();
    if let Some(path) = args.config {
        let config = DirectorConfig::load(&path)?;
        let log = logs::start(config.log());
        log_descriptor_limit(raised);
        let source = ConfigSource { path, log };
        return Program::start(config, Some(source)).await?.run().await;
    }
    logs::start_for_demonstration();
    log_descriptor_limit(raised);
    let admin = args.admin.unwrap_or_else(|| "127.0.0.1:9000".to_owned());
    let service = DemoService {
        listen: args.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
        scheduler: args.scheduler.unwrap_or_else(|| "wrr".to_owned()),
        servers: args.server,
        health: args.health,
        interval: args.interval.unwrap_or(1000),
        admin: (admin != "none").then_some(admin),
        token: args.token,
    };
    demo::run(service).await
}

fn log_descriptor_limit(raised: std::io::Result<usize>) {
    if let Err(error) = raised {
        tracing::warn!("the limit of open files (ulimit -n) is not raised: {error}");
    }
}
