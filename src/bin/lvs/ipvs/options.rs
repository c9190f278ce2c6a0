//! The commands and options of ipvsadm, and which of them go together.

use std::mem::discriminant;

use lvs::ipvs::{IpvsForwarding, IpvsProtocol, IpvsTunnelChecksum};

/// What a command line of ipvsadm asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum IpvsAction {
    AddService,
    EditService,
    RemoveService,
    Flush,
    Restore,
    Save,
    AddServer,
    EditServer,
    RemoveServer,
    List,
    Zero,
    SetTimeouts,
    StartDaemon,
    StopDaemon,
    Help,
    Version,
}

/// An option. Those of one variant exclude each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum IpvsOption {
    Action(IpvsAction),
    /// The service: a protocol with an address, or a mark of the firewall.
    Service(Option<IpvsProtocol>),
    Ipv6,
    Scheduler,
    SchedulerFlags,
    Persistent,
    Netmask,
    Engine,
    OnePacket,
    Server,
    Forwarding(IpvsForwarding),
    TunnelKind,
    TunnelPort,
    Checksum(IpvsTunnelChecksum),
    Weight,
    UpperThreshold,
    LowerThreshold,
    Numeric,
    Connections,
    Timeouts,
    Daemons,
    Stats,
    Rate,
    Exact,
    Thresholds,
    PersistentConnections,
    TunnelInfo,
    Sort,
    NoSort,
    SyncId,
    MaxMessageLength,
    Interface,
    Group,
    Port,
    TimeToLive,
}

impl IpvsOption {
    /// Tells whether two options set the same thing.
    pub(super) fn is_kind_of(&self, other: &Self) -> bool {
        discriminant(self) == discriminant(other)
    }
}

/// Which options an action takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct AllowedOptions {
    pub(super) required: &'static [IpvsOption],
    pub(super) optional: &'static [IpvsOption],
    /// Of these one may be given.
    pub(super) exclusive: &'static [IpvsOption],
}

const SERVICE: IpvsOption = IpvsOption::Service(None);
const FORWARDING: IpvsOption = IpvsOption::Forwarding(IpvsForwarding::Nat);
const CHECKSUM: IpvsOption = IpvsOption::Checksum(IpvsTunnelChecksum::None);

impl IpvsAction {
    /// Returns the options that the action takes, besides `--sort`, which changes nothing.
    pub(super) const fn options(self) -> AllowedOptions {
        use IpvsOption as O;
        let (required, optional, exclusive): (&[O], &[O], &[O]) = match self {
            Self::AddService | Self::EditService => (
                &[SERVICE],
                &[
                    O::Ipv6,
                    O::Scheduler,
                    O::SchedulerFlags,
                    O::Persistent,
                    O::Netmask,
                    O::Engine,
                    O::OnePacket,
                ],
                &[],
            ),
            Self::RemoveService => (&[SERVICE], &[O::Ipv6], &[]),
            Self::AddServer | Self::EditServer => (
                &[SERVICE, O::Server],
                &[
                    O::Ipv6,
                    FORWARDING,
                    O::TunnelKind,
                    O::TunnelPort,
                    CHECKSUM,
                    O::Weight,
                    O::UpperThreshold,
                    O::LowerThreshold,
                ],
                &[],
            ),
            Self::RemoveServer => (&[SERVICE, O::Server], &[O::Ipv6], &[]),
            Self::List => (
                &[],
                &[
                    O::Ipv6,
                    O::Numeric,
                    O::Stats,
                    O::Rate,
                    O::Exact,
                    O::Thresholds,
                    O::PersistentConnections,
                    O::TunnelInfo,
                    O::NoSort,
                    // Without an effect.
                    O::SyncId,
                ],
                &[SERVICE, O::Connections, O::Timeouts, O::Daemons],
            ),
            Self::Zero => (&[], &[O::Ipv6, SERVICE], &[]),
            Self::Save => (&[], &[O::Numeric], &[]),
            Self::StartDaemon => (
                &[],
                &[O::SyncId, O::MaxMessageLength, O::Interface, O::Group, O::Port, O::TimeToLive],
                &[],
            ),
            Self::StopDaemon => (&[], &[O::SyncId], &[]),
            Self::Flush | Self::Restore | Self::SetTimeouts | Self::Help | Self::Version => {
                (&[], &[], &[])
            }
        };
        AllowedOptions { required, optional, exclusive }
    }
}
