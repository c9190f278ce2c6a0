// The flows: who decides them, and what becomes of their state.

#ifndef LVS_FLOW_H
#define LVS_FLOW_H

#include "rewrite.h"
#include "rule.h"

// Once in some 8.6 s a direction of a flow looks for the other one: more often would cost each packet of many slow
// flows a second search.
enum { PAIRED_SHIFT = 33 };
enum { UPCALL_WINDOW_SHIFT = 24, UNREAD_EVENTS_WAKE = 256 * 1024 };

// The frame of a packet that the director decides names the device that it came from in place of the source.
struct upcall_source {
	u32 ifindex;
	u16 pad;
} __attribute__((packed));
enum { ETHERNET_SOURCE = 6 };

INLINE u32 is_over(u32 state)
{
	return (state & FLOW_FINS) == FLOW_FINS || (state & FLOW_RESETS);
}

// Returns the tuple of the packets that come back.
INLINE void reverse(const struct flow *flow, u8 protocol, struct tuple *tuple)
{
	tuple->source = flow->destination;
	tuple->destination = flow->source;
	tuple->source_port = flow->destination_port;
	tuple->destination_port = flow->source_port;
	tuple->protocol = protocol;
	__builtin_memset(tuple->pad, 0, sizeof(tuple->pad));
}

// Returns whether the packets of a tuple come back to a direction of a flow: it is the flow's other one.
INLINE u32 is_other_direction(const struct tuple *tuple, const struct flow *flow)
{
	return flow->source_port == tuple->destination_port && flow->destination_port == tuple->source_port &&
	       is_same_address(&flow->source, &tuple->destination) &&
	       is_same_address(&flow->destination, &tuple->source);
}

// Returns the device that packets leave by. The route to the server may have changed since the flow began.
INLINE u32 outgoing_device(const struct flow *flow)
{
	u32 index = flow->server;
	struct server *server = map_lookup(&servers, &index);
	if (!(flow->state & FLOW_TO_CLIENT) && server && server->ifindex)
		return server->ifindex;
	return flow->ifindex;
}

static __attribute__((noinline)) int send_event(struct event *event)
{
	u64 unread = ring_buffer_query(&events, RING_BUFFER_UNREAD_BYTES);
	// The director reads them in its own time, unless they become many.
	u64 flags = unread > UNREAD_EVENTS_WAKE ? RING_BUFFER_FORCE_WAKEUP : RING_BUFFER_NO_WAKEUP;
	if (ring_buffer_output(&events, event, sizeof(*event), flags))
		count(COUNT_EVENTS_LOST);
	return 0;
}

// Adds bits to the state of both directions, and tells the director what has happened.
static __attribute__((noinline)) int change_state(const struct tuple *tuple, u32 bits)
{
	struct flow *flow = map_lookup(&flows, tuple);
	struct event event = {};
	if (!flow)
		return 0;
	u32 old = __sync_fetch_and_or(&flow->state, bits);
	struct tuple back;
	reverse(flow, tuple->protocol, &back);
	struct flow *other = map_lookup(&flows, &back);
	if (other) {
		// A late packet of a flow says nothing of the one that has taken its client's port, or its way back.
		if (!is_other_direction(tuple, other))
			return 0;
		__sync_fetch_and_or(&other->state, bits);
	}
	event.state = old | bits;
	if (is_over(event.state) && !is_over(old))
		event.kind = EVENT_ENDED;
	else if (bits & ~old & FLOW_ANSWERED)
		event.kind = EVENT_ANSWERED;
	else
		return 0;
	event.at = coarse_time_ns();
	event.tuple = old & FLOW_TO_CLIENT ? back : *tuple;
	u64 bytes = flow->bytes, bytes_back = other ? other->bytes : 0;
	event.bytes_to_server = old & FLOW_TO_CLIENT ? bytes_back : bytes;
	event.bytes_to_client = old & FLOW_TO_CLIENT ? bytes : bytes_back;
	event.server = flow->server;
	event.service = flow->service;
	send_event(&event);
	return 0;
}

INLINE struct service *find_service(const struct tuple *tuple)
{
	struct service_key key = {
		.address = tuple->destination,
		.port = tuple->destination_port,
		.protocol = tuple->protocol,
	};
	return map_lookup(&services, &key);
}

// Remembers the ports of a packet that comes in fragments by its first one, or finds them for a later one. Returns
// 0 if the ports are known.
static __attribute__((noinline)) int pair_fragment(struct packet *packet)
{
	struct tuple key = packet->tuple;
	__builtin_memcpy(&key.source_port, &packet->fragment_id, 4);
	if (packet->fragment == LATER_FRAGMENT) {
		u32 *found = map_lookup(&fragments, &key);
		if (!found)
			return -1;
		__builtin_memcpy(&packet->tuple.source_port, found, 4);
		return 0;
	}
	u32 both = ports(packet->tuple.source_port, packet->tuple.destination_port);
	// Others than those of this engine would fill the map.
	if (map_lookup(&flows, &packet->tuple) || find_service(&packet->tuple))
		map_update(&fragments, &key, &both, UPDATE_ANY);
	return 0;
}

