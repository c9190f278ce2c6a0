//! What is asked of sockets, and how long anything may take.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::forward::freebind::set_freebind;
use crate::sys;

/// The address that backends see connections come from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum SourceAddress {
    /// The one that this machine's routes choose.
    #[default]
    System,
    /// One of these, in turn: an address has some 28 000 ports towards each backend, and every one
    /// more has as many again. Those of the backend's family are used; none is as
    /// [`SourceAddress::System`].
    Addresses(Vec<IpAddr>),
    /// The client's own (`IP_TRANSPARENT`), so that the backend sees who asks.
    ///
    /// Needs the capability `CAP_NET_ADMIN` or `CAP_NET_RAW`, and routes that bring the backend's
    /// answers back through this machine. Without the capability no backend can be connected to,
    /// which is counted as [`no_resources`](crate::forward::Refusals::no_resources).
    Client,
}

/// Options of the sockets on both sides.
#[derive(Clone, Debug, Default)]
pub(super) struct SocketOptions {
    pub(super) keepalive: Option<Duration>,
    pub(super) user_timeout: Option<Duration>,
    /// Pending requests at the listener; 0 is off.
    pub(super) fastopen: u32,
    pub(super) fastopen_connect: bool,
    pub(super) source: SourceAddress,
}

/// How many connections may wait in the kernel until they are accepted; `net.core.somaxconn`
/// bounds it.
const LISTEN_BACKLOG: i32 = 4096;

/// What the kernel takes for keepalive: whole seconds, up to `MAX_TCP_KEEPIDLE`.
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

const MAX_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// Opens a listening socket that others may share the port of; `ahead` of the address, which may be
/// none of this machine's.
pub(super) fn bind_listener(address: SocketAddr, ahead: bool) -> io::Result<TcpListener> {
    let socket = new_stream_socket(address, ahead)?;
    if address.port() != 0 {
        // Tried without sharing first: a port that anybody else serves is not to be shared by chance.
        new_stream_socket(address, ahead)?.bind(&address.into())?;
    }
    bind_and_listen(socket, address)
}

/// Opens one more listening socket beside one that [`bind_listener`] has opened.
pub(super) fn bind_shared_listener(address: SocketAddr) -> io::Result<TcpListener> {
    // The first has shown that it may; the address may have gone since.
    bind_and_listen(new_stream_socket(address, true)?, address)
}

