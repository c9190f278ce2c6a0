//! Conversion of keepalived's and ipvsadm's configurations to TOML.

mod error;
mod format;
mod ipvs;
mod ipvsadm;
mod keepalived;
mod options;
mod position;
mod toml_writer;

pub use self::error::ImportError;
pub use self::format::{Importer, import};

#[cfg(test)]
mod tests;
