// The program of the packet engine, at the ingress of a device: it carries TCP and UDP flows by network address
// translation, direct routing and tunnels. The director decides the first packet, or a table when it does not.
//
// Built by `src/packet/bpf/build`; the object is in the repository, so that nobody needs a compiler.

#include "answer.h"
#include "check.h"
#include "follow.h"
#include "icmp.h"
#include "tunnel.h"
#include "xdp.h"

// Counts what is for a virtual address and is not carried.
static __attribute__((noinline)) int count_not_carried(const struct tuple *tuple, u32 counter)
{
	struct service_key key = {.address = tuple->destination};
	if (map_lookup(&services, &key))
		count(counter);
	return VERDICT_NEXT;
}

static __attribute__((noinline)) int carry_error(struct __sk_buff *skb, const struct packet *packet)
{
	if (packet->hop_limit <= 1)
		return VERDICT_NEXT;
	u32 server = NO_SERVER;
	int ifindex = translate_error(skb, packet, &server);
	struct tuple tuple = {};
	if (ifindex == 0 && is_about_keyed(skb, packet, &tuple) && !decide_by_table(&tuple, skb->ifindex)) {
		struct flow *begun = find_flow(&tuple);
		if (begun) {
			struct flow known = *begun;
			USE(take_place(&tuple, &known));
		}
		ifindex = translate_error(skb, packet, &server);
	}
	if (ifindex == 0)
		return VERDICT_NEXT;
	if (ifindex < 0) {
		count(COUNT_REWRITE_FAILED);
		return VERDICT_DROP;
	}
	count(COUNT_ICMP_ERRORS);
	return server == NO_SERVER ? send(skb, ifindex) : send_to_server(skb, packet, ifindex, server);
}

// Returns whether a connection that is not known goes on by the table.
INLINE u32 may_go_on(struct __sk_buff *skb, const struct packet *packet, const struct service *service)
{
	return is_decided_anew(service) &&
	       (packet->tcp_flags & (TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK)) == TCP_ACK &&
	       !has_socket(skb, &packet->tuple);
}

// What is left to the caller of `decide`, because functions that are called have one small stack in common.
enum { ASK_TABLE = 0, ANSWER_HOP_LIMIT = 1 };

