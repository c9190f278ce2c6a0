//! Notifications for systemd, if it started this process (`sd_notify(3)`).

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, interval};

fn notify(states: &[NotifyState<'_>]) {
    // An error means that no service manager listens.
    let _ = sd_notify::notify(false, states);
}

pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

pub(crate) fn reloading() {
    // `Type=notify-reload` requires the time.
    match NotifyState::monotonic_usec_now() {
        Ok(time) => notify(&[NotifyState::Reloading, time]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

pub(crate) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// The schedule of keep-alive notifications.
pub(crate) struct Watchdog(Option<Interval>);

/// Returns a schedule with half the interval that systemd requires.
pub(crate) fn watchdog() -> Watchdog {
    let mut micros = 0;
    let is_enabled = sd_notify::watchdog_enabled(false, &mut micros);
    let every = Duration::from_micros(micros / 2).max(Duration::from_millis(1));
    Watchdog(is_enabled.then(|| interval(every)))
}

impl Watchdog {
    pub(crate) async fn tick(&mut self) {
        match &mut self.0 {
            Some(interval) => drop(interval.tick().await),
            None => std::future::pending().await,
        }
    }
}
