// Frames of flows that are known, or that a keyed scheduler's table decides, carried before the kernel makes packets of
// them, by devices whose drivers have XDP. All others are passed on as they are, to the program at the ingress of the
// device, which does the rest.

#ifndef LVS_XDP_H
#define LVS_XDP_H

#include "follow.h"
#include "tunnel.h"

// Every driver has a frame of this length in one piece.
enum { ONE_PIECE_LEN = ETHERNET_LEN + 1500 };
enum { IPV4_FRAGMENT_BITS = IPV4_RESERVED | IPV4_MORE | IPV4_OFFSET };

// Where a frame goes next.
struct next_frame {
	u32 ifindex;
	u8 next_mac[6], own_mac[6];
};

// The next hop of packets to an address by a device: of all that a frame costs, to ask the kernel is the most.
struct cached_hop {
	// In nanoseconds of the monotonic clock.
	u64 until;
	struct address destination;
	struct next_frame next;
	// The longest packet.
	u16 mtu;
	// The next hop is a router, and not the destination.
	u16 is_router;
};

// By the hash of the address.
enum { CACHED_HOP_BITS = 10 };
struct {
	MAP_NUMBER(type, MAP_PERCPU_ARRAY);
	MAP_NUMBER(max_entries, 1 << CACHED_HOP_BITS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct cached_hop);
} cached_hops SECTION(".maps");

// A hop is cached for 2^24 ns, some 17 ms: a route or a neighbour that changes is heeded then.
enum { CACHE_SHIFT = 24 };
// In one of so many of these times, another one for each address, a packet goes by the kernel's own way: it asks a
// neighbour no more whether it is still there, if nothing goes there by it.
enum { CONFIRMED_ONCE_IN = 512 };

INLINE struct xdp_device *find_device(u32 ifindex)
{
	u32 slot = ifindex % XDP_DEVICE_SLOTS;
	struct xdp_device *device = map_lookup(&xdp_devices, &slot);
	return device && device->ifindex == ifindex ? device : 0;
}

INLINE void set_ports(struct packet *packet, const void *header)
{
	__builtin_memcpy(&packet->tuple.source_port, header, 2);
	__builtin_memcpy(&packet->tuple.destination_port, header + 2, 2);
}

// Reads a header of TCP. Returns whether it is valid.
INLINE u32 parse_tcp_header(struct packet *packet, const u8 *header)
{
	u32 len = (header[12] >> 4) * 4;
	packet->tcp_flags = header[13];
	set_ports(packet, header);
	return len >= TCP_LEN && packet->transport + len <= packet->end;
}

// Reads the header of TCP or UDP at its place, which is a constant. Returns whether there is one, and it is valid.
INLINE u32 parse_frame_transport(struct xdp_md *frame, struct packet *packet, u32 at)
{
	void *octets;
	if (packet->tuple.protocol == PROTOCOL_TCP)
		return find_in_frame(frame, at + TCP_LEN, &octets) && parse_tcp_header(packet, octets + at);
	if (packet->tuple.protocol != PROTOCOL_UDP || !find_in_frame(frame, at + UDP_LEN, &octets))
		return 0;
	set_ports(packet, octets + at);
	return 1;
}

INLINE u32 parse_ipv4_frame(struct xdp_md *frame, struct packet *packet, const struct ipv4 *ip)
{
	packet->end = ETHERNET_LEN + NETWORK16(ip->len);
	packet->transport = IPV4_TRANSPORT;
	if (ip->version_and_len != 0x45 || ip->fragment & NETWORK16(IPV4_FRAGMENT_BITS) ||
	    packet->end < IPV4_TRANSPORT + UDP_LEN || packet->end > frame_len(frame))
		return 0;
	set_ipv4(&packet->tuple.source, ip->source);
	set_ipv4(&packet->tuple.destination, ip->destination);
	packet->tuple.protocol = ip->protocol;
	packet->hop_limit = ip->time_to_live;
	packet->ipv4_checksum = ip->checksum;
	return parse_frame_transport(frame, packet, IPV4_TRANSPORT);
}

INLINE u32 parse_ipv6_frame(struct xdp_md *frame, struct packet *packet, const struct ipv6 *ip)
{
	packet->end = IPV6_TRANSPORT + NETWORK16(ip->payload_len);
	packet->transport = IPV6_TRANSPORT;
	packet->is_ipv6 = 1;
	packet->tuple.source = ip->source;
	packet->tuple.destination = ip->destination;
	packet->tuple.protocol = ip->next_header;
	packet->hop_limit = ip->hop_limit;
	if (*(const u8 *)ip >> 4 != 6 || packet->end < IPV6_TRANSPORT + UDP_LEN || packet->end > frame_len(frame) ||
	    is_ipv4(&packet->tuple.source) || is_ipv4(&packet->tuple.destination))
		return 0;
	return parse_frame_transport(frame, packet, IPV6_TRANSPORT);
}

