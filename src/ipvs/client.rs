//! The client of the kernel's IPVS.

use std::io;
use std::net::SocketAddr;

use super::attribute::IpvsDecodeError;
use super::daemon::{IpvsDaemon, IpvsDaemonState, IpvsInfo, IpvsTimeouts};
use super::destination::{IpvsDestination, IpvsDestinationStatus};
use super::error::IpvsError;
use super::exchange::{ExchangeError, GenericNetlinkSocket};
use super::message::{GenericMessage, decode_family, family_request};
use super::reply::IpvsReply;
use super::request::IpvsRequest;
use super::service::{IpvsService, IpvsServiceKey, IpvsServiceStatus};
use crate::setting::SettingError;

/// How often a list is read that changes while it is read.
const MAX_ATTEMPTS: u32 = 8;

/// A connection to the IPVS of the network namespace of the thread that opens it.
///
/// A request is done when its method returns. The kernel works on it in the calling thread, some ten
/// microseconds for most; adding a service may load a scheduler's module, and removing things waits for
/// those who read them, which are milliseconds. Async code calls it in a thread that may block, such as
/// `tokio::task::spawn_blocking`. One request is in flight at a time, and no method waits for anything
/// but the kernel's work.
///
/// Reading and changing need `CAP_NET_ADMIN` in the user namespace that owns the network namespace. When
/// the module `ip_vs` is unloaded and loaded again, the client must be opened again.
///
/// # Examples
/// ```no_run
/// use lvs::ipvs::{IpvsClient, IpvsDestination, IpvsForwarding, IpvsService, IpvsServiceKey};
///
/// let mut ipvs = IpvsClient::open()?;
/// let key = IpvsServiceKey::tcp("10.0.0.1:80".parse()?);
/// ipvs.add_service(&IpvsService::new(key, "wlc"))?;
/// let server = IpvsDestination::new("10.0.1.1:8080".parse()?, IpvsForwarding::Nat);
/// ipvs.add_destination(&key, &server)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct IpvsClient {
    socket: GenericNetlinkSocket,
    family_id: u16,
}

impl std::fmt::Debug for IpvsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IpvsClient").finish_non_exhaustive()
    }
}

impl IpvsClient {
    /// Opens a socket, and asks the kernel for the number of its IPVS family.
    ///
    /// # Errors
    /// [`IpvsError::NoFamily`] if the module `ip_vs` is not loaded; [`IpvsError::Socket`].
    pub fn open() -> Result<Self, IpvsError> {
        let mut socket = GenericNetlinkSocket::open().map_err(IpvsError::Socket)?;
        let answers = socket.exchange(family_request("IPVS"), false);
        let answers = answers.map_err(|error| match error {
            ExchangeError::Kernel(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                IpvsError::NoFamily
            }
            ExchangeError::Kernel(error) | ExchangeError::Socket(error) => IpvsError::Socket(error),
            ExchangeError::Decode(error) => IpvsError::Socket(invalid_data(error)),
            ExchangeError::Interrupted => IpvsError::Socket(io::ErrorKind::Interrupted.into()),
        })?;
        let answer = answers.first().ok_or(IpvsError::NoFamily)?;
        let family_id =
            decode_family(answer).map_err(|error| IpvsError::Socket(invalid_data(error)))?;
        Ok(Self { socket, family_id })
    }

    /// Does a change: any request that is answered by nothing but success.
    ///
    /// # Errors
    /// [`IpvsError::Refused`] with the kernel's reason, and the others that name a request.
    pub fn apply(&mut self, request: &IpvsRequest) -> Result<(), IpvsError> {
        self.execute(request.clone()).map(drop)
    }

    /// Adds a service, without destinations.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply); [`IpvsError::is_present`] if there is one with this key.
    pub fn add_service(&mut self, service: &IpvsService) -> Result<(), IpvsError> {
        self.execute(IpvsRequest::AddService(service.clone())).map(drop)
    }

    /// Changes everything of a service but its key.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply); [`IpvsError::is_absent`] if there is none with this key.
    pub fn edit_service(&mut self, service: &IpvsService) -> Result<(), IpvsError> {
        self.execute(IpvsRequest::EditService(service.clone())).map(drop)
    }

