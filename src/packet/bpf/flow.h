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

// Returns whether a flow has ended. What the server says of it is not seen by direct routing.
INLINE u32 is_over(u32 state)
{
	return (state & FLOW_FINS) == FLOW_FINS || (state & FLOW_RESETS) ||
	       (state & (FLOW_DIRECT | FLOW_CLIENT_FIN)) == (FLOW_DIRECT | FLOW_CLIENT_FIN);
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
	return DONE;
}

// Adds bits to the state of a direction. Returns what it was, or -1 if the direction is not there.
static __attribute__((noinline)) long add_state(const struct tuple *tuple, u32 bits)
{
	struct flow *flow = find_flow(tuple);
	return flow ? (long)__sync_fetch_and_or(&flow->state, bits) : -1;
}

// Adds bits to the state of the direction that comes back to one with a tuple and a state, and reads its octets.
// Returns what its state was, 0 if it is not there, or -1 if another flow has taken its place.
static __attribute__((noinline)) long add_state_of_other(const struct tuple *tuple, const struct tuple *back, u32 state,
							 u32 bits, u64 *bytes)
{
	struct flow *other = find_flow(back);
	if (!other)
		return 0;
	if (!is_other_direction(tuple, state, other))
		return -1;
	*bytes = other->bytes;
	return __sync_fetch_and_or(&other->state, bits) & ~FLOW_TO_CLIENT;
}

// Adds bits to the state of both directions, and tells the director what has happened.
static __attribute__((noinline)) int change_state(const struct tuple *tuple, const struct flow *flow, u32 bits)
{
	struct event event = {};
	struct tuple back;
	u64 bytes_back = 0;
	long before = add_state(tuple, bits);
	if (before < 0)
		return DONE;
	u32 old = before;
	reverse(tuple, flow, &back);
	long other = old & FLOW_DIRECT ? 0 : add_state_of_other(tuple, &back, old, bits, &bytes_back);
	// A late packet of a flow says nothing of the one that has taken its client's port, or its way back.
	if (other < 0)
		return DONE;
	// The other end may end the flow at the same time, on another processor: then both tell of it.
	event.state = old | bits | other;
	if (is_over(event.state) && !is_over(old))
		event.kind = EVENT_ENDED;
	else if (bits & ~old & FLOW_ANSWERED)
		event.kind = EVENT_ANSWERED;
	else
		return DONE;
	event.at = coarse_time_ns();
	event.tuple = old & FLOW_TO_CLIENT ? back : *tuple;
	event.bytes_to_server = old & FLOW_TO_CLIENT ? bytes_back : flow->bytes;
	event.bytes_to_client = old & FLOW_TO_CLIENT ? flow->bytes : bytes_back;
	event.server = flow->server;
	USE(send_event(&event));
	return DONE;
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
	if (find_flow(&packet->tuple) || find_service(&packet->tuple))
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
	struct flow *old = find_flow(back);
	if (!old || is_other_direction(tuple, 0, old))
		return 0;
	reverse(back, old, &other_tuple);
	struct flow *other = find_flow(&other_tuple);
	return other && is_other_direction(back, old->state, other) && !is_over(other->state);
}

// Makes both directions of a flow, or the one to the server by direct routing. Returns 0, or -1 if the way back is
// that of another flow.
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
	u32 is_direct = chosen->method == METHOD_DIRECT;
	if (!is_direct && is_way_back_taken(&back, tuple))
		return -1;
	struct flow flow = {
		.seen_at = coarse_time_ns(),
		.state = FLOW_TO_CLIENT,
		.ifindex = ifindex,
		.server = server,
		.port = tuple->destination_port,
		.address = tuple->destination,
	};
	long is_full = is_direct ? 0 : store_flow(&back, &flow);
	flow.state = is_direct ? FLOW_DIRECT : 0;
	flow.ifindex = chosen->ifindex;
	flow.port = chosen->port;
	flow.address = chosen->address;
	if (is_full || store_flow(tuple, &flow)) {
		count(COUNT_TABLE_FULL);
		return -1;
	}
	return 0;
}

// Makes the other direction of a flow again if a full table has forgotten it: without it the flow would stay half
// of itself for as long as packets of this direction come.
static __attribute__((noinline)) int keep_other_direction(const struct tuple *tuple, const struct flow *known,
							  u32 ifindex)
{
	struct tuple other;
	if (known->state & FLOW_DIRECT)
		return DONE;
	reverse(tuple, known, &other);
	// To look for it counts as a use of it.
	if (find_flow(&other))
		return DONE;
	struct flow flow = {
		.seen_at = coarse_time_ns(),
		.state = known->state ^ FLOW_TO_CLIENT,
		.ifindex = ifindex,
		.server = known->server,
	};
	if (known->state & FLOW_TO_CLIENT) {
		struct server *chosen = map_lookup(&servers, &flow.server);
		if (!chosen)
			return DONE;
		flow.ifindex = chosen->ifindex;
		flow.port = tuple->source_port;
		flow.address = tuple->source;
		KEEP_BRANCH;
	} else {
		flow.port = tuple->destination_port;
		flow.address = tuple->destination;
	}
	USE(store_flow(&other, &flow));
	return DONE;
}

// Tells the director of a flow that a table has decided.
static __attribute__((noinline)) int tell_decided(const struct tuple *tuple, u32 server, u32 service, u32 ifindex)
{
	struct event event = {.kind = EVENT_DECIDED, .server = server, .service = service, .ifindex = ifindex};
	event.at = coarse_time_ns();
	event.tuple = *tuple;
	USE(send_event(&event));
	return DONE;
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
		count(service->flags & SERVICE_IS_KEYED ? COUNT_KEYED_DECISIONS : COUNT_TABLE_DECISIONS);
		USE(tell_decided(tuple, chosen, id, ifindex));
		return 0;
	}
	return -1;
}

#endif
