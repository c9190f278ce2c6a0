//! The packet engine between network namespaces: on the machine's own kernel, and on kernels of Debian.
#![cfg(all(feature = "packet", target_os = "linux", not(lvs_loom)))]
#![expect(clippy::duplicate_mod, reason = "namespaces and kernels both say what is skipped")]

mod at_xdp;
mod bulk;
mod carried;
#[cfg(feature = "director")]
mod checks;
mod clock;
mod decapsulation;
mod direct;
#[cfg(feature = "director")]
mod director;
mod flood;
mod flood_figures;
mod flows;
mod full;
#[path = "../common/guest/mod.rs"]
#[expect(dead_code, reason = "other tests leave tests out, and count instructions")]
mod guest;
mod inside;
mod keyed;
mod mtu;
#[cfg(feature = "director")]
mod operator;
mod outlive;
#[cfg(feature = "director")]
mod pair;
mod process;
mod recorded;
mod selftest;
mod stopped;
mod surroundings;
#[cfg(feature = "director")]
mod sync_figures;
mod tunnels;
mod upgrade;
mod world;

use guest::{Guest, GuestKernel};

/// Those of filters are for kernels without tcx.
const MODULES: [&str; 5] = ["tun", "veth", "sch_ingress", "cls_bpf", "ipv6"];

fn guest() -> Guest {
    Guest::new("inside::").modules(&MODULES).programs(&["ip", "tc"])
}

/// Linux 6.1, which has no tcx, and runs programs without compiling them.
#[test]
fn in_user_mode_linux() {
    guest().run(GuestKernel::UserMode);
}

#[test]
fn in_a_kernel_of_debian() {
    guest().run(GuestKernel::Qemu);
}
