//! The services by firewall mark through which health checks reach servers as clients do.
//!
//! The kernel's IPVS handles packets that programs of this machine send, too, and looks for a service by mark
//! before one by address. So a connection to the virtual address whose packets have the mark of a service
//! with one destination goes to this server, by the server's own method, whatever its weight is elsewhere.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use super::kernel_service::{apply_all, read_service};
use super::settings::IPVS_CHECK_MARK_COUNT;
use crate::ipvs::address::IpvsFamily;
use crate::ipvs::client::IpvsClient;
use crate::ipvs::destination::{IpvsDestination, IpvsForwarding};
use crate::ipvs::error::IpvsError;
use crate::ipvs::reconcile::plan_changes;
use crate::ipvs::request::IpvsRequest;
use crate::ipvs::service::{IpvsService, IpvsServiceKey};
use crate::ipvs::table::IpvsTable;

/// What a mark leads to. Services whose servers have one address share it: a service by mark has neither a
/// virtual address nor a port.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct CheckTarget {
    /// The family of the virtual address.
    pub(super) family: IpvsFamily,
    pub(super) server: IpAddr,
    pub(super) forwarding: IpvsForwarding,
}

impl CheckTarget {
    fn key(&self, mark: NonZeroU32) -> IpvsServiceKey {
        IpvsServiceKey::Mark { family: self.family, mark }
    }

    fn destination(&self) -> IpvsDestination {
        // Without a port of its own, packets keep theirs.
        IpvsDestination::new(SocketAddr::new(self.server, 0), self.forwarding)
    }

    fn service(&self, mark: NonZeroU32) -> IpvsService {
        let mut service = IpvsService::new(self.key(mark), "rr");
        // The kernel remembers no flow of such a service: the next check from the same port may be of another
        // server. It does nothing to TCP.
        service.one_packet = true;
        service
    }
}

/// A service of the range of marks that this engine did not add.
struct LeftService {
    key: IpvsServiceKey,
    /// What it leads to, if it is as this engine would make it.
    target: Option<CheckTarget>,
}

/// The services by mark that the engine keeps for health checks.
pub(super) struct CheckServices {
    /// The marks that the services may have.
    range: RangeInclusive<u32>,
    marks: HashMap<CheckTarget, NonZeroU32>,
    /// What an earlier process left in the range; `None` before it was read.
    left: Option<Vec<LeftService>>,
    /// What was logged last, so that what goes on is said once.
    said: String,
}

