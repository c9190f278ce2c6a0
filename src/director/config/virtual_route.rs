//! The `[[vrrp.routes]]` tables.

use std::net::IpAddr;

use serde::Deserialize;

use super::table::config_table;
use super::value::{FromText, apply_if_some};
use crate::vrrp::{VirtualAddress, VirtualRoute};

config_table! {
/// A builder of a [`VirtualRouteConfig`].
builder VirtualRouteConfigBuilder;

/// A route that the master adds.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct VirtualRouteConfig {
    /// The destination, such as `"10.99.0.0/16"`.
    pub(super) to: FromText<VirtualAddress>,
    /// The gateway. Default: none, the destination is on the link.
    via: Option<IpAddr>,
    /// The preferred source address. Default: none.
    source: Option<IpAddr>,
    /// The metric. Default: the kernel's.
    metric: Option<u32>,
}
}

impl VirtualRouteConfig {
    /// Returns a builder of a route to this destination.
    pub fn builder(to: VirtualAddress) -> VirtualRouteConfigBuilder {
        let (via, source, metric) = (None, None, None);
        VirtualRouteConfigBuilder { table: Self { to: FromText(to), via, source, metric } }
    }

    pub(super) fn to_virtual_route(&self) -> VirtualRoute {
        let route = apply_if_some(VirtualRoute::new(self.to.0), self.via, VirtualRoute::via);
        let route = apply_if_some(route, self.source, VirtualRoute::source);
        apply_if_some(route, self.metric, VirtualRoute::metric)
    }
}
