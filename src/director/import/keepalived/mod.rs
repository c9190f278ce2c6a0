//! Conversion of `keepalived.conf`: a file for each block.

mod checker;
mod configuration;
mod syntax;
mod values;
mod virtual_server;
mod vrrp;

pub(super) use self::configuration::import;
