//! The packet engine between network namespaces, on the machine's own kernel.
#![cfg(all(feature = "packet", target_os = "linux", not(lvs_loom)))]

mod carried;
mod flows;
mod outlive;
mod world;
