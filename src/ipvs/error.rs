//! The errors of the client.

use std::io;

use thiserror::Error;

use super::attribute::IpvsDecodeError;
use super::request::IpvsRequest;
use crate::setting::SettingError;

/// The reason why a request to the kernel's IPVS failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IpvsError {
    /// A netlink socket cannot be opened or used.
    #[error("netlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The kernel has no IPVS.
    #[error(
        "the kernel has no IPVS in this network namespace: load the module ip_vs (modprobe ip_vs)"
    )]
    NoFamily,
    /// The kernel refused a request.
    #[error("{request}: {source}{}", hint(request, source))]
    Refused {
        /// The command, and the object that it is about.
        request: Box<IpvsRequest>,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A request has a value that does not fit into the message. Nothing was sent.
    #[error("{request}: {source}")]
    InvalidValue {
        /// The command, and the object that it is about.
        request: Box<IpvsRequest>,
        /// The value.
        source: SettingError,
    },
    /// A request could not be sent, or its answer not received. Whether the kernel did what it says is
    /// not known.
    #[error("{request}: netlink socket: {source}")]
    Transfer {
        /// The command, and the object that it is about.
        request: Box<IpvsRequest>,
        /// The reason.
        source: io::Error,
    },
    /// The kernel's answer cannot be decoded.
    #[error("{request}: the kernel's answer cannot be decoded: {source}")]
    Decode {
        /// The command, and the object that it is about.
        request: Box<IpvsRequest>,
        /// What is wrong with the answer.
        source: IpvsDecodeError,
    },
    /// The objects changed again and again while they were listed.
    #[error("{request}: the list changed while it was read, {attempts} times in a row")]
    Interrupted {
        /// The command.
        request: Box<IpvsRequest>,
        /// How often it was read.
        attempts: u32,
    },
    /// The kernel's answer has no object in it.
    #[error("{request}: the kernel's answer is empty")]
    Empty {
        /// The command, and the object that it is about.
        request: Box<IpvsRequest>,
    },
}

impl IpvsError {
    /// Returns the kernel's error number, such as `EEXIST`, if the kernel refused the request.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Tells whether the object that was to be added is there already.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Tells whether the service or the destination that the request is about is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Refused { request, source } => match source.raw_os_error() {
                Some(libc::ESRCH) => true,
                Some(libc::ENOENT) => is_about_destination(request),
                _ => false,
            },
            _ => false,
        }
    }
}

/// `ENOENT` with a service is about its scheduler.
fn is_about_destination(request: &IpvsRequest) -> bool {
    matches!(request, IpvsRequest::EditDestination { .. } | IpvsRequest::RemoveDestination { .. })
}

/// Says what to do, where that is known.
fn hint(request: &IpvsRequest, error: &io::Error) -> String {
    use IpvsRequest as R;
    let text = match (error.raw_os_error().unwrap_or_default(), request) {
        (libc::EPERM, _) => ": the process needs CAP_NET_ADMIN",
        (libc::ENOENT, R::AddService(service) | R::EditService(service)) => {
            let scheduler = &service.scheduler;
            let text = format!(": load the scheduler's module (modprobe ip_vs_{scheduler})");
            return match &service.persistence_engine {
                Some(engine) => {
                    format!("{text} or the persistence engine's (modprobe ip_vs_pe_{engine})")
                }
                None => text,
            };
        }
        (libc::ENOENT, R::EditDestination { .. } | R::RemoveDestination { .. }) => {
            ": the service has no such destination"
        }
        (libc::ENOENT, _) => ": the module ip_vs was unloaded since",
        (libc::ESRCH, R::StopDaemon(_)) => ": it does not run",
        (libc::ESRCH, _) => ": there is no such service",
        (libc::EEXIST, _) => ": it is there already",
        (libc::EINTR, _) => ": the kernel gave the command up; read whether it was done",
        (libc::EINVAL, R::AddDestination { .. }) => {
            ": the address must be unicast, and of the service's family unless it is tunnelled to; \
             the interface lo must be up in this network namespace"
        }
        (libc::EINVAL, R::AddService(_) | R::EditService(_)) => {
            ": the prefix length of an IPv6 service's clients is from 1 to 128"
        }
        (libc::EINVAL, R::StartDaemon(_)) => {
            ": the interface must be up with a multicast route, and no tunnel may lead to \
             another address family"
        }
        (libc::ENODEV, R::StartDaemon(_)) => ": there is no such interface",
        (libc::ERANGE, R::AddDestination { .. } | R::EditDestination { .. }) => {
            ": the weight is at most 2147483647, the lower threshold at most the upper one"
        }
        (libc::EAFNOSUPPORT, _) => ": the kernel's IPVS is without IPv6",
        (libc::EPROTONOSUPPORT, _) => ": the kernel's IPVS does not have this protocol",
        _ => "",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::destination::{IpvsDestination, IpvsForwarding};
    use super::super::service::{IpvsService, IpvsServiceKey};
    use super::*;

    fn refused(request: IpvsRequest, errno: i32) -> IpvsError {
        let source = io::Error::from_raw_os_error(errno);
        IpvsError::Refused { request: Box::new(request), source }
    }

    #[test]
    fn errors_name_command_object_reason_and_remedy() {
        let service = IpvsServiceKey::tcp("10.0.0.1:80".parse().unwrap());
        let destination = IpvsDestination::new("10.0.1.1:80".parse().unwrap(), IpvsForwarding::Nat);
        let add = IpvsRequest::AddDestination { service, destination };
        assert_eq!(
            refused(add.clone(), libc::EPERM).to_string(),
            "add destination 10.0.1.1:80 to service TCP 10.0.0.1:80: Operation not permitted \
             (os error 1): the process needs CAP_NET_ADMIN"
        );
        let text = refused(add.clone(), libc::EINVAL).to_string();
        assert!(text.ends_with("the interface lo must be up in this network namespace"), "{text}");
        let mut other = IpvsService::new(service, "nonesuch");
        let text = refused(IpvsRequest::AddService(other.clone()), libc::ENOENT).to_string();
        assert!(text.ends_with("load the scheduler's module (modprobe ip_vs_nonesuch)"), "{text}");
        other.persistence_engine = Some("sip".to_owned());
        let text = refused(IpvsRequest::EditService(other), libc::ENOENT).to_string();
        assert!(text.ends_with("or the persistence engine's (modprobe ip_vs_pe_sip)"), "{text}");
    }

    #[test]
    fn absence_is_of_the_object_and_not_of_a_module() {
        let service = IpvsServiceKey::tcp("10.0.0.1:80".parse().unwrap());
        let remove =
            IpvsRequest::RemoveDestination { service, address: "10.0.1.1:80".parse().unwrap() };
        assert!(refused(remove.clone(), libc::ENOENT).is_absent());
        assert!(refused(remove.clone(), libc::ESRCH).is_absent());
        assert!(!refused(remove, libc::EEXIST).is_absent());
        let add = IpvsRequest::AddService(IpvsService::new(service, "rr"));
        assert!(!refused(add.clone(), libc::ENOENT).is_absent());
        assert!(refused(add, libc::EEXIST).is_present());
    }
}
