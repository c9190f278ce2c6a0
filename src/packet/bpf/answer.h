// ICMP errors that packets are answered with, as a router answers them: those that are too long for the device that they
// would leave by, also with the headers of a tunnel, and those that have passed too many routers.

#ifndef LVS_ANSWER_H
#define LVS_ANSWER_H

#include "flow.h"
#include "icmp.h"
#include "tunnel.h"

// A device of IP with a smaller MTU is not heeded (RFC 791, 3.1): a shorter packet costs no look at its device.
enum { LEAST_MTU = 576 };
enum { ICMP_FRAGMENTATION_NEEDED = 4, ICMPV6_TOO_LONG = 2, ICMPV6_TIME_EXCEEDED = 3 };
// The type of service of the network's own packets (RFC 1812, 4.3.2.5).
enum { INTERNETWORK_CONTROL = 0xc0 };

struct icmp_error {
	u8 type, code;
	u16 checksum;
	// For IPv6 it has 32 bits.
	u16 mtu_high, mtu;
};

// What an error quotes after the header of IP: the eight octets that RFC 792 asks for, and twelve for the checksum. More,
// as RFC 1812 and RFC 4443 ask for, would have to be summed up octet by octet; senders find their flow by the first eight.
struct quoted_transport {
	u16 words[10];
};

struct answer_ipv4 {
	struct ipv4 ip;
	struct icmp_error icmp;
	struct ipv4 quoted;
	struct quoted_transport transport;
};

struct answer_ipv6 {
	struct ipv6 ip;
	struct icmp_error icmp;
	struct ipv6 quoted;
	struct quoted_transport transport;
};

// Returns the sum of words of 16 bits. The length is a constant.
INLINE u64 sum_words(const void *words, u32 len)
{
	u64 sum = 0;
#pragma unroll
	for (u32 n = 0; n < len / 2; n++)
		sum += ((const u16 *)words)[n];
	return sum;
}

// Returns the longest packet of a flow that its device takes, if this one is longer; else 0.
static __attribute__((noinline)) u32 exceeded_mtu(struct __sk_buff *skb, const struct packet *packet,
						  const struct flow *flow)
{
	u32 mtu = 0, overhead = 0, index = flow->server;
	u32 len = packet->end - ETHERNET_LEN;
	struct server *server = map_lookup(&servers, &index);
	if (!(flow->state & FLOW_TO_CLIENT) && server)
		overhead = tunnel_overhead(server);
	// Of a device that is gone nothing is known.
	if (check_mtu(skb, outgoing_device(flow), &mtu, 0, 0) < 0 || mtu <= overhead)
		return 0;
	if (skb->gso_size)
		len = packet->transport - ETHERNET_LEN + packet->header_len + skb->gso_size;
	// Segments of TCP become shorter by what the tunnel adds.
	u32 max = mtu - overhead;
	if (skb->gso_size && packet->tuple.protocol == PROTOCOL_TCP)
		max = mtu;
	return len > max ? mtu - overhead : 0;
}

// Returns whether an address may be that of one machine.
INLINE u32 is_unicast(const struct address *address)
{
	u8 first = *(const u8 *)(is_ipv4(address) ? &address->words[3] : &address->words[0]);
	if (is_ipv4(address))
		return first != 0 && first != 127 && first < 224;
	return first != 0xff && (address->words[0] | address->words[1] | address->words[2] | address->words[3]);
}

// Gives what is quoted the sum 0. The kernel may have left the checksum of the packet to a device, which writes it there
// yet, as the sum of all that follows: with the sum 0 neither changes.
INLINE void set_zero_sum(const struct packet *packet, struct quoted_transport *quoted)
{
	u32 is_at_its_place = packet->transport == (packet->is_ipv6 ? IPV6_TRANSPORT : IPV4_TRANSPORT);
	if (is_at_its_place && packet->tuple.protocol == PROTOCOL_TCP) {
		quoted->words[TCP_CHECKSUM / 2] = 0xffff;
		KEEP_BRANCH;
	} else if (is_at_its_place) {
		quoted->words[UDP_CHECKSUM / 2] = 0xffff;
	}
	quoted->words[9] = 0;
	quoted->words[9] = changed_checksum(0xffff, sum_words(quoted, sizeof(*quoted)));
}

// Cuts a packet to what an error quotes of it, reads that, and makes room before it for the headers of the error. The
// length is that of a header of IP.
INLINE long make_answer_room(struct __sk_buff *skb, void *quoted, u32 ip_len)
{
	u32 quoted_len = ip_len + sizeof(struct quoted_transport);
	return change_tail(skb, ETHERNET_LEN + quoted_len, 0) || load_bytes(skb, ETHERNET_LEN, quoted, quoted_len) ||
	       adjust_room(skb, ip_len + sizeof(struct icmp_error), ROOM_AFTER_ETHERNET, 0);
}