    /// Removes a service with its destinations. Their connections end at their timeouts.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply); [`IpvsError::is_absent`] if there is none with this key.
    pub fn remove_service(&mut self, key: &IpvsServiceKey) -> Result<(), IpvsError> {
        self.execute(IpvsRequest::RemoveService(*key)).map(drop)
    }

    /// Reads a service.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply); [`IpvsError::is_absent`] if there is none with this key.
    pub fn service(&mut self, key: &IpvsServiceKey) -> Result<IpvsServiceStatus, IpvsError> {
        self.execute_single(IpvsRequest::GetService(*key), |reply| match reply {
            IpvsReply::Service(service) => Some(service),
            _ => None,
        })
    }

    /// Reads all services. One that is added or removed meanwhile may make another one missing or
    /// appear twice, because the kernel lists them in parts.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub fn services(&mut self) -> Result<Vec<IpvsServiceStatus>, IpvsError> {
        self.execute_list(IpvsRequest::ListServices, |reply| match reply {
            IpvsReply::Service(service) => Some(service),
            _ => None,
        })
    }

    /// Adds a destination to a service.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply); [`IpvsError::is_present`] if the service has one with this
    /// address.
    pub fn add_destination(
        &mut self,
        service: &IpvsServiceKey,
        destination: &IpvsDestination,
    ) -> Result<(), IpvsError> {
        let (service, destination) = (*service, destination.clone());
        self.execute(IpvsRequest::AddDestination { service, destination }).map(drop)
    }

    /// Changes everything of a destination but its address.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply); [`IpvsError::is_absent`] if the service has none with this
    /// address.
    pub fn edit_destination(
        &mut self,
        service: &IpvsServiceKey,
        destination: &IpvsDestination,
    ) -> Result<(), IpvsError> {
        let (service, destination) = (*service, destination.clone());
        self.execute(IpvsRequest::EditDestination { service, destination }).map(drop)
    }

    /// Removes a destination from a service. Packets of its connections are dropped from then on,
    /// unless the sysctl `expire_nodest_conn` is set.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply); [`IpvsError::is_absent`] if the service has none with this
    /// address.
    pub fn remove_destination(
        &mut self,
        service: &IpvsServiceKey,
        address: SocketAddr,
    ) -> Result<(), IpvsError> {
        self.execute(IpvsRequest::RemoveDestination { service: *service, address }).map(drop)
    }

    /// Reads the destinations of a service; none, if there is no such service. What is said of
    /// [`services`](Self::services) goes for them too.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub fn destinations(
        &mut self,
        service: &IpvsServiceKey,
    ) -> Result<Vec<IpvsDestinationStatus>, IpvsError> {
        self.execute_list(IpvsRequest::ListDestinations(*service), |reply| match reply {
            IpvsReply::Destination(destination) => Some(destination),
            _ => None,
        })
    }

    /// Starts a synchronization daemon. It runs until it is stopped, even when this process ends.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply); [`IpvsError::is_present`] if one of this state runs.
    pub fn start_daemon(&mut self, daemon: &IpvsDaemon) -> Result<(), IpvsError> {
        self.execute(IpvsRequest::StartDaemon(daemon.clone())).map(drop)
    }

    /// Stops a synchronization daemon.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply); [`IpvsError::is_absent`] if none of this state runs.
    pub fn stop_daemon(&mut self, state: IpvsDaemonState) -> Result<(), IpvsError> {
        match self.execute(IpvsRequest::StopDaemon(state)) {
            // So does the kernel answer for a daemon whose thread had not begun to run yet.
            Err(error) if error.errno() == Some(libc::EINTR) => {
                let is_running = self.daemons()?.iter().any(|daemon| daemon.state == state);
                if is_running { Err(error) } else { Ok(()) }
            }
            result => result.map(drop),
        }
    }

    /// Reads which synchronization daemons run.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub fn daemons(&mut self) -> Result<Vec<IpvsDaemon>, IpvsError> {
        self.execute_list(IpvsRequest::ListDaemons, |reply| match reply {
            IpvsReply::Daemon(daemon) => Some(daemon),
            _ => None,
        })
    }

    /// Reads the timeouts of this network namespace.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub fn timeouts(&mut self) -> Result<IpvsTimeouts, IpvsError> {
        self.execute_single(IpvsRequest::GetTimeouts, |reply| match reply {
            IpvsReply::Timeouts(timeouts) => Some(timeouts),
            _ => None,
        })
    }

    /// Sets the timeouts that are not 0, for connections from now on and those that get a packet.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub fn set_timeouts(&mut self, timeouts: IpvsTimeouts) -> Result<(), IpvsError> {
        self.execute(IpvsRequest::SetTimeouts(timeouts)).map(drop)
    }

    /// Reads the version of the kernel's IPVS.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub fn info(&mut self) -> Result<IpvsInfo, IpvsError> {
        self.execute_single(IpvsRequest::GetInfo, |reply| match reply {
            IpvsReply::Info(info) => Some(info),
            _ => None,
        })
    }

    /// Sets the counters of a service and its destinations to 0, or all that there are.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub fn zero_counters(&mut self, service: Option<&IpvsServiceKey>) -> Result<(), IpvsError> {
        self.execute(IpvsRequest::ZeroCounters(service.copied())).map(drop)
    }

    /// Removes all services of this network namespace, those of other programs too.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply).
    pub fn flush(&mut self) -> Result<(), IpvsError> {
        self.execute(IpvsRequest::Flush).map(drop)
    }

    fn execute_list<T>(
        &mut self,
        request: IpvsRequest,
        select: impl Fn(IpvsReply) -> Option<T>,
    ) -> Result<Vec<T>, IpvsError> {
        Ok(self.execute(request)?.into_iter().filter_map(select).collect())
    }

    fn execute_single<T>(
        &mut self,
        request: IpvsRequest,
        select: impl Fn(IpvsReply) -> Option<T>,
    ) -> Result<T, IpvsError> {
        let found = self.execute(request.clone())?.into_iter().find_map(select);
        found.ok_or_else(|| IpvsError::Empty { request: Box::new(request) })
    }

    fn execute(&mut self, request: IpvsRequest) -> Result<Vec<IpvsReply>, IpvsError> {
        match self.execute_repeatedly(&request) {
            Ok(replies) => Ok(replies),
            Err(error) => Err(error.of_request(Box::new(request))),
        }
    }

    /// Executes a request, and a list that was interrupted again.
    fn execute_repeatedly(
        &mut self,
        request: &IpvsRequest,
    ) -> Result<Vec<IpvsReply>, RequestError> {
        for _ in 0..MAX_ATTEMPTS {
            let message = request.encode(self.family_id).map_err(RequestError::Value)?;
            let answers = match self.socket.exchange(message, request.is_dump()) {
                Err(ExchangeError::Interrupted) => continue,
                answers => answers.map_err(RequestError::Exchange)?,
            };
            let family = request.service_family();
            let decode = |answer: GenericMessage| {
                IpvsReply::decode(answer.command, &answer.attributes, family).transpose()
            };
            let replies: Result<_, _> = answers.into_iter().filter_map(decode).collect();
            return replies.map_err(|error| RequestError::Exchange(ExchangeError::Decode(error)));
        }
        Err(RequestError::Exchange(ExchangeError::Interrupted))
    }
}

/// The reason why a request failed.
#[derive(Debug)]
enum RequestError {
    Value(SettingError),
    Exchange(ExchangeError),
}

impl RequestError {
    fn of_request(self, request: Box<IpvsRequest>) -> IpvsError {
        match self {
            Self::Value(source) => IpvsError::InvalidValue { request, source },
            Self::Exchange(ExchangeError::Socket(source)) => {
                IpvsError::Transfer { request, source }
            }
            Self::Exchange(ExchangeError::Kernel(source)) => IpvsError::Refused { request, source },
            Self::Exchange(ExchangeError::Decode(source)) => IpvsError::Decode { request, source },
            Self::Exchange(ExchangeError::Interrupted) => {
                IpvsError::Interrupted { request, attempts: MAX_ATTEMPTS }
            }
        }
    }
}

fn invalid_data(error: IpvsDecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
