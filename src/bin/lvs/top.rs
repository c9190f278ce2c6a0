//! `lvs top`: a running director, in the terminal.

use std::time::Duration;

use hyper::Method;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table, TableState};
use ratatui::{DefaultTerminal, Frame};
use serde_json::{Value, json};

use crate::client::{AdminArgs, AdminClient, json_text};
use crate::error::{CliError, with_causes};

/// The director to show.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) connection: AdminArgs,
}

/// What the terminal shows.
#[derive(Default)]
struct TopView {
    status: Value,
    history: Value,
    /// A service and a server for each row.
    rows: Vec<(String, String)>,
    selected: TableState,
    /// The path and body of a change that waits to be confirmed.
    pending: Option<(String, Value)>,
    message: String,
}

pub(crate) async fn run(args: TopArgs) -> Result<(), CliError> {
    let client = AdminClient::new(args.connection);
    // Before the terminal is switched: an error is printed to the shell.
    let mut view = TopView::default();
    view.refresh(&client).await?;
    let terminal = ratatui::try_init().map_err(CliError::Terminal)?;
    let result = show(terminal, &client, view).await;
    // Without a terminal there is nothing to restore, and `restore` would print that.
    let _ = ratatui::try_restore();
    result
}

async fn show(
    mut terminal: DefaultTerminal,
    client: &AdminClient,
    mut view: TopView,
) -> Result<(), CliError> {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let (keys, mut pressed) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if keys.blocking_send(event).is_err() {
                return;
            }
        }
    });
    loop {
        terminal.draw(|frame| view.draw(frame)).map_err(CliError::Terminal)?;
        tokio::select! {
            _ = tick.tick() => if let Err(error) = view.refresh(client).await {
                view.message = with_causes(&error);
            },
            event = pressed.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    let is_ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
                    if is_ctrl && key.code == KeyCode::Char('c') || !view.press(key.code, client).await {
                        return Ok(());
                    }
                }
                Some(_) => {}
                None => return Ok(()),
            },
        }
    }
}

impl TopView {
    async fn refresh(&mut self, client: &AdminClient) -> Result<(), CliError> {
        self.status = client.get("/status").await?;
        self.history = client.get("/history").await?;
        self.rows.clear();
        for service in self.status["services"].as_array().into_iter().flatten() {
            for server in service["servers"].as_array().into_iter().flatten() {
                let row = (
                    json_text(&service["name"]).to_owned(),
                    json_text(&server["address"]).to_owned(),
                );
                self.rows.push(row);
            }
        }
        if self.selected.selected().is_none() && !self.rows.is_empty() {
            self.selected.select(Some(0));
        }
        Ok(())
    }

