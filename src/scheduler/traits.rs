//! The two traits of this part: [`Scheduler`], a rule as configured, and [`Picker`], its hot half.

use std::any::Any;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::backend::Members;
use crate::scheduler::{CompileError, LookupTable, PickContext};

/// A rule that selects members, as configured.
///
/// # Examples
/// A rule that always selects the newest usable member:
/// ```
/// use lvs::backend::Members;
/// use lvs::scheduler::{CompileError, PickContext, Picker, Scheduler};
///
/// #[derive(Debug)]
/// struct Newest;
///
/// impl Scheduler for Newest {
///     fn name(&self) -> &str {
///         "newest"
///     }
///
///     fn compile(
///         &self,
///         _members: &Members,
///         _previous: Option<&dyn Picker>,
///     ) -> Result<Box<dyn Picker>, CompileError> {
///         Ok(Box::new(NewestPicker))
///     }
/// }
///
/// #[derive(Debug)]
/// struct NewestPicker;
///
/// impl Picker for NewestPicker {
///     fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
///         (0..cx.members().len()).find(|&i| cx.is_usable(i))
///     }
/// }
///
/// let set = lvs::BackendSet::new();
/// let balancer = lvs::Balancer::new(&set, Newest)?;
/// set.insert(lvs::Spec::new("a", ()))?;
/// set.insert(lvs::Spec::new("b", ()))?;
/// assert_eq!(balancer.pick(&lvs::Flow::new())?.id().as_str(), "b");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Scheduler: Debug + Send + Sync {
    /// Returns the short name in configuration, metrics and logs: `"rr"`, `"wlc"`, `"mh"`.
    fn name(&self) -> &str;

    /// Returns the expression that describes the rule with its parameters, such as
    /// `bounded(ring, factor=1.25)`. Default: the [name](Self::name), which schedulers that a
    /// [registry](crate::scheduler::SchedulerRegistry) builds extend by the arguments that they were
    /// built with.
    fn expression(&self) -> String {
        self.name().to_owned()
    }

    /// Returns whether the rule uses the [time](crate::scheduler::Flow::time) of a pick and the
    /// [latency](crate::Lease::complete_with_latency) of the response. The forwarders and the tower
    /// service read the clock only for such a rule. Default: `false`.
    fn reads_time(&self) -> bool {
        false
    }

    /// Returns whether the choice for a key depends on the order of the members in the list, as that of
    /// [`mh`](crate::scheduler::IpvsMaglevHash) does. Directors whose members came in different orders then choose
    /// differently, and the [fingerprint](crate::Balancer::fingerprint) is of the order, too. Default: `false`, for rules
    /// without a key, and for those whose table is made of names alone.
    fn depends_on_order(&self) -> bool {
        false
    }

    /// Builds the picker for one list of members.
    ///
    /// Called off the hot path, for each change of membership, a weight or an eligibility.
    /// `previous` is the picker in use, of any type, for rules that keep a state across changes (a
    /// cursor, a cache): try `(previous as &dyn Any).downcast_ref`.
    ///
    /// # Errors
    /// [`CompileError`] if the rule cannot work with the list; the change of the set is then
    /// refused.
    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError>;
}

/// Selects members of one list; compiled by a [`Scheduler`].
pub trait Picker: Any + Debug + Send + Sync {
    /// Returns the position of the selected member in [`PickContext::members`], or `None` if the
    /// rule finds no usable member.
    ///
    /// An implementation checks [`PickContext::is_usable`] of the member that it returns. It is
    /// called if some member has a [share](crate::backend::Member::share), and also if no member
    /// has a share but a member that is down would have: then `is_usable` is `false` for every
    /// member, and only a rule with lists of its own (`priority` in panic) returns a position. A
    /// position out of range counts as `None`.
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize>;

    /// Returns the table by which a flow from an address alone to `destination` finds its member, if the rule
    /// has one; `members` is the list that the picker was compiled from, in which no member has a connection
    /// limit. The packet engine decides flows by it in the kernel. Default: `None`, and the engine asks the
    /// picker for each flow.
    ///
    /// Called off the hot path, for each publication.
    fn lookup_table(&self, members: &Members, destination: SocketAddr) -> Option<LookupTable> {
        let _ = (members, destination);
        None
    }
}

impl<S: Scheduler + ?Sized> Scheduler for Arc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn expression(&self) -> String {
        (**self).expression()
    }

    fn depends_on_order(&self) -> bool {
        (**self).depends_on_order()
    }

    fn reads_time(&self) -> bool {
        (**self).reads_time()
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        (**self).compile(members, previous)
    }
}

impl<S: Scheduler + ?Sized> Scheduler for Box<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn expression(&self) -> String {
        (**self).expression()
    }

    fn depends_on_order(&self) -> bool {
        (**self).depends_on_order()
    }

    fn reads_time(&self) -> bool {
        (**self).reads_time()
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        (**self).compile(members, previous)
    }
}

/// Returns the picker in use if it is of type `P`.
pub(super) fn previous_as<P: Picker>(previous: Option<&dyn Picker>) -> Option<&P> {
    (previous? as &dyn Any).downcast_ref()
}
