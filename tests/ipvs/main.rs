//! The client of the kernel's IPVS, in kernels that have it: user-mode Linux, and a kernel of Debian's in
//! QEMU. Those kernels run the tests of `inside` and `program`, which are ignored elsewhere.
#![cfg(all(feature = "ipvs", target_os = "linux", not(lvs_loom)))]

#[cfg(feature = "director")]
mod cost;
#[path = "../common/guest/mod.rs"]
#[cfg_attr(not(feature = "director"), expect(dead_code, reason = "network cards are for figures"))]
mod guest;
mod inside;
mod plan;
#[cfg(feature = "cli")]
mod program;
mod random_tables;
mod without_module;

use guest::{Guest, GuestKernel};

const MODULES: [&str; 29] = [
    "ip_vs",
    "ip_vs_dh",
    "ip_vs_fo",
    "ip_vs_lblc",
    "ip_vs_lblcr",
    "ip_vs_lc",
    "ip_vs_mh",
    "ip_vs_nq",
    "ip_vs_ovf",
    "ip_vs_pe_sip",
    "ip_vs_rr",
    "ip_vs_sed",
    "ip_vs_sh",
    "ip_vs_twos",
    "ip_vs_wlc",
    "ip_vs_wrr",
    "dummy",
    "nlmon",
    "veth",
    "bridge",
    "ipip",
    "ip6_tunnel",
    "sit",
    "fou",
    "fou6",
    "ip_gre",
    "sch_ingress",
    "cls_flower",
    "act_skbedit",
];

fn guest(filter: &'static str) -> Guest {
    Guest::new(filter).modules(&MODULES).programs(&["ip", "tc"]).packages(&["ipvsadm"])
}

/// With the program `lvs`, where it is built.
fn guest_with_program(filter: &'static str) -> Guest {
    let program = option_env!("CARGO_BIN_EXE_lvs");
    guest(filter).programs(program.as_slice())
}

#[test]
fn in_user_mode_linux() {
    guest_with_program("inside::").without(&["inside::lost"]).run(GuestKernel::UserMode);
}

#[test]
fn requests_lost_in_user_mode_linux() {
    guest("inside::lost").run(GuestKernel::UserMode);
}

#[test]
fn in_a_kernel_of_debian() {
    // Those that take long with an emulated processor, and are about the director more than the kernel.
    let slow = &[
        "inside::imported",
        "inside::lost",
        "inside::pair",
        "inside::pitfalls",
        "inside::restart",
        "inside::virtual_address",
    ];
    guest("inside::").without(slow).run(GuestKernel::Qemu);
}

#[test]
#[cfg(feature = "cli")]
fn the_program_in_user_mode_linux() {
    let guest = guest_with_program("program::").without(&["program::keepalived"]);
    guest.run(GuestKernel::UserMode);
}

#[test]
#[cfg(feature = "cli")]
fn keepalived_in_user_mode_linux() {
    guest_with_program("program::keepalived").programs(&["keepalived"]).run(GuestKernel::UserMode);
}

#[test]
fn in_a_kernel_without_the_module() {
    Guest::new("without_module::").programs(&["ip"]).run(GuestKernel::UserMode);
}
