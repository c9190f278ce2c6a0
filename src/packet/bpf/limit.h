// What each processor does no more than a number of times in a window of time.

#ifndef LVS_LIMIT_H
#define LVS_LIMIT_H

#include "layout.h"

// What a processor has done in a window.
struct limit_window {
	u64 window;
	u64 count;
};

// What each processor does no more than a number of times in a window.
enum limited_action { LIMITED_UPCALLS, LIMITED_TOO_LONG, LIMITED_HOP_LIMIT, LIMITED_ACTIONS };

struct {
	MAP_NUMBER(type, MAP_PERCPU_ARRAY);
	MAP_NUMBER(max_entries, LIMITED_ACTIONS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct limit_window);
} limit_windows SECTION(".maps");

// A window has 2^24 ns.
enum { WINDOW_SHIFT = 24 };

// Counts an action. Returns whether this processor may still do it in this window.
INLINE u32 is_within_limit(u32 action, u32 limit, u64 now)
{
	u64 window = now >> WINDOW_SHIFT;
	struct limit_window *used = map_lookup(&limit_windows, &action);
	if (!used)
		return 0;
	if (used->window != window) {
		used->window = window;
		used->count = 0;
	}
	used->count += 1;
	return used->count <= limit;
}

#endif