    /// Handles a key; returns `false` if it ends the program.
    async fn press(&mut self, key: KeyCode, client: &AdminClient) -> bool {
        if let Some((path, body)) = self.pending.take() {
            self.message = "cancelled".to_owned();
            if key == KeyCode::Char('y') {
                let done = client.send(Method::PATCH, &path, Some(body)).await;
                self.message = done.map_or_else(|error| with_causes(&error), |_| "done".to_owned());
                // An error is shown by the next refresh.
                let _ = self.refresh(client).await;
            }
            return true;
        }
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return false,
            KeyCode::Down | KeyCode::Char('j') => self.selected.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.selected.select_previous(),
            KeyCode::Char('d') => self.ask_for(json!({ "state": "drain" }), "drain"),
            KeyCode::Char('u') => self.ask_for(json!({ "state": "up" }), "undrain"),
            KeyCode::Char('+') => self.ask_for_weight(1),
            KeyCode::Char('-') => self.ask_for_weight(-1),
            _ => {}
        }
        true
    }

    fn row(&self) -> Option<&(String, String)> {
        self.rows.get(self.selected.selected()?)
    }

    fn ask_for(&mut self, body: Value, action: &str) {
        let Some((service, server)) = self.row() else { return };
        let message = format!("{action} {server} of {service}?  y: yes, any other key: no");
        self.pending = Some((format!("/services/{service}/servers/{server}"), body));
        self.message = message;
    }

    fn ask_for_weight(&mut self, by: i64) {
        let Some(server) = self.row().and_then(|(service, server)| self.server(service, server))
        else {
            return;
        };
        let weight = (server["weight"].as_i64().unwrap_or(0) + by).max(0);
        self.ask_for(json!({ "weight": weight }), &format!("weight {weight} for"));
    }

    fn server(&self, service: &str, server: &str) -> Option<&Value> {
        let services = self.status["services"].as_array()?;
        let service = services.iter().find(|found| found["name"] == service)?;
        service["servers"].as_array()?.iter().find(|found| found["address"] == server)
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let services = self.status["services"].as_array().cloned().unwrap_or_default();
        let charts = if services.is_empty() { 0 } else { 5 };
        let areas = [
            Constraint::Length(1),
            Constraint::Length(charts),
            Constraint::Min(3),
            Constraint::Length(1),
        ];
        let [head, charts, table, foot] = Layout::vertical(areas).areas(frame.area());
        frame.render_widget(Paragraph::new(self.headline()), head);
        self.charts(frame, charts, &services);
        self.table(frame, table, &services);
        let keys = "q: quit  arrows: select  d: drain  u: undrain (get connections)  +, -: weight";
        let message = if self.message.is_empty() { keys } else { &self.message };
        frame.render_widget(Paragraph::new(message.to_owned()).style(Modifier::DIM), foot);
    }

    fn headline(&self) -> Line<'static> {
        let role = if self.status["active"] == true { "active" } else { "standby" };
        let up = self.status["uptime_ms"].as_u64().unwrap_or(0) / 1000;
        let mut line = format!("lvs {}  {role}  up {up} s", json_text(&self.status["version"]));
        for router in self.status["vrrp"]["routers"].as_array().into_iter().flatten() {
            line += &format!("  {} {}", json_text(&router["name"]), json_text(&router["state"]));
        }
        Line::from(line).style(Modifier::BOLD)
    }

    /// Draws the connections per second of each service, over the last minutes.
    fn charts(&self, frame: &mut Frame<'_>, area: Rect, services: &[Value]) {
        let areas = Layout::horizontal(services.iter().map(|_| Constraint::Fill(1))).split(area);
        for (service, area) in services.iter().zip(areas.iter()) {
            let name = json_text(&service["name"]);
            let line = &self.history["services"][name]["accepted"];
            let values: Vec<u64> =
                line.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
            let width = usize::from(area.width.saturating_sub(2));
            let shown = &values[values.len().saturating_sub(width)..];
            let title = format!(
                " {name}: {}/s, {} active ",
                values.last().copied().unwrap_or(0),
                service["active"]
            );
            let chart = Sparkline::default().data(shown).style(Color::Cyan);
            frame.render_widget(chart.block(Block::bordered().title(title)), *area);
        }
    }

    fn table(&mut self, frame: &mut Frame<'_>, area: Rect, services: &[Value]) {
        let rows = services.iter().flat_map(|service| {
            let servers = service["servers"].as_array().into_iter().flatten();
            servers.map(move |server| {
                let state = json_text(&server["state"]);
                let color = match state {
                    "eligible" => Color::Green,
                    "down" | "ejected" => Color::Red,
                    _ => Color::Yellow,
                };
                let p99 = server["connect_p99_ms"].as_f64();
                Row::new([
                    json_text(&service["name"]).to_owned(),
                    json_text(&server["address"]).to_owned(),
                    state.to_owned(),
                    server["weight"].to_string(),
                    server["active"].to_string(),
                    server["totals"]["connections"].to_string(),
                    server["totals"]["failed"].to_string(),
                    p99.map_or(String::new(), |p99| format!("{p99:.1}")),
                    json_text(&server["reason"]).to_owned(),
                ])
                .style(Style::new().fg(color))
            })
        });
        let widths = [12, 24, 10, 7, 8, 12, 8, 8].map(Constraint::Length);
        let widths = widths.into_iter().chain([Constraint::Fill(1)]);
        let names = [
            "service", "server", "state", "weight", "active", "served", "failed", "p99 ms",
            "reason",
        ];
        let head = Row::new(names).style(Modifier::BOLD);
        let table = Table::new(rows, widths).header(head).block(Block::bordered());
        let table = table.row_highlight_style(Modifier::REVERSED);
        frame.render_stateful_widget(table, area, &mut self.selected);
    }
}
