//! Tells whether two balancers choose alike.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::Balancer;
use crate::backend::Member;
use crate::scheduler::{Scheduler, hash_bytes};

/// A number of what decides about a key: the scheduler with its parameters and seeds, and the names, addresses, zones,
/// weights, [table weights](Member::table_weight) and tiers of the members; in the order of the list, if the choice for a
/// key [depends on it](Scheduler::depends_on_order). The parameters are those that the scheduler's `Debug` text has.
///
/// Two balancers of the same version of this crate with the same fingerprint choose the same backend for a key, as long
/// as they find the same backends usable: health, drain, limits and slow start are not in it. They do not change the
/// tables of the keyed schedulers, but which backend a key goes to whose own is not usable. Of schedulers without a key
/// the fingerprint says that both are configured alike.
///
/// It is written as 16 hexadecimal digits, and is as secret as its seeds are long.
///
/// # Examples
/// ```
/// use lvs::{BackendSet, Balancer, Spec, scheduler::Maglev};
///
/// let balancer = |names: [&str; 3]| {
///     let set = BackendSet::new();
///     names.map(|name| set.insert(Spec::new(name, ())).expect("another name"));
///     Balancer::new(&set, Maglev::new()).expect("few members")
/// };
/// let (one, other) = (balancer(["a", "b", "c"]), balancer(["c", "a", "b"]));
/// assert_eq!(one.fingerprint(), other.fingerprint());
///
/// one.backend_set().set_weight(&"a".into(), 2)?;
/// assert_ne!(one.fingerprint(), other.fingerprint());
/// # Ok::<(), lvs::SetError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct Fingerprint(u64);

/// The error for a text that is no fingerprint.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0:?} is not a fingerprint: 16 hexadecimal digits are expected")]
pub struct ParseFingerprintError(String);

impl Fingerprint {
    /// Returns the number, of which metrics have the part that a `f64` holds.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

impl<T> Balancer<T> {
    /// Returns the [`Fingerprint`] of what decides at this moment. It takes a time that is proportional to the number
    /// of members.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let (scheduler, snapshot) = (self.scheduler(), self.snapshot());
        let mut entries: Vec<_> = snapshot.members().iter().map(member_entry).collect();
        if !scheduler.depends_on_order() {
            entries.sort_unstable();
        }
        let mut bytes = Vec::new();
        append(&mut bytes, scheduler.name().as_bytes());
        // The parameters, however the rule was made. An expression is the name alone for a rule that no registry made.
        append(&mut bytes, format!("{scheduler:?}").as_bytes());
        entries.iter().for_each(|entry| append(&mut bytes, entry));
        Fingerprint(hash_bytes(&bytes, 0))
    }
}

fn member_entry(member: &Member) -> Vec<u8> {
    let mut entry = Vec::new();
    append(&mut entry, member.id().as_str().as_bytes());
    let address = member.address().map(|address| address.to_string());
    append(&mut entry, address.unwrap_or_default().as_bytes());
    let zone = member.zone().map(|zone| zone.name());
    append(&mut entry, zone.as_deref().unwrap_or_default().as_bytes());
    for number in [member.weight(), member.table_weight(), u32::from(member.tier())] {
        entry.extend(number.to_be_bytes());
    }
    entry
}

/// Appends a part with its length, so that two parts are not another two.
fn append(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend((part.len() as u64).to_be_bytes());
    bytes.extend(part);
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, ParseFingerprintError> {
        let is_written_so = text.len() == 16 && text.bytes().all(|it| it.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_written_so);
        number.map(Self).ok_or_else(|| ParseFingerprintError(text.to_owned()))
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = ParseFingerprintError;

    fn try_from(text: String) -> Result<Self, ParseFingerprintError> {
        text.parse()
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::backend::{BackendSet, Spec, Zone};
    use crate::scheduler::{Maglev, parse};

    fn balancer(scheduler: &str, members: &[(&str, u32)]) -> Balancer<()> {
        let set = BackendSet::new();
        for (name, weight) in members {
            set.insert(Spec::new(*name, ()).weight(*weight)).expect("another name");
        }
        Balancer::new(&set, parse(scheduler).expect("a known name")).expect("few members")
    }

    #[test]
    fn what_decides_is_in_it_and_what_does_not_is_not() {
        let members = [("a", 1), ("b", 2), ("c", 3)];
        let reversed = [("c", 3), ("b", 2), ("a", 1)];
        for scheduler in ["maglev", "ring", "rendezvous", "mh(sorted)", "sh(sorted)", "dh(sorted)"]
        {
            let one = balancer(scheduler, &members).fingerprint();
            assert_eq!(one, balancer(scheduler, &reversed).fingerprint(), "{scheduler}");
        }
        for scheduler in ["wlc", "rr", "priority(maglev)", "bounded(ring)"] {
            let one = balancer(scheduler, &members).fingerprint();
            assert_eq!(one, balancer(scheduler, &reversed).fingerprint(), "{scheduler}");
        }
        for scheduler in ["mh", "sh", "dh", "priority(mh)"] {
            let one = balancer(scheduler, &members).fingerprint();
            assert_ne!(one, balancer(scheduler, &reversed).fingerprint(), "{scheduler}: the order");
        }
        let one = balancer("maglev", &members).fingerprint();
        for (other, what) in [
            (balancer("maglev(seed=1)", &members), "the seed"),
            (balancer("maglev(size=101)", &members), "the size"),
            (balancer("ring", &members), "the rule"),
            (balancer("maglev", &members[1..]), "a member"),
            (balancer("maglev", &[("a", 1), ("b", 2), ("d", 3)]), "a name"),
            (balancer("maglev", &[("a", 1), ("b", 2), ("c", 4)]), "a weight"),
        ] {
            assert_ne!(one, other.fingerprint(), "{what}");
        }
        let zoned = balancer("maglev", &members);
        let zone = Zone::new("eu-1a").expect("a name");
        zoned.backend_set().edit(|edit| edit.set_zone(&"a".into(), Some(zone))).expect("a member");
        assert_ne!(one, zoned.fingerprint(), "a zone");
        // Rules that no registry has made.
        zoned.set_scheduler(Maglev::new().seed(1)).expect("few members");
        let seeded = zoned.fingerprint();
        zoned.set_scheduler(Maglev::new()).expect("few members");
        assert_ne!(seeded, zoned.fingerprint(), "the seed of a typed rule");
        zoned.set_scheduler(parse("maglev").expect("a known name")).expect("few members");
        let parsed = zoned.fingerprint();
        zoned.set_scheduler(Maglev::new()).expect("few members");
        assert_eq!(parsed, zoned.fingerprint(), "however it was made");
    }

    #[test]
    fn health_and_drain_do_not_change_it_and_a_quiesced_member_does() {
        let balancer = balancer("maglev", &[("a", 1), ("b", 1)]);
        let (set, before) = (balancer.backend_set(), balancer.fingerprint());
        set.set_health(&"a".into(), crate::Health::Down).expect("a member");
        set.drain(&"b".into()).expect("a member");
        assert_eq!(balancer.fingerprint(), before);
        set.set_weight(&"a".into(), 0).expect("a member");
        assert_ne!(balancer.fingerprint(), before, "its keys go elsewhere");
    }

    #[test]
    fn it_is_read_as_it_is_written_and_nothing_else_is() {
        let fingerprint = Fingerprint(0xab);
        assert_eq!(fingerprint.to_string(), "00000000000000ab");
        assert_eq!("00000000000000ab".parse(), Ok(fingerprint));
        for text in ["", "ab", "+0000000000000ab", "00000000000000abc", "zz000000000000ab"] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
