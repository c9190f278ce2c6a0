//! Services with their destinations, as values: what somebody wants, or what the kernel has.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::client::IpvsClient;
use super::destination::IpvsDestination;
use super::error::IpvsError;
use super::service::{IpvsService, IpvsServiceKey};

/// Services with their destinations, without what the kernel counts of them.
///
/// # Examples
/// ```
/// use lvs::ipvs::{IpvsDestination, IpvsForwarding, IpvsService, IpvsServiceKey, IpvsTable};
///
/// let key = IpvsServiceKey::tcp("10.0.0.1:80".parse()?);
/// let server = IpvsDestination::new("10.0.1.1:80".parse()?, IpvsForwarding::DirectRouting);
/// let mut table = IpvsTable::new();
/// table.insert(IpvsService::new(key, "wlc"), [server]);
/// assert_eq!(table.destinations(&key).count(), 1);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct IpvsTable {
    services: BTreeMap<IpvsServiceKey, ServiceRow>,
}

#[derive(Clone, Debug)]
struct ServiceRow {
    service: IpvsService,
    destinations: BTreeMap<SocketAddr, IpvsDestination>,
    /// The addresses in the order in which the destinations were given.
    order: Vec<SocketAddr>,
}

/// The kernel lists destinations in an order of its own.
impl PartialEq for ServiceRow {
    fn eq(&self, other: &Self) -> bool {
        (&self.service, &self.destinations) == (&other.service, &other.destinations)
    }
}

impl Eq for ServiceRow {}

impl IpvsTable {
    /// Returns a table without services.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Inserts a service with its destinations, in the order in which they are to be added, which some
    /// schedulers follow; a service with the same key is replaced. Of several destinations with one
    /// address the last counts.
    pub fn insert(
        &mut self,
        service: IpvsService,
        destinations: impl IntoIterator<Item = IpvsDestination>,
    ) {
        let mut row = ServiceRow { service, destinations: BTreeMap::new(), order: Vec::new() };
        for destination in destinations {
            let address = destination.address;
            if row.destinations.insert(address, destination).is_none() {
                row.order.push(address);
            }
        }
        self.services.insert(row.service.key, row);
    }

    /// Removes a service with its destinations. Returns whether there was one.
    pub fn remove(&mut self, key: &IpvsServiceKey) -> bool {
        self.services.remove(key).is_some()
    }

    /// Returns the service with this key.
    #[must_use]
    pub fn service(&self, key: &IpvsServiceKey) -> Option<&IpvsService> {
        self.services.get(key).map(|row| &row.service)
    }

    /// Returns the services in the order of their keys.
    pub fn services(&self) -> impl Iterator<Item = &IpvsService> {
        self.services.values().map(|row| &row.service)
    }

    /// Returns the destinations of a service in the order in which they were inserted; none, if there is no
    /// such service.
    pub fn destinations(&self, key: &IpvsServiceKey) -> impl Iterator<Item = &IpvsDestination> {
        let row = self.services.get(key).into_iter();
        row.flat_map(|row| row.order.iter().filter_map(|address| row.destinations.get(address)))
    }

    /// Returns a destination of a service.
    #[must_use]
    pub fn destination(
        &self,
        key: &IpvsServiceKey,
        address: SocketAddr,
    ) -> Option<&IpvsDestination> {
        self.services.get(key)?.destinations.get(&address)
    }
}

impl IpvsClient {
    /// Reads the services that `is_wanted` says, with their destinations: a request for the services,
    /// and one more for each of those.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub fn table(
        &mut self,
        is_wanted: impl Fn(&IpvsServiceKey) -> bool,
    ) -> Result<IpvsTable, IpvsError> {
        let mut table = IpvsTable::new();
        for status in self.services()? {
            if is_wanted(&status.service.key) {
                let destinations = self.destinations(&status.service.key)?;
                let destinations = destinations.into_iter().map(|status| status.destination);
                table.insert(status.service, destinations);
            }
        }
        Ok(table)
    }
}