fn new_stream_socket(address: SocketAddr, ahead: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if ahead {
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
    /// Sets what accepted connections inherit.
    pub(super) fn apply_to_listener(&self, listener: impl AsFd) -> io::Result<()> {
        self.apply_to_socket(SockRef::from(&listener))?;
        if self.fastopen != 0 {
            sys::tcp::set_fastopen(&listener, self.fastopen)?;
        }
        Ok(())
    }

    fn apply_to_socket(&self, socket: SockRef<'_>) -> io::Result<()> {
        // Nagle's delay belongs to the end points; it is of no use between two sockets of a relay.
        socket.set_tcp_nodelay(true)?;
        if let Some(idle) = self.keepalive {
            // As many probes as fit into the same time once more.
            let idle = idle.clamp(MIN_KEEPALIVE, MAX_KEEPALIVE);
            let interval = (idle / 5).max(MIN_KEEPALIVE);
            let probe = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(5);
            socket.set_tcp_keepalive(&probe)?;
        }
        if let Some(timeout) = self.user_timeout {
            // 0 would be the kernel's own, and it takes no more than an `int` of milliseconds.
            let timeout = timeout.clamp(Duration::from_millis(1), MAX_USER_TIMEOUT);
            socket.set_tcp_user_timeout(Some(timeout))?;
        }
        Ok(())
    }

    /// Connects to a backend; `turn` says whose turn among source addresses it is.
    pub(super) async fn connect(
        &self,
        target: SocketAddr,
        client: Option<SocketAddr>,
        turn: usize,
    ) -> io::Result<TcpStream> {
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(target), kind, Some(Protocol::TCP))?;
        self.apply_to_socket(SockRef::from(&socket))?;
        if let Some(source) = self.source_address(target, client, turn) {
            self.bind_source(&socket, source)?;
        }
        if self.fastopen_connect {
            sys::tcp::set_fastopen_connect(&socket)?;
        }
        let stream = TcpSocket::from_std_stream(socket.into()).connect(target).await?;
        // Where nobody listens on a port of this machine, the kernel may give out that very port for
        // the outgoing side, and the socket is then connected to itself.
        if is_ephemeral_port(target.port()) && stream.local_addr()? == target {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(stream)
    }

    fn source_address(
        &self,
        target: SocketAddr,
        client: Option<SocketAddr>,
        turn: usize,
    ) -> Option<IpAddr> {
        let fits = |address: &IpAddr| address.is_ipv4() == target.is_ipv4();
        match &self.source {
            SourceAddress::System => None,
            SourceAddress::Addresses(addresses) => {
                let count = addresses.iter().filter(|it| fits(it)).count();
                let turn = turn.checked_rem(count)?;
                addresses.iter().filter(|it| fits(it)).nth(turn).copied()
            }
            SourceAddress::Client => client.map(|client| client.ip().to_canonical()).filter(fits),
        }
    }

    fn bind_source(&self, socket: &Socket, source: IpAddr) -> io::Result<()> {
        if self.source == SourceAddress::Client {
            match source {
                IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
                IpAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
            }
        }
        sys::tcp::set_bind_address_no_port(socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())
    }
}

/// May the kernel give out this port by itself? Asked once; where it does not say, any may be.
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

/// The wildcard addresses: what a client used must then be asked of each connection.
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
    fn options_reach_the_socket_whatever_the_durations() {
        let options = |keepalive, user_timeout| SocketOptions {
            keepalive: Some(keepalive),
            user_timeout: Some(user_timeout),
            ..SocketOptions::default()
        };
        let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
        let socket = socket();
        options(minute, minute)
            .apply_to_socket(SockRef::from(&socket))
            .expect("a socket takes them");
        assert!(socket.tcp_nodelay().expect("asked") && socket.keepalive().expect("asked"));
        assert_eq!(socket.tcp_keepalive_time().expect("asked"), minute);
        assert_eq!(socket.tcp_keepalive_interval().expect("asked"), minute / 5);
        assert_eq!(socket.tcp_user_timeout().expect("asked"), Some(minute));
        options(Duration::ZERO, Duration::ZERO)
            .apply_to_socket(SockRef::from(&socket))
            .expect("the least");
        assert_eq!(socket.tcp_keepalive_interval().expect("asked"), second);
        assert_eq!(socket.tcp_user_timeout().expect("asked"), Some(Duration::from_millis(1)));
    }

    #[test]
    fn a_listener_takes_fast_open_and_a_connect_with_it_goes_through() {
        let listener = bind_listener(([127, 0, 0, 1], 0).into(), false).expect("loopback");
        let options = SocketOptions { fastopen: 64, fastopen_connect: true, ..Default::default() };
        options.apply_to_listener(&listener).expect("Linux knows it");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let address = listener.local_addr().expect("bound");
        runtime.expect("a runtime").block_on(async {
            let stream = options.connect(address, None, 0).await.expect("connected");
            stream.writable().await.expect("open");
            stream.try_write(b"with the SYN, some day").expect("room");
        });
        let (mut accepted, _) = listener.accept().expect("a connection");
        let mut byte = [0];
        std::io::Read::read_exact(&mut accepted, &mut byte).expect("sent");
        assert_eq!(&byte, b"w");
    }

    #[test]
    fn a_port_is_shared_with_siblings_only() {
        let first = bind_listener(([127, 0, 0, 1], 0).into(), false).expect("loopback");
        let address = first.local_addr().expect("bound");
        let _second = bind_shared_listener(address).expect("a sibling");
        let error = bind_listener(address, false).expect_err("somebody else");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn sources_take_turns_within_the_family() {
        let addresses =
            ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|it| it.parse().expect("one"));
        let source = SourceAddress::Addresses(addresses.to_vec());
        let options = SocketOptions { source, ..SocketOptions::default() };
        let (v4, v6) = (([192, 0, 2, 9], 80).into(), "[2001:db8::9]:80".parse().expect("one"));
        let of = |target, turn| options.source_address(target, None, turn);
        assert_eq!([0, 1, 2].map(|turn| of(v4, turn)), [0, 2, 0].map(|i| Some(addresses[i])));
        assert_eq!(of(v6, 7), Some(addresses[1]));
        let none =
            SocketOptions { source: SourceAddress::Addresses(Vec::new()), ..Default::default() };
        assert_eq!(none.source_address(v4, None, 3), None);
        let client = SocketOptions { source: SourceAddress::Client, ..Default::default() };
        let mapped = Some("[::ffff:192.0.2.7]:5000".parse().expect("one"));
        assert_eq!(client.source_address(v4, mapped, 0), Some("192.0.2.7".parse().expect("one")));
        assert_eq!(
            client.source_address(v6, mapped, 0),
            None,
            "no IPv4 client for an IPv6 backend"
        );
    }
}
