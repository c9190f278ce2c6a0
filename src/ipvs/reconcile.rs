//! Makes the kernel's services what somebody wants them to be, with the fewest changes, and touches no
//! services of others.
//!
//! IPVS has no transactions, so the order of the changes matters: at every point between two of them each
//! service that had servers and keeps some has servers, and a process that ends there leaves something
//! that the next one completes.

use std::collections::BTreeSet;

use super::client::IpvsClient;
use super::destination::IpvsDestination;
use super::error::IpvsError;
use super::request::IpvsRequest;
use super::service::IpvsServiceKey;
use super::table::IpvsTable;

/// How often the table is read again when others change it at the same time.
const MAX_ROUNDS: u32 = 4;

/// Returns the changes that make the kernel's table `actual` the table `desired`: one for each service or
/// destination that differs, in an order that is safe to stop in.
///
/// A service with a key that is neither in `desired` nor in `owned` is another program's, and left alone.
/// One that is in `owned` only is removed, so `owned` has what this program wanted before, also before it
/// was restarted. Destinations that others added to one's own services are removed, and what they changed
/// there is changed back.
///
/// For each service, in the order of the keys: the service is added or changed; destinations are added;
/// then those are changed whose weight will not be 0, then the others; then destinations are removed. In
/// the end services are removed, each with its destinations in one change.
///
/// # Examples
/// ```
/// use std::collections::BTreeSet;
/// use lvs::ipvs::{
///     IpvsDestination, IpvsForwarding, IpvsService, IpvsServiceKey, IpvsTable, plan_changes,
/// };
///
/// let key = IpvsServiceKey::tcp("10.0.0.1:80".parse()?);
/// let server = |address: &str| {
///     Ok::<_, std::net::AddrParseError>(IpvsDestination::new(address.parse()?, IpvsForwarding::Nat))
/// };
/// let (mut actual, mut desired) = (IpvsTable::new(), IpvsTable::new());
/// actual.insert(IpvsService::new(key, "rr"), [server("10.0.1.1:80")?]);
/// desired.insert(IpvsService::new(key, "rr"), [server("10.0.1.2:80")?]);
/// let changes = plan_changes(&actual, &desired, &BTreeSet::new());
/// let texts: Vec<_> = changes.iter().map(ToString::to_string).collect();
/// assert_eq!(texts, [
///     "add destination 10.0.1.2:80 to service TCP 10.0.0.1:80",
///     "remove destination 10.0.1.1:80 from service TCP 10.0.0.1:80",
/// ]);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[must_use]
pub fn plan_changes(
    actual: &IpvsTable,
    desired: &IpvsTable,
    owned: &BTreeSet<IpvsServiceKey>,
) -> Vec<IpvsRequest> {
    let mut changes = Vec::new();
    for service in desired.services() {
        match actual.service(&service.key) {
            None => changes.push(IpvsRequest::AddService(service.clone())),
            Some(present) if present != service => {
                changes.push(IpvsRequest::EditService(service.clone()));
            }
            Some(_) => {}
        }
        plan_destinations(service.key, actual, desired, &mut changes);
    }
    let is_left = |key: &IpvsServiceKey| owned.contains(key) && desired.service(key).is_none();
    let left = actual.services().map(|service| service.key).filter(is_left);
    changes.extend(left.map(IpvsRequest::RemoveService));
    changes
}

fn plan_destinations(
    service: IpvsServiceKey,
    actual: &IpvsTable,
    desired: &IpvsTable,
    changes: &mut Vec<IpvsRequest>,
) {
    let present = |it: &IpvsDestination| actual.destination(&service, it.address);
    let differs = |it: &&IpvsDestination| present(it).is_some_and(|present| present != *it);
    let edit =
        |it: &IpvsDestination| IpvsRequest::EditDestination { service, destination: it.clone() };

    let added = desired.destinations(&service).filter(|it| present(it).is_none());
    changes
        .extend(added.map(|it| IpvsRequest::AddDestination { service, destination: it.clone() }));
    // The weights of some may go to 0 only when those of the others are no longer 0.
    let edited = || desired.destinations(&service).filter(differs);
    changes.extend(edited().filter(|it| it.weight != 0).map(edit));
    changes.extend(edited().filter(|it| it.weight == 0).map(edit));
    let is_removed = |it: &&IpvsDestination| desired.destination(&service, it.address).is_none();
    let removed = actual.destinations(&service).filter(is_removed);
    changes
        .extend(removed.map(|it| IpvsRequest::RemoveDestination { service, address: it.address }));
}

/// What was changed to make the kernel's table the desired one, and what could not be.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct IpvsReconcileReport {
    /// The changes that the kernel accepted, in their order.
    pub applied: Vec<IpvsRequest>,
    /// The changes that it refused, each with its reason. When a service cannot be added its
    /// destinations are not tried.
    pub failed: Vec<IpvsError>,
}

impl IpvsClient {
    /// Makes the kernel's services what `desired` says, as [`plan_changes`] plans it.
    ///
    /// What fails does not keep the rest from being done. If other programs change the same services
    /// meanwhile, the table is read and planned again, four times at most.
    ///
    /// # Errors
    /// If the table cannot be read, or the socket fails. What the kernel refuses is in the report.
    pub fn reconcile(
        &mut self,
        desired: &IpvsTable,
        owned: &BTreeSet<IpvsServiceKey>,
    ) -> Result<IpvsReconcileReport, IpvsError> {
        let mut report = IpvsReconcileReport::default();
        let is_own = |key: &IpvsServiceKey| owned.contains(key) || desired.service(key).is_some();
        // What failed for a reason that reading again does not change.
        let mut refused = BTreeSet::new();
        for round in 1..=MAX_ROUNDS {
            let actual = self.table(is_own)?;
            let mut is_outdated = false;
            for change in plan_changes(&actual, desired, owned) {
                if change.service().is_some_and(|key| refused.contains(&key)) {
                    continue;
                }
                match self.apply(&change) {
                    Ok(()) => report.applied.push(change),
                    Err(error) if is_conflict(&error) && round < MAX_ROUNDS => is_outdated = true,
                    Err(error) if error.errno().is_none() && !is_value(&error) => {
                        return Err(error);
                    }
                    Err(error) => {
                        if let IpvsRequest::AddService(service) = &change {
                            refused.insert(service.key);
                        }
                        report.failed.push(error);
                    }
                }
            }
            if !is_outdated {
                break;
            }
            // They are tried again.
            report.failed.clear();
            refused.clear();
        }
        Ok(report)
    }
}

/// Tells whether another program was there first.
fn is_conflict(error: &IpvsError) -> bool {
    error.is_present() || error.is_absent()
}

fn is_value(error: &IpvsError) -> bool {
    matches!(error, IpvsError::InvalidValue { .. })
}
