//! The `[ipvs]` table.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

use super::error::{ConfigProblem, ConfigProblems, KeyPathSegment};
use super::listen::ListenAddress;
use super::table::config_table;
use super::value::HumanDuration;
use crate::ipvs::{IPVS_CHECK_MARK_COUNT, IpvsDaemon, IpvsDaemonState, IpvsSettings, IpvsTimeouts};

config_table! {
/// A builder of an [`IpvsConfig`].
builder IpvsConfigBuilder;

/// How this director uses the kernel's IPVS, for services with `engine = "ipvs"`.
///
/// Timeouts and `expire_quiescent_template`, `sloppy_tcp` and `conn_reuse_mode` are settings of the network
/// namespace, which other programs share and may set: without a key, what is set stays. The director
/// itself sets `expire_nodest_conn`: connections of a server that is removed end at the client's next packet.
/// A reload applies the table; it does not take back what a key set that is gone.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct IpvsConfig {
    /// How long a TCP connection without packets is remembered, in whole seconds from 1 s to 24 days.
    /// Default: as the kernel has it, at first `"15m"`.
    tcp_timeout: Option<HumanDuration>,
    /// How long a TCP connection is remembered that one side has closed, in whole seconds. Default: as
    /// the kernel has it, at first `"2m"`.
    tcp_fin_timeout: Option<HumanDuration>,
    /// How long a UDP flow without datagrams is remembered, in whole seconds. Default: as the kernel has
    /// it, at first `"5m"`.
    udp_timeout: Option<HumanDuration>,
    /// Whether persistent clients leave a server of weight 0, such as one that drains; otherwise they
    /// return to it. Default: as the kernel has it, at first `false`.
    expire_quiescent_template: Option<bool>,
    /// Whether a connection may begin with a packet other than a SYN: a client that the other director
    /// served goes on with `mh` or `sh`, without synchronization. Default: as the kernel has it, at first
    /// `false`.
    sloppy_tcp: Option<bool>,
    /// Whether a client's new connection from a port that it used before is scheduled anew, or goes to the
    /// server of the old one: 0 for never, 1 for when both sides have ended the old one, which the director
    /// sees with `nat` only, 3 for when the client has. If that server has weight 0 or is removed, it always
    /// is. 3 is for `dr` and `tunnel` with few clients of many connections, such as proxies, from which a
    /// server that is added otherwise gets little. Default: as the kernel has it, at first `1`.
    conn_reuse_mode: Option<u8>,
    /// Changes back what another program changes of this director's services. It is logged either way.
    /// Default: `true`.
    #[serde(default = "default_true")]
    repair: bool,
    /// Leaves the services in the kernel when the director stops, with their connections, for the next one
    /// to go on with. A service that the next one does not have must be removed by hand. Default: `false`.
    #[serde(default)]
    pub(crate) keep_at_stop: bool,
    /// The first of 16384 firewall marks that this director uses for checks with `virtual_address`, one for each
    /// server and method: it has a service of the kernel's by each mark that is in use, and removes other
    /// services by these marks. A packet filter must not use them, nor another director of the same network
    /// namespace. From 1 to 4294950912. Default: `1819672576` (0x6c760000).
    check_marks: Option<u32>,
    /// Tells the other director of connections, by the kernel's synchronization daemon; requires `[vrrp]`.
    /// Default: none.
    sync: Option<IpvsSyncConfig>,
}
}

config_table! {
/// A builder of an [`IpvsSyncConfig`].
builder IpvsSyncConfigBuilder;

/// The kernel's synchronization daemon: it sends connections while this director is active, and receives
/// those of the other one while it is standby, without encryption.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct IpvsSyncConfig {
    /// The network interface of the multicasts, which is up and has an address.
    interface: String,
    /// The number of the pair, from 0 to 255: both directors have the same, and other pairs of the network
    /// others. Default: `0`.
    #[serde(default)]
    id: u8,
}
}

const fn default_true() -> bool {
    true
}

/// The kernel's limit: its clock ticks must fit into 31 bits.
const MAX_TIMEOUT_SECS: u64 = 24 * 86_400;

/// The last first mark of a range.
const MAX_CHECK_MARKS: u32 = u32::MAX - IPVS_CHECK_MARK_COUNT + 1;

impl Default for IpvsConfig {
    fn default() -> Self {
        Self {
            tcp_timeout: None,
            tcp_fin_timeout: None,
            udp_timeout: None,
            expire_quiescent_template: None,
            sloppy_tcp: None,
            conn_reuse_mode: None,
            repair: default_true(),
            keep_at_stop: false,
            check_marks: None,
            sync: None,
        }
    }
}

impl IpvsConfig {
    /// Returns a builder of the defaults.
    pub fn builder() -> IpvsConfigBuilder {
        IpvsConfigBuilder { table: Self::default() }
    }

