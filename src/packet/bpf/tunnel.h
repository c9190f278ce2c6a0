// Packets to servers by tunnels: IP in IP (RFC 2003, RFC 2473) of either family in either, and Generic UDP
// Encapsulation (draft-ietf-intarea-gue, variant 0), as the kernel's own IPVS sends them.

#ifndef LVS_TUNNEL_H
#define LVS_TUNNEL_H

#include "rewrite.h"
#include "rule.h"

enum { PROTOCOL_IPIP = 4, PROTOCOL_IPV6 = 41 };
enum { OUTER_HOP_LIMIT = 64, IPV4_DO_NOT_FRAGMENT = 0x4000 };
// Where room is made (`enum bpf_adj_room_mode`), and what for.
enum { ROOM_AFTER_ETHERNET = 1 };
enum { ROOM_KEEPS_SEGMENTS = 1, ROOM_FOR_IPV4 = 2, ROOM_FOR_IPV6 = 4, ROOM_FOR_UDP = 16 };

struct gue {
	u16 source_port, destination_port, len, checksum;
	u8 version_and_len, protocol;
	u16 flags;
};

struct outer_ipv4 {
	struct ipv4 ip;
	struct gue gue;
};

struct outer_ipv6 {
	struct ipv6 ip;
	struct gue gue;
};

// Spreads the flows of a server over the queues of its network interface.
INLINE u32 hash_flow(const struct tuple *tuple)
{
	u32 both = ports(tuple->source_port, tuple->destination_port);
	return mix_bits((u64)(fold_address(&tuple->source) ^ fold_address(&tuple->destination)) << 32 | both);
}

// Returns the protocol of what is in the outer packet.
INLINE u8 inner_protocol(const struct packet *packet)
{
	return packet->is_ipv6 ? PROTOCOL_IPV6 : PROTOCOL_IPIP;
}

// Returns the octets that a tunnel adds to a packet.
INLINE u32 tunnel_overhead(const struct server *server)
{
	if (server->method < METHOD_IPIP)
		return 0;
	u32 ip_len = is_ipv4(&server->address) ? IPV4_LEN : IPV6_LEN;
	return server->method == METHOD_GUE ? ip_len + sizeof(struct gue) : ip_len;
}

INLINE void set_gue(struct gue *gue, const struct server *server, const struct packet *packet, u32 len)
{
	// Of the range for ports of short use (RFC 6335, 6).
	gue->source_port = NETWORK16(0xc000 | (hash_flow(&packet->tuple) & 0x3fff));
	gue->destination_port = server->tunnel_port;
	gue->len = NETWORK16(len);
	gue->checksum = 0;
	gue->version_and_len = 0;
	gue->protocol = inner_protocol(packet);
	gue->flags = 0;
}

// Makes room for a header of IP, and for that of GUE if the server has it.
INLINE long make_room(struct __sk_buff *skb, const struct packet *packet, const struct server *server, u32 ip_len,
		      u64 what_for)
{
	// The kernel makes the segments of TCP shorter by the room. Those of UDP are datagrams.
	if (packet->tuple.protocol == PROTOCOL_UDP)
		what_for |= ROOM_KEEPS_SEGMENTS;
	if (server->method == METHOD_GUE)
		return adjust_room(skb, ip_len + sizeof(struct gue), ROOM_AFTER_ETHERNET, what_for | ROOM_FOR_UDP);
	return adjust_room(skb, ip_len, ROOM_AFTER_ETHERNET, what_for);
}

// Stores the headers in the room that was made for them; that of GUE follows that of IP.
INLINE long store_outer(struct __sk_buff *skb, const struct server *server, u16 type, const void *outer, u32 ip_len)
{
	u16 network_type = NETWORK16(type);
	if (store_bytes(skb, ETHERNET_TYPE, &network_type, sizeof(network_type), 0))
		return -1;
	if (server->method == METHOD_GUE)
		return store_bytes(skb, ETHERNET_LEN, outer, ip_len + sizeof(struct gue), 0);
	return store_bytes(skb, ETHERNET_LEN, outer, ip_len, 0);
}

