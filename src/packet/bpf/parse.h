// What the program reads of a packet.

#ifndef LVS_PARSE_H
#define LVS_PARSE_H

#include "layout.h"

enum { ETHERNET_TYPE = 12, ETHERNET_LEN = 14, IPV4_LEN = 20, IPV6_LEN = 40, TCP_LEN = 20, UDP_LEN = 8 };
// Where the header after that of IP is, if there are no options.
enum { IPV4_TRANSPORT = ETHERNET_LEN + IPV4_LEN, IPV6_TRANSPORT = ETHERNET_LEN + IPV6_LEN };
enum { ETHERTYPE_IPV4 = 0x0800, ETHERTYPE_IPV6 = 0x86dd };
enum { PROTOCOL_ICMP = 1, PROTOCOL_TCP = 6, PROTOCOL_UDP = 17, PROTOCOL_ICMPV6 = 58 };
// Extension headers of IPv6.
enum { HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, DESTINATION_OPTIONS = 60 };
enum { MAX_EXTENSION_HEADERS = 4 };
// Bits of the word with a fragment's offset.
enum { IPV4_RESERVED = 0x8000, IPV4_MORE = 0x2000, IPV4_OFFSET = 0x1fff, IPV6_MORE = 1, IPV6_OFFSET = 0xfff8 };

enum { PACKET_HOST = 0 };

enum tcp_flags { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };

struct ethernet {
	u8 destination[6], source[6];
	u16 type;
} __attribute__((packed));

struct ipv4 {
	u8 version_and_len, type_of_service;
	u16 len, id, fragment;
	u8 time_to_live, protocol;
	u16 checksum;
	u32 source, destination;
};

struct ipv6 {
	u32 version_and_flow;
	u16 payload_len;
	u8 next_header, hop_limit;
	struct address source, destination;
};

struct ipv6_fragment {
	u8 next_header, reserved;
	u16 offset;
	u32 id;
};

enum packet_kind {
	// Nothing for this program.
	PACKET_OTHER,
	// TCP or UDP.
	PACKET_FLOW,
	PACKET_ICMP,
	// A fragment whose packet has no ports.
	PACKET_FRAGMENT,
	PACKET_OPTIONS,
	PACKET_MALFORMED,
};

enum fragment_kind {
	WHOLE_PACKET,
	// The one with the header of TCP or UDP.
	FIRST_FRAGMENT,
	LATER_FRAGMENT,
};

struct packet {
	// Without ports for what has none.
	struct tuple tuple;
	// The offset of what is behind the packet, and of the header after that of IP.
	u32 end;
	u16 transport;
	u16 ipv4_checksum;
	u8 is_ipv6;
	u8 tcp_flags;
	u8 hop_limit;
	// Of the header of TCP or UDP; 0 for later fragments.
	u8 header_len;
	// What the fragments of a packet have in common.
	u32 fragment_id;
	// One of `enum fragment_kind`.
	u32 fragment;
};

INLINE void set_ipv4(struct address *address, u32 ipv4)
{
	address->words[0] = 0;
	address->words[1] = 0;
	address->words[2] = __builtin_bswap32(0xffff);
	address->words[3] = ipv4;
}

// Returns whether an address stands for one of IPv4, which no packet of IPv6 has on a wire.
INLINE int is_ipv4(const struct address *address)
{
	return ((address->words[2] ^ __builtin_bswap32(0xffff)) | address->words[1] | address->words[0]) == 0;
}

// With one branch: the verifier goes every way that there is.
INLINE int is_same_address(const struct address *a, const struct address *b)
{
	return ((a->words[3] ^ b->words[3]) | (a->words[2] ^ b->words[2]) | (a->words[1] ^ b->words[1]) |
		(a->words[0] ^ b->words[0])) == 0;
}

