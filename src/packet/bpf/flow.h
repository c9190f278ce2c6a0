// The flows: who decides them, and what becomes of their state.

#ifndef LVS_FLOW_H
#define LVS_FLOW_H

#include "limit.h"
#include "rewrite.h"
#include "rule.h"

// Once in some 8.6 s a direction of a flow looks for the other one: more often would cost each packet of many slow
// flows a second search. Once in half a second if nobody is assured of the flow: the client may repeat what it has
// sent, because the way back was forgotten.
enum { PAIRED_SHIFT = 33, UNASSURED_SHIFT = 29 };
enum { UNREAD_EVENTS_WAKE = 256 * 1024 };
// New flows that wait for the director; the queue of its device has room for 500.
enum { MAX_WAITING_UPCALLS = 384 };

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

// Returns whether a direction is one of an answered flow, of whose client one is assured, and that nobody has begun
// to end.
INLINE u32 is_established(u32 state)
{
	return (state & ~FLOW_DIRECT) == (FLOW_ANSWERED | FLOW_ASSURED) || state == (FLOW_TO_CLIENT | FLOW_ANSWERED);
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

// Adds bits to the state of both directions, and tells the director what has happened. Returns whether a flow has
// ended that does not have a place yet.
GLOBAL int change_state(const struct tuple *tuple, const struct flow *flow, u32 bits)
{
	if (!tuple || !flow)
		return 0;
	// As a key, older kernels take it from the stack alone.
	struct tuple own = *tuple;
	struct event event = {};
	struct tuple back;
	u64 bytes_back = 0;
	long before = add_state(&own, bits);
	if (before < 0)
		return DONE;
	u32 old = before;
	reverse(&own, flow, &back);
	long other = old & FLOW_DIRECT ? 0 : add_state_of_other(&own, &back, old, bits, &bytes_back);
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
	event.tuple = old & FLOW_TO_CLIENT ? back : own;
	event.bytes_to_server = old & FLOW_TO_CLIENT ? bytes_back : flow->bytes;
	event.bytes_to_client = old & FLOW_TO_CLIENT ? flow->bytes : bytes_back;
	event.server = flow->server;
	USE(send_event(&event));
	return event.kind == EVENT_ENDED && event.state & FLOW_ASSURED;
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

// The ends of a connection (`struct bpf_sock_tuple`).
struct socket_ends_ipv4 {
	u32 source, destination;
	u16 ports[2];
};
struct socket_ends_ipv6 {
	struct address source, destination;
	u16 ports[2];
};

// Returns whether a connection is one of this machine's own.
static __attribute__((noinline)) int has_socket(struct __sk_buff *skb, const struct tuple *tuple)
{
	struct bpf_sock *socket;
	if (is_ipv4(&tuple->destination)) {
		struct socket_ends_ipv4 ends = {
			.source = tuple->source.words[3],
			.destination = tuple->destination.words[3],
			.ports = {tuple->source_port, tuple->destination_port},
		};
		socket = find_tcp_socket(skb, &ends, sizeof(ends), CURRENT_NAMESPACE, 0);
	} else {
		struct socket_ends_ipv6 ends = {
			.source = tuple->source,
			.destination = tuple->destination,
			.ports = {tuple->source_port, tuple->destination_port},
		};
		socket = find_tcp_socket(skb, &ends, sizeof(ends), CURRENT_NAMESPACE, 0);
	}
	if (!socket)
		return 0;
	u32 state = socket->state;
	release_socket(socket);
	// A connection that begins, or has ended, has one that tells so.
	return state != SOCKET_LISTENS;
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

// Returns whether a flow that has begun elsewhere goes on by the table of a service: the table is the scheduler's own, so
// that it names the same server, wherever and whenever the flow has begun.
INLINE u32 is_decided_anew(const struct service *service)
{
	return (service->flags & (SERVICE_IS_KEYED | SERVICE_SHEDS)) == SERVICE_IS_KEYED;
}

// Returns whether a packet that nobody has decided may go to the director.
INLINE u32 may_ask(struct __sk_buff *skb, const struct control *control, u64 now)
{
	u32 mtu = 0;
	u32 first = 0;
	if (!control->tap_ifindex || now >= control->alive_until)
		return 0;
	// The device ends with its process, however that ends.
	if (check_mtu(skb, control->tap_ifindex, &mtu, 0, 0) < 0)
		return 0;
	if (!is_within_limit(LIMITED_UPCALLS, control->upcalls_per_window, now))
		return 0;
	// More than this would be lost in the queue of the device.
	u64 *waiting = map_lookup(&waiting_upcalls, &first);
	if (!waiting || *waiting >= MAX_WAITING_UPCALLS)
		return 0;
	__sync_fetch_and_add(waiting, 1);
	return 1;
}

// Counts that a packet waits no more, if it comes from the director's device.
static __attribute__((noinline)) int count_given_back(u32 ifindex)
{
	u32 first = 0;
	struct control *said = map_lookup(&control, &first);
	u64 *waiting = map_lookup(&waiting_upcalls, &first);
	if (said && waiting && ifindex == said->tap_ifindex && *waiting > 0)
		__sync_fetch_and_add(waiting, -1);
	return DONE;
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

// Makes both directions of a flow, or the one to the server if that answers by itself. Returns 0 if there is room.
static __attribute__((noinline)) int add_flow(const struct tuple *tuple, const struct tuple *back, u32 server,
					      u32 ifindex)
{
	struct server *chosen = map_lookup(&servers, &server);
	if (!chosen)
		return -1;
	u32 is_direct = chosen->method != METHOD_NAT;
	struct flow flow = {
		.seen_at = coarse_time_ns(),
		.state = FLOW_TO_CLIENT,
		.ifindex = ifindex,
		.server = server,
		.port = tuple->destination_port,
		.address = tuple->destination,
	};
	long is_full = is_direct ? 0 : store_flow(back, &flow);
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

// Returns whether packets of a device are what the director gives back, and not where clients are.
static __attribute__((noinline)) int is_director_device(u32 ifindex)
{
	u32 first = 0;
	struct control *said = map_lookup(&control, &first);
	return said && ifindex == said->tap_ifindex;
}

// Makes the other direction of a flow again if a full table has forgotten it: without it the flow would stay half
// of itself for as long as packets of this direction come. Answers leave by the device that the client's packets come
// from now.
GLOBAL int keep_other_direction(const struct tuple *tuple, const struct flow *known, u32 ifindex)
{
	if (!tuple || !known)
		return 0;
	struct tuple own = *tuple, other;
	if (known->state & FLOW_DIRECT)
		return DONE;
	reverse(&own, known, &other);
	struct flow *now = find_flow(&own);
	// To look for it counts as a use of it.
	struct flow *there = find_flow(&other);
	if (!now || is_director_device(ifindex))
		return DONE;
	if (there) {
		if (!(known->state & FLOW_TO_CLIENT) && is_other_direction(&own, known->state, there))
			there->ifindex = ifindex;
		return DONE;
	}
	struct flow flow = {
		.seen_at = coarse_time_ns(),
		.state = (now->state ^ FLOW_TO_CLIENT) & ~FLOW_ASSURED,
		.ifindex = ifindex,
		.server = known->server,
	};
	if (known->state & FLOW_TO_CLIENT) {
		struct server *chosen = map_lookup(&servers, &flow.server);
		if (!chosen)
			return DONE;
		flow.ifindex = chosen->ifindex;
		flow.port = own.source_port;
		flow.address = own.source;
		KEEP_BRANCH;
	} else {
		flow.port = own.destination_port;
		flow.address = own.destination;
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
GLOBAL int decide_by_table(const struct tuple *tuple, u32 ifindex)
{
	if (!tuple)
		return -1;
	struct tuple own = *tuple;
	struct service *service = find_service(&own);
	if (!service)
		return -1;
	u32 id = service->id;
	void *table = map_lookup(&tables, &id);
	if (!table || service->slots == 0)
		return -1;
	struct search search;
	begin_search(&search, service, &own);
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
		struct tuple back = {
			.source = server->address,
			.destination = own.source,
			.source_port = server->port,
			.destination_port = own.source_port,
			.protocol = own.protocol,
		};
		if (server->method == METHOD_NAT && is_way_back_taken(&back, &own))
			continue;
		// A connection that has ended, with the same port of the client.
		struct flow *ended = find_flow(&own);
		if (ended && !(ended->state & FLOW_TO_CLIENT))
			USE(remove_other_direction(&own, ended));
		if (add_flow(&own, &back, chosen, ifindex))
			continue;
		struct server_counters *counters = map_lookup(&server_counts, &chosen);
		if (counters)
			counters->connections += 1;
		count(service->flags & SERVICE_IS_KEYED ? COUNT_KEYED_DECISIONS : COUNT_TABLE_DECISIONS);
		USE(tell_decided(&own, chosen, id, ifindex));
		return 0;
	}
	return -1;
}

#endif
