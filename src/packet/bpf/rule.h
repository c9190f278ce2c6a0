// Which slots of a service's table a flow tries, as the scheduler that the table is of does.

#ifndef LVS_RULE_H
#define LVS_RULE_H

#include "parse.h"

// As many as `maglev` tries before it searches the table in order.
enum { MAX_TRIES = 17 };
// `sh` has 2^8 slots.
enum { SOURCE_SHIFT = 24 };

// A search for a slot with a server that may be chosen.
struct search {
	// The hash of a key that is mixed, or the number of the client that IPVS hashes.
	u64 hash;
	u32 slot, first_slot;
};

INLINE u64 mix_bits(u64 x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

INLINE u64 host64(u32 high, u32 low)
{
	return (u64)__builtin_bswap32(high) << 32 | __builtin_bswap32(low);
}

// The key of a client.
INLINE u64 hash_address(const struct address *address)
{
	const u32 *words = address->words;
	if (is_ipv4(address))
		return mix_bits(__builtin_bswap32(words[3]));
	return mix_bits(mix_bits(host64(words[0], words[1])) ^ host64(words[2], words[3]));
}

// The number that IPVS hashes of an address.
INLINE u32 fold_address(const struct address *address)
{
	const u32 *words = address->words;
	if (is_ipv4(address))
		return __builtin_bswap32(words[3]);
	return __builtin_bswap32(words[0] ^ words[1] ^ words[2] ^ words[3]);
}

// Maps a hash to a slot without a division.
INLINE u32 scale_to_slots(u64 hash, u32 slots)
{
	return ((hash >> 32) * slots + ((hash & 0xffffffff) * slots >> 32)) >> 32;
}

#define ROTATE(x, bits) ((x) << (bits) | (x) >> (64 - (bits)))

#define SIP_ROUND(a, b, c, d) \
	do { \
		a += b, c += d; \
		b = ROTATE(b, 13) ^ a, d = ROTATE(d, 16) ^ c; \
		a = ROTATE(a, 32) + d, c += b; \
		b = ROTATE(b, 17) ^ c, d = ROTATE(d, 21) ^ a; \
		c = ROTATE(c, 32); \
	} while (0)

// SipHash-1-3 of four octets, the lower half, with both halves of the key the same.
static __attribute__((noinline)) u32 siphash(u32 value, u64 key)
{
	u64 last = 4ull << 56 | value;
	u64 a = key ^ 0x736f6d6570736575, b = key ^ 0x646f72616e646f6d;
	u64 c = key ^ 0x6c7967656e657261, d = key ^ 0x7465646279746573 ^ last;
	SIP_ROUND(a, b, c, d);
	a ^= last;
	c ^= 0xff;
	SIP_ROUND(a, b, c, d);
	SIP_ROUND(a, b, c, d);
	SIP_ROUND(a, b, c, d);
	return a ^ b ^ c ^ d;
}

// Finds the first slot. The service has slots.
INLINE void begin_search(struct search *search, const struct service *service, const struct tuple *tuple)
{
	u32 port = service->flags & SERVICE_HASHES_PORT ? NETWORK16(tuple->source_port) : 0;
	if (service->rule == RULE_MIXED) {
		search->hash = mix_bits(hash_address(&tuple->source) ^ port ^ service->seed);
		search->slot = scale_to_slots(search->hash, service->slots);
	} else {
		u32 value = fold_address(&tuple->source) + port;
		search->hash = value;
		if (service->rule == RULE_SOURCE_OF_IPVS)
			search->slot = value * 0x61c88647 >> SOURCE_SHIFT;
		else
			search->slot = siphash(value, service->seed) % service->slots;
	}
	search->first_slot = search->slot;
}

// Returns the slot of a further try, from 1 on. A number beyond the table ends the search.
INLINE u32 next_slot(struct search *search, const struct service *service, u32 n)
{
	if (service->rule == RULE_MIXED) {
		search->hash = mix_bits(search->hash + 0x9e3779b97f4a7c15);
		return scale_to_slots(search->hash, service->slots);
	}
	if (service->rule == RULE_MAGLEV_OF_IPVS) {
		u32 offset = (search->first_slot + n - 1) % service->slots;
		return siphash((u32)search->hash + offset, service->seed) % service->slots;
	}
	// The table of `sh` has a server that may be chosen in each slot.
	return service->slots;
}

#endif
