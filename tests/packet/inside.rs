//! What kernels of Debian are tested with.

use rustix::thread::CapabilitySet;

use crate::carried::{carry_tcp, carry_udp};
use crate::clock::step_clock;
use crate::direct::carry_directly;
use crate::guest;
use crate::outlive::hand_over;
use crate::surroundings::need_capabilities;
use crate::world::World;

fn with_world(test: impl FnOnce(&World)) {
    if guest::enter() {
        test(&World::build().expect("the kernel is the test's own"));
    }
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn tcp_is_carried() {
    with_world(carry_tcp);
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn udp_is_carried() {
    with_world(carry_udp);
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn packets_go_by_direct_routing() {
    with_world(carry_directly);
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn the_process_must_have_three_capabilities() {
    // Kernels since Linux 6.13 need two.
    let enough = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
    with_world(|world| need_capabilities(world, enough));
}

#[test]
#[cfg(feature = "director")]
#[ignore = "runs in a kernel of its own"]
fn checks_see_virtual_addresses() {
    with_world(|world| {
        crate::checks::check_virtual_addresses(world, &["method = \"dr\""]);
        let filters = world.output("director", "tc", "filter show dev lo egress");
        assert_eq!(filters, "");
    });
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn flows_are_handed_over() {
    with_world(|world| {
        hand_over(world);
        // Nor a filter, where programs are attached by filters.
        let filters = world.output("director", "tc", "filter show dev to-client ingress");
        assert_eq!(filters, "");
    });
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_step_of_the_clock_changes_nothing() {
    with_world(step_clock);
}
