//! What `lvs top` shows, and what its keys do to it. It does no I/O.

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline};
use serde_json::{Value, json};

use super::rows::{RowOrder, ServerRow, arrange_rows, fit_server, read_rows, short_duration};

/// What the terminal shows.
#[derive(Debug, Default)]
pub(crate) struct TopView {
    status: Value,
    rows: Vec<ServerRow>,
    /// Filtered and sorted.
    shown: Vec<ServerRow>,
    /// The service and the address of the selected server: it stays selected when rows change places.
    selected: Option<(String, String)>,
    /// The first row on the screen.
    offset: usize,
    /// Rows that the screen had place for.
    page: usize,
    /// Connections per second of the selected server's service, the newest last.
    accepted: Vec<u64>,
    order: RowOrder,
    filter: String,
    is_typing_filter: bool,
    pending: Option<TopChange>,
    message: String,
    /// The reason for which the last request had no answer.
    failure: Option<String>,
}

/// A change of a server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TopChange {
    pub(crate) service: String,
    pub(crate) server: String,
    pub(crate) body: Value,
}

/// What the program does after a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TopAction {
    Continue,
    Quit,
    /// The user has confirmed a change.
    Send(TopChange),
}

impl TopView {
    /// Shows another status.
    pub(crate) fn set_status(&mut self, status: Value) {
        self.rows = read_rows(&status);
        self.status = status;
        self.failure = None;
        self.arrange();
    }

    /// Shows the traffic of the selected service.
    pub(crate) fn set_accepted(&mut self, accepted: Vec<u64>) {
        self.accepted = accepted;
    }

    /// Says that the director does not answer. What is shown is old.
    pub(crate) fn set_failure(&mut self, failure: String) {
        self.failure = Some(failure);
    }

    pub(crate) fn set_message(&mut self, message: String) {
        self.message = message;
    }

    /// Returns the service of the selected server.
    pub(crate) fn selected_service(&self) -> Option<&str> {
        self.selected.as_ref().map(|(service, _)| service.as_str())
    }

    fn arrange(&mut self) {
        let before = self.position();
        self.shown = arrange_rows(&self.rows, &self.filter, self.order);
        if self.selected_row().is_none() {
            self.select(before.unwrap_or(0));
        }
    }

    fn position(&self) -> Option<usize> {
        let (service, address) = self.selected.as_ref()?;
        self.shown.iter().position(|row| row.service == *service && row.address == *address)
    }

    fn selected_row(&self) -> Option<&ServerRow> {
        self.shown.get(self.position()?)
    }

    /// Selects the row at a position, or the last one.
    fn select(&mut self, position: usize) {
        let row = self.shown.get(position).or(self.shown.last());
        let selected = row.map(|row| (row.service.clone(), row.address.clone()));
        if self.selected_service() != selected.as_ref().map(|(service, _)| service.as_str()) {
            self.accepted.clear();
        }
        self.selected = selected;
    }

