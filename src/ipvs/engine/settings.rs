//! What the engine sets for the whole network namespace.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use crate::ipvs::client::IpvsClient;
use crate::ipvs::daemon::{IpvsDaemon, IpvsDaemonState, IpvsTimeouts};
use crate::ipvs::error::IpvsError;

/// The number of firewall marks that an engine has for health checks, from
/// [`IpvsSettings::check_marks`] on: one for each server address and
/// method.
pub const IPVS_CHECK_MARK_COUNT: u32 = 1 << 14;

/// Settings of the kernel's IPVS in the engine's network namespace, and of the engine.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct IpvsSettings {
    /// The timeouts; one of 0 stays as it is.
    pub timeouts: IpvsTimeouts,
    /// Whether persistent clients leave a server of weight 0; `None` leaves what is set.
    pub expire_quiescent_template: Option<bool>,
    /// Whether a connection may begin with a packet other than a SYN; `None` leaves what is set.
    pub sloppy_tcp: Option<bool>,
    /// What a new connection from a port in use does; `None` leaves what is set.
    pub conn_reuse_mode: Option<u8>,
    /// Whether what other programs change of the engine's services is changed back.
    pub repair: bool,
    /// The first of [`IPVS_CHECK_MARK_COUNT`] firewall marks, which the
    /// engine has for [checks](crate::engine::CheckMarks): services by these marks that are not its own are
    /// removed.
    pub check_marks: NonZeroU32,
}

/// The letters "lv" in the upper half, and bits in the lower half that packet filters seldom use for marks of
/// their own.
const DEFAULT_CHECK_MARKS: NonZeroU32 = NonZeroU32::new(0x6c76_0000).unwrap();

impl Default for IpvsSettings {
    /// Returns settings that leave the kernel as it is, and repair.
    fn default() -> Self {
        Self {
            timeouts: IpvsTimeouts::default(),
            expire_quiescent_template: None,
            sloppy_tcp: None,
            conn_reuse_mode: None,
            repair: true,
            check_marks: DEFAULT_CHECK_MARKS,
        }
    }
}

impl IpvsSettings {
    /// Returns the firewall marks that the engine has for health checks.
    #[must_use]
    pub fn check_mark_range(&self) -> RangeInclusive<u32> {
        let first = self.check_marks.get();
        first..=first.saturating_add(IPVS_CHECK_MARK_COUNT - 1)
    }

    /// Sets what is not to stay, and logs what cannot be set.
    pub(super) fn apply(&self, client: &mut IpvsClient) {
        if self.timeouts != IpvsTimeouts::default()
            && let Err(error) = client.set_timeouts(self.timeouts)
        {
            tracing::error!("engine ipvs: {error}");
        }
        // By default the kernel drops the packets of a destination that was removed without a word:
        // clients wait for their own timeouts, and UDP clients go to a server that is gone for as long as
        // they send. A new connection from a port that was used before goes to a destination of weight 0.
        write_setting("expire_nodest_conn", Some(1));
        let flag = |is_set: Option<bool>| is_set.map(u8::from);
        write_setting("expire_quiescent_template", flag(self.expire_quiescent_template));
        write_setting("sloppy_tcp", flag(self.sloppy_tcp));
        write_setting("conn_reuse_mode", self.conn_reuse_mode);
    }
}

fn write_setting(name: &str, value: Option<u8>) {
    let Some(value) = value else { return };
    let path = format!("/proc/sys/net/ipv4/vs/{name}");
    if let Err(error) = std::fs::write(&path, value.to_string()) {
        tracing::error!("engine ipvs: cannot write {value} to {path}: {error}");
    }
}

/// Runs the daemon that is wanted, and stops those that run otherwise.
///
/// # Errors
/// The kernel's reason.
pub(super) fn run_daemon(
    client: &mut IpvsClient,
    wanted: Option<&IpvsDaemon>,
) -> Result<(), IpvsError> {
    let is_wanted = |daemon: &IpvsDaemon| {
        wanted.is_some_and(|wanted| {
            (wanted.state, &wanted.interface, wanted.sync_id)
                == (daemon.state, &daemon.interface, daemon.sync_id)
        })
    };
    let running = client.daemons()?;
    let known = |daemon: &&IpvsDaemon| !matches!(daemon.state, IpvsDaemonState::Other(_));
    for daemon in running.iter().filter(known).filter(|daemon| !is_wanted(daemon)) {
        client.stop_daemon(daemon.state)?;
    }
    match wanted {
        Some(wanted) if !running.iter().any(is_wanted) => client.start_daemon(wanted),
        _ => Ok(()),
    }
}
