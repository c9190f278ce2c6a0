//! The packet engine: a program in the kernel carries every packet of a flow, and a scheduler of this crate
//! decides the first.
//!
//! [`PacketEngine`] is an [engine](crate::engine) for services of TCP and UDP: a program at the ingress of network
//! devices sends a client's packets to a server, by network address translation, by direct routing or by a tunnel. No
//! packet after the first leaves the kernel. The first comes up by a tap device, where the service's own balancer picks a backend:
//! any scheduler, a user's own too, with persistence, limits and slow start. The [lease](crate::Lease) is held until
//! the program has seen the end of the flow, or nothing of it for some time; it ends with an outcome, so that ejection
//! and `peak_ewma` learn.
//!
//! # Examples
//! ```no_run
//! use std::net::SocketAddr;
//! use lvs::engine::{Engine, EngineAddress, EngineProtocol, EngineRequest};
//! use lvs::packet::{PacketEngine, PacketSettings};
//! use lvs::scheduler::WeightedLeastConnections;
//! use lvs::{BackendSet, Balancer};
//!
//! let set = BackendSet::<SocketAddr>::new();
//! set.insert("10.2.0.2:8080".parse::<SocketAddr>()?)?;
//! set.insert("10.2.0.3:8080".parse::<SocketAddr>()?)?;
//! let balancer = Balancer::new(&set, WeightedLeastConnections::new())?;
//!
//! let engine = PacketEngine::start(PacketSettings::default())?;
//! let virtual_address = "192.0.2.1:80".parse()?;
//! let address = EngineAddress::Socket { protocol: EngineProtocol::Tcp, address: virtual_address };
//! let request = EngineRequest::new("web", address, balancer, "wlc");
//! let service = engine.claim(request)?.begin()?;
//!
//! // From here on the set's changes are followed. In the end the service goes on without this process:
//! service.hand_over();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it needs
//! `CAP_BPF` and `CAP_NET_ADMIN`, and before Linux 6.13 `CAP_PERFMON`; a BPF file system (`mount -t bpf bpf /sys/fs/bpf`); `/dev/net/tun`; Linux 6.1
//! or later. From Linux 6.6 on the program is attached by links of tcx, and before by filters of clsact. The
//! virtual address is an address of this machine, on any device, or one that a route makes local. While it is not, flows
//! go on, and packets of no flow are dropped: another machine has the address, and decides.
//!
//! # How packets reach a server
//! The [`ForwardingMethod`](crate::engine::ForwardingMethod) of a backend in
//! [`EngineRequest::methods`](crate::engine::EngineRequest::methods) says it; servers of one service may have
//! different ones.
//!
//! | | [`Nat`](crate::engine::ForwardingMethod::Nat) | [`DirectRouting`](crate::engine::ForwardingMethod::DirectRouting) | [`Tunnel`](crate::engine::ForwardingMethod::Tunnel) |
//! |---|---|---|---|
//! | a client's packets | get the server's address and port, as a router would pass them on | keep the virtual address, and go to the server's hardware address | keep the virtual address, and go in packets to the server's address |
//! | answers | come by this machine, and get the virtual address | do not come here | do not come here |
//! | the server | anywhere; its answers return by this machine, which is its default gateway or has a route of it | on a network of this machine; has the virtual address, which it does not announce | anywhere; has the virtual address, and unpacks what comes |
//! | its address | of the service's family, with any port | of the service's family, with the service's port | of either family, with the service's port |
//! | MTU | nothing to do | nothing to do | the outer headers take 20 octets of IPv4 or 40 of IPv6, and 12 with GUE. A client that sends more than has room is told so (see [below](#packets-that-are-answered)) |
//! | what is known of the answers | their octets and their time, the server's FIN and its resets | what the client acknowledges: the connection is answered then, and ends with the client's FIN or reset; datagrams are never answered | the same |
//! | a client that has closed its half | has the time of an established connection | has [`PacketSettings::closing_timeout`] after its last packet, and no lease | the same |
//! | latencies, for `peak_ewma` | from the first packet to the first answer | none | none |
//! | an ICMP error about answers, such as "packet too big" | is translated for the server | goes to the server as it is | the same |
//!
//! A tunnel is IP in IP (RFC 2003, RFC 2473), of either family in either, or GUE without a checksum. The outer packet has
//! the congestion bits of the inner one (RFC 6040), its own hop limit, and is not to be fragmented. GUE has a source port
//! for each flow, and packets over IPv6 a flow label, so that the server's network interface spreads flows over its queues;
//! with [`PacketSettings::tunnel_sources`] flows have source addresses of their own.
//!
//! A backend that packets cannot reach gets no flows, and the log names it with the reason: one by direct routing behind
//! a router, one by direct routing or a tunnel with another port, one by GRE or with a checksum of the tunnel, one of
//! another family than the service without a tunnel, or one without a route. A claim whose sorry server is such a one
//! is refused.
//!
//! # Who decides a flow
//! | | decided by |
//! |---|---|
//! | the scheduler is keyed by a table: [`Maglev`](crate::scheduler::Maglev), [`RendezvousHash::table`](crate::scheduler::RendezvousHash::table), [`IpvsMaglevHash`](crate::scheduler::IpvsMaglevHash), [`SourceHash`](crate::scheduler::SourceHash), [`DestinationHash`](crate::scheduler::DestinationHash), or a [rule of your own](crate::scheduler::LookupTable) | that table, in the kernel, with or without the process, as the scheduler itself would decide. The scheduler is asked where the table names no server that can be chosen |
//! | another scheduler, a service with persistence, or a server with a limit; the process answers within [`PacketSettings::alive_for`] | the service's scheduler |
//! | it does not, or there are more than [`PacketSettings::decisions_per_second`] | a table: the weighted [`Maglev`](crate::scheduler::Maglev) rule over all members, of which those that are not eligible are passed over |
//! | the same, and a server has a limit | nobody: the flow is refused, because a table would not keep the limit |
//!
//! A flow that is refused is left to the stack of this machine, which answers with a reset or an ICMP error, as
//! no socket listens there. [`PacketEngine::statistics`] counts each case.
//!
//! # What outlives what
//! | | established flows | new flows |
//! |---|---|---|
//! | [`EngineService::hand_over`](crate::engine::EngineService::hand_over), and the next process claims the service | go on, with new leases | are decided by the scheduler |
//! | in between, or the process is killed | go on | are decided by the table |
//! | [`EngineService::drain`](crate::engine::EngineService::drain) | go on for the time given | are refused, or a socket of this machine gets them |
//! | all services were drained and the engine is dropped | the program and the maps are removed | |
//! | the machine dies, and another one has been told of the flows | go on there | are decided there |
//! | it dies, and none has | are lost | |
//!
//! A successor may claim a service before the process that has it hands it over: the program asks the successor
//! from then on, and the other process resumes if the successor is alive no more.
//!
//! Persistence is in the process: a client may get another server after a restart. Maps, links and the table
//! lie in [`PacketSettings::pin_folder`]. A service that nobody claims within ten seconds of a start gets no new
//! flows. Maps of another version of the layout are not taken over.
//!
//! # Two machines
//! [`PacketEngine::flow_feed`] tells of the flows of an engine, and [`PacketEngine::restore_flows`] has another one keep
//! them: first all that are older than half a second, then those that become so, and those that have ended. A flow is
//! told of when it is assured (see [Floods](#floods)); one of UDP that nobody answers when it has packets for a quarter
//! of a second. A director does both with its `[sync]` table. What the other engine keeps has leases, so that its
//! schedulers know the same loads, and does not end for want of packets while batches come.
//!
//! - Who has the virtual address decides. When a machine gets it, the flows that it was told of are its own.
//! - A machine that loses an address while it is alive tells of its youngest flows at once. For a second the one that
//!   gets it drops packets of connections that it does not know, in place of a reset, and takes what it is told.
//! - A machine that has an address keeps its own flows of it, whatever it is told. When both have it, because the network
//!   between them is split, each serves who reaches it; when it heals, connections that began at the one that gives the
//!   address away end, unless the scheduler is keyed.
//! - The device of the way back is that of the route to the client, at the machine that was told.
//! - Octets and times in records of flows are those since the machine got the flow.
//! - Nothing is told of a connection by direct routing or a tunnel after its client has closed its half. Of one by network
//!   address translation it is not told that one end has closed its half: the machine that takes it over remembers it for
//!   [`PacketSettings::tcp_timeout`] after its last packet.
//! - A machine that always has the address, because its VRRP priority is 255, takes no flows of it.
//!
//! # Fragments
//! The first fragment of a packet has the ports, and is carried as a whole packet is; the program remembers the
//! ports by addresses, protocol and identification, and carries later fragments by them. Nothing is put together
//! on the way, so that a fragment waits for no other. A later one that comes before the first is left to the
//! stack of this machine and [counted](PacketStatistics::fragments), and so are fragments of ICMP: that packet is
//! lost. The ports of 8192 packets are remembered, the newest.
//!
//! Fragments keep their identification. Two servers that answer one client at the same time may choose the same,
//! as two clients behind one address may: the receiver drops what it has put together of both, by its checksum.
//!
//! # Packets that are answered
//! The program answers by an ICMP error what a router would. The error is sent from the address that the packet was sent to,
//! by the device that the packet has come from, to whom has sent it:
//!
//! - A packet that is longer than the MTU of the device that it would leave by, less what a tunnel adds: "fragmentation
//!   needed" (RFC 1191) or "packet too big" (RFC 8201). One that may be fragmented is answered, too: nothing is fragmented
//!   here. So the client of a service by a tunnel sends shorter packets after the first that is too long, and an upload
//!   goes on. Behind a filter that drops such errors it does not: there, have servers ask for shorter segments (`advmss`),
//!   or give the network to the servers a larger MTU.
//! - A packet that has passed too many routers: "time exceeded".
//!
//! A processor answers some thousand packets of each kind a second. An error quotes the header of IP and eight octets of
//! what follows (RFC 792), with twelve more that mean nothing: less than RFC 4443 asks for. Later fragments, and packets from
//! addresses that no machine has, are dropped without an answer. An IPv6 client sends packets of 1280 octets whatever it is
//! told, so that the device to a server needs an MTU of 1280 and what the tunnel adds.
//!
//! Of the messages to a virtual address, echo requests are answered by this machine's stack.
//!
//! The MTU of devices counts. What a router further on says of a packet by a tunnel, which is this machine's own, is not
//! told to the client.
//!
//! # Floods
//! A flow is *assured*, a word of netfilter's connection tracking, when its client is known to be there: the client has
//! sent a segment with ACK, or a datagram, after the server's answer. A UDP flow that nobody answers is assured when it
//! has packets for longer than a second and others need its place.
//!
//! A quarter of the room has places for flows that nobody is assured of. A flow takes one when it begins, and another
//! one when it ends, and has it until as many others have begun or ended as there are places: then it is forgotten, if
//! its client is still not known to be there, or it has ended. [`PacketStatistics::unassured_forgotten`] counts those
//! that had not ended. So SYNs, datagrams and fragments from addresses that nobody has make no assured flow, and while
//! assured flows take no more than three quarters of the room, none of them is forgotten for these. The time that a
//! client has to answer is that in which the places are taken: with 65 536 of them and a million SYNs a second, 65 ms.
//!
//! The scheduler is asked for no more packets than have room in the queue to it; a table decides the rest at once, or
//! the flow is refused where a server has a limit.
//!
//! What is not kept out:
//! - Whoever sends with the address of another a SYN and, after the server's answer, a segment that the server drops
//!   without a reset, such as one with a wrong checksum, has an assured flow. By direct routing and by tunnels, where
//!   answers are not seen, a SYN and two segments with ACK are enough.
//! - So are two datagrams with the server's answer between them, or two that nobody answers, more than a second apart,
//!   while places are not taken faster than that.
//!
//! Such flows fill the rest of the room, and the table is full then.
//!
//! A connection of a keyed scheduler that is not known goes on by the scheduler's table, unless it is one of this
//! machine's own sockets or a server has a limit: it was forgotten, or has begun at another director. A machine whose
//! netfilter or IPVS carries connections of the same virtual address itself has to end these before.
//!
//! # When the table is full
//! Flows of IPv4 and of IPv6 have a table each. New flows are served, and those that were quiet for longest are
//! forgotten, as [`PacketStatistics::flows_forgotten`] counts. The next packet of a UDP flow that was forgotten begins a
//! new flow. The client of a forgotten connection gets a reset from this machine's stack with its next packet,
//! unless the scheduler is keyed; the server is not told. The kernel forgets each direction of a flow by itself: one that carries packets makes the
//! other one again within some ten seconds, and within half a second while the flow is not assured; a flow of which
//! one direction is left, while more flows come than there is room for, is forgotten. The process keeps records, and
//! leases, of no more flows than there is room for and an eighth.
//!
//! # What is not carried
//! - Packets with options of IPv4 or a routing header of IPv6 are left to the stack, and counted. Extension
//!   headers with options are passed over.
//! - Frames with a VLAN tag that the device has not taken off, and devices without Ethernet.
//! - Servers that are this machine itself, and clients on this machine.
//! - Two virtual addresses may share a server. If a client uses one port for both, its second flow goes to
//!   another server; by direct routing to the same.
//!
//! ICMP errors about a flow reach its other side, so that path MTU discovery works, and the server's
//! "port unreachable" reaches the client as one of the virtual address. One about a flow that is not known, of a scheduler
//! that is keyed by a table, goes to the server that the table names, unless a server has a limit or a socket of this
//! machine has the connection: routers spread such errors over several directors by other addresses than those of the
//! flow. The flow begins with it, as with a segment.
//!
//! # Health checks
//! The packets of a check have the mark of a server ([`CheckMarks`](crate::engine::CheckMarks)), and go to it as those of
//! clients do, by direct routing or a tunnel; they are no flow, and nothing is counted of them. They pass the loopback
//! device, where a second program takes them: where this machine does not have the virtual address, a rule for
//! the marks ([`PacketSettings::check_marks`]) leads them there. Program and rule end with the last such check. A process
//! that is killed, or hands its services over, leaves the rule, and before Linux 6.6 the program: the next one has the
//! same, and [`detach`] removes them. A segment of a check that is longer than a tunnel has room for is lost.
//!
//! Packets to containers, by a veth or netkit pair whose other end is in another network namespace, are given to
//! that end directly ([`PacketSettings::redirect_peer`]); all others go to the neighbour that the kernel has.
//!
//! # Frames at XDP
//! Frames that come in by one of [`PacketSettings::xdp_devices`] are carried by the device's driver, before the kernel makes
//! packets of them: that is most of what a packet costs. The XDP program has the same flows and the same body as the one
//! at the ingress of each device, which stays, and to which it passes on what it does not carry itself.
//!
//! | | at XDP | at the ingress of the device |
//! |---|---|---|
//! | packets of flows that are known, by every method | yes | those that leave by a device without XDP; one every 9 s to each address, so that the kernel asks its neighbour whether it is there |
//! | first packets that the table of a keyed scheduler decides | yes | |
//! | first packets that the scheduler decides | | yes |
//! | headers of IP with options, fragments, ICMP | | yes |
//! | packets that are too long, or have passed too many routers, which are answered | | yes |
//! | a next hop whose hardware address the kernel does not know yet | | yes |
//!
//! [`PacketStatistics::at_xdp`] counts what is carried so. What it needs:
//! - Drivers with native XDP ([`XdpMode::Native`]) at the devices of clients and of servers. One that does not take the
//!   program is logged, and carries packets as without.
//! - Frames that leave by another device than they came in by need drivers that give frames to others, and that send those
//!   of others, as the kernel tells since Linux 6.3; those longer than 1514 octets one that sends multi-buffer frames. Others are
//!   carried as without.
//! - The kernel may forward at the device by which packets leave (`net.ipv4.conf.DEVICE.forwarding`,
//!   `net.ipv6.conf.DEVICE.forwarding`): it tells programs no next hop otherwise. This makes the machine a router for all
//!   others, which a packet filter has to prevent, and one that heeds router advertisements of IPv6 only with `accept_ra` 2.
//! - No VLAN on the device, whose tags the network card would take off; the device is not a bond, nor a part of
//!   one. Frames to another hardware address than the device's, such as that of a virtual router, are carried as without.
//! - Headers lie in the first buffer of a frame; some drivers have none there with jumbo frames.
//!
//! One end of a pair of devices (veth, netkit) has no native XDP here. Its frames come from a socket on this machine,
//! with a checksum that is left to a device, which a program at a driver cannot see or complete; it would
//! have the other end send short segments in place of long ones, which costs more than it saves; and frames that are sent
//! to it are lost unless its other end has a program, too. [`PacketSettings::redirect_peer`] is the short way there.
//!
//! What else differs:
//! - Each processor caches for some 17 ms the next hop of an address by a device, whatever the rules for source addresses,
//!   protocols or types of service: a route or a hardware address that changes is heeded then.
//! - Queueing disciplines, `tcpdump` and other programs at the devices see nothing of what is carried.
//! - Many drivers reset the link when the program is attached or detached, and need queues for frames that they send back.
//! - What a driver does not send is counted by the driver alone (`ethtool -S DEVICE`, the tracepoint
//!   `xdp:xdp_redirect_err`).
//!
//! Packets that the program carries do not pass this machine's netfilter: rules and connection tracking for
//! forwarded packets do not see them.

mod causes;
mod check_program;
mod check_routes;
mod engine;
mod error;
mod flow_direction;
mod flow_sync;
mod frame;
mod kernel_state;
mod layout;
mod link_name;
mod maps;
mod netlink;
mod program;
mod settings;
mod statistics;
mod tunnel_source;
mod xdp_features;
mod xdp_mode;
mod xdp_program;

pub use self::engine::PacketEngine;
pub use self::error::PacketError;
pub use self::flow_sync::{FlowBatch, FlowBatchError, FlowFeed, RestoredFlows, SyncedFlow};
pub use self::kernel_state::{PacketKernelState, PacketServerState, PacketServiceState, detach};
pub use self::settings::{PACKET_CHECK_MARK_COUNT, PacketSettings};
pub use self::statistics::PacketStatistics;
pub use self::tunnel_source::{TunnelSource, TunnelSourceError};
pub use self::xdp_mode::XdpMode;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod object_tests;
