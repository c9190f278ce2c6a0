//! `lvs top`: a running director, in the terminal.

mod rows;
mod view;

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use self::view::{TopAction, TopChange, TopView};
use crate::client::{AdminArgs, AdminClient, percent_encoded};
use crate::error::{CliError, with_causes};

/// The director to show.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) connection: AdminArgs,
}

/// The time from one request to the next.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// What arrives from the keyboard and from the director.
enum TopInput {
    Terminal(Event),
    Status(Value),
    /// The connections per second of the selected service.
    Accepted(Vec<u64>),
    /// The director does not answer.
    Failure(String),
    /// The result of a change.
    Message(String),
}

pub(crate) async fn run(args: TopArgs) -> Result<(), CliError> {
    let client = Arc::new(AdminClient::new(args.connection));
    // Before the terminal is switched: an error is printed to the shell.
    let mut view = TopView::default();
    view.set_status(client.get("/status").await?);
    let terminal = ratatui::try_init().map_err(CliError::Terminal)?;
    let result = show(terminal, client, view).await;
    // Without a terminal there is nothing to restore, and `restore` would print that.
    let _ = ratatui::try_restore();
    result
}

/// Draws after each input. Requests are sent by other tasks: a key is handled at once, also while the
/// director does not answer.
async fn show(
    mut terminal: DefaultTerminal,
    client: Arc<AdminClient>,
    mut view: TopView,
) -> Result<(), CliError> {
    let (inputs, mut received) = mpsc::channel(64);
    let keys = inputs.clone();
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if keys.blocking_send(TopInput::Terminal(event)).is_err() {
                return;
            }
        }
    });
    let (service, selected) = watch::channel(view.selected_service().map(str::to_owned));
    let refresh = tokio::spawn(refresh(Arc::clone(&client), selected, inputs.clone()));
    loop {
        terminal.draw(|frame| view.draw(frame)).map_err(CliError::Terminal)?;
        // All that has arrived is handled before the next drawing: held keys do not pile up.
        let Some(mut input) = received.recv().await else { break };
        loop {
            match input {
                TopInput::Status(status) => view.set_status(status),
                TopInput::Accepted(accepted) => view.set_accepted(accepted),
                TopInput::Failure(failure) => view.set_failure(failure),
                TopInput::Message(message) => view.set_message(message),
                TopInput::Terminal(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    match view.press(key) {
                        TopAction::Continue => {}
                        TopAction::Quit => {
                            refresh.abort();
                            return Ok(());
                        }
                        TopAction::Send(change) => {
                            tokio::spawn(send(Arc::clone(&client), change, inputs.clone()));
                        }
                    }
                }
                TopInput::Terminal(_) => {}
            }
            match received.try_recv() {
                Ok(next) => input = next,
                Err(_) => break,
            }
        }
        service.send_if_modified(|known| {
            let now = view.selected_service();
            let is_other = known.as_deref() != now;
            *known = now.map(str::to_owned);
            is_other
        });
    }
    refresh.abort();
    Ok(())
}

/// Asks for the status each second, and for the traffic of the selected service at once when another
/// one is selected.
async fn refresh(
    client: Arc<AdminClient>,
    mut selected: watch::Receiver<Option<String>>,
    inputs: mpsc::Sender<TopInput>,
) {
    let mut tick = tokio::time::interval(REFRESH_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let is_other_service = tokio::select! {
            _ = tick.tick() => false,
            changed = selected.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
        };
        if !is_other_service {
            let input = match client.get("/status").await {
                Ok(status) => TopInput::Status(status),
                Err(error) => TopInput::Failure(with_causes(&error)),
            };
            if inputs.send(input).await.is_err() {
                return;
            }
        }
        let service = selected.borrow_and_update().clone();
        if let Some(service) = service {
            let path = format!("/services/{}/history", percent_encoded(&service));
            // The request for the status says if the director does not answer.
            if let Ok(history) = client.get(&path).await {
                let accepted = history["accepted"].as_array().into_iter().flatten();
                let accepted = accepted.filter_map(Value::as_u64).collect();
                if inputs.send(TopInput::Accepted(accepted)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Sends a change, and says how that ended.
async fn send(client: Arc<AdminClient>, change: TopChange, inputs: mpsc::Sender<TopInput>) {
    let TopChange { service, server, body } = change;
    let path =
        format!("/services/{}/servers/{}", percent_encoded(&service), percent_encoded(&server));
    let message = match client.send(Method::PATCH, &path, Some(body)).await {
        Ok(answer) => match answer["note"].as_str() {
            Some(note) => format!("done; {note}"),
            None => "done".to_owned(),
        },
        Err(error) => with_causes(&error),
    };
    let mut later = vec![TopInput::Message(message)];
    later.extend(client.get("/status").await.ok().map(TopInput::Status));
    for input in later {
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}