    /// Handles a key.
    pub(crate) fn press(&mut self, key: KeyEvent) -> TopAction {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return TopAction::Quit;
        }
        if let Some(change) = self.pending.take() {
            if key.code == KeyCode::Char('y') {
                self.message = "sending the change".to_owned();
                return TopAction::Send(change);
            }
            self.message = "cancelled".to_owned();
            return TopAction::Continue;
        }
        if self.is_typing_filter {
            self.type_filter(key.code);
            return TopAction::Continue;
        }
        self.message.clear();
        let position = self.position().unwrap_or(0);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc if self.filter.is_empty() => return TopAction::Quit,
            KeyCode::Char('q') => return TopAction::Quit,
            KeyCode::Esc => {
                self.filter.clear();
                self.arrange();
            }
            KeyCode::Char('/') => self.is_typing_filter = true,
            KeyCode::Char('s') => {
                self.order = self.order.next();
                self.arrange();
            }
            KeyCode::Down | KeyCode::Char('j') => self.select(position + 1),
            KeyCode::Up | KeyCode::Char('k') => self.select(position.saturating_sub(1)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.select(position + self.page.max(1)),
            KeyCode::PageUp => self.select(position.saturating_sub(self.page.max(1))),
            KeyCode::Home | KeyCode::Char('g') => self.select(0),
            KeyCode::End | KeyCode::Char('G') => self.select(usize::MAX),
            KeyCode::Char('d') => self.ask_for(json!({ "state": "drain" }), "drain"),
            KeyCode::Char('u') => self.ask_for(json!({ "state": "up" }), "undrain"),
            KeyCode::Char('x') => self.ask_for(json!({ "state": "down" }), "disable"),
            KeyCode::Char('+') => self.ask_for_weight(1),
            KeyCode::Char('-') => self.ask_for_weight(-1),
            _ => {}
        }
        TopAction::Continue
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_typing_filter = false,
            KeyCode::Esc => {
                self.is_typing_filter = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(char) => self.filter.push(char),
            _ => {}
        }
        self.arrange();
    }

    fn ask_for(&mut self, body: Value, action: &str) {
        let Some(row) = self.selected_row() else { return };
        let (service, server) = (row.service.clone(), row.address.clone());
        let named = if row.name.is_empty() { &row.address } else { &row.name };
        self.message = format!("{action} {named} of {service}?  y: yes, any other key: no");
        self.pending = Some(TopChange { service, server, body });
    }

    fn ask_for_weight(&mut self, by: i64) {
        let Some(row) = self.selected_row() else { return };
        let weight = row.weight.saturating_add_signed(by);
        self.ask_for(json!({ "weight": weight }), &format!("set weight {weight} of"));
    }

    /// Draws the view; the cost depends on the size of the screen, not on the number of servers.
    pub(crate) fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let line = |y: u16| Rect { y: area.y + y, height: 1, ..area }.intersection(area);
        frame.render_widget(self.headline(), line(0));
        frame.render_widget(self.summary(), line(1));
        // The chart has place on screens that have more rows than a few.
        let chart = if area.height >= 16 { 3 } else { 0 };
        if chart > 0 {
            self.draw_chart(frame, Rect { y: area.y + 2, height: chart, ..area });
        }
        let top = 2 + chart;
        let height = area.height.saturating_sub(top + 1);
        self.draw_table(frame, Rect { y: area.y + top, height, ..area }.intersection(area));
        frame.render_widget(self.foot(), line(area.height.saturating_sub(1)));
    }

    fn headline(&self) -> Line<'static> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let role = if self.status["active"] == true { "active" } else { "standby" };
        let up = short_duration(self.status["uptime_ms"].as_u64().unwrap_or(0));
        let mut line = format!("lvs {}  {role}  up {up}", text(&self.status["host"]));
        for router in self.status["vrrp"]["routers"].as_array().into_iter().flatten() {
            line += &format!("  {} {}", text(&router["name"]), text(&router["state"]));
        }
        for address in self.status["announce"]["addresses"].as_array().into_iter().flatten() {
            line += &format!("  {} {}", text(&address["address"]), text(&address["state"]));
        }
        let style = Style::new().add_modifier(Modifier::BOLD);
        match &self.failure {
            None => Line::styled(line, style),
            Some(failure) => {
                Line::styled(format!("OLD, no answer: {failure}  {line}"), style.fg(Color::Red))
            }
        }
    }

    fn summary(&self) -> Line<'static> {
        let services = self.status["services"].as_array().map_or(0, Vec::len);
        let out = self.rows.iter().filter(|row| row.state != "eligible").count();
        let open: u64 = self.rows.iter().map(|row| row.open).sum();
        let mut text = String::new();
        if self.is_typing_filter || !self.filter.is_empty() {
            let cursor = if self.is_typing_filter { "_" } else { "" };
            text += &format!("filter: {}{cursor} ({} match), ", self.filter, self.shown.len());
        }
        text += &format!(
            "sort: {}, {services} services, {} servers",
            self.order.name(),
            self.rows.len()
        );
        if out > 0 {
            text += &format!(" ({out} out)");
        }
        Line::raw(text + &format!(", {open} open"))
    }

    /// Draws the connections per second of the selected server's service.
    fn draw_chart(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(service) = self.selected_service() else { return };
        let values = &self.accepted;
        let shown = &values[values.len().saturating_sub(usize::from(area.width))..];
        let now = values.last().copied().unwrap_or(0);
        let most = shown.iter().max().copied().unwrap_or(0);
        let title = format!("{service}: {now} connections/s, at most {most} in {} s", shown.len());
        frame.render_widget(Line::raw(title), Rect { height: 1, ..area });
        let chart = Sparkline::default().data(shown).style(Color::Cyan);
        frame.render_widget(chart, Rect { y: area.y + 1, height: area.height - 1, ..area });
    }

    fn draw_table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        if area.height < 2 {
            return;
        }
        let columns = TopColumns::new(usize::from(area.width));
        frame.render_widget(columns.head(), Rect { height: 1, ..area });
        self.page = usize::from(area.height - 1);
        let position = self.position().unwrap_or(0);
        // The selected row stays on the screen, and no row is left empty at the end.
        self.offset = self.offset.clamp((position + 1).saturating_sub(self.page), position);
        self.offset = self.offset.min(self.shown.len().saturating_sub(self.page));
        let visible = self.shown.iter().skip(self.offset).take(self.page).enumerate();
        let lines: Vec<_> = visible
            .map(|(n, row)| {
                let line = columns.line(row);
                match self.offset + n == position {
                    true => line.patch_style(Modifier::REVERSED),
                    false => line,
                }
            })
            .collect();
        let rows = Rect { y: area.y + 1, height: area.height - 1, ..area };
        frame.render_widget(Paragraph::new(lines), rows);
    }

    fn foot(&self) -> Line<'static> {
        let keys = "q quit  / filter  s sort  d drain  u undrain  x disable  + - weight  arrows";
        let text = if self.message.is_empty() { keys } else { &self.message };
        Line::styled(text.to_owned(), Modifier::DIM)
    }
}

