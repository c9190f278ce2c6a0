//! `lvs top`: what it shows on screens of several sizes, and what its keys do.

#[path = "../../src/bin/lvs/top/rows.rs"]
mod rows;
#[path = "../../src/bin/lvs/top/view.rs"]
mod view;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use self::rows::fit_server;
use self::view::{TopAction, TopChange, TopView};

/// A status of services with three servers each, of which the last is down in every tenth service.
fn status(services: usize) -> Value {
    let service = |n: usize| {
        let server = |k: usize| {
            json!({
                "address": format!("10.0.{n}.{k}:8080"),
                "name": format!("node-{n}-{k}"),
                "state": if n % 10 == 5 && k == 2 { "down" } else { "eligible" },
                "state_age_ms": 65_000,
                "weight": 1, "active": k, "inactive": 0, "max_connections": 0,
                "totals": { "connections": 10 * n + k, "failed": 0 },
            })
        };
        json!({ "name": format!("service{n}"), "servers": [server(0), server(1), server(2)] })
    };
    let services: Vec<_> = (0..services).map(service).collect();
    json!({ "host": "lb1", "active": true, "uptime_ms": 7_200_000, "services": services })
}

fn view(services: usize) -> TopView {
    let mut view = TopView::default();
    view.set_status(status(services));
    view
}

/// Returns the lines of a screen.
fn draw(view: &mut TopView, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
    terminal.draw(|frame| view.draw(frame)).expect("a screen");
    let buffer = terminal.backend().buffer();
    let cell = |x, y| buffer[(x, y)].symbol().to_owned();
    let line = |y| (0..width).map(|x| cell(x, y)).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

fn press(view: &mut TopView, key: KeyCode) -> TopAction {
    view.press(KeyEvent::new(key, KeyModifiers::NONE))
}

fn type_text(view: &mut TopView, text: &str) {
    text.chars().for_each(|char| drop(press(view, KeyCode::Char(char))));
}

#[test]
fn names_and_ports_are_whole_at_80_columns() {
    let lines = draw(&mut view(3), 80, 24);
    assert!(lines[0].starts_with("lvs lb1  active  up 2h"), "{lines:#?}");
    assert!(lines[1].starts_with("sort: as configured, 3 services, 9 servers, 9 open"));
    let row = lines.iter().find(|line| line.contains("10.0.1.2:8080")).expect("a row");
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!(words, ["service1", "node-1-2", "10.0.1.2:8080", "eligible", "1m", "1", "2", "0"]);
    assert!(lines[23].starts_with("q quit"), "{lines:#?}");
    // No screen is too small.
    for (width, height) in [(1, 1), (20, 3), (40, 10), (300, 80)] {
        assert_eq!(draw(&mut view(3), width, height).len(), usize::from(height));
    }
    assert!(draw(&mut view(0), 80, 24)[1].ends_with("0 services, 0 servers, 0 open"));
}

#[test]
fn what_does_not_fit_is_cut_off_the_name_and_not_off_the_port() {
    for (name, address, width, expected) in [
        ("web1", "10.0.0.1:80", 30, "web1 10.0.0.1:80"),
        ("", "10.0.0.1:80", 30, "10.0.0.1:80"),
        ("frontend-eu-1", "10.0.0.1:80", 20, "fronten… 10.0.0.1:80"),
        ("frontend-eu-1", "10.0.0.1:80", 13, "10.0.0.1:80"),
        ("w", "10.0.0.1:80", 11, "10.0.0.1:80"),
        ("w", "[2001:db8::10:20]:8080", 12, "…10:20]:8080"),
    ] {
        assert_eq!(fit_server(name, address, width), expected, "{name} {address} {width}");
    }
}

#[test]
fn sixty_services_are_scrolled_filtered_and_sorted() {
    let mut view = view(60);
    let first = |view: &mut TopView| draw(view, 80, 24)[6].clone();
    assert!(first(&mut view).contains("10.0.0.0:8080"));
    press(&mut view, KeyCode::End);
    let lines = draw(&mut view, 80, 24);
    assert!(lines[22].contains("10.0.59.2:8080"), "{lines:#?}");
    press(&mut view, KeyCode::PageUp);
    press(&mut view, KeyCode::PageUp);
    assert!(!draw(&mut view, 80, 24).iter().any(|line| line.contains("10.0.59.2")));
    assert_eq!(view.selected_service(), Some("service48"));

    // The selected server stays selected when the rows change places, and stays on the screen.
    press(&mut view, KeyCode::Char('s'));
    let lines = draw(&mut view, 80, 24);
    assert!(lines[1].contains("sort: state"), "{lines:#?}");
    assert_eq!(view.selected_service(), Some("service48"));
    assert!(lines.iter().any(|line| line.contains("10.0.48.")), "{lines:#?}");
    press(&mut view, KeyCode::Home);
    assert!(first(&mut view).contains("down"), "{}", first(&mut view));

    press(&mut view, KeyCode::Char('/'));
    type_text(&mut view, "NODE-7-1");
    press(&mut view, KeyCode::Enter);
    let lines = draw(&mut view, 80, 24);
    assert!(lines[1].starts_with("filter: NODE-7-1 (1 match), sort: state"), "{lines:#?}");
    assert!(lines[6].contains("10.0.7.1:8080") && lines[7].is_empty(), "{lines:#?}");
    // The first Esc ends the filter, the next one the program.
    assert_eq!(press(&mut view, KeyCode::Esc), TopAction::Continue);
    assert_eq!(press(&mut view, KeyCode::Esc), TopAction::Quit);
}

#[test]
fn a_change_is_sent_when_it_is_confirmed() {
    let mut view = view(3);
    press(&mut view, KeyCode::Down);
    press(&mut view, KeyCode::Char('d'));
    let foot = draw(&mut view, 80, 24)[23].clone();
    assert_eq!(foot, "drain node-0-1 of service0?  y: yes, any other key: no");
    assert_eq!(press(&mut view, KeyCode::Char('n')), TopAction::Continue);
    press(&mut view, KeyCode::Char('+'));
    let change = TopChange {
        service: "service0".to_owned(),
        server: "10.0.0.1:8080".to_owned(),
        body: json!({ "weight": 2 }),
    };
    assert_eq!(press(&mut view, KeyCode::Char('y')), TopAction::Send(change));
    // A question is no reason to stay.
    press(&mut view, KeyCode::Char('d'));
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(view.press(control_c), TopAction::Quit);
}

#[test]
fn a_director_that_does_not_answer_is_said_at_the_top() {
    let mut view = view(3);
    view.set_message("done".to_owned());
    view.set_accepted(vec![3, 9, 5]);
    let lines = draw(&mut view, 80, 24);
    assert_eq!((&*lines[2], &*lines[23]), ("service0: 5 connections/s, at most 9 in 3 s", "done"));
    view.set_failure("connection refused".to_owned());
    assert!(draw(&mut view, 80, 24)[0].starts_with("OLD, no answer: connection refused"));
    view.set_status(status(3));
    assert!(draw(&mut view, 80, 24)[0].starts_with("lvs lb1"));
}
