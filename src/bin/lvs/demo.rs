//! A director without a configuration file: with three built-in servers, or with servers of yours.

use std::fmt::Write;
use std::net::SocketAddr;

use lvs::director::DirectorConfig;

use crate::demo_server;
use crate::display::Display;
use crate::error::CliError;
use crate::program::Program;
use crate::signals::SignalRequest;

/// The service of the demonstration.
#[derive(Debug)]
pub(crate) struct DemoService {
    pub(crate) listen: SocketAddr,
    pub(crate) scheduler: String,
    /// Without any, three servers are started.
    pub(crate) servers: Vec<SocketAddr>,
    /// The path of HTTP checks.
    pub(crate) health: Option<String>,
    /// In milliseconds.
    pub(crate) interval: u64,
    pub(crate) admin: Option<String>,
    pub(crate) token: Option<String>,
}

/// Runs a director and shows its counters, until a signal ends it.
pub(crate) async fn run(service: DemoService) -> Result<(), CliError> {
    let config = DirectorConfig::parse(&service.configuration().await?)?;
    let mut program = Program::start(config, None).await?;
    let mut display = Display::new(program.director.clone());
    let mut refresh = tokio::time::interval(display.period());
    let mut events = program.director.events();
    let mut shown = display.show_addresses();
    // A display that cannot be written ends the demonstration as a signal does: connections drain.
    while shown.is_ok() {
        shown = tokio::select! {
            _ = refresh.tick() => display.update(),
            Some(event) = events.next() => match event {
                Ok(event) => display.say(&event.to_string()),
                Err(missed) => display.say(&missed.to_string()),
            },
            request = program.signals.next() => match request {
                SignalRequest::Stop => break,
                SignalRequest::Reload => {
                    program.reload().await;
                    Ok(())
                }
            },
        };
    }
    let shown =
        shown.and_then(|()| display.say("draining for up to 10s; Ctrl-C again ends at once"));
    let mut stopped = std::pin::pin!(program.stop());
    let drained = loop {
        tokio::select! {
            drained = &mut stopped => break drained,
            // The first failure is reported below.
            _ = refresh.tick() => drop(display.update()),
        }
    };
    shown.and_then(|()| display.say(&drained)).map_err(CliError::Output)
}

impl DemoService {
    /// Returns the configuration, as TOML.
    async fn configuration(&self) -> Result<String, CliError> {
        let health = match &self.health {
            Some(path) => format!("type = \"http\", path = {}", toml_string(path)),
            None => "type = \"tcp\"".to_owned(),
        };
        let mut text = String::new();
        if let Some(admin) = &self.admin {
            let _ = writeln!(text, "[admin]\nlisten = {}", toml_string(admin));
            if let Some(token) = &self.token {
                let _ = writeln!(text, "token = {}", toml_string(token));
            }
        }
        let _ = writeln!(
            text,
            "[[service]]\nname = \"web\"\nlisten = \"{}\"\nscheduler = {}\n\
             health = {{ {health}, interval = \"{}ms\" }}\nejection = {{}}",
            self.listen,
            toml_string(&self.scheduler),
            self.interval,
        );
        for server in &self.servers {
            let _ = writeln!(text, "[[service.server]]\naddress = \"{server}\"");
        }
        if self.servers.is_empty() {
            for (name, weight) in [("alpha", 3), ("beta", 2), ("gamma", 1)] {
                let address = demo_server::start(name).await.map_err(CliError::DemoServer)?;
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

/// Returns a string of TOML, in which the configuration replaces no variable.
fn toml_string(text: &str) -> String {
    // The escapes of JSON are escapes of TOML.
    serde_json::Value::from(text.replace("${", "$${")).to_string()
}