/// The widths of the columns on a screen.
struct TopColumns {
    service: usize,
    server: usize,
    /// TopColumns for which a wide screen only has place.
    has_counters: bool,
    has_reason: bool,
}

impl TopColumns {
    fn new(width: usize) -> Self {
        let (has_counters, has_reason) = (width >= 100, width >= 130);
        let fixed = 10 + 5 + 7 + 7 + 7 + if has_counters { 9 + 9 } else { 0 };
        let rest = width.saturating_sub(fixed);
        let service = (rest / 3).clamp(4, 20);
        let server = rest.saturating_sub(service + 2).min(if has_reason { 48 } else { usize::MAX });
        Self { service, server: server.max(8), has_counters, has_reason }
    }

    fn head(&self) -> Line<'static> {
        let cells = ["state", "for", "weight", "open", "failed", "served", "p99 ms", "reason"];
        let text = self.text("service", "server", cells.map(str::to_owned));
        Line::styled(text, Modifier::BOLD)
    }

    fn line(&self, row: &ServerRow) -> Line<'static> {
        let mark = if row.is_by_hand { "*" } else { "" };
        let open = match row.max_connections {
            0 => row.open.to_string(),
            max => format!("{}/{max}", row.open),
        };
        let cells = [
            format!("{}{mark}", row.state),
            short_duration(row.state_age_ms),
            row.weight.to_string(),
            open,
            row.failed.map_or_else(|| "-".to_owned(), |failed| failed.to_string()),
            row.served.to_string(),
            row.connect_p99_ms.map_or(String::new(), |p99| format!("{p99:.1}")),
            row.reason.clone(),
        ];
        let color = match row.state.as_str() {
            "eligible" => Color::Green,
            "down" | "ejected" | "withheld" => Color::Red,
            _ => Color::Yellow,
        };
        let server = fit_server(&row.name, &row.address, self.server);
        Line::from(Span::styled(self.text(&row.service, &server, cells), color))
    }

    fn text(&self, service: &str, server: &str, cells: [String; 8]) -> String {
        let [state, age, weight, open, failed, served, p99, reason] = cells;
        let service: String = service.chars().take(self.service).collect();
        let (a, b) = (self.service, self.server);
        let mut text = format!(
            "{service:<a$} {server:<b$} {state:<9} {age:>4} {weight:>6} {open:>6} {failed:>6}"
        );
        if self.has_counters {
            text += &format!(" {served:>8} {p99:>8}");
        }
        if self.has_reason {
            text += &format!(" {reason}");
        }
        text
    }
}
