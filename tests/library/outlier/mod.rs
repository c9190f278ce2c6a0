//! Outlier ejection: each detector at its thresholds, times to the millisecond, the limit on ejected
//! members, trials, export and import, and properties over random schedules. Time is an argument.

mod cap;
mod detectors;
mod policy;
mod properties;
mod saved;
mod test_bed;
mod times;