// Reads the beginning of the header after that of IP, of a length that is a constant.
INLINE long load_transport(struct __sk_buff *skb, const struct packet *packet, u8 *header, u32 len)
{
	void *octets;
	if (packet->transport == IPV4_TRANSPORT && find_octets(skb, IPV4_TRANSPORT + len, &octets)) {
		__builtin_memcpy(header, octets + IPV4_TRANSPORT, len);
		return 0;
	}
	if (packet->transport == IPV6_TRANSPORT && find_octets(skb, IPV6_TRANSPORT + len, &octets)) {
		__builtin_memcpy(header, octets + IPV6_TRANSPORT, len);
		return 0;
	}
	return load_bytes(skb, packet->transport, header, len);
}

// Reads the ports, and the flags of TCP.
INLINE enum packet_kind parse_transport(struct __sk_buff *skb, struct packet *packet, u32 payload_len)
{
	u8 header[14];
	u8 protocol = packet->tuple.protocol;
	u32 header_len = protocol == PROTOCOL_TCP ? TCP_LEN : UDP_LEN;
	if (protocol == PROTOCOL_ICMP || protocol == PROTOCOL_ICMPV6) {
		if ((protocol == PROTOCOL_ICMPV6) != packet->is_ipv6)
			return PACKET_OTHER;
		return payload_len < 8 ? PACKET_MALFORMED : PACKET_ICMP;
	}
	if (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP)
		return PACKET_OTHER;
	if (payload_len < header_len || skb->len < packet->transport + header_len)
		return PACKET_MALFORMED;
	if (protocol == PROTOCOL_TCP) {
		if (load_transport(skb, packet, header, 14))
			return PACKET_MALFORMED;
		u32 len = (header[12] >> 4) * 4;
		if (len < TCP_LEN || len > payload_len)
			return PACKET_MALFORMED;
		packet->tcp_flags = header[13];
		header_len = len;
	} else if (load_transport(skb, packet, header, 4)) {
		return PACKET_MALFORMED;
	}
	packet->header_len = header_len;
	__builtin_memcpy(&packet->tuple.source_port, header, 2);
	__builtin_memcpy(&packet->tuple.destination_port, header + 2, 2);
	return PACKET_FLOW;
}

// Reads a fragment, of which the first alone has ports.
INLINE enum packet_kind parse_fragment(struct __sk_buff *skb, struct packet *packet, u32 payload_len, u32 offset)
{
	u8 protocol = packet->tuple.protocol;
	if (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP)
		return PACKET_FRAGMENT;
	packet->fragment = offset ? LATER_FRAGMENT : FIRST_FRAGMENT;
	return offset ? PACKET_FLOW : parse_transport(skb, packet, payload_len);
}

INLINE enum packet_kind parse_ipv4(struct __sk_buff *skb, struct packet *packet, const struct ipv4 *ip)
{
	u32 len = NETWORK16(ip->len);
	set_ipv4(&packet->tuple.source, ip->source);
	set_ipv4(&packet->tuple.destination, ip->destination);
	packet->tuple.protocol = ip->protocol;
	packet->hop_limit = ip->time_to_live;
	packet->ipv4_checksum = ip->checksum;
	packet->transport = ETHERNET_LEN + IPV4_LEN;
	if (ip->version_and_len >> 4 != 4 || ip->version_and_len < 0x45)
		return PACKET_MALFORMED;
	if (ip->version_and_len != 0x45)
		return PACKET_OPTIONS;
	// A packet that the kernel has joined from many may be too long for the field, which is 0 then.
	if (len == 0)
		len = skb->len - ETHERNET_LEN;
	if (len < IPV4_LEN || len > skb->len - ETHERNET_LEN)
		return PACKET_MALFORMED;
	packet->end = ETHERNET_LEN + len;
	if (ip->fragment & NETWORK16(IPV4_RESERVED))
		return PACKET_FRAGMENT;
	if (ip->fragment & NETWORK16(IPV4_MORE | IPV4_OFFSET)) {
		packet->fragment_id = ip->id;
		return parse_fragment(skb, packet, len - IPV4_LEN, ip->fragment & NETWORK16(IPV4_OFFSET));
	}
	return parse_transport(skb, packet, len - IPV4_LEN);
}

