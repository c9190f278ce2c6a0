//! The options of listening sockets and of the sockets on both sides of a connection.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::forward::freebind::{BindOptions, set_freebind};
use crate::setting::{SettingError, check_range};
use crate::sys;

/// The source address of connections to backends.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum SourceAddress {
    /// The address that the routing table of this machine selects.
    #[default]
    System,
    /// One of these addresses, round robin: each address has about 28 000 ports for connections to a
    /// backend. Only addresses of the backend's family are used; without one, as
    /// [`SourceAddress::System`].
    Addresses(Vec<IpAddr>),
    /// The client's own address (`IP_TRANSPARENT`), so that the backend sees the client.
    ///
    /// Needs the capability `CAP_NET_ADMIN` or `CAP_NET_RAW`, and routes that bring the backend's
    /// answers back through this machine. Without the capability no backend can be connected to, and
    /// connections are refused as
    /// [`no_resources`](crate::forward::RefusalCounters::no_resources).
    Client,
}

/// The options of the sockets on both sides.
#[derive(Clone, Debug, Default)]
pub(crate) struct SocketOptions {
    pub(crate) keepalive: Option<Duration>,
    pub(crate) user_timeout: Option<Duration>,
    /// The most pending TCP Fast Open requests of the listener; 0 is off.
    pub(crate) fastopen: u32,
    pub(super) fastopen_connect: bool,
    pub(super) source: SourceAddress,
}

/// The length of the kernel's accept queue; `net.core.somaxconn` limits it.
const LISTEN_BACKLOG: i32 = 4096;

/// The kernel accepts whole seconds for keepalive, up to `MAX_TCP_KEEPIDLE`.
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

/// 0 would select the default of the kernel, which accepts at most `i32::MAX` milliseconds.
const MIN_USER_TIMEOUT: Duration = Duration::from_millis(1);
const MAX_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// Opens a listening socket whose port [`bind_shared_listener`] can share.
pub(super) fn bind_listener(address: SocketAddr, options: BindOptions) -> io::Result<TcpListener> {
    let BindOptions { is_nonlocal, is_shared } = options;
    let socket = new_stream_socket(address, is_nonlocal)?;
    if address.port() != 0 && !is_shared {
        // Bound without SO_REUSEPORT first: a port of another program must not be shared by accident.
        new_stream_socket(address, is_nonlocal)?.bind(&address.into())?;
    }
    bind_and_listen(socket, address)
}

/// Opens another listening socket on the port of a socket that [`bind_listener`] has opened.
pub(super) fn bind_shared_listener(address: SocketAddr) -> io::Result<TcpListener> {
    // The machine may have lost the address since the first socket was bound.
    bind_and_listen(new_stream_socket(address, true)?, address)
}

fn new_stream_socket(address: SocketAddr, is_nonlocal: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if is_nonlocal {
        set_freebind(&socket, address)?;
    }
    Ok(socket)
}

fn bind_and_listen(socket: Socket, address: SocketAddr) -> io::Result<TcpListener> {
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

impl SocketOptions {
    pub(super) fn validate(&self) -> Result<(), SettingError> {
        let keepalives = MIN_KEEPALIVE..=MAX_KEEPALIVE;
        if let Some(idle) = self.keepalive
            && !(keepalives.contains(&idle) && idle.subsec_nanos() == 0)
        {
            let allowed = format!("whole seconds from {MIN_KEEPALIVE:?} to {MAX_KEEPALIVE:?}");
            return Err(SettingError::new("keepalive", idle, allowed));
        }
        if let Some(timeout) = self.user_timeout {
            check_range("user_timeout", timeout, MIN_USER_TIMEOUT..=MAX_USER_TIMEOUT)?;
        }
        check_range("fastopen", self.fastopen, 0..=i32::MAX as u32)?;
        Ok(())
    }

    /// Sets the options of a listener, which accepted connections inherit.
    pub(super) fn apply_to_listener(&self, listener: impl AsFd) -> io::Result<()> {
        self.apply_to_socket(SockRef::from(&listener))?;
        if self.fastopen != 0 {
            sys::socket_option::set_fastopen(&listener, self.fastopen)?;
        }
        Ok(())
    }

    fn apply_to_socket(&self, socket: SockRef<'_>) -> io::Result<()> {
        // Nagle's delay is the business of the end points, not of a relay between them.
        socket.set_tcp_nodelay(true)?;
        if let Some(idle) = self.keepalive {
            // Five probes within the same time again.
            let interval = (idle / 5).max(MIN_KEEPALIVE);
            let probe = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(5);
            socket.set_tcp_keepalive(&probe)?;
        }
        if let Some(timeout) = self.user_timeout {
            socket.set_tcp_user_timeout(Some(timeout))?;
        }
        Ok(())
    }

    /// Connects to a backend; `source_index` selects the source address, modulo their number.
    pub(super) async fn connect(
        &self,
        target: SocketAddr,
        client: Option<SocketAddr>,
        source_index: usize,
    ) -> io::Result<TcpStream> {
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
        self.apply_to_socket(SockRef::from(&socket))?;
        if let Some(source) = self.source_address(target, client, source_index) {
            self.bind_source(&socket, source)?;
        }
        if self.fastopen_connect {
            sys::socket_option::set_fastopen_connect(&socket)?;
        }
        let stream = TcpSocket::from_std_stream(socket.into()).connect(target).await?;
        // If no socket listens on an ephemeral port of this machine, the kernel may select that port as
        // the source port, and the socket is then connected to itself.
        if is_ephemeral_port(target.port()) && stream.local_addr()? == target {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(stream)
    }

    fn source_address(
        &self,
        target: SocketAddr,
        client: Option<SocketAddr>,
        source_index: usize,
    ) -> Option<IpAddr> {
        let is_same_family = |address: &IpAddr| address.is_ipv4() == target.is_ipv4();
        match &self.source {
            SourceAddress::System => None,
            SourceAddress::Addresses(addresses) => {
                let count = addresses.iter().filter(|address| is_same_family(address)).count();
                let index = source_index.checked_rem(count)?;
                addresses.iter().filter(|address| is_same_family(address)).nth(index).copied()
            }
            SourceAddress::Client => {
                client.map(|client| client.ip().to_canonical()).filter(is_same_family)
            }
        }
    }

    fn bind_source(&self, socket: &Socket, source: IpAddr) -> io::Result<()> {
        if self.source == SourceAddress::Client {
            match source {
                IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
                IpAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
            }
        }
        sys::socket_option::set_bind_address_no_port(socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())
    }
}

/// Tells whether the kernel may select this port as a source port. The range is read once; if it
/// cannot be read, any port may be selected.
fn is_ephemeral_port(port: u16) -> bool {
    static RANGE: OnceLock<RangeInclusive<u16>> = OnceLock::new();
    let range = RANGE.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
        let bounds = text.and_then(|text| {
            let mut bounds = text.split_whitespace().map(str::parse);
            Some(bounds.next()?.ok()?..=bounds.next()?.ok()?)
        });
        bounds.unwrap_or(0..=u16::MAX)
    });
    range.contains(&port)
}

