// The layout of the maps that the program shares with `src/packet/layout.rs`. A change of a struct here is a
// change of `LAYOUT_VERSION` there, because maps outlive the director. All padding is written out: the verifier
// refuses bytes that nobody has set.

#ifndef LVS_LAYOUT_H
#define LVS_LAYOUT_H

#include "kernel.h"

// An address of either family: IPv4 is `::ffff:a.b.c.d`. Everything is in network order.
struct address {
	u32 words[4];
};

// The addresses and ports of a packet.
struct tuple {
	struct address source, destination;
	u16 source_port, destination_port;
	u8 protocol;
	u8 pad[3];
};

// The tuple of a packet of IPv4 in 16 octets: with many flows, what a packet costs is what it reads of memory.
struct tuple_ipv4 {
	u32 source, destination;
	u16 source_port, destination_port;
	u8 protocol;
	u8 pad[3];
};

// What is known of one direction of a flow, by the tuple of its packets.
struct flow {
	// When its last packet passed, in nanoseconds of the monotonic clock.
	u64 seen_at;
	// The octets of its packets.
	u64 bytes;
	u32 state;
	// The device that its packets leave by.
	u32 ifindex;
	u32 server;
	// What replaces an end of the tuple: the server's in place of the virtual one, or the other way round in the
	// direction to the client. Of a flow by direct routing it replaces nothing: it says where packets go.
	u16 port;
	// Of the direction to the server: the end of the number of its place, when the flow began.
	u16 place;
	struct address address;
};

// Bits of `state`. Both directions of a flow have the same, but for the first. A flow by direct routing or a tunnel
// has one direction, to the server, whose answers do not come here.
enum flow_state {
	// The direction from the server to the client.
	FLOW_TO_CLIENT = 1,
	FLOW_ANSWERED = 2,
	FLOW_CLIENT_FIN = 4,
	FLOW_SERVER_FIN = 8,
	FLOW_CLIENT_RESET = 16,
	FLOW_SERVER_RESET = 32,
	// The server answers the client by itself.
	FLOW_DIRECT = 64,
	// The client is there: it has sent a packet after the server's answer. The flow is forgotten for no other one.
	// In the direction to the server alone.
	FLOW_ASSURED = 128,
};
enum {
	FLOW_FINS = FLOW_CLIENT_FIN | FLOW_SERVER_FIN,
	FLOW_RESETS = FLOW_CLIENT_RESET | FLOW_SERVER_RESET,
};

struct service_key {
	struct address address;
	// 0 for what has no ports.
	u16 port;
	u8 protocol;
	u8 pad;
};

struct service {
	u32 id;
	// The slots of its table.
	u32 slots;
	u32 flags;
	// How a flow finds its slot: one of `enum table_rule`.
	u32 rule;
	u64 seed;
};

enum service_flags {
	// New flows are dropped when they cannot be decided by the director: the limits are exact.
	SERVICE_SHEDS = 1,
	// No process has it: the table decides, whatever process there is.
	SERVICE_UNOWNED = 2,
	// The table is that of the scheduler: it decides first, and the director what the table leaves open. Without
	// this bit the director decides first, and the table when the director does not.
	SERVICE_IS_KEYED = 4,
	// The port of the client is part of the key.
	SERVICE_HASHES_PORT = 8,
	// Another machine has the address: this one decides nothing, as long as its process is alive.
	SERVICE_IS_ELSEWHERE = 16,
	// This machine has the address since a moment ago: connections that it does not know yet are told of soon.
	SERVICE_IS_NEW_HERE = 32,
};

enum table_rule {
	// The key of a flow, mixed with the seed and scaled to the slots, and mixed again for the next try.
	RULE_MIXED,
	// `mh` of IPVS.
	RULE_MAGLEV_OF_IPVS,
	// `sh` of IPVS, which has 256 slots.
	RULE_SOURCE_OF_IPVS,
};

// A slot that no server has.
#define NO_SERVER (~0u)

struct server {
	struct address address;
	u16 port;
	u8 is_available;
	// How packets reach it: one of `enum server_method`.
	u8 method;
	// The device of the route to it.
	u32 ifindex;
	u32 service;
	// Of a tunnel: the address that packets have as their source, and the port of UDP that they go to.
	struct address source;
	// The bits of the source's last word that differ by flow, in network order.
	u32 source_spread;
	u16 tunnel_port;
	u16 pad;
};

