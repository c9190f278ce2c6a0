//! How the checks of a service reach its servers at the virtual addresses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::engine::{CheckMark, CheckMarks, ForwardingMethod, ForwardingMethods};
use crate::health::{CheckPath, CheckPathFinder};
use crate::sync::{Mutex, lock};

/// The marks that an engine gives to the checks of a service's servers, by the virtual address. They outlive
/// the frontends; a clone shares them.
#[derive(Clone, Debug)]
pub(super) struct CheckPaths {
    methods: ForwardingMethods,
    marks: Arc<Mutex<BTreeMap<SocketAddr, CheckMarks>>>,
}

impl CheckPaths {
    pub(super) fn new(methods: ForwardingMethods) -> Self {
        Self { methods, marks: Arc::default() }
    }

    /// Returns the marks at a virtual address, for the engine that serves it.
    pub(super) fn marks(&self, address: SocketAddr) -> CheckMarks {
        lock(&self.marks).entry(address).or_default().clone()
    }

    /// Returns what the checks ask before they connect.
    pub(super) fn finder(&self) -> CheckPathFinder {
        let paths = self.clone();
        CheckPathFinder::new(move |address, server| {
            if paths.methods.get(server) == ForwardingMethod::Nat {
                return CheckPath::OwnAddress;
            }
            let marks = lock(&paths.marks).get(&address).cloned();
            match marks.map_or(CheckMark::NotServed, |marks| marks.get(server)) {
                CheckMark::NotServed => CheckPath::OwnAddress,
                CheckMark::Missing => CheckPath::Missing,
                CheckMark::Mark(mark) => CheckPath::VirtualAddress { mark },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BackendId;

    #[test]
    fn a_check_goes_where_the_engine_has_led_it() {
        let address = "192.0.2.10:80".parse().expect("an address");
        let (nat, dr) = (BackendId::from("10.0.0.1:80"), BackendId::from("10.0.0.2:80"));
        let methods = ForwardingMethods::default();
        methods.replace([(dr.clone(), ForwardingMethod::DirectRouting)].into());
        let paths = CheckPaths::new(methods);
        let find = |server| paths.finder().find(address, server);
        assert_eq!(find(&dr), CheckPath::OwnAddress, "no engine serves");
        let marks = paths.marks(address);
        marks.replace(Some(BTreeMap::new()));
        assert_eq!((find(&dr), find(&nat)), (CheckPath::Missing, CheckPath::OwnAddress));
        marks.replace(Some([(dr.clone(), 7)].into()));
        assert_eq!(find(&dr), CheckPath::VirtualAddress { mark: 7 });
        marks.replace(None);
        assert_eq!(find(&dr), CheckPath::OwnAddress);
    }
}
