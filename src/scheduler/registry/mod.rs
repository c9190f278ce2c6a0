//! Schedulers by name: expressions, their parameters, and the registry that builds schedulers.

mod builtin;
mod error;
mod expression;
mod params;
mod scheduler_registry;
mod suggest;

pub use self::error::SchedulerRegistryError;
pub use self::expression::{SchedulerArgument, SchedulerExpression, SchedulerExpressionError};
pub use self::params::SchedulerParams;
pub use self::scheduler_registry::{SchedulerRegistry, parse};
#[cfg(feature = "director")]
pub(crate) use self::suggest::suggest;
