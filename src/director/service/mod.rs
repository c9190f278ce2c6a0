//! A virtual service that runs: its servers, its health checks, and the frontends that serve it.
//!
//! [`VirtualService`] is the shared state. The other files change it: `servers` its real servers,
//! `watch` its health checks and discovery, `update` everything that a reload changes.

mod outline;
mod servers;
mod state;
mod update;
mod watch;

pub(super) use self::outline::{ServiceOutline, differences, fingerprint_pairs};
pub(super) use self::state::VirtualService;
pub(super) use self::update::{
    CommonServiceOptions, DrainMode, DrainPolicy, PreparedService, check_service,
};
