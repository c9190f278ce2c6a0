//! Does it take a connection?

use crate::health::{Check, Failure, Probe, Report};

/// Up if a TCP connection can be made.
#[derive(Clone, Debug, Default)]
pub struct TcpCheck {}

impl TcpCheck {
    /// Connects, and no more.
    #[must_use]
    pub fn new() -> Self {
        Self {}
    }
}

impl Check for TcpCheck {
    async fn check(&self, probe: &Probe) -> Result<Report, Failure> {
        probe.connect().await?;
        Ok(Report::up())
    }

    fn name(&self) -> &str {
        "tcp"
    }
}
