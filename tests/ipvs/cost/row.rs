//! A row of the table.

use lvs::ipvs::IpvsForwarding;

use super::Clocks;

/// How packets get from the client to the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path {
    /// Without a director, on the same wire.
    Direct,
    /// The director is a router.
    Routed,
    /// The director's kernel balances.
    Ipvs(IpvsForwarding),
    /// The program `lvs` balances by its proxy.
    Proxy,
    /// The program `lvs` has a program in the kernel balance, by this rule and this forwarding method.
    Packet { scheduler: &'static str, method: &'static str },
    /// The same, by the driver of the director's network card.
    PacketAtXdp { scheduler: &'static str, method: &'static str },
    /// HAProxy balances.
    Haproxy { is_splicing: bool },
}

/// Instructions for one piece of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// The median of the rounds.
    pub(super) median: u64,
    /// The difference between the largest and the smallest.
    pub(super) spread: u64,
    /// How many of thousand nanoseconds the processor was idle, at most.
    pub(super) idle_permille: u64,
}

impl Measured {
    pub(super) fn new(rounds: &[Clocks], pieces: usize) -> Self {
        let idle = |round: &Clocks| round.all.saturating_sub(round.busy) * 1000 / round.all;
        let idle_permille = rounds.iter().map(idle).max().unwrap_or_default();
        let mut each: Vec<_> = rounds.iter().map(|round| round.busy / pieces as u64).collect();
        each.sort_unstable();
        let spread = each[each.len() - 1] - each[0];
        Self { median: each[each.len() / 2], spread, idle_permille }
    }
}
