//! The description of a workload.

use clap::ValueEnum;

use crate::subject::Subject;
use crate::traffic::Traffic;

/// The name of a workload.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum Id {
    /// Keep-alive, small requests, 50 connections.
    W1,
    /// One request a connection, 50 at a time.
    W2,
    /// Bulk from the server, 1 stream.
    W3a,
    /// Bulk from the server, 8 streams.
    W3b,
    /// Bulk to the server, 1 stream.
    W3c,
    /// Memory of idle connections.
    W4,
    /// UDP echo, 64 flows with 1 in flight.
    W5a,
    /// UDP echo, 4 flows with 32 in flight.
    W5b,
    /// UDP bulk, sent and received coalesced.
    W5c,
    /// How evenly two workers share new connections.
    B,
}

/// The description of a workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) id: Id,
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) traffic: Traffic,
    pub(crate) subjects: &'static [Subject],
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    /// The name of the figure: mostly processor time per unit.
    pub(crate) name: &'static str,
    /// The nanoseconds of a figure of 1.
    pub(super) nanos: f64,
    pub(crate) rate: &'static str,
    /// The factor from units per second to the rate.
    pub(super) rate_scale: f64,
}

pub(super) const TCP: &[Subject] = &[
    Subject::Direct,
    Subject::Lvs,
    Subject::LvsBefore,
    Subject::Haproxy,
    Subject::HaproxyAgain,
    Subject::HaproxySplice,
    Subject::Nginx,
];
pub(super) const UDP: &[Subject] =
    &[Subject::Direct, Subject::Lvs, Subject::LvsBefore, Subject::Nginx, Subject::NginxAgain];
