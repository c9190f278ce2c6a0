// Flows that nobody is assured of: those that begin, whose client may be nobody, and those that have ended. Each takes
// the next place of its family, and the one that had it is forgotten if nobody is assured of it still: whatever comes,
// there is room for the others, and none of them is forgotten for it.

#ifndef LVS_UNASSURED_H
#define LVS_UNASSURED_H

#include "flow.h"

// A flow that has packets for longer than this after it took its place, some second, lasts.
enum { LASTING_NS = 1 << 30 };

// Says that the client of a flow is there.
GLOBAL int assure(const struct tuple *tuple)
{
	if (!tuple)
		return 0;
	struct tuple own = *tuple;
	struct flow *flow = find_flow(&own);
	if (flow)
		__sync_fetch_and_or(&flow->state, FLOW_ASSURED);
	return DONE;
}

// Returns when the last packet of a flow passed, and reads the octets of both directions.
static __attribute__((noinline)) u64 read_flow(struct event *event, const struct flow *flow)
{
	struct tuple back;
	u64 seen_at = flow->seen_at;
	event->bytes_to_server = flow->bytes;
	if (flow->state & FLOW_DIRECT)
		return seen_at;
	reverse(&event->tuple, flow, &back);
	struct flow *other = find_flow(&back);
	if (!other || !is_other_direction(&event->tuple, flow->state, other))
		return seen_at;
	event->bytes_to_client = other->bytes;
	return other->seen_at > seen_at ? other->seen_at : seen_at;
}

// Forgets the flow of an event, which has had a place since some time, unless it does not need the place any more.
static __attribute__((noinline)) int forget(struct event *event, u64 since, u32 place)
{
	const struct tuple *tuple = &event->tuple;
	struct flow *flow = find_flow(tuple);
	// It may have a newer place, or be another flow of the same client.
	if (!flow || flow->state & FLOW_TO_CLIENT || flow->place != (u16)place)
		return DONE;
	u32 has_ended = is_over(flow->state), is_assured = flow->state & FLOW_ASSURED;
	if (!has_ended && is_assured)
		return DONE;
	u32 lasts = read_flow(event, flow) > since + LASTING_NS;
	// One end does not know that the other has ended it: by direct routing after a client's FIN, or by a reset that
	// was not heeded. The director forgets it when it is quiet.
	if (has_ended && is_assured && lasts)
		return DONE;
	// Nobody has answered, as far as is seen of it.
	if (!has_ended && lasts && tuple->protocol == PROTOCOL_UDP) {
		__sync_fetch_and_or(&flow->state, FLOW_ASSURED);
		return DONE;
	}
	event->server = flow->server;
	event->state = flow->state;
	USE(remove_other_direction(tuple, flow));
	remove_flow(tuple);
	if (has_ended)
		return DONE;
	count(COUNT_UNASSURED_FORGOTTEN);
	USE(send_event(event));
	return DONE;
}

INLINE void set_tuple(struct tuple *tuple, const struct tuple_ipv4 *key)
{
	set_ipv4(&tuple->source, key->source);
	set_ipv4(&tuple->destination, key->destination);
	tuple->source_port = key->source_port;
	tuple->destination_port = key->destination_port;
	tuple->protocol = key->protocol;
	__builtin_memset(tuple->pad, 0, sizeof(tuple->pad));
}

// Gives a flow the next place. The tuple is that of a direction of it.
GLOBAL int take_place(const struct tuple *tuple, const struct flow *flow)
{
	if (!tuple || !flow)
		return 0;
	struct event event = {.kind = EVENT_FORGOTTEN, .at = coarse_time_ns()};
	struct tuple client = *tuple;
	u64 since;
	u32 is_ipv6 = !is_ipv4(&tuple->destination);
	struct place_ring *ring = map_lookup(&place_rings, &is_ipv6);
	if (!ring)
		return DONE;
	if (flow->state & FLOW_TO_CLIENT)
		reverse(tuple, flow, &client);
	struct flow *there = find_flow(&client);
	if (!there)
		return DONE;
	u64 number = __sync_fetch_and_add(&ring->next, 1) + 1;
	there->place = number;
	u32 at = number % ring->places;
	if (is_ipv6) {
		struct place_ipv6 *place = map_lookup(&places_ipv6, &at);
		if (!place)
			return DONE;
		since = place->since;
		event.tuple = place->tuple;
		place->since = event.at;
		place->tuple = client;
	} else {
		struct place_ipv4 *place = map_lookup(&places_ipv4, &at);
		if (!place)
			return DONE;
		since = place->since;
		set_tuple(&event.tuple, &place->tuple);
		place->since = event.at;
		set_tuple_ipv4(&place->tuple, &client);
	}
	if (since)
		USE(forget(&event, since, number - ring->places));
	return DONE;
}

#endif