// Decides a packet of no flow: returns a verdict, or that the service's table is to be asked, if it was not, or that
// the packet has passed too many routers.
static __attribute__((noinline)) int decide(struct __sk_buff *skb, const struct packet *packet, u32 is_table_asked)
{
	const struct tuple *tuple = &packet->tuple;
	u32 first = 0;
	struct service *service = find_service(tuple);
	struct control *said = map_lookup(&control, &first);
	if (!service || !said)
		return VERDICT_NEXT;
	// Who has the address decides: a client that repeats its packet reaches that machine.
	u32 is_alive = coarse_time_ns() < said->alive_until;
	if (service->flags & SERVICE_IS_ELSEWHERE && is_alive) {
		count(COUNT_ELSEWHERE);
		return VERDICT_DROP;
	}
	if (tuple->protocol == PROTOCOL_TCP && (packet->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN &&
	    (is_table_asked || !may_go_on(skb, packet, service))) {
		// The other machine is about to tell of it, and its client repeats the packet.
		if (service->flags & SERVICE_IS_NEW_HERE && is_alive && !has_socket(skb, tuple)) {
			count(COUNT_ELSEWHERE);
			return VERDICT_DROP;
		}
		// It may be of a socket of this machine; if it is not, the stack answers with a reset.
		count(COUNT_WITHOUT_FLOW);
		return VERDICT_NEXT;
	}
	if (packet->hop_limit <= 1)
		return ANSWER_HOP_LIMIT;
	// What the director gives back without a flow is what it refuses.
	if (skb->ifindex == said->tap_ifindex) {
		USE(count_given_back(skb->ifindex));
		count(COUNT_REFUSED_WITHOUT_SERVER);
		return VERDICT_NEXT;
	}
	u32 who = service->flags & (SERVICE_UNOWNED | SERVICE_IS_KEYED);
	if (who == (is_table_asked ? SERVICE_IS_KEYED : 0) && may_ask(skb, said, coarse_time_ns())) {
		struct upcall_source source = {.ifindex = skb->ifindex};
		if (store_bytes(skb, ETHERNET_SOURCE, &source, sizeof(source), 0))
			return VERDICT_DROP;
		count(COUNT_UPCALLS);
		return redirect(said->tap_ifindex, 0);
	}
	if (is_table_asked) {
		count(COUNT_REFUSED_WITHOUT_SERVER);
		return VERDICT_NEXT;
	}
	if (service->flags & SERVICE_SHEDS) {
		count(COUNT_REFUSED_AT_LIMIT);
		return VERDICT_NEXT;
	}
	return ASK_TABLE;
}

static __attribute__((noinline)) int carry(struct __sk_buff *skb, const struct packet *packet)
{
	const struct tuple *tuple = &packet->tuple;
	struct flow *flow = find_flow(tuple);
	// A client may use the port of a connection that has ended for another one.
	if (flow && (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
	    (flow->state & (FLOW_FINS | FLOW_RESETS)) && !(flow->state & FLOW_TO_CLIENT))
		flow = 0;
	if (!flow) {
		int verdict = decide(skb, packet, 0);
		if (verdict == ANSWER_HOP_LIMIT)
			return answer(skb, packet, 0);
		if (verdict != ASK_TABLE)
			return verdict;
		if (decide_by_table(tuple, skb->ifindex))
			return decide(skb, packet, 1);
		flow = find_flow(tuple);
		if (!flow)
			return VERDICT_DROP;
	}
	if (packet->hop_limit <= 1)
		return answer(skb, packet, 0);
	u32 mtu = packet->end > LEAST_MTU + ETHERNET_LEN ? exceeded_mtu(skb, packet, flow) : 0;
	if (mtu)
		return answer(skb, packet, mtu);
	struct flow known;
	follow_packet(packet, flow, &known, skb->ifindex, coarse_time_ns());
	u32 server = known.server, ifindex = outgoing_device(&known);
	if (rewrite(skb, packet, &known)) {
		count(COUNT_REWRITE_FAILED);
		return VERDICT_DROP;
	}
	return known.state & FLOW_DIRECT ? send_to_server(skb, packet, ifindex, server) : send(skb, ifindex);
}

SECTION("classifier")
int lvs(struct __sk_buff *skb)
{
	struct packet packet = {};
	switch (parse(skb, &packet)) {
	case PACKET_FLOW:
		if (packet.fragment && pair_fragment(&packet))
			return count_not_carried(&packet.tuple, COUNT_FRAGMENTS);
		return carry(skb, &packet);
	case PACKET_ICMP:
		return carry_error(skb, &packet);
	case PACKET_FRAGMENT:
		return count_not_carried(&packet.tuple, COUNT_FRAGMENTS);
	case PACKET_OPTIONS:
		return count_not_carried(&packet.tuple, COUNT_WITH_OPTIONS);
	case PACKET_MALFORMED:
		return count_not_carried(&packet.tuple, COUNT_MALFORMED);
	case PACKET_OTHER:
		break;
	}
	return VERDICT_NEXT;
}

// At the driver of a device, before the kernel makes packets of its frames, also of multi-buffer frames.
SECTION("xdp.frags")
int lvs_xdp(struct xdp_md *frame)
{
	return run_on_frame(frame);
}

// In the generic mode. A program for multi-buffer frames would get a copy there, of which Linux 6.9 and later forget
// the length of the header of Ethernet: what it passes on would not be read at the ingress of the device.
SECTION("xdp")
int lvs_xdp_generic(struct xdp_md *frame)
{
	return run_on_frame(frame);
}

// At the egress of the loopback device, where this machine's packets to its own addresses pass, and those that a rule
// for their mark leads there.
SECTION("classifier")
int lvs_checks(struct __sk_buff *skb)
{
	struct packet packet = {};
	u32 first = 0;
	struct control *said = map_lookup(&control, &first);
	if (!said || !said->first_check_mark || skb->mark - said->first_check_mark >= MAX_SERVERS)
		return VERDICT_NEXT;
	u32 number = skb->mark - said->first_check_mark;
	if (parse(skb, &packet) != PACKET_FLOW)
		return VERDICT_DROP;
	return send_check(skb, &packet, number);
}

// Some helpers are for programs under the GPL alone; everything else of the crate is MIT or Apache-2.0.
char _license[] SECTION("license") = "Dual MIT/GPL";