enum server_method {
	// Packets get the server's address, and answers that of the service.
	METHOD_NAT = 0,
	// Packets are given to the server as they are.
	METHOD_DIRECT = 1,
	// As they are, in other packets, which have the server's address.
	METHOD_IPIP = 2,
	METHOD_GUE = 3,
};

struct server_counters {
	u64 connections, packets_in, bytes_in, packets_out, bytes_out;
};

// The Ethernet addresses by which packets leave by a device that is one end of a pair, with the other end in another
// network namespace. Devices that are not in the map have neighbours, which the kernel knows.
struct peer {
	u8 destination[6], source[6];
};

// A device whose frames the XDP program gets; its number is 0 in a slot that no device has.
struct xdp_device {
	u32 ifindex;
	u8 mac[6];
	u16 flags;
};

// What its driver does: it gives frames to other devices, sends those of others, and of these multi-buffer frames, too.
enum xdp_device_flags { XDP_DEVICE_REDIRECTS = 1, XDP_DEVICE_SENDS = 2, XDP_DEVICE_SENDS_MULTI_BUFFER = 4 };

// What a director that decides says to the program.
struct control {
	// Until when the director is taken to be alive, in nanoseconds of the monotonic clock.
	u64 alive_until;
	// The tap device at which the director gets the packets that it decides; 0 for none.
	u32 tap_ifindex;
	// New flows that each processor may ask for in a window of 2^24 ns, some 17 ms.
	u32 upcalls_per_window;
	// ICMP errors that each processor may answer with in a window.
	u32 answers_per_window;
	// The mark of packets by which checks reach the server with the number 0; 0 for none.
	u32 first_check_mark;
};

// The places of flows of a family that nobody is assured of. The oldest one is given to the next flow.
struct place_ring {
	u64 next;
	u64 places;
};

// The place of such a flow, by the tuple of the client's packets.
struct place_ipv4 {
	// In nanoseconds of the monotonic clock; 0 for nobody's.
	u64 since;
	struct tuple_ipv4 tuple;
};

struct place_ipv6 {
	u64 since;
	struct tuple tuple;
};

// What the program counts, in the order of `src/packet/statistics.rs`. The director counts the last, the flows
// that it misses.
enum counter {
	COUNT_UPCALLS,
	COUNT_KEYED_DECISIONS,
	COUNT_TABLE_DECISIONS,
	COUNT_REFUSED_AT_LIMIT,
	COUNT_REFUSED_WITHOUT_SERVER,
	COUNT_TABLE_FULL,
	COUNT_EVENTS_LOST,
	COUNT_FRAGMENTS,
	COUNT_WITH_OPTIONS,
	COUNT_MALFORMED,
	COUNT_WITHOUT_FLOW,
	COUNT_HOP_LIMIT,
	COUNT_TOO_LONG,
	COUNT_REWRITE_FAILED,
	COUNT_ICMP_ERRORS,
	COUNT_UNASSURED_FORGOTTEN,
	COUNT_ELSEWHERE,
	COUNT_AT_XDP,
	COUNT_FLOWS_FORGOTTEN,
	COUNTERS,
};

enum event_kind {
	// A table has decided a flow.
	EVENT_DECIDED = 1,
	// The server has answered for the first time; by direct routing, the client has acknowledged it.
	EVENT_ANSWERED = 2,
	// The flow has ended, by the FIN of both or an RST; by direct routing, by the client's FIN or RST.
	EVENT_ENDED = 3,
	// The flow had not ended, nobody was assured of it, and others needed its place.
	EVENT_FORGOTTEN = 4,
};

// What has happened to a flow.
struct event {
	u64 at;
	// The octets that have passed.
	u64 bytes_to_server, bytes_to_client;
	// The direction to the server, as the client's packets have it.
	struct tuple tuple;
	u32 kind;
	u32 server;
	// Of EVENT_DECIDED alone.
	u32 service;
	// The bits of `enum flow_state` after it.
	u32 state;
	// The device that the client's packets come from; of EVENT_DECIDED alone.
	u32 ifindex;
	u32 pad;
};

enum { MAX_SERVICES = 4096, MAX_SERVERS = 16384, MAX_PEERS = 4096, XDP_DEVICE_SLOTS = 256 };

