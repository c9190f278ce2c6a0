// Runs another program on one packet again and again (BPF_PROG_TEST_RUN with `repeat`), each time as the packet
// was and as one of the next flow: the other program has rewritten it.
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
enum { ETHERNET_LEN = 14, HEADERS_LEN = 40, VERDICT_NEXT = -1 };

// The packet, without options of IPv4 and TCP, and how many flows there are.
struct again {
	u32 next;
	// One less than the flows, which are a power of two.
	u32 mask;
	// The client is the destination, not the source.
	u32 is_answer;
	u8 headers[HEADERS_LEN];
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

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const store_bytes)(void *skb, u32 offset, const void *from, u32 len, u64 flags) = (void *)9;
static long (*const tail_call)(void *skb, void *map, u32 index) = (void *)12;

SECTION("classifier")
int again(void *skb)
{
	u32 first = 0;
	struct again *again = map_lookup(&agains, &first);
	if (!again)
		return VERDICT_NEXT;
	// Neighbours in the order of time are none in a table: an odd factor permutes the numbers.
	u32 flow = again->next++ * 0x9e3779b1 & again->mask;
	u8 headers[HEADERS_LEN];
	__builtin_memcpy(headers, again->headers, HEADERS_LEN);
	// A client's address for each 32768 ports, in network order: 10.128.0.0 and more, ports from 16384.
	u32 address = __builtin_bswap32(0x0a800000 | flow >> 15);
	u16 port = __builtin_bswap16(16384 + (flow & 0x7fff));
	if (!again->is_answer) {
		__builtin_memcpy(headers + 12, &address, 4);
		__builtin_memcpy(headers + 20, &port, 2);
	} else {
		__builtin_memcpy(headers + 16, &address, 4);
		__builtin_memcpy(headers + 22, &port, 2);
	}
	store_bytes(skb, ETHERNET_LEN, headers, HEADERS_LEN, 0);
	tail_call(skb, &callees, 0);
	return VERDICT_NEXT;
}

// What the other program is compared with.
SECTION("classifier")
int nothing(void *skb)
{
	(void)skb;
	return VERDICT_NEXT;
}

char _license[] SECTION("license") = "Dual MIT/GPL";
