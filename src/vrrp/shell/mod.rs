//! What runs the election: sockets, a thread, the addresses.

mod address;
#[cfg(target_os = "linux")]
mod announce;
mod error;
mod events;
mod handle;
#[cfg(target_os = "linux")]
mod instance;
#[cfg(target_os = "linux")]
mod netlink;
mod notify;
#[cfg(target_os = "linux")]
mod place;
#[cfg(target_os = "linux")]
mod socket;
#[cfg(target_os = "linux")]
mod thread;
mod view;
mod virtual_router;

pub use self::address::{AddressError, VirtualAddress, VirtualRoute};
pub use self::error::StartError;
pub use self::events::{Ended, Event, Events, What};
pub use self::handle::Vrrp;
pub use self::notify::Notify;
pub use self::view::{Adverts, HeardView, RouterView, View};
pub use self::virtual_router::VirtualRouter;