impl CheckServices {
    pub(super) fn new(range: RangeInclusive<u32>) -> Self {
        Self { range, marks: HashMap::new(), left: None, said: String::new() }
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    pub(super) fn mark(&self, target: &CheckTarget) -> Option<u32> {
        self.marks.get(target).map(|mark| mark.get())
    }

    /// Changes the range, and returns the services of the one before, which are to be
    /// [removed](remove_all) when there are others.
    #[must_use]
    pub(super) fn move_to(&mut self, range: RangeInclusive<u32>) -> Vec<IpvsServiceKey> {
        // What an earlier process left may have come meanwhile.
        self.left = None;
        if range == self.range {
            return Vec::new();
        }
        self.range = range;
        self.marks.drain().map(|(target, mark)| target.key(mark)).collect()
    }

    /// Forgets those that are not wanted, and leaves them in the kernel.
    pub(super) fn forget_unwanted(&mut self, wanted: &HashSet<CheckTarget>) {
        self.marks.retain(|target, _| wanted.contains(target));
    }

    /// Adds what is wanted and missing, and removes what is not wanted. What fails is logged, and tried again
    /// by the next call.
    pub(super) fn follow(&mut self, client: &mut IpvsClient, wanted: &HashSet<CheckTarget>) {
        let unwanted: Vec<_> =
            self.marks.extract_if(|target, _| !wanted.contains(target)).collect();
        let unwanted: Vec<_> = unwanted.iter().map(|(target, mark)| target.key(*mark)).collect();
        let mut failures = remove_all(client, &unwanted);
        let missing = wanted.iter().filter(|target| !self.marks.contains_key(target));
        let mut missing: Vec<_> = missing.copied().collect();
        missing.sort_by_key(|target| (target.family, target.server));
        if !missing.is_empty()
            && let Err(error) = self.add_all(client, &missing)
        {
            failures.push(error);
        }
        self.say(failures.join("; "));
    }

    fn add_all(&mut self, client: &mut IpvsClient, missing: &[CheckTarget]) -> Result<(), String> {
        let range = self.range.clone();
        let left = match self.left.take() {
            Some(left) => left,
            None => self.read_left(client).map_err(|error| error.to_string())?,
        };
        let left = self.left.insert(left);
        let mut used: BTreeSet<_> = self.marks.values().map(|mark| mark.get()).collect();
        used.extend(left.iter().filter_map(|left| mark_of(&left.key)));
        let mut free = range.filter(|mark| !used.contains(mark)).filter_map(NonZeroU32::new);
        let mut failures = Vec::new();
        for target in missing {
            let adopted = left.iter().position(|left| left.target.as_ref() == Some(target));
            if let Some(mark) = adopted.and_then(|n| mark_of(&left.swap_remove(n).key)) {
                // Checks of an earlier process may be on their way through it.
                self.marks.extend(NonZeroU32::new(mark).map(|mark| (*target, mark)));
                continue;
            }
            let Some(mark) = free.next() else {
                failures.push(format!(
                    "all {IPVS_CHECK_MARK_COUNT} firewall marks for checks are in use: there is none for \
                     server {}",
                    target.server
                ));
                break;
            };
            let (key, destination) = (target.key(mark), target.destination());
            let added = client
                .add_service(&target.service(mark))
                .and_then(|()| client.add_destination(&key, &destination));
            match added {
                Ok(()) => drop(self.marks.insert(*target, mark)),
                Err(error) => {
                    // Without its destination it would take packets to nowhere.
                    let _ = client.remove_service(&key);
                    failures.push(error.to_string());
                }
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        // Another program may have come into the range.
        self.left = None;
        Err(failures.join("; "))
    }

    /// Reads the services of the range that this engine did not add.
    fn read_left(&self, client: &mut IpvsClient) -> Result<Vec<LeftService>, IpvsError> {
        let own: BTreeSet<_> = self.marks.iter().map(|(target, mark)| target.key(*mark)).collect();
        let mut left = read_range(client, &self.range)?;
        left.retain(|left| !own.contains(&left.key));
        Ok(left)
    }

    /// Repairs what another program has changed, adds what is missing, and removes what an earlier process
    /// left. `is_owned` tells which services of the range are the engine's other services.
    pub(super) fn audit(
        &mut self,
        client: &mut IpvsClient,
        wanted: &HashSet<CheckTarget>,
        is_owned: impl Fn(&IpvsServiceKey) -> bool,
    ) {
        let mut failures = Vec::new();
        for (target, mark) in &self.marks {
            if let Err(error) = repair(client, target, *mark) {
                failures.push(error);
            }
        }
        let left = match self.left.replace(Vec::new()) {
            Some(left) => Ok(left),
            None => self.read_left(client),
        };
        match left {
            Ok(left) => {
                let keys = left.iter().map(|left| left.key).filter(|key| !is_owned(key));
                failures.extend(remove_all(client, &keys.collect::<Vec<_>>()));
            }
            Err(error) => {
                self.left = None;
                failures.push(error.to_string());
            }
        }
        match failures.is_empty() {
            true => self.follow(client, wanted),
            false => self.say(failures.join("; ")),
        }
    }

    fn say(&mut self, failures: String) {
        if !failures.is_empty() && failures != self.said {
            tracing::error!("engine ipvs: checks of virtual addresses: {failures}");
        }
        self.said = failures;
    }
}

fn mark_of(key: &IpvsServiceKey) -> Option<u32> {
    match key {
        IpvsServiceKey::Mark { mark, .. } => Some(mark.get()),
        IpvsServiceKey::Address { .. } => None,
    }
}

/// Removes services, and returns what failed.
pub(super) fn remove_all(client: &mut IpvsClient, keys: &[IpvsServiceKey]) -> Vec<String> {
    let results = keys.iter().map(|key| client.remove_service(key));
    let errors = results.filter_map(Result::err).filter(|error| !error.is_absent());
    errors.map(|error| error.to_string()).collect()
}

/// Reads the services whose marks are in a range.
fn read_range(
    client: &mut IpvsClient,
    range: &RangeInclusive<u32>,
) -> Result<Vec<LeftService>, IpvsError> {
    let mut left = Vec::new();
    for status in client.services()? {
        let service = status.service;
        let IpvsServiceKey::Mark { family, mark } = service.key else { continue };
        if !range.contains(&mark.get()) {
            continue;
        }
        let destinations = match client.destinations(&service.key) {
            Ok(destinations) => destinations,
            Err(error) if error.is_absent() => continue,
            Err(error) => return Err(error),
        };
        let target = match &*destinations {
            [only] => {
                let IpvsDestination { address, forwarding, .. } = only.destination;
                let target = CheckTarget { family, server: address.ip(), forwarding };
                let is_same =
                    target.service(mark) == service && target.destination() == only.destination;
                is_same.then_some(target)
            }
            _ => None,
        };
        left.push(LeftService { key: service.key, target });
    }
    Ok(left)
}

/// Makes a service what it should be, and logs what another program has changed. Returns what failed.
fn repair(client: &mut IpvsClient, target: &CheckTarget, mark: NonZeroU32) -> Result<(), String> {
    let key = target.key(mark);
    let (mut present, mut desired) = (IpvsTable::new(), IpvsTable::new());
    let known = read_service(client, &key).map_err(|error| error.to_string())?;
    if let Some((status, destinations)) = known {
        present.insert(status.service, destinations.into_iter().map(|it| it.destination));
    }
    desired.insert(target.service(mark), [target.destination()]);
    let changes = plan_changes(&present, &desired, &BTreeSet::new());
    if changes.is_empty() {
        return Ok(());
    }
    let texts: Vec<_> = changes.iter().map(IpvsRequest::to_string).collect();
    let texts = texts.join("; ");
    tracing::warn!("engine ipvs: another program changed IPVS, repaired by: {texts}");
    let failures = apply_all(client, &changes);
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}
