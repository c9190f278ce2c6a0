//! The error of a DNS lookup.

use std::time::Duration;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use thiserror::Error;

use crate::discovery::DiscoveryError;

/// The reason why a name has no addresses or records.
#[derive(Debug, Error)]
pub(super) enum ResolveError {
    #[error("not a DNS name: {0}")]
    InvalidName(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the name does not exist (NXDOMAIN)")]
    NxDomain,
    #[error("the name has no {0} record")]
    NoData(&'static str),
    #[error("the service is not available: the only target of its SRV records is the root")]
    NoService,
    #[error("no target of the SRV records has an address")]
    NoTargetAddress,
    #[error("more than 8 aliases (CNAME) in a row lead from the name")]
    TooManyAliases,
    #[error("the name server answers with error {0}")]
    ErrorCode(ResponseCode),
    #[error("cannot load the system's resolver configuration (/etc/resolv.conf): {0}")]
    SystemConfig(NetError),
    #[error("{0}")]
    Net(NetError),
}

impl ResolveError {
    /// Returns whether the error is a valid answer: the name or the records do not exist.
    pub(super) fn is_negative_answer(&self) -> bool {
        matches!(self, Self::NxDomain | Self::NoData(_))
    }

    /// Returns whether the error is a valid answer without addresses.
    pub(super) fn is_empty_answer(&self) -> bool {
        self.is_negative_answer() || matches!(self, Self::NoService | Self::NoTargetAddress)
    }

    pub(super) fn from_net_error(error: NetError, record_type: &'static str) -> Self {
        if error.is_nx_domain() {
            return Self::NxDomain;
        }
        match error {
            NetError::Dns(DnsError::NoRecordsFound(_)) => Self::NoData(record_type),
            NetError::Dns(DnsError::ResponseCode(code)) => Self::ErrorCode(code),
            error => Self::Net(error),
        }
    }

    pub(super) fn for_name(self, name: &str) -> DiscoveryError {
        DiscoveryError::Resolve { name: name.to_owned(), source: Box::new(self) }
    }
}