INLINE u32 is_same_mac(const u8 *a, const u8 *b)
{
	const u16 *x = (const u16 *)a, *y = (const u16 *)b;
	return ((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2])) == 0;
}

// Reads a frame for this machine. Returns whether it has a whole packet of TCP or UDP, with plain headers.
static __attribute__((noinline)) u32 parse_frame(struct xdp_md *frame, struct packet *packet)
{
	void *octets;
	struct xdp_device *device = find_device(frame->ingress_ifindex);
	if (!device || !find_in_frame(frame, IPV4_TRANSPORT, &octets))
		return 0;
	const struct ethernet *ethernet = octets;
	if (!is_same_mac(ethernet->destination, device->mac))
		return 0;
	if (ethernet->type == NETWORK16(ETHERTYPE_IPV4))
		return parse_ipv4_frame(frame, packet, octets + ETHERNET_LEN);
	if (ethernet->type != NETWORK16(ETHERTYPE_IPV6) || !find_in_frame(frame, IPV6_TRANSPORT, &octets))
		return 0;
	return parse_ipv6_frame(frame, packet, octets + ETHERNET_LEN);
}

// Returns whether a flow that is not known begins with a packet, and the scheduler's own table decides it.
static __attribute__((noinline)) u32 is_begun_by_table(const struct packet *packet)
{
	struct service *service = find_service(&packet->tuple);
	if (!service || !is_decided_anew(service) || service->flags & SERVICE_IS_ELSEWHERE)
		return 0;
	return packet->tuple.protocol == PROTOCOL_UDP ||
	       (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
}

INLINE void set_route_address(u32 *words, const struct address *address)
{
	if (is_ipv4(address))
		words[0] = address->words[3];
	else
		__builtin_memcpy(words, address, sizeof(*address));
}

// Asks the kernel for the next hop of packets from an address to that of an entry by its device. Returns whether it knows
// one.
static __attribute__((noinline)) u32 ask_for_hop(struct xdp_md *frame, const struct packet *packet,
						 const struct address *source, struct cached_hop *hop)
{
	struct route route = {
		.family = is_ipv4(&hop->destination) ? FAMILY_IPV4 : FAMILY_IPV6,
		.protocol = packet->tuple.protocol,
		.len = packet->end - ETHERNET_LEN,
		.ifindex = hop->next.ifindex,
	};
	void *octets;
	if (!find_in_frame(frame, IPV4_TRANSPORT, &octets))
		return 0;
	route.class = traffic_class(packet, octets + ETHERNET_LEN);
	if (route.family == FAMILY_IPV6)
		route.class = __builtin_bswap32(route.class << 20);
	set_route_address(route.source, source);
	set_route_address(route.destination, &hop->destination);
	u32 asked_for = route.destination[0] ^ route.destination[1] ^ route.destination[2] ^ route.destination[3];
	if (find_route(frame, &route, sizeof(route), ROUTE_BY_DEVICE) || route.ifindex != hop->next.ifindex)
		return 0;
	// The kernel puts a router in the place of the destination.
	u32 answered = route.destination[0] ^ route.destination[1] ^ route.destination[2] ^ route.destination[3];
	hop->is_router = answered != asked_for;
	hop->mtu = route.len;
	__builtin_memcpy(hop->next.next_mac, route.next_mac, 6);
	__builtin_memcpy(hop->next.own_mac, route.own_mac, 6);
	return 1;
}

// Returns whether frames of one device can leave by another one, or by the same.
INLINE u32 takes_frame(const struct packet *packet, u32 from, u32 to)
{
	struct xdp_device *in = find_device(from), *out = find_device(to);
	if (!in || !out)
		return 0;
	if (from == to)
		return 1;
	return in->flags & XDP_DEVICE_REDIRECTS && out->flags & XDP_DEVICE_SENDS &&
	       (packet->end <= ONE_PIECE_LEN || out->flags & XDP_DEVICE_SENDS_MULTI_BUFFER);
}

// Finds where a packet of a flow goes next, at a time. Returns whether it does so at XDP.
static __attribute__((noinline)) u32 find_next(struct xdp_md *frame, const struct packet *packet,
					       const struct flow *flow, struct next_frame *next, u64 now)
{
	const struct tuple *tuple = &packet->tuple;
	u32 index = flow->server, len = packet->end - ETHERNET_LEN, ifindex = outgoing_device(flow);
	struct server *server = map_lookup(&servers, &index);
	if (!server || !takes_frame(packet, frame->ingress_ifindex, ifindex))
		return 0;
	struct address source = tuple->source, destination = flow->address;
	u32 is_neighbour = 0;
	if (flow->state & FLOW_TO_CLIENT) {
		source = flow->address;
		destination = tuple->destination;
	} else if (server->method >= METHOD_IPIP) {
		len += tunnel_overhead(server);
		source = server->source;
		source.words[3] |= hash_flow(tuple) & server->source_spread;
	} else {
		is_neighbour = server->method == METHOD_DIRECT;
	}
	u32 slot = fold_address(&destination) * 0x9e3779b1 >> (32 - CACHED_HOP_BITS);
	struct cached_hop *hop = map_lookup(&cached_hops, &slot);
	if (!hop)
		return 0;
	u32 is_same = hop->next.ifindex == ifindex && is_same_address(&hop->destination, &destination);
	if (!is_same || hop->until <= now) {
		u64 until = now + (1 << CACHE_SHIFT);
		if (((u32)(now >> CACHE_SHIFT) ^ slot) % CONFIRMED_ONCE_IN == 0) {
			if (is_same)
				hop->until = until;
			return 0;
		}
		hop->destination = destination;
		hop->next.ifindex = ifindex;
		if (!ask_for_hop(frame, packet, &source, hop)) {
			hop->next.ifindex = 0;
			return 0;
		}
		hop->until = until;
	}
	*next = hop->next;
	return len <= hop->mtu && !(is_neighbour && hop->is_router);
}

INLINE void rewrite_tcp(void *header, u64 change, u32 new_ports)
{
	u16 *checksum = header + TCP_CHECKSUM;
	*checksum = changed_checksum(*checksum, change);
	*(u32 *)header = new_ports;
}

// Of UDP, a checksum may be absent, and is then 0.
INLINE void rewrite_udp(void *header, u64 change, u32 new_ports)
{
	u16 *checksum = header + UDP_CHECKSUM;
	u16 old = *checksum;
	u16 changed = changed_checksum(old, change);
	if (old)
		*checksum = changed ? changed : 0xffff;
	*(u32 *)header = new_ports;
}

// Gives the header after that of IP, at its place, which is a constant, new ports, and its checksum a change.
INLINE long rewrite_transport(struct xdp_md *frame, const struct packet *packet, u32 at, u64 change, u32 new_ports)
{
	void *octets;
	if (packet->tuple.protocol == PROTOCOL_TCP) {
		if (!find_in_frame(frame, at + TCP_LEN, &octets))
			return -1;
		rewrite_tcp(octets + at, change, new_ports);
		KEEP_BRANCH;
	} else {
		if (!find_in_frame(frame, at + UDP_LEN, &octets))
			return -1;
		rewrite_udp(octets + at, change, new_ports);
	}
	return 0;
}

// Gives a packet of a flow its new addresses and ports, and a hop limit that is one less.
static __attribute__((noinline)) long rewrite_frame(struct xdp_md *frame, const struct packet *packet,
						    const struct flow *flow)
{
	const struct tuple *old = &packet->tuple;
	u32 is_direct = flow->state & FLOW_DIRECT, to_client = flow->state & FLOW_TO_CLIENT;
	const struct address *source = to_client ? &flow->address : &old->source;
	const struct address *destination = to_client || is_direct ? &old->destination : &flow->address;
	void *octets;
	if (packet->is_ipv6) {
		if (!find_in_frame(frame, IPV6_TRANSPORT, &octets))
			return -1;
		set_ipv6_addresses(octets + ETHERNET_LEN, packet, source, destination);
	} else {
		if (!find_in_frame(frame, IPV4_TRANSPORT, &octets))
			return -1;
		set_ipv4_addresses(octets + ETHERNET_LEN, packet, source, destination);
	}
	if (is_direct)
		return 0;
	u32 old_ports = ports(old->source_port, old->destination_port);
	u32 new_ports = to_client ? ports(flow->port, old->destination_port) : ports(old->source_port, flow->port);
	u64 change = add_address_change(0, to_client ? &old->source : &old->destination, &flow->address);
	change = add_change(change, old_ports, new_ports);
	return packet->is_ipv6 ? rewrite_transport(frame, packet, IPV6_TRANSPORT, change, new_ports)
			       : rewrite_transport(frame, packet, IPV4_TRANSPORT, change, new_ports);
}

// Puts headers before a packet: one of IP, of a length that is a constant, and that of GUE if the server has it.
INLINE long prepend(struct xdp_md *frame, const struct server *server, u16 type, const void *outer, u32 ip_len)
{
	void *octets;
	if (move_head(frame, -(s32)tunnel_overhead(server)) ||
	    !find_in_frame(frame, ETHERNET_LEN + ip_len + sizeof(struct gue), &octets))
		return -1;
	((struct ethernet *)octets)->type = NETWORK16(type);
	__builtin_memcpy(octets + ETHERNET_LEN, outer, ip_len);
	if (server->method == METHOD_GUE)
		__builtin_memcpy(octets + ETHERNET_LEN + ip_len, outer + ip_len, sizeof(struct gue));
	return 0;
}

INLINE long prepend_ipv4(struct xdp_md *frame, const struct packet *packet, const struct server *server, u8 class)
{
	struct outer_ipv4 outer = {};
	set_outer_ipv4(&outer, packet, server, class);
	return prepend(frame, server, ETHERTYPE_IPV4, &outer, sizeof(outer.ip));
}

INLINE long prepend_ipv6(struct xdp_md *frame, const struct packet *packet, const struct server *server, u8 class)
{
	struct outer_ipv6 outer = {};
	set_outer_ipv6(&outer, packet, server, class);
	return prepend(frame, server, ETHERTYPE_IPV6, &outer, sizeof(outer.ip));
}

// Puts the packet of a frame into the one that goes to a server by its tunnel. Returns 0 if it is there.
static __attribute__((noinline)) long encapsulate_frame(struct xdp_md *frame, const struct packet *packet,
							const struct server *server)
{
	void *octets;
	if (!find_in_frame(frame, IPV4_TRANSPORT, &octets))
		return -1;
	u8 class = traffic_class(packet, octets + ETHERNET_LEN);
	return is_ipv4(&server->address) ? prepend_ipv4(frame, packet, server, class)
					 : prepend_ipv6(frame, packet, server, class);
}

// Makes a frame what is sent. Returns 0 if it is that.
INLINE long change_frame(struct xdp_md *frame, const struct packet *packet, const struct flow *flow,
			 const struct next_frame *next)
{
	void *octets;
	u32 index = flow->server;
	if (rewrite_frame(frame, packet, flow))
		return -1;
	if (flow->state & FLOW_DIRECT) {
		struct server *server = map_lookup(&servers, &index);
		if (!server || (server->method >= METHOD_IPIP && encapsulate_frame(frame, packet, server)))
			return -1;
	}
	if (!find_in_frame(frame, ETHERNET_LEN, &octets))
		return -1;
	struct ethernet *ethernet = octets;
	__builtin_memcpy(ethernet->destination, next->next_mac, 6);
	__builtin_memcpy(ethernet->source, next->own_mac, 6);
	return 0;
}

static __attribute__((noinline)) int carry_frame(struct xdp_md *frame, const struct packet *packet)
{
	const struct tuple *tuple = &packet->tuple;
	u32 ifindex = frame->ingress_ifindex;
	struct next_frame next = {};
	struct flow known;
	if (packet->hop_limit <= 1)
		return FRAME_PASS;
	struct flow *flow = find_flow(tuple);
	if (!flow) {
		if (!is_begun_by_table(packet) || decide_by_table(tuple, ifindex))
			return FRAME_PASS;
		flow = find_flow(tuple);
	} else if ((packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && flow->state & (FLOW_FINS | FLOW_RESETS)) {
		// The port of a connection that has ended may be used for another one.
		return FRAME_PASS;
	}
	u64 now = coarse_time_ns();
	if (!flow || !find_next(frame, packet, flow, &next, now))
		return FRAME_PASS;
	follow_packet(packet, flow, &known, ifindex, now);
	if (change_frame(frame, packet, &known, &next)) {
		count(COUNT_REWRITE_FAILED);
		return FRAME_DROP;
	}
	count(COUNT_AT_XDP);
	return next.ifindex == ifindex ? FRAME_RETURN : redirect_frame(next.ifindex, 0);
}

INLINE int run_on_frame(struct xdp_md *frame)
{
	struct packet packet = {};
	return parse_frame(frame, &packet) ? carry_frame(frame, &packet) : FRAME_PASS;
}

#endif