    fn timeouts(&self) -> [(&'static str, Option<Duration>); 3] {
        let timeout = |key: &Option<HumanDuration>| key.map(|HumanDuration(timeout)| timeout);
        [
            ("tcp_timeout", timeout(&self.tcp_timeout)),
            ("tcp_fin_timeout", timeout(&self.tcp_fin_timeout)),
            ("udp_timeout", timeout(&self.udp_timeout)),
        ]
    }

    pub(super) fn validate(&self, has_vrrp: bool) -> ConfigProblems {
        let mut problems = ConfigProblems::default();
        for (key, timeout) in self.timeouts() {
            let is_allowed = timeout.is_none_or(|timeout| {
                timeout.subsec_nanos() == 0 && (1..=MAX_TIMEOUT_SECS).contains(&timeout.as_secs())
            });
            if !is_allowed {
                let reason = "the kernel takes whole seconds from 1 s to 24 days";
                problems.record(Err(ConfigProblem::at_key(key, reason)));
            }
        }
        if self.conn_reuse_mode.is_some_and(|mode| ![0, 1, 3].contains(&mode)) {
            let reason = "0, 1 or 3 is expected";
            problems.record(Err(ConfigProblem::at_key("conn_reuse_mode", reason)));
        }
        if self.first_check_mark().is_none() {
            let reason = format!("a number from 1 to {MAX_CHECK_MARKS} is expected");
            problems.record(Err(ConfigProblem::at_key("check_marks", reason)));
        }
        if let Some(sync) = &self.sync {
            if !has_vrrp {
                let reason = "`sync` requires [vrrp], which decides which director is active";
                problems.record(Err(ConfigProblem::at_key("sync", reason)));
            }
            // The kernel's IFNAMSIZ, with the zero at the end.
            if !(1..16).contains(&sync.interface.len()) {
                let reason = "the name of a network interface has 1 to 15 bytes";
                let path = [KeyPathSegment::Key("sync"), KeyPathSegment::Key("interface")];
                problems.record(Err(ConfigProblem::new(path, reason)));
            }
        }
        problems
    }

    /// Returns the first mark of the range for checks; `None` if the range is not one of marks.
    fn first_check_mark(&self) -> Option<NonZeroU32> {
        match self.check_marks {
            Some(first) => NonZeroU32::new(first).filter(|first| first.get() <= MAX_CHECK_MARKS),
            None => Some(IpvsSettings::default().check_marks),
        }
    }

    /// Refuses a service by a firewall mark that the checks have.
    pub(super) fn validate_mark(&self, listen: &ListenAddress) -> Result<(), ConfigProblem> {
        let (ListenAddress::Mark(of_service), Some(first)) = (listen, self.first_check_mark())
        else {
            return Ok(());
        };
        let checks = self.settings().check_mark_range();
        if !checks.contains(&of_service.mark.get()) {
            return Ok(());
        }
        let (mark, last) = (of_service.mark, checks.end());
        Err(ConfigProblem::at_key(
            "listen",
            format!(
                "the firewall marks {first} to {last}, of which {mark} is one, are for checks: \
                     `check_marks` in [ipvs] moves them"
            ),
        ))
    }

    /// Returns the settings of the engine.
    pub(crate) fn settings(&self) -> IpvsSettings {
        let seconds = self.timeouts().map(|(_, timeout)| {
            let seconds = timeout.map_or(0, |timeout| timeout.as_secs());
            u32::try_from(seconds).unwrap_or(u32::MAX)
        });
        let default = IpvsSettings::default();
        IpvsSettings {
            timeouts: IpvsTimeouts::new(seconds[0], seconds[1], seconds[2]),
            expire_quiescent_template: self.expire_quiescent_template,
            sloppy_tcp: self.sloppy_tcp,
            conn_reuse_mode: self.conn_reuse_mode,
            repair: self.repair,
            check_marks: self.first_check_mark().unwrap_or(default.check_marks),
        }
    }

    /// Returns the synchronization daemon of a director in this role.
    pub(crate) fn daemon(&self, is_active: bool) -> Option<IpvsDaemon> {
        let state = if is_active { IpvsDaemonState::Master } else { IpvsDaemonState::Backup };
        let sync = self.sync.as_ref()?;
        Some(IpvsDaemon::new(state, sync.interface.clone(), u32::from(sync.id)))
    }
}

impl IpvsSyncConfig {
    /// Returns a builder of the synchronization on a network interface, for the pair 0.
    pub fn builder(interface: impl Into<String>) -> IpvsSyncConfigBuilder {
        IpvsSyncConfigBuilder { table: Self { interface: interface.into(), id: 0 } }
    }
}
