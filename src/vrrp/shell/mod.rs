//! Runs virtual routers on Linux: the sockets, the thread, and the addresses around the election.

mod address;
#[cfg(target_os = "linux")]
mod address_set;
#[cfg(target_os = "linux")]
mod announcer;
#[cfg(target_os = "linux")]
mod connection_reset;
mod error;
mod events;
mod handle;
#[cfg(target_os = "linux")]
mod instance;
mod mac_address;
#[cfg(target_os = "linux")]
mod netlink;
mod notify;
#[cfg(all(feature = "director", target_os = "linux"))]
mod route_lookup;
#[cfg(target_os = "linux")]
mod socket;
mod status;
#[cfg(target_os = "linux")]
mod thread;
mod virtual_router_config;

pub use self::address::{VirtualAddress, VirtualAddressError, VirtualRoute};
pub use self::error::VrrpStartError;
pub use self::events::{VrrpEvent, VrrpEventKind, VrrpEvents};
pub use self::handle::Vrrp;
pub use self::mac_address::MacAddress;
pub use self::notify::{NotifyCommand, NotifyCommands};
#[cfg(all(feature = "director", target_os = "linux"))]
pub(crate) use self::route_lookup::RouteLookup;
pub use self::status::{AdvertCounters, LastAdvertStatus, VirtualRouterStatus, VrrpStatus};
pub use self::virtual_router_config::VirtualRouterConfig;
