//! What the program counts.

use super::error::PacketError;
use super::maps::PacketMaps;

/// Declares the counters in the order of the program's.
macro_rules! statistics {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What the program of a [`PacketEngine`](super::PacketEngine) has counted since it was loaded first.
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        #[non_exhaustive]
        pub struct PacketStatistics {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl PacketStatistics {
            /// The names of the counters, in the order of [`values`](Self::values).
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// Returns the counters.
            #[must_use]
            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name),*]
            }

            /// Returns the number of a counter in the program.
            fn number(name: &str) -> u32 {
                (0..).zip(Self::NAMES).find(|(_, known)| **known == name).map_or(u32::MAX, |it| it.0)
            }

            pub(super) fn read(maps: &PacketMaps) -> Result<Self, PacketError> {
                let mut number = 0..;
                let mut next = || maps.count(number.next().unwrap_or_default());
                Ok(Self { $($name: next()?),* })
            }
        }
    };
}

statistics! {
    /// New flows that the scheduler was asked for.
    upcalls,
    /// New flows that the scheduler's own table has decided: those of keyed schedulers.
    keyed_decisions,
    /// New flows that a table has decided in place of the scheduler.
    table_decisions,
    /// New flows that were refused because the scheduler could not be asked and a server has a limit.
    refused_at_limit,
    /// New flows that were refused because no server could have them.
    refused_without_server,
    /// Flows that could not be made because the table was full.
    table_full,
    /// Events that were lost because the thread did not read them in time.
    events_lost,
    /// Fragments for a virtual address whose ports are not known, which are left to the stack of this machine.
    fragments,
    /// Packets for a virtual address with options of IP, which are left to the stack of this machine.
    with_options,
    /// Packets for a virtual address with a header that is not valid.
    malformed,
    /// Packets for a service of a connection that is not known.
    without_flow,
    /// Packets that were dropped because they had passed too many routers; most are answered by an ICMP error (see
    /// [the module](super)).
    hop_limit,
    /// Packets that were dropped because they were too long for the device to the other side, with the headers of a
    /// tunnel; most are answered by an ICMP error. Many are clients that no such error reaches.
    too_long,
    /// Packets that were dropped because they could not be rewritten.
    rewrite_failed,
    /// ICMP errors that reached the other side of a flow.
    icmp_errors,
    /// Flows that were forgotten for newer ones because their clients were not known to be there (see
    /// [the module](super)). Many in a second are a flood, or many UDP
    /// flows of one question each.
    unassured_forgotten,
    /// Packets of no flow that were dropped because another machine has the virtual address, or had it a second ago
    /// and may tell of the flow.
    elsewhere,
    /// Packets that were carried at XDP ([`PacketSettings::xdp_devices`](super::PacketSettings::xdp_devices)).
    at_xdp,
    /// Flows that the table has forgotten because it was full, as far as the process has noticed. The next
    /// packet of a UDP flow begins a new one; those of a connection are counted in
    /// [`without_flow`](Self::without_flow).
    flows_forgotten,
}

impl PacketStatistics {
    /// Counts flows that the table has forgotten. The program does not: nothing tells it.
    pub(super) fn count_forgotten(maps: &mut PacketMaps, flows: u64) -> Result<(), PacketError> {
        maps.add_to_count(Self::number("flows_forgotten"), flows)
    }
}
