//! The figures of one subject in one round.

/// The figures of one subject in one round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cell {
    /// `None` for [`Direct`](crate::subject::Subject::Direct), which has no process to measure.
    pub(crate) cost: Option<f64>,
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// A part of 1.
    pub(crate) lost: f64,
}
