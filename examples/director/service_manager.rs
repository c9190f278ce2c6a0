//! What systemd is told, where it asks (`sd_notify(3)`).

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, interval};

fn tell(states: &[NotifyState<'_>]) {
    // Nobody listens: that is how it is on a terminal.
    let _ = sd_notify::notify(false, states);
}

pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

pub(crate) fn reloading() {
    // With the time, which `Type=notify-reload` wants to see.
    match NotifyState::monotonic_usec_now() {
        Ok(time) => tell(&[NotifyState::Reloading, time]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

pub(crate) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// When to say that it is alive.
pub(crate) struct Watchdog(Option<Interval>);

/// Twice as often as it must be said.
pub(crate) fn watchdog() -> Watchdog {
    let mut micros = 0;
    let is_asked = sd_notify::watchdog_enabled(false, &mut micros);
    let every = Duration::from_micros(micros / 2).max(Duration::from_millis(1));
    Watchdog(is_asked.then(|| interval(every)))
}

impl Watchdog {
    pub(crate) async fn tick(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
    }
}