// Returns whether a packet that nobody has decided may go to the director.
INLINE u32 may_ask(struct __sk_buff *skb, const struct control *control, u64 now)
{
	u32 mtu = 0;
	u32 first = 0;
	u64 window = now >> UPCALL_WINDOW_SHIFT;
	struct upcall_window *used = map_lookup(&upcall_windows, &first);
	if (!used || !control->tap_ifindex || now >= control->alive_until)
		return 0;
	// The device ends with its process, however that ends.
	if (check_mtu(skb, control->tap_ifindex, &mtu, 0, 0) < 0)
		return 0;
	if (used->window != window) {
		used->window = window;
		used->count = 0;
	}
	used->count += 1;
	return used->count <= control->upcalls_per_window;
}

// Returns whether the way back of a new flow is that of another flow that lives.
static __attribute__((noinline)) int is_way_back_taken(const struct tuple *back, const struct tuple *tuple)
{
	struct tuple other_tuple;
	struct flow *old = map_lookup(&flows, back);
	if (!old || is_other_direction(tuple, old))
		return 0;
	reverse(old, back->protocol, &other_tuple);
	struct flow *other = map_lookup(&flows, &other_tuple);
	return other && is_other_direction(back, other) && !is_over(other->state);
}

// Makes one direction of a flow, of which `other` is the tuple of the other one. Returns 0 if there is room.
static __attribute__((noinline)) long add_direction(const struct tuple *tuple, const struct tuple *other,
						    u32 server, u32 ifindex, u32 state)
{
	struct server *chosen = map_lookup(&servers, &server);
	if (!chosen)
		return -1;
	struct flow flow = {
		.seen_at = coarse_time_ns(),
		.source = other->destination,
		.destination = other->source,
		.source_port = other->destination_port,
		.destination_port = other->source_port,
		.ifindex = ifindex,
		.server = server,
		.service = chosen->service,
		.state = state,
	};
	return map_update(&flows, tuple, &flow, UPDATE_ANY);
}

// Makes both directions of a flow. Returns 0, or -1 if the way back is that of another flow.
static __attribute__((noinline)) int add_flow(const struct tuple *tuple, u32 server, u32 ifindex)
{
	struct server *chosen = map_lookup(&servers, &server);
	if (!chosen)
		return -1;
	struct tuple back = {
		.source = chosen->address,
		.destination = tuple->source,
		.source_port = chosen->port,
		.destination_port = tuple->source_port,
		.protocol = tuple->protocol,
	};
	if (is_way_back_taken(&back, tuple))
		return -1;
	if (add_direction(&back, tuple, server, ifindex, FLOW_TO_CLIENT) ||
	    add_direction(tuple, &back, server, chosen->ifindex, 0)) {
		count(COUNT_TABLE_FULL);
		return -1;
	}
	return 0;
}

// Makes the other direction of a flow again if a full table has forgotten it: without it the flow would stay half
// of itself for as long as packets of this direction come.
static __attribute__((noinline)) int keep_other_direction(const struct tuple *tuple, u32 ifindex)
{
	struct flow *flow = map_lookup(&flows, tuple);
	if (!flow)
		return 0;
	struct tuple other;
	reverse(flow, tuple->protocol, &other);
	// To look for it counts as a use of it.
	if (map_lookup(&flows, &other))
		return 0;
	u32 server = flow->server;
	struct server *chosen = map_lookup(&servers, &server);
	if (!chosen)
		return 0;
	u32 state = flow->state ^ FLOW_TO_CLIENT;
	return add_direction(&other, tuple, server, state & FLOW_TO_CLIENT ? ifindex : chosen->ifindex, state);
}

// Decides a flow by the table of its service. Returns 0 if there is a server for it.
static __attribute__((noinline)) int decide_by_table(const struct tuple *tuple, u32 ifindex)
{
	struct service *service = find_service(tuple);
	if (!service)
		return -1;
	u32 id = service->id;
	void *table = map_lookup(&tables, &id);
	if (!table || service->slots == 0)
		return -1;
	struct search search;
	begin_search(&search, service, tuple);
	for (u32 n = 0; n < MAX_TRIES; n++) {
		u32 slot = n == 0 ? search.slot : next_slot(&search, service, n);
		u32 *index = map_lookup(table, &slot);
		if (!index)
			return -1;
		u32 chosen = *index;
		// The rule refuses the flow, or only the director knows better.
		if (n == 0 && chosen == NO_SERVER)
			return -1;
		struct server *server = map_lookup(&servers, &chosen);
		if (!server || !server->is_available || !server->ifindex || server->service != id)
			continue;
		if (add_flow(tuple, chosen, ifindex))
			continue;
		struct server_counters *counters = map_lookup(&server_counts, &chosen);
		if (counters)
			counters->connections += 1;
		struct event event = {.kind = EVENT_DECIDED, .server = chosen, .service = id, .ifindex = ifindex};
		event.at = coarse_time_ns();
		event.tuple = *tuple;
		count(service->flags & SERVICE_IS_KEYED ? COUNT_KEYED_DECISIONS : COUNT_TABLE_DECISIONS);
		send_event(&event);
		return 0;
	}
	return -1;
}

#endif