// Sets the headers before a packet, whose octets are zero. What is behind the packet in the frame is no part of it.
INLINE void set_outer_ipv4(struct outer_ipv4 *outer, const struct packet *packet, const struct server *server,
			   u8 type_of_service)
{
	u32 len = packet->end - ETHERNET_LEN + tunnel_overhead(server);
	outer->ip.version_and_len = 0x45;
	outer->ip.type_of_service = type_of_service;
	outer->ip.len = NETWORK16(len);
	outer->ip.fragment = NETWORK16(IPV4_DO_NOT_FRAGMENT);
	outer->ip.time_to_live = OUTER_HOP_LIMIT;
	outer->ip.protocol = server->method == METHOD_GUE ? PROTOCOL_UDP : inner_protocol(packet);
	outer->ip.source = server->source.words[3] | (hash_flow(&packet->tuple) & server->source_spread);
	outer->ip.destination = server->address.words[3];
	u64 sum = 0;
	const u32 *words = (const u32 *)&outer->ip;
#pragma unroll
	for (int n = 0; n < 5; n++)
		sum += words[n];
	outer->ip.checksum = changed_checksum(0xffff, sum);
	set_gue(&outer->gue, server, packet, len - sizeof(outer->ip));
}

INLINE void set_outer_ipv6(struct outer_ipv6 *outer, const struct packet *packet, const struct server *server,
			   u8 traffic_class)
{
	u32 len = packet->end - ETHERNET_LEN + tunnel_overhead(server) - sizeof(outer->ip);
	u32 flow_label = hash_flow(&packet->tuple) & 0xfffff;
	outer->ip.version_and_flow = __builtin_bswap32(6u << 28 | (u32)traffic_class << 20 | flow_label);
	outer->ip.payload_len = NETWORK16(len);
	outer->ip.next_header = server->method == METHOD_GUE ? PROTOCOL_UDP : inner_protocol(packet);
	outer->ip.hop_limit = OUTER_HOP_LIMIT;
	outer->ip.source = server->source;
	outer->ip.source.words[3] |= hash_flow(&packet->tuple) & server->source_spread;
	outer->ip.destination = server->address;
	set_gue(&outer->gue, server, packet, len);
}

INLINE long encapsulate_ipv4(struct __sk_buff *skb, const struct packet *packet, const struct server *server,
			     u8 type_of_service)
{
	struct outer_ipv4 outer = {};
	if (make_room(skb, packet, server, sizeof(outer.ip), ROOM_FOR_IPV4))
		return -1;
	set_outer_ipv4(&outer, packet, server, type_of_service);
	return store_outer(skb, server, ETHERTYPE_IPV4, &outer, sizeof(outer.ip));
}

INLINE long encapsulate_ipv6(struct __sk_buff *skb, const struct packet *packet, const struct server *server,
			     u8 traffic_class)
{
	struct outer_ipv6 outer = {};
	if (make_room(skb, packet, server, sizeof(outer.ip), ROOM_FOR_IPV6))
		return -1;
	set_outer_ipv6(&outer, packet, server, traffic_class);
	return store_outer(skb, server, ETHERTYPE_IPV6, &outer, sizeof(outer.ip));
}

// Returns the type of service, or the traffic class, of a packet, whose congestion bits the outer one has too
// (RFC 6040).
INLINE u8 traffic_class(const struct packet *packet, const u8 *ip)
{
	return packet->is_ipv6 ? ip[0] << 4 | ip[1] >> 4 : ip[1];
}

INLINE long load_traffic_class(struct __sk_buff *skb, const struct packet *packet, u8 *class)
{
	void *octets;
	if (!find_octets(skb, IPV4_TRANSPORT, &octets))
		return -1;
	*class = traffic_class(packet, octets + ETHERNET_LEN);
	return 0;
}

// Puts a packet into the one that goes to a server by its tunnel. Returns 0 if it is there.
static __attribute__((noinline)) long encapsulate(struct __sk_buff *skb, const struct packet *packet,
						  const struct server *server)
{
	u8 class;
	if (load_traffic_class(skb, packet, &class))
		return -1;
	return is_ipv4(&server->address) ? encapsulate_ipv4(skb, packet, server, class)
					 : encapsulate_ipv6(skb, packet, server, class);
}

// Sends a packet to a server that answers its client by itself.
INLINE int send_to_server(struct __sk_buff *skb, const struct packet *packet, u32 ifindex, u32 number)
{
	struct server *server = map_lookup(&servers, &number);
	if (!server)
		return VERDICT_DROP;
	if (server->method >= METHOD_IPIP) {
		if (!encapsulate(skb, packet, server))
			return send(skb, ifindex);
		count(COUNT_REWRITE_FAILED);
		return VERDICT_DROP;
	}
	return send_direct(skb, ifindex, &server->address);
}

#endif
