//! The director as a program: signals, reloads, and the service manager.

use std::path::PathBuf;
use std::process::exit;
use std::time::Duration;

use lvs::director::{Director, DirectorConfig, ListeningSockets};

use crate::error::{CliError, with_causes};
use crate::logs::RunningLog;
use crate::output::{self, log_writer, print_if_read};
use crate::service_manager as manager;
use crate::signals::{SignalRequest, Signals};

/// How long the end by a second signal waits for a reader of the last lines.
const LAST_LINES_LIMIT: Duration = Duration::from_millis(100);
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A director, with the source of its configuration.
pub(crate) struct Program {
    pub(crate) director: Director,
    pub(crate) signals: Signals,
    source: Option<ConfigSource>,
    drain: Duration,
}

/// The configuration file, and the log that it describes.
pub(crate) struct ConfigSource {
    /// The file that a reload reads.
    pub(crate) path: PathBuf,
    pub(crate) log: RunningLog,
}

impl Program {
    /// Starts a director. Without a source it cannot reload.
    pub(crate) async fn start(
        config: DirectorConfig,
        source: Option<ConfigSource>,
    ) -> Result<Self, CliError> {
        let signals = Signals::new().map_err(CliError::Signals)?;
        let drain = config.drain_timeout();
        let director = Director::start_with(config, ListeningSockets::from_environment()?).await?;
        director.set_dropped_log_lines(log_writer().dropped_lines());
        let program = Self { director, signals, source, drain };
        tracing::info!(
            version = VERSION,
            configuration = program.source_name(),
            services = program.director.status().services.len(),
            "lvs started"
        );
        Ok(program)
    }

    /// Returns what the configuration comes from.
    fn source_name(&self) -> String {
        let file = self.source.as_ref().map(|source| source.path.display().to_string());
        file.unwrap_or_else(|| "demonstration".to_owned())
    }

    /// Prints the addresses, and serves until a signal or a successor ends it.
    pub(crate) async fn run(mut self) -> Result<(), CliError> {
        for service in self.director.status().services {
            let (name, protocol) = (service.name, service.protocol);
            let reached = match service.listen.is_empty() {
                true => format!("{protocol}, without an address of its own"),
                false => format!("listening on {}/{protocol}", service.listen.join(", ")),
            };
            let servers = match service.servers.len() {
                1 => "1 server".to_owned(),
                count => format!("{count} servers"),
            };
            let line = format!("service {name}: {reached}, {servers}");
            print_if_read(&line);
        }
        if let Some(admin) = self.director.admin_address() {
            print_if_read(&format!("status: http://{admin}/"));
        }
        manager::ready();
        let mut alive = manager::watchdog();
        loop {
            tokio::select! {
                request = self.signals.next() => match request {
                    SignalRequest::Reload => self.reload().await,
                    SignalRequest::Stop => break,
                },
                () = self.director.wait_for_successor() => break,
                () = self.director.wait_ended() => return Err(CliError::DirectorEnded),
                () = alive.tick() => {
                    // A director that hangs would not return its status.
                    let _ = self.director.status();
                    manager::alive();
                }
            }
        }
        let wait = humantime::format_duration(self.drain);
        print_if_read(&format!(
            "stopping: waits up to {wait} for open connections; a second signal ends the program at \
             once"
        ));
        let drained = self.stop().await;
        print_if_read(&drained);
        Ok(())
    }

    /// Stops the director; returns how its connections ended, as text.
    pub(crate) async fn stop(self) -> String {
        manager::stopping();
        let source = self.source_name();
        let services = self.director.status().services.len();
        let Self { director, mut signals, drain, .. } = self;
        tokio::spawn(async move {
            while signals.next().await != SignalRequest::Stop {}
            output::flush(LAST_LINES_LIMIT);
            exit(130);
        });
        let drained = director.stop(drain).await;
        tracing::info!(
            version = VERSION,
            configuration = source,
            services,
            finished = drained.finished,
            cut = drained.cut,
            "lvs stopped"
        );
        format!("drained: {} connections finished, {} cut", drained.finished, drained.cut)
    }

    /// Reads the configuration again, and reloads the director.
    pub(crate) async fn reload(&mut self) {
        let Some(source) = &self.source else {
            return tracing::warn!(
                "not reloaded: the director was started without a configuration file"
            );
        };
        manager::reloading();
        match DirectorConfig::load(&source.path) {
            Ok(config) => {
                let (drain, log) = (config.drain_timeout(), config.log().clone());
                match self.director.reload(config).await {
                    Ok(summary) => {
                        self.drain = drain;
                        let configuration = source.path.display().to_string();
                        source.log.apply(&log, || {
                            for line in summary.to_string().lines() {
                                tracing::info!(
                                    version = VERSION,
                                    configuration,
                                    "reloaded: {line}"
                                );
                            }
                        });
                    }
                    Err(error) => tracing::error!("not reloaded: {}", with_causes(&error)),
                }
            }
            Err(error) => {
                for error in error.iter() {
                    tracing::error!("not reloaded: {}", with_causes(error));
                }
            }
        }
        manager::ready();
    }
}
