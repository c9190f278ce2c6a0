// The side of a real server with a tunnel, at the ingress of its device: takes packets out of those that they come in,
// by IP in IP of either family in either, and by GUE at port 6080. For kernels without the devices of tunnels.
//
// Built by `tests/packet/decapsulation/build`.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define NETWORK16(x) ((u16)__builtin_bswap16(x))

// The first fields of a packet's context (uapi/linux/bpf.h).
struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol;
};

static long (*const store_bytes)(struct __sk_buff *, u32 offset, const void *from, u32 len, u64 flags) = (void *)9;
static long (*const load_bytes)(const struct __sk_buff *, u32 offset, void *to, u32 len) = (void *)26;
static long (*const adjust_room)(struct __sk_buff *, int len, u32 where, u64 what_for) = (void *)50;

enum { NEXT = -1, DROP = 2 };
enum { ETHERNET_TYPE = 12, ETHERNET_LEN = 14, IPV4_LEN = 20, IPV6_LEN = 40, GUE_LEN = 12 };
enum { IPV4 = 0x0800, IPV6 = 0x86dd, IPIP = 4, UDP = 17, IPV6_IN_IP = 41, GUE_PORT = 6080 };
// `BPF_ADJ_ROOM_MAC`, that segments keep their length, and that a header of a family is behind what is taken away.
enum { ROOM_AFTER_ETHERNET = 1, KEEPS_SEGMENTS = 1, BEHIND_IS_IPV4 = 1 << 7, BEHIND_IS_IPV6 = 1 << 8 };

SECTION("classifier") int decapsulate(struct __sk_buff *skb)
{
	u32 is_ipv6 = skb->protocol == NETWORK16(IPV6);
	u32 len = is_ipv6 ? IPV6_LEN : IPV4_LEN;
	u8 protocol;
	if (!is_ipv6 && skb->protocol != NETWORK16(IPV4))
		return NEXT;
	if (load_bytes(skb, ETHERNET_LEN + (is_ipv6 ? 6 : 9), &protocol, 1))
		return NEXT;
	if (protocol == UDP) {
		u16 port;
		if (load_bytes(skb, ETHERNET_LEN + len + 2, &port, 2) || port != NETWORK16(GUE_PORT) ||
		    load_bytes(skb, ETHERNET_LEN + len + 9, &protocol, 1))
			return NEXT;
		len += GUE_LEN;
	}
	if (protocol != IPIP && protocol != IPV6_IN_IP)
		return NEXT;
	u16 type = protocol == IPIP ? NETWORK16(IPV4) : NETWORK16(IPV6);
	u64 what_for = KEEPS_SEGMENTS | (protocol == IPIP ? BEHIND_IS_IPV4 : BEHIND_IS_IPV6);
	if (adjust_room(skb, -len, ROOM_AFTER_ETHERNET, what_for) ||
	    store_bytes(skb, ETHERNET_TYPE, &type, 2, 0))
		return DROP;
	return NEXT;
}

char _license[] SECTION("license") = "Dual MIT/GPL";
