//! Checks of the virtual address on the servers, `virtual_address` of a `health` table.

use std::net::SocketAddr;

use super::check::CheckConfig;
use super::engine::EngineKind;
use super::error::{ConfigProblem, ConfigProblems, KeyPathSegment};
use super::listen::ListenAddress;
use super::real_server::RealServer;
use super::service::ServiceConfig;
use super::value::OneOrMany;
use crate::engine::ForwardingMethod;

impl CheckConfig {
    fn is_of_virtual_address(&self) -> bool {
        self.virtual_address == Some(true)
    }
}

impl ServiceConfig {
    /// Returns the virtual addresses.
    pub(crate) fn virtual_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listen.0.iter().filter_map(|listen| {
            let ListenAddress::Address(address) = listen else { return None };
            Some(*address)
        })
    }

    /// Returns whether a check connects to a virtual address.
    pub(crate) fn has_virtual_address_checks(&self) -> bool {
        self.check_keys()
            .any(|(_, OneOrMany(checks))| checks.iter().any(CheckConfig::is_of_virtual_address))
    }

    /// Returns the servers that are reached at the virtual addresses, each with whether a check is.
    fn servers_with_virtual_address(&self) -> impl Iterator<Item = (&RealServer, bool)> {
        let servers = self.servers.iter().filter(|server| {
            let method = server.forwarding_method().unwrap_or_default();
            method != ForwardingMethod::Nat
        });
        servers.filter_map(|server| {
            let OneOrMany(checks) = server.health.as_ref().unwrap_or(&self.health);
            let is_checked = checks.iter().any(CheckConfig::is_of_virtual_address);
            (!checks.is_empty()).then_some((server, is_checked))
        })
    }

    /// Returns the servers that are checked at the virtual addresses.
    pub(crate) fn servers_checked_at_virtual_address(&self) -> impl Iterator<Item = SocketAddr> {
        let checked = self.servers_with_virtual_address().filter(|(_, is_checked)| *is_checked);
        checked.map(|(server, _)| server.address)
    }

    /// Refuses checks of a virtual address that cannot be made.
    pub(super) fn validate_virtual_address_checks(&self, problems: &mut ConfigProblems) {
        for path in self.virtual_address_checks() {
            let checked = self.validate_virtual_address();
            problems.record(checked.map_err(|reason| ConfigProblem::new(path, reason)));
        }
    }

    /// Returns the path of the key of each check of a virtual address.
    pub(super) fn virtual_address_checks(&self) -> impl Iterator<Item = Vec<KeyPathSegment>> {
        self.check_keys().flat_map(|(path, OneOrMany(checks))| {
            let checks = checks.iter().enumerate();
            let of_virtual_address = checks.filter(|(_, check)| check.is_of_virtual_address());
            of_virtual_address.map(move |(n, _)| {
                let key = [
                    KeyPathSegment::Key("health"),
                    KeyPathSegment::Index(n),
                    KeyPathSegment::Key("virtual_address"),
                ];
                path.iter().copied().chain(key).collect()
            })
        })
    }

    fn validate_virtual_address(&self) -> Result<(), String> {
        let engines = self.engines();
        if engines.iter().all(|engine| *engine == EngineKind::Proxy) {
            return Err(
                "requires `engine = \"ipvs\"` or `\"packet\"`: the engine `proxy` connects to the \
                        servers' own addresses"
                    .to_owned(),
            );
        }
        if self.listen.0.is_empty() || self.virtual_addresses().count() < self.listen.0.len() {
            return Err("each `listen` must be an address, which the check connects to".to_owned());
        }
        for server in self.servers_checked_at_virtual_address() {
            let mut addresses = self.virtual_addresses();
            // The check's packets are of the family of the virtual address, and leave from the address that
            // leads to the server.
            if let Some(other) = addresses.find(|address| address.is_ipv4() != server.is_ipv4()) {
                return Err(format!(
                    "server {server} is of another address family than the virtual address {other}"
                ));
            }
        }
        Ok(())
    }

    /// Returns a warning if servers are reached at the virtual addresses, and checked elsewhere alone.
    pub(super) fn own_address_warning(&self) -> Option<String> {
        let has_addresses = self.virtual_addresses().count() == self.listen.0.len();
        let engines = self.engines();
        let can_check = engines.iter().any(|engine| *engine != EngineKind::Proxy);
        if !can_check || !has_addresses {
            return None;
        }
        let unchecked = self.servers_with_virtual_address().filter(|(_, is_checked)| !is_checked);
        let unchecked: Vec<_> = unchecked.map(|(server, _)| server).collect();
        let (first, others) = unchecked.split_first()?;
        let (name, server) = (&self.name, first.address);
        let others = match others.len() {
            0 => String::new(),
            others => format!(", and of {others} more,"),
        };
        Some(format!(
            "service {name}: the checks of server {server}{others} do not see whether it has the virtual \
             address: `virtual_address = true` in `health` connects there"
        ))
    }
}