/// Tells whether an address is a wildcard: the local address must then be read for each connection.
pub(super) fn is_wildcard(address: IpAddr) -> bool {
    [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()].contains(&address)
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    fn socket() -> Socket {
        Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket")
    }

    #[test]
    fn options_are_set_on_the_socket() {
        let options = |keepalive, user_timeout| SocketOptions {
            keepalive: Some(keepalive),
            user_timeout: Some(user_timeout),
            ..SocketOptions::default()
        };
        let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
        let millisecond = Duration::from_millis(1);
        let socket = socket();
        options(minute, minute)
            .apply_to_socket(SockRef::from(&socket))
            .expect("the socket accepts the options");
        assert!(
            socket.tcp_nodelay().expect("the option is readable")
                && socket.keepalive().expect("the option is readable")
        );
        assert_eq!(socket.tcp_keepalive_time().expect("the option is readable"), minute);
        assert_eq!(socket.tcp_keepalive_interval().expect("the option is readable"), minute / 5);
        assert_eq!(socket.tcp_user_timeout().expect("the option is readable"), Some(minute));
        options(second, millisecond)
            .apply_to_socket(SockRef::from(&socket))
            .expect("the least values are accepted");
        assert_eq!(socket.tcp_keepalive_interval().expect("the option is readable"), second);
        assert_eq!(socket.tcp_user_timeout().expect("the option is readable"), Some(millisecond));
    }

    #[test]
    fn a_listener_and_a_connect_accept_fast_open() {
        let listener =
            bind_listener(([127, 0, 0, 1], 0).into(), BindOptions::default()).expect("loopback");
        let options = SocketOptions { fastopen: 64, fastopen_connect: true, ..Default::default() };
        options.apply_to_listener(&listener).expect("Linux supports TCP Fast Open");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let address = listener.local_addr().expect("bound");
        runtime.expect("a runtime").block_on(async {
            let stream = options.connect(address, None, 0).await.expect("connected");
            stream.writable().await.expect("the stream is open");
            stream.try_write(b"with the SYN").expect("the socket buffer has space");
        });
        let (mut accepted, _) = listener.accept().expect("a connection");
        let mut byte = [0];
        std::io::Read::read_exact(&mut accepted, &mut byte).expect("sent");
        assert_eq!(&byte, b"w");
    }

    #[test]
    fn a_port_is_shared_only_with_listeners_of_the_same_forwarder() {
        let first =
            bind_listener(([127, 0, 0, 1], 0).into(), BindOptions::default()).expect("loopback");
        let address = first.local_addr().expect("bound");
        let _second = bind_shared_listener(address).expect("a shared listener");
        let error = bind_listener(address, BindOptions::default()).expect_err("the port is in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn source_addresses_rotate_within_the_family() {
        let addresses =
            ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|text| text.parse().expect("an address"));
        let source = SourceAddress::Addresses(addresses.to_vec());
        let options = SocketOptions { source, ..SocketOptions::default() };
        let (v4, v6) =
            (([192, 0, 2, 9], 80).into(), "[2001:db8::9]:80".parse().expect("an address"));
        let source = |target, index| options.source_address(target, None, index);
        assert_eq!(
            [0, 1, 2].map(|index| source(v4, index)),
            [0, 2, 0].map(|index| Some(addresses[index]))
        );
        assert_eq!(source(v6, 7), Some(addresses[1]));
        let none =
            SocketOptions { source: SourceAddress::Addresses(Vec::new()), ..Default::default() };
        assert_eq!(none.source_address(v4, None, 3), None);
        let client = SocketOptions { source: SourceAddress::Client, ..Default::default() };
        let mapped = Some("[::ffff:192.0.2.7]:5000".parse().expect("an address"));
        assert_eq!(
            client.source_address(v4, mapped, 0),
            Some("192.0.2.7".parse().expect("an address"))
        );
        assert_eq!(
            client.source_address(v6, mapped, 0),
            None,
            "an IPv4 client is no source for an IPv6 backend"
        );
    }
}
