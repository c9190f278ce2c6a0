// What the program uses of the kernel: types, helpers and constants of its stable interface to BPF programs.
// There are no headers of the kernel or of a library here, so that the object depends on the compiler alone.

#ifndef LVS_KERNEL_H
#define LVS_KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
// The verifier goes through such a function once, whoever calls it, and takes its pointers for what may be null. It has
// no packet's context: kernels without a description of their own types do not know it there.
#define GLOBAL __attribute__((noinline))
// Ends one of two branches that do the same to different places. Without it the compiler makes one of them, with an
// address that it chooses by arithmetic, which the verifier lets no process without CAP_PERFMON do.
#define KEEP_BRANCH asm volatile("")
// A function that is called for what it does returns DONE, which is 0, and its caller reads that with USE. Without both
// the compiler leaves in the register of the answer what was there, and the verifier lets no function return an address
// of its stack.
#define USE(value) asm volatile("" : : "r"(value))
#define DONE \
	({ \
		int zero = 0; \
		asm volatile("" : "+r"(zero)); \
		zero; \
	})
#define NETWORK16(x) ((u16)__builtin_bswap16(x))

// The first fields of a packet's context (uapi/linux/bpf.h).
struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority;
	u32 ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid, data, data_end;
	u32 napi_id, family, remote_ip4, local_ip4, remote_ip6[4], local_ip6[4], remote_port, local_port, data_meta;
	u64 flow_keys, timestamp;
	u32 wire_len, gso_segs;
	u64 socket;
	// What a segment of a packet has that the kernel has joined from many; 0 for others.
	u32 gso_size;
};

// A frame, before the kernel makes a packet of it (uapi/linux/bpf.h).
struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

// The first fields of a socket (uapi/linux/bpf.h).
struct bpf_sock {
	u32 bound_dev_if, family, type, protocol, mark, priority;
	u32 src_ip4, src_ip6[4], src_port;
	u16 dst_port, zero_padding;
	u32 dst_ip4, dst_ip6[4], state;
};
enum { SOCKET_LISTENS = 10, CURRENT_NAMESPACE = -1 };

// The verdicts of a classifier; the first lets the next program, or the stack, have the packet.
enum { VERDICT_NEXT = -1, VERDICT_DROP = 2 };
// Those of an XDP program; the second lets the kernel have it, and the third sends it back by its device.
enum { FRAME_DROP = 1, FRAME_PASS = 2, FRAME_RETURN = 3 };

// Maps are described by the types of the members of a variable.
#define MAP_NUMBER(name, value) int(*name)[value]
#define MAP_TYPE(name, type) typeof(type) *name
enum {
	MAP_HASH = 1,
	MAP_ARRAY = 2,
	MAP_PERCPU_ARRAY = 6,
	MAP_LRU_HASH = 9,
	MAP_ARRAY_OF_MAPS = 12,
	MAP_RING_BUFFER = 27,
};
enum { PIN_BY_NAME = 1 };

enum {
	UPDATE_ANY = 0,
	UPDATE_IF_ABSENT = 1,
	CHECKSUM_OF_PSEUDO_HEADER = 0x10,
	CHECKSUM_MAY_BE_ABSENT = 0x20,
	// Since Linux 6.16: the address of IPv6 is in no checksum of its header.
	CHECKSUM_OF_IPV6 = 0x80,
	RING_BUFFER_NO_WAKEUP = 1,
	RING_BUFFER_FORCE_WAKEUP = 2,
	RING_BUFFER_UNREAD_BYTES = 0,
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const map_delete)(void *map, const void *key) = (void *)3;
static long (*const store_bytes)(struct __sk_buff *, u32 offset, const void *from, u32 len, u64 flags) = (void *)9;
static long (*const replace_l4_checksum)(struct __sk_buff *, u32 offset, u64 from, u64 to, u64 flags) = (void *)11;
static long (*const redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*const load_bytes)(const struct __sk_buff *, u32 offset, void *to, u32 len) = (void *)26;
static long (*const change_tail)(struct __sk_buff *, u32 len, u64 flags) = (void *)38;
static long (*const pull_data)(struct __sk_buff *, u32 len) = (void *)39;
static long (*const ring_buffer_output)(void *map, const void *data, u64 len, u64 flags) = (void *)130;
// The socket of a connection in any state, or one that listens; it has to be released.
static struct bpf_sock *(*const find_tcp_socket)(struct __sk_buff *, const void *tuple, u32 len, u64 netns,
						 u64 flags) = (void *)99;
static long (*const release_socket)(struct bpf_sock *) = (void *)86;
static u64 (*const ring_buffer_query)(void *map, u64 what) = (void *)134;
// To the other end of a pair of devices, in its network namespace, past the queues of both.
static long (*const redirect_to_peer)(u32 ifindex, u64 flags) = (void *)155;
static long (*const redirect_to_neighbour)(u32 ifindex, void *params, int len, u64 flags) = (void *)152;
static long (*const adjust_room)(struct __sk_buff *, s32 len, u32 where, u64 what_for) = (void *)50;
static u64 (*const coarse_time_ns)(void) = (void *)160;
// A negative answer is an error: there is no such device.
static long (*const check_mtu)(struct __sk_buff *, u32 ifindex, u32 *mtu, s32 len_change, u64 flags) = (void *)163;

// XDP programs have helpers of the same numbers for the same things, by another context.
static long (*const redirect_frame)(u32 ifindex, u64 flags) = (void *)23;
static long (*const move_head)(struct xdp_md *, s32 len) = (void *)44;
static u64 (*const frame_len)(struct xdp_md *) = (void *)188;

// A route that is asked for, and the next hop by it (`struct bpf_fib_lookup`).
struct route {
	u8 family, protocol;
	u16 source_port, destination_port;
	// The length of the packet, without the frame; of the answer, the MTU.
	u16 len;
	u32 ifindex;
	// The type of service of IPv4, or traffic class and flow label of IPv6, in network order.
	u32 class;
	// An address of IPv4 is in the first word.
	u32 source[4], destination[4];
	u32 vlan;
	u8 own_mac[6], next_mac[6];
};
// The packet leaves by the device, and does not come in there.
enum { ROUTE_BY_DEVICE = 2 };
// An answer other than 0 is an error, or says why there is none, such as that the hardware address is not known yet.
static long (*const find_route)(void *context, struct route *, int len, u32 flags) = (void *)69;

// Finds the first octets of a packet, where they lie in one piece: their place is read and written in some
// nanoseconds less than by a helper. The length is a constant, and the answer no address: the verifier lets no process
// without CAP_PERFMON add another number to a packet's address, nor compare one. `at_data` and `at_end` are the places
// in the context, which are constants, too: the verifier knows the fields by their offsets, and the compiler, which takes
// them for numbers, would move them about.
INLINE int find_in_context(void *context, u32 at_data, u32 at_end, u32 len, void **octets)
{
	void *data, *end;
	asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(data) : "r"(context), "i"(at_data));
	asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(end) : "r"(context), "i"(at_end));
	if (data + len > end)
		return 0;
	*octets = data;
	return 1;
}

INLINE int find_octets(struct __sk_buff *skb, u32 len, void **octets)
{
	return find_in_context(skb, __builtin_offsetof(struct __sk_buff, data),
			       __builtin_offsetof(struct __sk_buff, data_end), len, octets);
}

INLINE int find_in_frame(struct xdp_md *frame, u32 len, void **octets)
{
	return find_in_context(frame, __builtin_offsetof(struct xdp_md, data),
			       __builtin_offsetof(struct xdp_md, data_end), len, octets);
}

#endif
