//! The plan of changes, against a model of the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use lvs::ipvs::{
    IpvsDestination, IpvsRequest, IpvsService, IpvsServiceKey, IpvsTable, plan_changes,
};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use crate::random_tables::{keys, tables};

/// What a kernel has. It refuses, by a panic, what a kernel refuses.
#[derive(Clone, Debug)]
struct ModelKernel {
    services: BTreeMap<IpvsServiceKey, (IpvsService, BTreeMap<SocketAddr, IpvsDestination>)>,
}

impl ModelKernel {
    fn new(table: &IpvsTable) -> Self {
        let row = |service: &IpvsService| {
            let destinations = table.destinations(&service.key);
            let destinations = destinations.map(|it| (it.address, it.clone())).collect();
            (service.key, (service.clone(), destinations))
        };
        Self { services: table.services().map(row).collect() }
    }

    fn table(&self) -> IpvsTable {
        let mut table = IpvsTable::new();
        for (service, destinations) in self.services.values() {
            table.insert(service.clone(), destinations.values().cloned());
        }
        table
    }

    fn apply(&mut self, request: &IpvsRequest) {
        match request.clone() {
            IpvsRequest::AddService(service) => {
                let is_new =
                    self.services.insert(service.key, (service, BTreeMap::new())).is_none();
                assert!(is_new, "{request}");
            }
            IpvsRequest::EditService(service) => {
                let row = self.services.get_mut(&service.key).expect("it is there");
                row.0 = service;
            }
            IpvsRequest::RemoveService(key) => assert!(self.services.remove(&key).is_some()),
            IpvsRequest::AddDestination { service, destination } => {
                let destinations = &mut self.services.get_mut(&service).expect("it is there").1;
                assert!(destinations.insert(destination.address, destination).is_none());
            }
            IpvsRequest::EditDestination { service, destination } => {
                let destinations = &mut self.services.get_mut(&service).expect("it is there").1;
                assert!(destinations.insert(destination.address, destination).is_some());
            }
            IpvsRequest::RemoveDestination { service, address } => {
                let destinations = &mut self.services.get_mut(&service).expect("it is there").1;
                assert!(destinations.remove(&address).is_some());
            }
            other => panic!("{other}"),
        }
    }

    /// Tells whether a service has a server that gets new connections.
    fn serves(&self, key: &IpvsServiceKey) -> bool {
        self.services.get(key).is_some_and(|(_, all)| all.values().any(|it| it.weight != 0))
    }
}

/// The number of objects that differ, of which each needs a change.
fn differences(
    actual: &IpvsTable,
    desired: &IpvsTable,
    removed: &BTreeSet<IpvsServiceKey>,
) -> usize {
    let mut count = removed.iter().filter(|key| actual.service(key).is_some()).count();
    for service in desired.services() {
        let key = &service.key;
        count += usize::from(actual.service(key) != Some(service));
        let is_changed = |it: &&IpvsDestination| actual.destination(key, it.address) != Some(*it);
        count += desired.destinations(key).filter(is_changed).count();
        let is_gone = |it: &&IpvsDestination| desired.destination(key, it.address).is_none();
        count += actual.destinations(key).filter(is_gone).count();
    }
    count
}

proptest! {
    #[test]
    fn a_plan_is_complete_minimal_safe_and_may_be_stopped_anywhere(
        actual in tables(),
        desired in tables(),
        is_owned in any::<[bool; 6]>(),
    ) {
        let owned: BTreeSet<_> =
            keys().into_iter().zip(is_owned).filter(|(_, it)| *it).map(|(key, _)| key).collect();
        let changes = plan_changes(&actual, &desired, &owned);

        // What is to be in the end: others' services as they were, and the desired ones.
        let mut expected = ModelKernel::new(&desired);
        for (key, row) in ModelKernel::new(&actual).services {
            if !owned.contains(&key) {
                expected.services.entry(key).or_insert(row);
            }
        }
        let expected = expected.table();

        let removed = owned.iter().filter(|key| desired.service(key).is_none()).copied().collect();
        prop_assert_eq!(changes.len(), differences(&actual, &desired, &removed));

        let before = ModelKernel::new(&actual);
        let after = ModelKernel::new(&desired);
        let mut kernel = before.clone();
        for stop in 0..=changes.len() {
            for key in keys().iter().filter(|key| before.serves(key) && after.serves(key)) {
                prop_assert!(kernel.serves(key), "{key} after {stop} of {changes:#?}");
            }
            // A process that ends here leaves what the next one completes.
            let mut resumed = kernel.clone();
            for change in plan_changes(&kernel.table(), &desired, &owned) {
                resumed.apply(&change);
            }
            prop_assert_eq!(&resumed.table(), &expected);
            if let Some(change) = changes.get(stop) {
                kernel.apply(change);
            }
        }
        prop_assert_eq!(&kernel.table(), &expected);
        prop_assert_eq!(plan_changes(&expected, &desired, &owned), []);
    }
}
