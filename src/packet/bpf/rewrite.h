// What the program changes of a packet.

#ifndef LVS_REWRITE_H
#define LVS_REWRITE_H

#include "flow_entry.h"

// The neighbour that a packet is given to (`struct bpf_redir_neigh`); an address of IPv4 is in the first word.
struct next_hop {
	u32 family;
	struct address address;
};
enum { FAMILY_IPV4 = 2, FAMILY_IPV6 = 10 };

// Offsets in a header.
enum { TCP_CHECKSUM = 16, UDP_CHECKSUM = 6 };

// Adds to a sum of ones' complement what a change of a word changes.
INLINE u64 add_change(u64 sum, u32 from, u32 to)
{
	return sum + (u32)~from + to;
}

INLINE u64 add_address_change(u64 sum, const struct address *from, const struct address *to)
{
#pragma unroll
	for (int n = 0; n < 4; n++)
		sum = add_change(sum, from->words[n], to->words[n]);
	return sum;
}

INLINE u32 fold32(u64 sum)
{
	sum = (u32)sum + (sum >> 32);
	return (u32)sum + (sum >> 32);
}

// Returns a checksum after a change.
INLINE u16 changed_checksum(u16 checksum, u64 change)
{
	u64 sum = (u16)~checksum + (u64)fold32(change);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (u16)~sum;
}

INLINE u32 ports(u16 source, u16 destination)
{
	// In the order of the header.
	u16 both[2] = {source, destination};
	u32 word;
	__builtin_memcpy(&word, both, 4);
	return word;
}

// Writes the addresses of a header of IP, with a hop limit that is one less.
INLINE void set_ipv6_addresses(struct ipv6 *ip, const struct packet *packet, const struct address *source,
			       const struct address *destination)
{
	ip->hop_limit = packet->hop_limit - 1;
	ip->source = *source;
	ip->destination = *destination;
}

INLINE void set_ipv4_addresses(struct ipv4 *ip, const struct packet *packet, const struct address *source,
			       const struct address *destination)
{
	const struct tuple *old = &packet->tuple;
	u8 hop_limit = packet->hop_limit - 1;
	u64 change = add_change(0, old->source.words[3], source->words[3]);
	change = add_change(change, old->destination.words[3], destination->words[3]);
	// The time to live is the first octet of its word.
	change = add_change(change, NETWORK16(packet->hop_limit << 8), NETWORK16(hop_limit << 8));
	ip->time_to_live = hop_limit;
	ip->checksum = changed_checksum(packet->ipv4_checksum, change);
	ip->source = source->words[3];
	ip->destination = destination->words[3];
}

// The same for a packet, whose header of IP lies in one piece.
INLINE long write_addresses(struct __sk_buff *skb, const struct packet *packet, const struct address *source,
			    const struct address *destination)
{
	void *octets;
	if (packet->is_ipv6) {
		if (!find_octets(skb, IPV6_TRANSPORT, &octets))
			return -1;
		set_ipv6_addresses(octets + ETHERNET_LEN, packet, source, destination);
		return 0;
	}
	if (!find_octets(skb, IPV4_TRANSPORT, &octets))
		return -1;
	set_ipv4_addresses(octets + ETHERNET_LEN, packet, source, destination);
	return 0;
}

// Writes the ports of the header after that of IP.
INLINE long write_ports(struct __sk_buff *skb, const struct packet *packet, u32 new_ports)
{
	void *octets;
	if (packet->transport == IPV4_TRANSPORT && find_octets(skb, IPV4_TRANSPORT + 4, &octets)) {
		*(u32 *)(octets + IPV4_TRANSPORT) = new_ports;
		return 0;
	}
	if (packet->transport == IPV6_TRANSPORT && find_octets(skb, IPV6_TRANSPORT + 4, &octets)) {
		*(u32 *)(octets + IPV6_TRANSPORT) = new_ports;
		return 0;
	}
	return store_bytes(skb, packet->transport, &new_ports, 4, 0);
}

// Replaces a checksum by the change of the addresses of which its pseudo header consists.
INLINE long replace_pseudo_header(struct __sk_buff *skb, const struct packet *packet, u32 offset, u64 change,
				  u64 flags)
{
	flags |= CHECKSUM_OF_PSEUDO_HEADER;
	if (packet->is_ipv6 && !replace_l4_checksum(skb, offset, 0, fold32(change), flags | CHECKSUM_OF_IPV6))
		return 0;
	return replace_l4_checksum(skb, offset, 0, fold32(change), flags);
}

// Gives a packet of a flow its new addresses and ports.
INLINE long rewrite(struct __sk_buff *skb, const struct packet *packet, const struct flow *flow)
{
	const struct tuple *old = &packet->tuple;
	if (flow->state & FLOW_DIRECT)
		return write_addresses(skb, packet, &old->source, &old->destination);
	u32 to_client = flow->state & FLOW_TO_CLIENT;
	const struct address *source = to_client ? &flow->address : &old->source;
	const struct address *destination = to_client ? &old->destination : &flow->address;
	// The ports and the checksum are in the first fragment.
	if (packet->fragment == LATER_FRAGMENT)
		return write_addresses(skb, packet, source, destination);
	u32 is_tcp = old->protocol == PROTOCOL_TCP;
	u32 offset = packet->transport + (is_tcp ? TCP_CHECKSUM : UDP_CHECKSUM);
	u64 flags = is_tcp ? 0 : CHECKSUM_MAY_BE_ABSENT;
	u32 old_ports = ports(old->source_port, old->destination_port);
	u32 new_ports = to_client ? ports(flow->port, old->destination_port) : ports(old->source_port, flow->port);
	u64 change = add_address_change(0, to_client ? &old->source : &old->destination, &flow->address);
	if (replace_pseudo_header(skb, packet, offset, change, flags))
		return -1;
	if (old_ports != new_ports) {
		if (replace_l4_checksum(skb, offset, old_ports, new_ports, flags | 4))
			return -1;
		if (write_ports(skb, packet, new_ports))
			return -1;
	}
	return write_addresses(skb, packet, source, destination);
}

// Sends a packet to the other end of a pair of devices, or returns that the device is none of a pair.
INLINE int send_to_peer(struct __sk_buff *skb, u32 ifindex)
{
	struct peer *peer = map_lookup(&peers, &ifindex);
	if (!peer)
		return VERDICT_NEXT;
	if (store_bytes(skb, 0, peer, sizeof(*peer), 0))
		return VERDICT_DROP;
	return redirect_to_peer(ifindex, 0);
}

// Sends a packet to the neighbour that the kernel has for an address by a device.
INLINE int send_to_neighbour(u32 ifindex, const struct address *address)
{
	struct next_hop next_hop = {.family = is_ipv4(address) ? FAMILY_IPV4 : FAMILY_IPV6, .address = *address};
	if (is_ipv4(address))
		next_hop.address.words[0] = address->words[3];
	return redirect_to_neighbour(ifindex, &next_hop, sizeof(next_hop), 0);
}

// Sends a packet on its way by a device.
static __attribute__((noinline)) int send(struct __sk_buff *skb, u32 ifindex)
{
	int verdict = send_to_peer(skb, ifindex);
	return verdict == VERDICT_NEXT ? redirect_to_neighbour(ifindex, 0, 0, 0) : verdict;
}

// Sends a packet to a server that its destination does not name, and that is on the network of the device.
static __attribute__((noinline)) int send_direct(struct __sk_buff *skb, u32 ifindex, const struct address *server)
{
	int verdict = send_to_peer(skb, ifindex);
	return verdict == VERDICT_NEXT ? send_to_neighbour(ifindex, server) : verdict;
}

#endif
