// What is learned of a flow from each of its packets.

#ifndef LVS_FOLLOW_H
#define LVS_FOLLOW_H

#include "unassured.h"

// Returns whether a packet shows that its client is there. One who sends with the address of another does not get the
// answer, and has nothing to acknowledge.
INLINE u32 assures(const struct packet *packet, u32 state)
{
	return (state & (FLOW_TO_CLIENT | FLOW_ANSWERED | FLOW_ASSURED)) == FLOW_ANSWERED &&
	       (packet->tuple.protocol != PROTOCOL_TCP ||
		(packet->tcp_flags & (TCP_SYN | TCP_RST | TCP_ACK)) == TCP_ACK);
}

// Learns from a packet what becomes of its flow, and keeps the state of its directions.
INLINE void follow_state(const struct packet *packet, const struct flow *known, u32 begins, u32 ifindex)
{
	const struct tuple *tuple = &packet->tuple;
	u32 to_client = known->state & FLOW_TO_CLIENT;
	u32 bits = 0;
	if (packet->tcp_flags & TCP_FIN)
		bits |= to_client ? FLOW_SERVER_FIN : FLOW_CLIENT_FIN;
	if (packet->tcp_flags & TCP_RST)
		bits |= to_client ? FLOW_SERVER_RESET : FLOW_CLIENT_RESET;
	else if (to_client)
		bits |= FLOW_ANSWERED;
	else if (known->state & FLOW_DIRECT && (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_ACK)
		// The client has what it acknowledges from the server.
		bits |= FLOW_ANSWERED;
	if (assures(packet, known->state))
		USE(assure(tuple));
	u32 needs_place = begins;
	if ((known->state & bits) != bits)
		needs_place |= change_state(tuple, known, bits);
	if (needs_place)
		USE(take_place(tuple, known));
	u32 heard = FLOW_TO_CLIENT | FLOW_ANSWERED | FLOW_ASSURED | FLOW_DIRECT;
	if (begins || !(known->state & heard))
		USE(count_given_back(ifindex));
}

// Follows a flow by a packet of it that comes from a device now. `known` becomes what was known of the flow, with the octets
// of the packet.
INLINE void follow_packet(const struct packet *packet, struct flow *flow, struct flow *known, u32 ifindex, u64 now)
{
	u64 len = packet->end - ETHERNET_LEN;
	flow->bytes += len;
	// What follows is verified once for the flows of both maps, because it has a copy and not an address.
	*known = *flow;
	flow->seen_at = now;
	u32 server = known->server, to_client = known->state & FLOW_TO_CLIENT;
	u32 shift = is_established(known->state) ? PAIRED_SHIFT : UNASSURED_SHIFT;
	// Most packets say nothing new.
	if (packet->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST) || shift == UNASSURED_SHIFT)
		follow_state(packet, known, known->bytes == len && !to_client, ifindex);
	if (known->seen_at >> shift != now >> shift)
		USE(keep_other_direction(&packet->tuple, known, ifindex));
	struct server_counters *counters = map_lookup(&server_counts, &server);
	if (!counters)
		return;
	if (to_client) {
		counters->packets_out += 1;
		counters->bytes_out += len;
		KEEP_BRANCH;
	} else {
		counters->packets_in += 1;
		counters->bytes_in += len;
	}
}

#endif
