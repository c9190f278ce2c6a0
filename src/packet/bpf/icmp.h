// ICMP errors, which are about a packet of a flow that they quote.

#ifndef LVS_ICMP_H
#define LVS_ICMP_H

#include "flow.h"

enum { ICMP_LEN = 8, ICMP_CHECKSUM = 2, IPV4_CHECKSUM = 10, IPV6_SOURCE = 8, IPV6_DESTINATION = 24 };
enum { ICMP_UNREACHABLE = 3, ICMP_SOURCE_QUENCH = 4, ICMP_TIME_EXCEEDED = 11, ICMP_PARAMETER = 12 };
enum { ICMPV6_UNREACHABLE = 1, ICMPV6_PARAMETER = 4 };

// What is changed of a quoted header of IPv4.
struct quoted_ipv4 {
	u16 checksum;
	u32 source, destination;
} __attribute__((packed));

// Finds the direction that comes back of the flow of which a packet is quoted. `quoted` becomes the tuple of that
// packet as it was sent, and `back` that of the direction.
INLINE struct flow *find_quoted(struct __sk_buff *skb, const struct packet *packet, struct tuple *quoted,
				     struct tuple *back, u16 *checksum)
{
	u32 at = packet->transport + ICMP_LEN;
	u32 header_len = IPV4_LEN;
	u16 both_ports[2];
	u8 type;
	if (load_bytes(skb, packet->transport, &type, 1))
		return 0;
	if (packet->is_ipv6) {
		struct ipv6 ip;
		if (type < ICMPV6_UNREACHABLE || type > ICMPV6_PARAMETER || load_bytes(skb, at, &ip, sizeof(ip)) ||
		    (*(const u8 *)&ip >> 4) != 6 || is_ipv4(&ip.source) || is_ipv4(&ip.destination))
			return 0;
		quoted->source = ip.source;
		quoted->destination = ip.destination;
		quoted->protocol = ip.next_header;
		header_len = IPV6_LEN;
	} else {
		struct ipv4 ip;
		if (type != ICMP_UNREACHABLE && type != ICMP_SOURCE_QUENCH && type != ICMP_TIME_EXCEEDED &&
		    type != ICMP_PARAMETER)
			return 0;
		if (load_bytes(skb, at, &ip, sizeof(ip)) || ip.version_and_len != 0x45 ||
		    (ip.fragment & NETWORK16(0x1fff)))
			return 0;
		set_ipv4(&quoted->source, ip.source);
		set_ipv4(&quoted->destination, ip.destination);
		quoted->protocol = ip.protocol;
		*checksum = ip.checksum;
	}
	if (quoted->protocol != PROTOCOL_TCP && quoted->protocol != PROTOCOL_UDP)
		return 0;
	if (at + header_len + 4 > packet->end || load_bytes(skb, at + header_len, both_ports, 4))
		return 0;
	// An error is sent to whom has sent what it quotes.
	if (!is_same_address(&quoted->source, &packet->tuple.destination))
		return 0;
	quoted->source_port = both_ports[0];
	quoted->destination_port = both_ports[1];
	swap_ends(quoted, back);
	return find_flow(back);
}

// Returns whether an ICMP error is about a flow that is not known and that the scheduler's own table decides: it was
// forgotten, or has begun at another director. `tuple` becomes that of the client's packets.
static __attribute__((noinline)) int is_about_keyed(struct __sk_buff *skb, const struct packet *packet,
						    struct tuple *tuple)
{
	struct tuple quoted = {};
	u16 checksum;
	if (find_quoted(skb, packet, &quoted, tuple, &checksum) || !tuple->protocol)
		return 0;
	u32 first = 0;
	struct service *service = find_service(tuple);
	struct control *said = map_lookup(&control, &first);
	if (!service || !said || !is_decided_anew(service))
		return 0;
	// As with other packets, the machine that has the address decides.
	if (service->flags & SERVICE_IS_ELSEWHERE && coarse_time_ns() < said->alive_until)
		return 0;
	return tuple->protocol != PROTOCOL_TCP || !has_socket(skb, tuple);
}

// Gives an ICMP error, and the packet that it quotes, the addresses of the other side. One about a flow whose server
// answers by itself keeps its own, and `server` becomes the number of where it goes. Returns the device that it leaves
// by, or 0 if it is not about a flow, or -1 if it cannot be changed.
static __attribute__((noinline)) int translate_error(struct __sk_buff *skb, const struct packet *packet,
						     u32 *server)
{
	struct tuple quoted = {}, other = {};
	u16 checksum = 0;
	u32 at = packet->transport + ICMP_LEN;
	struct flow *flow = find_quoted(skb, packet, &quoted, &other, &checksum);
	if (!flow)
		return 0;
	// As the other side sees them.
	follow_flow(&other, flow);
	int ifindex = outgoing_device(flow);
	const struct address *source = &packet->tuple.source;
	if (flow->state & FLOW_DIRECT) {
		*server = flow->server;
		return write_addresses(skb, packet, source, &packet->tuple.destination) ? -1 : ifindex;
	}
	// The error is the other end's own, and not a router's on the way.
	if (is_same_address(source, &quoted.destination))
		source = &other.source;
	u32 old_ports = ports(quoted.source_port, quoted.destination_port);
	u32 new_ports = ports(other.destination_port, other.source_port);
	// The quoted packet has the addresses the other way round.
	u64 change = add_address_change(0, &quoted.source, &other.destination);
	change = add_address_change(change, &quoted.destination, &other.source);
	u32 offset = packet->transport + ICMP_CHECKSUM;
	if (packet->is_ipv6) {
		u64 outer = add_address_change(0, &packet->tuple.source, source);
		outer = add_address_change(outer, &packet->tuple.destination, &other.destination);
		if (replace_pseudo_header(skb, packet, offset, outer, 0) ||
		    replace_l4_checksum(skb, offset, 0, fold32(add_change(change, old_ports, new_ports)), 0) ||
		    store_bytes(skb, at + IPV6_SOURCE, &other.destination, sizeof(struct address), 0) ||
		    store_bytes(skb, at + IPV6_DESTINATION, &other.source, sizeof(struct address), 0) ||
		    store_bytes(skb, at + IPV6_LEN, &new_ports, 4, 0))
			return -1;
	} else {
		struct quoted_ipv4 ip = {
			// The sum over the quoted header stays what it was, so that the error's own checksum does.
			.checksum = changed_checksum(checksum, change),
			.source = other.destination.words[3],
			.destination = other.source.words[3],
		};
		if (replace_l4_checksum(skb, offset, old_ports, new_ports, 4) ||
		    store_bytes(skb, at + IPV4_CHECKSUM, &ip, sizeof(ip), 0) ||
		    store_bytes(skb, at + IPV4_LEN, &new_ports, 4, 0))
			return -1;
	}
	if (write_addresses(skb, packet, source, &other.destination))
		return -1;
	return ifindex;
}

#endif
