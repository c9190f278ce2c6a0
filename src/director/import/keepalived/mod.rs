//! `keepalived.conf`.

mod checker;
mod configuration;
mod syntax;
mod values;
mod virtual_server;
mod vrrp;

pub(super) use self::configuration::import;
