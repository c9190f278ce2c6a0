//! Conversion of keepalived's and ipvsadm's configurations to TOML.

mod error;
mod format;
mod ipvs;
mod ipvsadm;
mod keepalived;
mod toml_writer;

pub use self::error::ImportError;
pub use self::format::import;

#[cfg(test)]
mod tests;
