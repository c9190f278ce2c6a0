//! The two traits of this part: [`Scheduler`], a rule as configured, and [`Picker`], its hot half.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use crate::backend::Members;
use crate::scheduler::{CompileError, PickContext};

/// A balancing rule, as configured.
///
/// # Examples
/// A rule that always takes the newest usable member:
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
///         (0..cx.members().len()).find(|&i| cx.usable(i))
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
    /// The short name in configuration, metrics and logs: `"rr"`, `"wlc"`, `"mh"`.
    fn name(&self) -> &str;

    /// Tells whether the rule gets better with the [time](Flow::time) of a pick and the
    /// [latency](crate::Lease::complete_after) of what came of it: whoever carries the traffic reads
    /// the clock only then. Default: no.
    fn reads_time(&self) -> bool {
        false
    }

    /// Builds the picker for one list of members.
    ///
    /// Called off the hot path, each time membership, a weight or an eligibility changes.
    /// `previous` is the picker in service, whatever its type, for rules that carry something over
    /// (a cursor, a cache): try `(previous as &dyn Any).downcast_ref`.
    ///
    /// # Errors
    /// When the rule cannot work with the list; the change that led to it is then refused.
    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError>;
}

/// The hot half of a [`Scheduler`].
pub trait Picker: Any + Debug + Send + Sync {
    /// Chooses a member by its position in [`PickContext::members`]; `None` if the rule finds none.
    ///
    /// Asks [`PickContext::usable`] before it chooses. Called when some member has a
    /// [share](crate::backend::Member::share) and also when none has but one that is down would:
    /// then `usable` says no to all, and only a rule with lists of its own (`priority` in panic) can
    /// answer anything but `None`. A position that is out of range counts as `None`.
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize>;
}

impl<S: Scheduler + ?Sized> Scheduler for Arc<S> {
    fn name(&self) -> &str {
        (**self).name()
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

/// Finds out what kind of picker was in service.
pub(super) fn previous_as<P: Picker>(previous: Option<&dyn Picker>) -> Option<&P> {
    (previous? as &dyn Any).downcast_ref()
}