INLINE long write_answer_ipv4(struct __sk_buff *skb, const struct packet *packet, u32 mtu)
{
	struct answer_ipv4 answer = {};
	if (make_answer_room(skb, &answer.quoted, sizeof(answer.ip)))
		return -1;
	set_zero_sum(packet, &answer.transport);
	answer.ip.version_and_len = 0x45;
	answer.ip.type_of_service = INTERNETWORK_CONTROL;
	answer.ip.len = NETWORK16(sizeof(answer));
	answer.ip.fragment = NETWORK16(IPV4_DO_NOT_FRAGMENT);
	answer.ip.time_to_live = OUTER_HOP_LIMIT;
	answer.ip.protocol = PROTOCOL_ICMP;
	answer.ip.source = packet->tuple.destination.words[3];
	answer.ip.destination = packet->tuple.source.words[3];
	answer.ip.checksum = changed_checksum(0xffff, sum_words(&answer.ip, sizeof(answer.ip)));
	answer.icmp.type = mtu ? ICMP_UNREACHABLE : ICMP_TIME_EXCEEDED;
	answer.icmp.code = mtu ? ICMP_FRAGMENTATION_NEEDED : 0;
	answer.icmp.mtu = NETWORK16(mtu);
	u64 sum = sum_words(&answer.icmp, sizeof(answer.icmp)) + sum_words(&answer.quoted, sizeof(answer.quoted));
	answer.icmp.checksum = changed_checksum(0xffff, sum);
	return store_bytes(skb, ETHERNET_LEN, &answer, sizeof(answer), 0);
}

INLINE long write_answer_ipv6(struct __sk_buff *skb, const struct packet *packet, u32 mtu)
{
	struct answer_ipv6 answer = {};
	if (make_answer_room(skb, &answer.quoted, sizeof(answer.ip)))
		return -1;
	set_zero_sum(packet, &answer.transport);
	u16 len = NETWORK16(sizeof(answer) - sizeof(answer.ip));
	answer.ip.version_and_flow = __builtin_bswap32(6u << 28);
	answer.ip.payload_len = len;
	answer.ip.next_header = PROTOCOL_ICMPV6;
	answer.ip.hop_limit = OUTER_HOP_LIMIT;
	answer.ip.source = packet->tuple.destination;
	answer.ip.destination = packet->tuple.source;
	answer.icmp.type = mtu ? ICMPV6_TOO_LONG : ICMPV6_TIME_EXCEEDED;
	answer.icmp.mtu = NETWORK16(mtu);
	answer.icmp.mtu_high = NETWORK16(mtu >> 16);
	u64 sum = sum_words(&answer.icmp, sizeof(answer.icmp)) + sum_words(&answer.quoted, sizeof(answer.quoted));
	// The checksum is also over the pseudo header.
	sum += sum_words(&answer.ip.source, sizeof(struct address)) +
	       sum_words(&answer.ip.destination, sizeof(struct address)) + len + NETWORK16(PROTOCOL_ICMPV6);
	answer.icmp.checksum = changed_checksum(0xffff, sum);
	return store_bytes(skb, ETHERNET_LEN, &answer, sizeof(answer), 0);
}

// Drops a packet, and answers it by an error from the address that it was sent to: it is longer than an MTU or, if that
// is 0, has passed too many routers.
static __attribute__((noinline)) int answer(struct __sk_buff *skb, const struct packet *packet, u32 mtu)
{
	u32 first = 0, ifindex = skb->ifindex;
	struct control *said = map_lookup(&control, &first);
	count(mtu ? COUNT_TOO_LONG : COUNT_HOP_LIMIT);
	// The frame of a packet that the director has decided names the device that it came from.
	if (is_director_device(ifindex)) {
		struct upcall_source source;
		USE(count_given_back(ifindex));
		if (load_bytes(skb, ETHERNET_SOURCE, &source, sizeof(source)))
			return VERDICT_DROP;
		ifindex = source.ifindex;
	}
	// RFC 1122, 3.2.2, and RFC 4443, 2.4.
	if (!said || packet->fragment == LATER_FRAGMENT || !is_unicast(&packet->tuple.source) ||
	    !is_within_limit(mtu ? LIMITED_TOO_LONG : LIMITED_HOP_LIMIT, said->answers_per_window, coarse_time_ns()))
		return VERDICT_DROP;
	if (packet->is_ipv6 ? write_answer_ipv6(skb, packet, mtu) : write_answer_ipv4(skb, packet, mtu)) {
		count(COUNT_REWRITE_FAILED);
		return VERDICT_DROP;
	}
	return send(skb, ifindex);
}

#endif
