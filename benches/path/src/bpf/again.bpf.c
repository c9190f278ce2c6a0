// Runs another program on one packet again and again (BPF_PROG_TEST_RUN with `repeat`), each time as the packet
// was and as one of the next flow: the other program has rewritten it. For programs at tc, and at XDP.
//
// Built by `build`; the object is in the repository, so that nobody needs a compiler.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define MAP_NUMBER(name, value) int(*name)[value]
#define MAP_TYPE(name, type) typeof(type) *name

enum { MAP_ARRAY = 2, MAP_PROG_ARRAY = 3 };
enum { ETHERNET_LEN = 14, HEADERS_LEN = 40, HEADER_WORDS = HEADERS_LEN / 4 };
// What a program without an opinion returns: a classifier, and one for frames.
enum { VERDICT_NEXT = -1, FRAME_PASS = 2 };

// A frame, before the kernel makes a packet of it (uapi/linux/bpf.h).
struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

// The packet, without options of IPv4 and TCP, and how many flows there are.
struct again {
	u32 next;
	// One less than the flows, which are a power of two.
	u32 mask;
	// The client is the destination, not the source.
	u32 is_answer;
	u32 headers[HEADER_WORDS];
	// The hardware address that a frame goes to.
	u16 mac[3];
	u16 pad;
};

struct {
	MAP_NUMBER(type, MAP_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct again);
} agains SECTION(".maps");

struct {
	MAP_NUMBER(type, MAP_PROG_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u32);
} callees SECTION(".maps");

// A program is called by one of its own type alone.
struct {
	MAP_NUMBER(type, MAP_PROG_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u32);
} xdp_callees SECTION(".maps");

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const store_bytes)(void *skb, u32 offset, const void *from, u32 len, u64 flags) = (void *)9;
static long (*const tail_call)(void *context, void *map, u32 index) = (void *)12;

// Makes the headers of the next packet.
static inline __attribute__((always_inline)) void make_headers(struct again *again, u32 *headers)
{
	// Neighbours in the order of time are none in a table: an odd factor permutes the numbers.
	u32 flow = again->next++ * 0x9e3779b1 & again->mask;
	__builtin_memcpy(headers, again->headers, HEADERS_LEN);
	// A client's address for each 32768 ports, in network order: 10.128.0.0 and more, ports from 16384.
	u32 address = __builtin_bswap32(0x0a800000 | flow >> 15);
	u16 port = __builtin_bswap16(16384 + (flow & 0x7fff));
	u16 *ports = (u16 *)(headers + 5);
	if (!again->is_answer) {
		headers[3] = address;
		ports[0] = port;
	} else {
		headers[4] = address;
		ports[1] = port;
	}
}

SECTION("classifier")
int again(void *skb)
{
	u32 first = 0;
	u32 headers[HEADER_WORDS];
	struct again *again = map_lookup(&agains, &first);
	if (!again)
		return VERDICT_NEXT;
	make_headers(again, headers);
	store_bytes(skb, ETHERNET_LEN, headers, HEADERS_LEN, 0);
	tail_call(skb, &callees, 0);
	return VERDICT_NEXT;
}

// The other program has written new hardware addresses, too; it does not read that of the source.
SECTION("xdp")
int again_xdp(struct xdp_md *frame)
{
	u32 first = 0;
	u32 headers[HEADER_WORDS];
	void *data = (void *)(long)frame->data;
	void *end = (void *)(long)frame->data_end;
	struct again *again = map_lookup(&agains, &first);
	if (!again || data + ETHERNET_LEN + HEADERS_LEN > end)
		return FRAME_PASS;
	make_headers(again, headers);
	u16 *mac = data;
	u32 *words = data + ETHERNET_LEN;
#pragma unroll
	for (int n = 0; n < 3; n++)
		mac[n] = again->mac[n];
#pragma unroll
	for (int n = 0; n < HEADER_WORDS; n++)
		words[n] = headers[n];
	tail_call(frame, &xdp_callees, 0);
	return FRAME_PASS;
}

// What the other program is compared with.
SECTION("classifier")
int nothing(void *skb)
{
	(void)skb;
	return VERDICT_NEXT;
}

SECTION("xdp")
int nothing_xdp(void *frame)
{
	(void)frame;
	return FRAME_PASS;
}

char _license[] SECTION("license") = "Dual MIT/GPL";
