//! The director as a program: signals, reloads, and the service manager.

use std::path::PathBuf;
use std::process::exit;
use std::time::Duration;

use lvs::director::{Director, DirectorConfig, ListeningSockets};

use crate::error::{CliError, with_causes};
use crate::output::print_if_read;
use crate::service_manager as manager;
use crate::signals::{SignalRequest, Signals};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A director, with the path of its configuration.
pub(crate) struct Program {
    pub(crate) director: Director,
    pub(crate) signals: Signals,
    path: Option<PathBuf>,
    drain: Duration,
}

impl Program {
    /// Starts a director. `path` is the file that a reload reads.
    pub(crate) async fn start(
        config: DirectorConfig,
        path: Option<PathBuf>,
    ) -> Result<Self, CliError> {
        let signals = Signals::new().map_err(CliError::Signals)?;
        let drain = config.drain_timeout();
        let director = Director::start_with(config, ListeningSockets::from_environment()?).await?;
        let program = Self { director, signals, path, drain };
        tracing::info!(
            version = VERSION,
            configuration = program.source(),
            services = program.director.status().services.len(),
            "lvs started"
        );
        Ok(program)
    }

    /// Returns what the configuration comes from.
    fn source(&self) -> String {
        let file = self.path.as_ref().map(|path| path.display().to_string());
        file.unwrap_or_else(|| "demonstration".to_owned())
    }

    /// Prints the addresses, and serves until a signal or a successor ends it.
    pub(crate) async fn run(mut self) -> Result<(), CliError> {
        for service in self.director.status().services {
            let (name, protocol) = (service.name, service.protocol);
            let listen = service.listen.join(", ");
            let servers = match service.servers.len() {
                1 => "1 server".to_owned(),
                count => format!("{count} servers"),
            };
            let line = format!("service {name}: listening on {listen}/{protocol}, {servers}");
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
        let source = self.source();
        let services = self.director.status().services.len();
        let Self { director, mut signals, drain, .. } = self;
        tokio::spawn(async move {
            while signals.next().await != SignalRequest::Stop {}
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
        let Some(path) = &self.path else {
            return tracing::warn!(
                "not reloaded: the director was started without a configuration file"
            );
        };
        manager::reloading();
        match DirectorConfig::load(path) {
            Ok(config) => {
                let drain = config.drain_timeout();
                match self.director.reload(config).await {
                    Ok(summary) => {
                        self.drain = drain;
                        for line in summary.to_string().lines() {
                            tracing::info!("reloaded: {line}");
                        }
                    }
                    Err(error) => tracing::error!("not reloaded: {}", with_causes(&error)),
                }
            }
            Err(error) => tracing::error!("not reloaded: {}", with_causes(&error)),
        }
        manager::ready();
    }
}