// A pinned map outlives the process that loaded the program.
#define PINNED MAP_NUMBER(pinning, PIN_BY_NAME)

struct {
	MAP_NUMBER(type, MAP_LRU_HASH);
	MAP_NUMBER(max_entries, 524288);
	MAP_TYPE(key, struct tuple_ipv4);
	MAP_TYPE(value, struct flow);
	PINNED;
} flows_ipv4 SECTION(".maps");

struct {
	MAP_NUMBER(type, MAP_LRU_HASH);
	MAP_NUMBER(max_entries, 262144);
	MAP_TYPE(key, struct tuple);
	MAP_TYPE(value, struct flow);
	PINNED;
} flows_ipv6 SECTION(".maps");

// By family: IPv4 first.
struct {
	MAP_NUMBER(type, MAP_ARRAY);
	MAP_NUMBER(max_entries, 2);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct place_ring);
	PINNED;
} place_rings SECTION(".maps");

struct {
	MAP_NUMBER(type, MAP_ARRAY);
	MAP_NUMBER(max_entries, 65536);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct place_ipv4);
	PINNED;
} places_ipv4 SECTION(".maps");

struct {
	MAP_NUMBER(type, MAP_ARRAY);
	MAP_NUMBER(max_entries, 32768);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct place_ipv6);
	PINNED;
} places_ipv6 SECTION(".maps");

// The ports of packets that come in fragments. The key is the tuple of a packet, with what its fragments have in
// common in place of the ports. Of more at a time than this the oldest are forgotten.
struct {
	MAP_NUMBER(type, MAP_LRU_HASH);
	MAP_NUMBER(max_entries, 8192);
	MAP_TYPE(key, struct tuple);
	MAP_TYPE(value, u32);
	PINNED;
} fragments SECTION(".maps");

struct {
	MAP_NUMBER(type, MAP_HASH);
	MAP_NUMBER(max_entries, MAX_SERVICES);
	MAP_TYPE(key, struct service_key);
	MAP_TYPE(value, struct service);
	PINNED;
} services SECTION(".maps");

struct {
	MAP_NUMBER(type, MAP_ARRAY);
	MAP_NUMBER(max_entries, MAX_SERVERS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct server);
	PINNED;
} servers SECTION(".maps");

// By the number of the device.
struct {
	MAP_NUMBER(type, MAP_HASH);
	MAP_NUMBER(max_entries, MAX_PEERS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct peer);
	PINNED;
} peers SECTION(".maps");

// By the end of the number of the device: an array is read in a tenth of the time of a hash table.
struct {
	MAP_NUMBER(type, MAP_ARRAY);
	MAP_NUMBER(max_entries, XDP_DEVICE_SLOTS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct xdp_device);
	PINNED;
} xdp_devices SECTION(".maps");

// The table of each service: servers by slot.
struct table {
	MAP_NUMBER(type, MAP_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_NUMBER(map_flags, 0x1000); // BPF_F_INNER_MAP: tables may have other sizes
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u32);
};
struct {
	MAP_NUMBER(type, MAP_ARRAY_OF_MAPS);
	MAP_NUMBER(max_entries, MAX_SERVICES);
	MAP_TYPE(key, u32);
	PINNED;
	struct table *values[];
} tables SECTION(".maps");

struct {
	MAP_NUMBER(type, MAP_PERCPU_ARRAY);
	MAP_NUMBER(max_entries, MAX_SERVERS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct server_counters);
	PINNED;
} server_counts SECTION(".maps");

struct {
	MAP_NUMBER(type, MAP_PERCPU_ARRAY);
	MAP_NUMBER(max_entries, COUNTERS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
	PINNED;
} counts SECTION(".maps");

struct {
	MAP_NUMBER(type, MAP_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct control);
	PINNED;
} control SECTION(".maps");

// What all processors have asked for, and has not come back. The director sets it to 0 when nothing waits: some
// packets do not come back.
struct {
	MAP_NUMBER(type, MAP_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
	PINNED;
} waiting_upcalls SECTION(".maps");

struct {
	MAP_NUMBER(type, MAP_RING_BUFFER);
	MAP_NUMBER(max_entries, 1 << 20);
	PINNED;
} events SECTION(".maps");

INLINE void count(u32 counter)
{
	u64 *value = map_lookup(&counts, &counter);
	if (value)
		*value += 1;
}

#endif
