// Packets of health checks, which this machine sends to a virtual address, and which go to a server as those of clients
// do.

#ifndef LVS_CHECK_H
#define LVS_CHECK_H

#include "tunnel.h"

// Sends a packet to the server with a number. This machine would answer it by itself.
INLINE int send_check(struct __sk_buff *skb, const struct packet *packet, u32 number)
{
	struct server *server = map_lookup(&servers, &number);
	if (!server || !server->ifindex || server->method == METHOD_NAT)
		return VERDICT_DROP;
	if (server->method == METHOD_DIRECT)
		return send_to_neighbour(server->ifindex, &server->address);
	u32 ifindex = server->ifindex;
	if (encapsulate(skb, packet, server))
		return VERDICT_DROP;
	return redirect_to_neighbour(ifindex, 0, 0, 0);
}

#endif
