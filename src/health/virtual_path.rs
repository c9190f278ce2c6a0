//! Checks that take the clients' way: to the virtual address of a service, on the backend.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::check::{CheckContext, CheckFailure, CheckFailureKind};
use super::check_ports::CheckPorts;
use crate::backend::BackendId;

/// How a check reaches a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CheckPath {
    /// At the backend's own address.
    OwnAddress,
    /// At the virtual address, by packets with this firewall mark.
    VirtualAddress { mark: u32 },
    /// At the virtual address; the engine has no mark for the backend yet.
    Missing,
}

type FindCheckPath = dyn Fn(SocketAddr, &BackendId) -> CheckPath + Send + Sync;

/// Finds how a check reaches a backend at a virtual address.
#[derive(Clone)]
pub(crate) struct CheckPathFinder(Arc<FindCheckPath>);

impl fmt::Debug for CheckPathFinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckPathFinder")
    }
}

impl CheckPathFinder {
    /// Returns a finder that asks a function before each check.
    #[cfg(feature = "director")]
    pub(crate) fn new(
        find: impl Fn(SocketAddr, &BackendId) -> CheckPath + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(find))
    }

    pub(crate) fn find(&self, virtual_address: SocketAddr, backend: &BackendId) -> CheckPath {
        (self.0)(virtual_address, backend)
    }
}

/// The virtual addresses of a check, and the way to a backend at each.
#[derive(Clone, Debug)]
pub(super) struct VirtualPath {
    pub(super) addresses: Arc<[SocketAddr]>,
    pub(super) finder: CheckPathFinder,
}

impl PartialEq for VirtualPath {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.finder.0, &other.finder.0) && self.addresses == other.addresses
    }
}

impl Eq for VirtualPath {}

impl Hash for VirtualPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.finder.0).cast::<()>().hash(state);
        self.addresses.hash(state);
    }
}

/// The part of a check's timeout for which it waits for a mark: an engine follows the set a moment later than
/// the monitor does.
const MARK_WAIT_DIVISOR: u32 = 2;
const MARK_WAIT_INTERVAL: Duration = Duration::from_millis(5);

impl VirtualPath {
    /// Returns a path that no backend has.
    #[cfg(feature = "director")]
    pub(super) fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let finder = CheckPathFinder::new(|_, _| CheckPath::OwnAddress);
        let addresses = addresses.into_iter().collect();
        Self { addresses, finder }
    }

    /// Returns where to check a backend: in place of its own address, which the context has, each of the
    /// virtual addresses.
    ///
    /// # Errors
    /// [`CheckFailureKind::Local`] if the engine has no mark, or if this machine would send from the virtual
    /// address; another if it has no route to the backend.
    pub(super) async fn contexts(
        &self,
        own: CheckContext,
        timeout: Duration,
        ports: &CheckPorts,
    ) -> Result<Vec<CheckContext>, CheckFailure> {
        let deadline = Instant::now() + timeout / MARK_WAIT_DIVISOR;
        let mut contexts = Vec::new();
        for address in &*self.addresses {
            let mark = loop {
                match self.finder.find(*address, own.id()) {
                    CheckPath::VirtualAddress { mark } => break mark,
                    CheckPath::OwnAddress => return Ok(vec![own]),
                    CheckPath::Missing if Instant::now() < deadline => {
                        sleep(MARK_WAIT_INTERVAL).await;
                    }
                    CheckPath::Missing => {
                        let reason = "the engine has no firewall mark for the server".to_owned();
                        let failure = CheckFailure::new(CheckFailureKind::Local, reason);
                        return Err(failure.at_virtual_address(*address));
                    }
                }
            };
            let context = own.for_virtual_address(*address, mark, ports);
            contexts.push(match own.source() {
                Some(_) => context,
                None => context.with_source(source_for(*address, own.address().ip())?),
            });
        }
        Ok(contexts)
    }
}

/// Returns the local address from which packets go to a backend's own address. Left alone, the kernel would
/// send to a virtual address that this machine has from this very address.
fn source_for(address: SocketAddr, backend: IpAddr) -> Result<IpAddr, CheckFailure> {
    let source = local_address_toward(backend)
        .map_err(|error| CheckFailure::io("finding the route to the server", &error))?;
    if source == address.ip() {
        let reason = format!(
            "packets to {backend} leave from the virtual address, which the server has itself: set \
             `source` of the check, or give the address `preferred_lft 0`"
        );
        let failure = CheckFailure::new(CheckFailureKind::Local, reason);
        return Err(failure.at_virtual_address(address));
    }
    Ok(source)
}

/// Returns the source address of packets to an address. Sends nothing.
fn local_address_toward(remote: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((remote, 9))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(all(test, feature = "director", not(lvs_loom)))]
mod tests {
    use super::*;

    fn path(addresses: &[&str], find: fn(SocketAddr, &BackendId) -> CheckPath) -> VirtualPath {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address"));
        VirtualPath { addresses: addresses.collect(), finder: CheckPathFinder::new(find) }
    }

    fn own() -> CheckContext {
        CheckContext::new(BackendId::from("a"), "127.0.0.1:80".parse().expect("an address"))
    }

    async fn contexts(path: &VirtualPath, own: CheckContext) -> Result<Vec<String>, String> {
        let contexts = path.contexts(own, Duration::from_secs(1), &CheckPorts::default()).await;
        let text = |context: &CheckContext| {
            format!("{} from {:?} by {:?}", context.address(), context.source(), context.mark())
        };
        contexts.map(|all| all.iter().map(text).collect()).map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn each_virtual_address_is_checked_from_the_address_that_leads_to_the_backend() {
        let by_port = |address: SocketAddr, _: &BackendId| CheckPath::VirtualAddress {
            mark: u32::from(address.port()),
        };
        let both = path(&["192.0.2.1:7", "192.0.2.2:8"], by_port);
        assert_eq!(
            contexts(&both, own()).await.expect("marks"),
            [
                "192.0.2.1:7 from Some(127.0.0.1) by Some(7)",
                "192.0.2.2:8 from Some(127.0.0.1) by Some(8)"
            ]
        );
        let own_source = own().with_source("127.0.0.9".parse().expect("an address"));
        assert_eq!(
            contexts(&path(&["192.0.2.1:7"], by_port), own_source).await.expect("a mark"),
            ["192.0.2.1:7 from Some(127.0.0.9) by Some(7)"]
        );
        // The backend's own address leads to the virtual address of this machine.
        let error = contexts(&path(&["127.0.0.1:7"], by_port), own()).await;
        assert!(error.clone().is_err_and(|error| error.contains("set `source`")), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_waits_for_its_mark_and_says_that_there_is_none() {
        let missing = path(&["192.0.2.1:80"], |_, _| CheckPath::Missing);
        let begun = Instant::now();
        let error = contexts(&missing, own()).await.expect_err("there is no mark");
        assert_eq!(
            error,
            "virtual address 192.0.2.1:80: the engine has no firewall mark for the server"
        );
        assert!(begun.elapsed() >= Duration::from_millis(500), "half of the timeout");
        let nobody = path(&["192.0.2.1:80"], |_, _| CheckPath::OwnAddress);
        assert_eq!(
            contexts(&nobody, own()).await.expect("own"),
            ["127.0.0.1:80 from None by None"]
        );
    }
}
