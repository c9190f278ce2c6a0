//! The director as a program: signals, reloads, and the service manager.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};
use std::time::Duration;

use lvs::director::{Director, DirectorConfig, ListeningSockets};

use crate::service_manager as manager;
use crate::signals::{Asked, Signals};

pub(crate) type Error = Box<dyn std::error::Error>;

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
    ) -> Result<Self, Error> {
        let signals = Signals::new()?;
        let drain = config.drain_timeout();
        let director = Director::start_with(config, ListeningSockets::from_environment()?).await?;
        Ok(Self { director, signals, path, drain })
    }

    /// Prints the addresses, and serves until a signal or a successor ends it.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        for service in self.director.status().services {
            let (name, servers) = (service.name, service.servers.len());
            let listen = service.listen.join(", ");
            println!("{name}: {listen}/{}, {servers} servers", service.protocol);
        }
        if let Some(admin) = self.director.admin_address() {
            println!("status: http://{admin}/");
        }
        manager::ready();
        let mut alive = manager::watchdog();
        loop {
            tokio::select! {
                asked = self.signals.next() => match asked {
                    Asked::Reload => self.reload().await,
                    Asked::Stop => break,
                },
                () = self.director.wait_for_successor() => break,
                () = alive.tick() => {
                    // A director that hangs would not return its status.
                    let _ = self.director.status();
                    manager::alive();
                }
            }
        }
        println!("stopping; a second signal ends at once");
        let drained = self.stop().await;
        println!("{drained}");
        Ok(())
    }

    /// Stops the director; returns how its connections ended, as text.
    pub(crate) async fn stop(self) -> String {
        manager::stopping();
        let Self { director, mut signals, drain, .. } = self;
        tokio::spawn(async move {
            while signals.next().await != Asked::Stop {}
            exit(130);
        });
        let drained = director.stop(drain).await;
        format!("drained: {} finished, {} cut", drained.finished, drained.cut)
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
                        for failure in summary.failures() {
                            tracing::error!("not applied: {}: {}", failure.part, failure.error);
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

/// Reads a configuration, and prints that it is valid.
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    DirectorConfig::load(path)?;
    println!("{} is valid", path.display());
    Ok(())
}

/// Prints an error, and returns the exit code.
pub(crate) fn exit_code(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Returns an error with its causes; a cause that the error prints already is not repeated.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    })
}
