// The entries of the flows, in a map for each family.

#ifndef LVS_FLOW_ENTRY_H
#define LVS_FLOW_ENTRY_H

#include "parse.h"

INLINE void set_tuple_ipv4(struct tuple_ipv4 *key, const struct tuple *tuple)
{
	key->source = tuple->source.words[3];
	key->destination = tuple->destination.words[3];
	key->source_port = tuple->source_port;
	key->destination_port = tuple->destination_port;
	key->protocol = tuple->protocol;
	__builtin_memset(key->pad, 0, sizeof(key->pad));
}

// Finds a direction of a flow.
INLINE struct flow *find_flow(const struct tuple *tuple)
{
	if (!is_ipv4(&tuple->destination))
		return map_lookup(&flows_ipv6, tuple);
	struct tuple_ipv4 key;
	set_tuple_ipv4(&key, tuple);
	return map_lookup(&flows_ipv4, &key);
}

// Makes the tuple of a packet that which it has after it was rewritten.
INLINE void follow_flow(struct tuple *tuple, const struct flow *flow)
{
	if (flow->state & FLOW_TO_CLIENT) {
		tuple->source = flow->address;
		tuple->source_port = flow->port;
		KEEP_BRANCH;
	} else {
		tuple->destination = flow->address;
		tuple->destination_port = flow->port;
	}
}

// Exchanges the ends of a tuple.
INLINE void swap_ends(const struct tuple *tuple, struct tuple *swapped)
{
	swapped->source = tuple->destination;
	swapped->destination = tuple->source;
	swapped->source_port = tuple->destination_port;
	swapped->destination_port = tuple->source_port;
	swapped->protocol = tuple->protocol;
	__builtin_memset(swapped->pad, 0, sizeof(swapped->pad));
}

// Returns the tuple of the packets that come back.
INLINE void reverse(const struct tuple *tuple, const struct flow *flow, struct tuple *back)
{
	swap_ends(tuple, back);
	if (flow->state & FLOW_TO_CLIENT) {
		back->destination = flow->address;
		back->destination_port = flow->port;
		KEEP_BRANCH;
	} else {
		back->source = flow->address;
		back->source_port = flow->port;
	}
}

// Returns whether what lies at the tuple that comes back is the other direction of a flow: its packets become those
// of the tuple, seen from the other side. `state` is that of the direction with the tuple.
INLINE u32 is_other_direction(const struct tuple *tuple, u32 state, const struct flow *other)
{
	if (!((state ^ other->state) & FLOW_TO_CLIENT) || other->state & FLOW_DIRECT)
		return 0;
	// The end that is not replaced is the same, for it is where the other one was looked for.
	if (state & FLOW_TO_CLIENT)
		return tuple->source_port == other->port && is_same_address(&tuple->source, &other->address);
	return tuple->destination_port == other->port && is_same_address(&tuple->destination, &other->address);
}

// Makes a direction of a flow. Returns 0 if there is room.
INLINE long store_flow(const struct tuple *tuple, const struct flow *flow)
{
	if (!is_ipv4(&tuple->destination))
		return map_update(&flows_ipv6, tuple, flow, UPDATE_ANY);
	struct tuple_ipv4 key;
	set_tuple_ipv4(&key, tuple);
	return map_update(&flows_ipv4, &key, flow, UPDATE_ANY);
}

// Removes a direction of a flow.
INLINE void remove_flow(const struct tuple *tuple)
{
	if (!is_ipv4(&tuple->destination)) {
		map_delete(&flows_ipv6, tuple);
	} else {
		struct tuple_ipv4 key;
		set_tuple_ipv4(&key, tuple);
		map_delete(&flows_ipv4, &key);
	}
}

// Removes the direction to the client of a flow, of which the other one is given.
static __attribute__((noinline)) int remove_other_direction(const struct tuple *tuple, const struct flow *flow)
{
	struct tuple back;
	if (flow->state & FLOW_DIRECT)
		return DONE;
	reverse(tuple, flow, &back);
	struct flow *other = find_flow(&back);
	// Another flow may have taken its place.
	if (other && is_other_direction(tuple, flow->state, other))
		remove_flow(&back);
	return DONE;
}

#endif
