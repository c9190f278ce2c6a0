//! A director from its start to its end: signals, reloads, and the service manager.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, exit};
use std::time::Duration;

use lvs::director::{Director, DirectorConfig, ListeningSockets};

use crate::service_manager as manager;
use crate::signals::{Asked, Signals};

pub(crate) type Error = Box<dyn std::error::Error>;

/// A director, and where its configuration is.
pub(crate) struct Program {
    pub(crate) director: Director,
    pub(crate) signals: Signals,
    path: Option<PathBuf>,
    drain: Duration,
}

impl Program {
    /// Starts what a configuration asks for, from a file if it was in one.
    pub(crate) async fn start(
        config: DirectorConfig,
        path: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let signals = Signals::new()?;
        let drain = config.drain_timeout();
        let director = Director::start_with(config, ListeningSockets::from_environment()?).await?;
        Ok(Self { director, signals, path, drain })
    }

    /// Says what runs where, and serves until it is told to end.
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
                    // It is, if it can say how it stands.
                    let _ = self.director.status();
                    manager::alive();
                }
            }
        }
        println!("stopping; once more ends at once");
        let drained = self.stop().await;
        println!("{drained}");
        Ok(())
    }

    /// Ends, and says how.
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

    /// Reads the configuration again.
    pub(crate) async fn reload(&mut self) {
        let Some(path) = &self.path else {
            return tracing::warn!("there is no configuration to be read again");
        };
        manager::reloading();
        match DirectorConfig::load(path) {
            Ok(config) => {
                let drain = config.drain_timeout();
                match self.director.reload(config).await {
                    Ok(changed) => {
                        self.drain = drain;
                        for line in changed.to_string().lines() {
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

/// Reads a configuration, and says whether it is sound.
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    DirectorConfig::load(path)?;
    println!("{} is sound", path.display());
    Ok(())
}

/// What a shell is told; an error is said.
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
