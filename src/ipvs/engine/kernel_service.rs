//! Reads a service of the kernel's with its destinations, and changes it.

use crate::ipvs::client::IpvsClient;
use crate::ipvs::destination::IpvsDestinationStatus;
use crate::ipvs::error::IpvsError;
use crate::ipvs::request::IpvsRequest;
use crate::ipvs::service::{IpvsServiceKey, IpvsServiceStatus};

/// Reads a service with its destinations; `None` if there is none.
pub(super) fn read_service(
    client: &mut IpvsClient,
    key: &IpvsServiceKey,
) -> Result<Option<(IpvsServiceStatus, Vec<IpvsDestinationStatus>)>, IpvsError> {
    match client.service(key) {
        Ok(status) => Ok(Some((status, client.destinations(key)?))),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Applies changes, and returns what failed.
pub(super) fn apply_all(client: &mut IpvsClient, changes: &[IpvsRequest]) -> String {
    let failures = changes.iter().filter_map(|change| client.apply(change).err());
    failures.map(|error| error.to_string()).collect::<Vec<_>>().join("; ")
}