INLINE enum packet_kind parse_ipv6(struct __sk_buff *skb, struct packet *packet, const struct ipv6 *ip)
{
	u32 end = ETHERNET_LEN + IPV6_LEN + NETWORK16(ip->payload_len);
	u32 at = ETHERNET_LEN + IPV6_LEN;
	u8 next = ip->next_header;
	packet->tuple.source = ip->source;
	packet->tuple.destination = ip->destination;
	packet->hop_limit = ip->hop_limit;
	packet->is_ipv6 = 1;
	// Its flows would be those of IPv4.
	if (is_ipv4(&packet->tuple.source) || is_ipv4(&packet->tuple.destination))
		return PACKET_OTHER;
	if ((*(const u8 *)ip >> 4) != 6)
		return PACKET_MALFORMED;
	if (ip->payload_len == 0)
		end = skb->len;
	if (end > skb->len)
		return PACKET_MALFORMED;
#pragma unroll
	for (int n = 0; n < MAX_EXTENSION_HEADERS; n++) {
		u8 extension[2];
		if (next != HOP_BY_HOP && next != ROUTING && next != DESTINATION_OPTIONS)
			break;
		if (at + 8 > end || load_bytes(skb, at, extension, 2))
			return PACKET_MALFORMED;
		// A routing header changes the destination that checksums have.
		if (next == ROUTING)
			return PACKET_OPTIONS;
		next = extension[0];
		at += (extension[1] + 1) * 8;
		if (at > end)
			return PACKET_MALFORMED;
	}
	if (next == FRAGMENT) {
		struct ipv6_fragment fragment;
		if (at + 8 > end || load_bytes(skb, at, &fragment, 8))
			return PACKET_MALFORMED;
		at += 8;
		packet->tuple.protocol = fragment.next_header;
		packet->transport = at;
		packet->end = end;
		// Without either it is a packet of one fragment.
		if (fragment.offset & NETWORK16(IPV6_MORE | IPV6_OFFSET)) {
			packet->fragment_id = fragment.id;
			return parse_fragment(skb, packet, end - at, fragment.offset & NETWORK16(IPV6_OFFSET));
		}
		return parse_transport(skb, packet, end - at);
	}
	if (next == HOP_BY_HOP || next == ROUTING || next == DESTINATION_OPTIONS)
		return PACKET_OPTIONS;
	packet->tuple.protocol = next;
	packet->transport = at;
	packet->end = end;
	return parse_transport(skb, packet, end - at);
}

// Finds the header of IP, all in one piece: the headers may lie in pages apart. Returns whether it is there.
INLINE int find_ip(struct __sk_buff *skb, u32 len, void **ip)
{
	void *data;
	if (!find_octets(skb, ETHERNET_LEN + len, &data)) {
		if (skb->len < ETHERNET_LEN + len || pull_data(skb, ETHERNET_LEN + len) ||
		    !find_octets(skb, ETHERNET_LEN + len, &data))
			return 0;
	}
	// A tag of a VLAN that the device has not taken off, or no Ethernet.
	if (((struct ethernet *)data)->type != (u16)skb->protocol)
		return 0;
	*ip = data + ETHERNET_LEN;
	return 1;
}

// In a function of its own for the stack's sake.
static __attribute__((noinline)) enum packet_kind parse(struct __sk_buff *skb, struct packet *packet)
{
	u16 type = skb->protocol;
	void *ip;
	// Frames for other machines, of which a port of a bridge gets some.
	if (skb->pkt_type != PACKET_HOST)
		return PACKET_OTHER;
	if (type == NETWORK16(ETHERTYPE_IPV4) && find_ip(skb, IPV4_LEN, &ip))
		return parse_ipv4(skb, packet, ip);
	if (type == NETWORK16(ETHERTYPE_IPV6) && find_ip(skb, IPV6_LEN, &ip))
		return parse_ipv6(skb, packet, ip);
	return PACKET_OTHER;
}

#endif
