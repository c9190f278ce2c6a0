//! The kernel's IPVS as an engine of a director.
//!
//! [`IpvsEngine`] starts a thread (`worker`), which alone asks the kernel. Owners of services (`handle`) send
//! it commands, and read what it counts; they read the list of connections themselves (`connection_list`),
//! because that may take long.

mod check_services;
mod command;
mod connection_list;
mod counters;
mod found_entries;
mod handle;
mod kernel_service;
mod owned_service;
mod settings;
mod start;
mod worker;

pub use self::settings::{IPVS_CHECK_MARK_COUNT, IpvsSettings};
pub use self::start::IpvsEngine;
