//! The options of a UDP forwarder, without what it serves.

use std::time::Duration;

use super::flow_table::MAX_FLOWS;
use crate::forward::limits::ClientPrefixes;
use crate::setting::{SettingError, check_range};

/// Whether several datagrams of one size are received and sent as one message (GRO and GSO).
///
/// The kernel's network stack processes a coalesced message of up to 64 datagrams once: a tenth of
/// the CPU time where senders use `UDP_SEGMENT` or the network card coalesces datagrams.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Coalesce {
    /// Datagrams received together are sent as one message; a socket that receives four datagrams
    /// of one size in a row enables coalesced receiving.
    #[default]
    Auto,
    /// All sockets enable coalesced receiving from the start. For known bulk traffic; costs one
    /// more system call for each flow.
    Always,
    /// Each datagram is received and sent separately: for kernels before 5.0, and for comparison.
    Never,
}

/// The options of a UDP forwarder, without what it serves: a configuration is checked by them before a
/// socket is bound.
#[derive(Clone, Debug)]
pub(crate) struct UdpOptions {
    /// `None` is the default, which depends on `one_packet`.
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) total_timeout: Option<Duration>,
    pub(crate) max_flows: usize,
    pub(crate) max_flows_per_client: Option<u32>,
    pub(crate) client_prefixes: ClientPrefixes,
    pub(crate) attempts: u32,
    pub(crate) replies: Option<u32>,
    pub(crate) one_packet: bool,
    pub(crate) coalesce: Coalesce,
}

/// Safe for a service with a limit of 20 480 descriptors.
const DEFAULT_MAX_FLOWS: usize = 10_000;
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a one-packet flow waits for replies at most: as long as a DNS client does.
const ONE_PACKET_REPLY_TIMEOUT: Duration = Duration::from_secs(5);

impl UdpOptions {
    /// Checks the values; their names are those of the forwarder's setters.
    pub(crate) fn validate(&self) -> Result<(), SettingError> {
        if let Some(timeout) = self.idle_timeout
            && self.one_packet
            && timeout > ONE_PACKET_REPLY_TIMEOUT
        {
            let allowed = format!("at most {ONE_PACKET_REPLY_TIMEOUT:?} with `one_packet`");
            return Err(SettingError::new("idle_timeout", timeout, allowed));
        }
        check_range("max_flows", self.max_flows, 1..=MAX_FLOWS)?;
        if let Some(flows) = self.max_flows_per_client {
            check_range("max_flows_per_client", flows, 1..)?;
        }
        self.client_prefixes.validate()?;
        check_range("attempts", self.attempts, 1..)?;
        if let Some(replies) = self.replies {
            check_range("replies", replies, 1..)?;
        }
        Ok(())
    }

    /// Returns the idle timeout, or the default.
    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout.unwrap_or(match self.one_packet {
            true => ONE_PACKET_REPLY_TIMEOUT,
            false => DEFAULT_IDLE_TIMEOUT,
        })
    }
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            idle_timeout: None,
            total_timeout: None,
            max_flows: DEFAULT_MAX_FLOWS,
            max_flows_per_client: None,
            client_prefixes: ClientPrefixes::default(),
            attempts: 3,
            replies: None,
            one_packet: false,
            coalesce: Coalesce::Auto,
        }
    }
}
