//! Settings of a connection.

use std::time::Duration;

use crate::setting::{SettingError, check_range};

/// Settings of a [`Reconnect`](super::Reconnect): the connect timeout and the waits between attempts.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::tower::{Reconnect, ReconnectConfig};
/// use tower::{BoxError, service_fn};
///
/// let make = service_fn(async |_: &'static str| {
///     Ok::<_, BoxError>(service_fn(async |request: u32| Ok::<_, BoxError>(request)))
/// });
/// let config = ReconnectConfig::new()
///     .connect_timeout(Duration::from_secs(1))
///     .backoff(Duration::from_millis(50), Duration::from_secs(2))?;
/// let connection = Reconnect::with_config(config, make, "a");
/// assert!(!connection.is_connected());
/// # Ok::<(), lvs::SettingError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ReconnectConfig {
    pub(super) connect_timeout: Duration,
    /// The wait after the first failure, and the longest wait.
    pub(super) backoff: (Duration, Duration),
}

impl ReconnectConfig {
    /// Creates the default settings: 5 s for an attempt, and waits from 100 ms to 10 s.
    #[must_use]
    pub const fn new() -> Self {
        let backoff = (Duration::from_millis(100), Duration::from_secs(10));
        Self { connect_timeout: Duration::from_secs(5), backoff }
    }

    /// Sets how long an attempt to connect may take, `poll_ready` of the `MakeService` included.
    /// Default: 5 s.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// Sets the wait after a failed attempt: `first`, doubled with each further failure up to
    /// `longest`. Default: 100 ms and 10 s.
    ///
    /// # Errors
    /// [`SettingError`] if `longest` is below `first`.
    pub fn backoff(self, first: Duration, longest: Duration) -> Result<Self, SettingError> {
        let longest = check_range("backoff.longest", longest, first..)?;
        Ok(Self { backoff: (first, longest), ..self })
    }
}

impl Default for ReconnectConfig {
    fn default() -> Self {
        Self::new()
    }
}
