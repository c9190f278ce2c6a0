//! Rules by which keepalived decides between directives: which of several counts, and what a missing one
//! depends on.

use super::{convert, error_of, expect, router, service};

/// A virtual router without `priority`.
fn instance(directives: &str) -> String {
    format!(
        "vrrp_instance A {{\n interface eth0\n virtual_router_id 5\n {directives}\n \
         virtual_ipaddress {{ 192.0.2.5/24 }}\n}}\n"
    )
}

fn expect_not(original: &str, unexpected: &[&str]) -> String {
    let (text, _) = convert(original);
    for unexpected in unexpected {
        assert!(!text.contains(unexpected), "{unexpected:?} in\n{text}");
    }
    text
}

#[test]
fn a_missing_priority_is_that_of_the_initial_state() {
    let said = "`state MASTER` without `priority`: the priority is 255, as in keepalived";
    expect(&instance("state MASTER"), &["priority = 255", said]);
    expect(&instance("state BACKUP"), &["priority = 100"]);
    expect(&instance("state MASTER\n state BACKUP"), &["priority = 255"]);
    expect(&instance("state MASTER\n priority 300"), &["priority = 100"]);
    expect(&instance("state MASTER\n priority 7"), &["priority = 7"]);
}

#[test]
fn the_last_of_two_words_for_one_setting_counts() {
    expect_not(&instance("nopreempt\n preempt"), &["preempt = false"]);
    expect(&instance("preempt\n nopreempt"), &["preempt = false"]);
    let sources = "unicast_src_ip 192.0.2.1\n mcast_src_ip 192.0.2.2";
    expect(&instance(sources), &["source = \"192.0.2.2\""]);
    let text = expect(
        &service(
            "lvs_sched rr\n lb_algo sh\n lvs_method DR\n lb_kind NAT\n real_server 10.0.0.2 80 {\n \
             HTTP_GET {\n url { path / }\n nb_get_retry 5\n retry 4\n }\n }",
        ),
        &["scheduler = \"sh\"", "fall = 5"],
    );
    assert!(!text.contains("method ="), "{text}");
}

#[test]
fn the_first_program_of_a_name_counts() {
    let text = expect(
        &instance("notify_master \"/bin/a 1\" root\n notify_master \"/bin/b 2\" root"),
        &["/bin/b 2 root`: the first `notify_master` counts, as in keepalived"],
    );
    assert!(text.contains(r#"notify_master = { command = ["/bin/a", "1"]"#), "{text}");
    let text = expect(
        &service(
            "quorum_up /bin/a\n quorum_up /bin/b\n real_server 10.0.0.2 80 {\n notify_down /bin/c\n \
             notify_down /bin/d\n }",
        ),
        &["quorum_up = [\"/bin/a\"]", "notify_down = [\"/bin/c\"]"],
    );
    assert!(text.contains("the first `notify_down` counts"), "{text}");
}

#[test]
fn the_first_block_of_a_name_counts() {
    let scripts = "vrrp_script s {\n script /bin/a\n user root\n}\n\
        vrrp_script s {\n script /bin/b\n user root\n}\n";
    let groups = "vrrp_sync_group G { group { A } }\nvrrp_sync_group G { group { A } }\n\
        vrrp_sync_group H {\n group { A }\n notify_master \"/bin/c\" root\n}\n";
    let text = expect(
        &format!("{scripts}{groups}{}", instance("track_script { s }")),
        &[
            "command = \"/bin/a\"",
            "`vrrp_script s` has no effect here",
            "`vrrp_sync_group G` is defined twice: only the first is converted",
            "A is a member of `vrrp_sync_group G` already, and not of `vrrp_sync_group H`",
        ],
    );
    assert!(!text.contains("notify_master = "), "{text}");
    let lists = "virtual_server_group g { 10.0.0.1 80 }\nvirtual_server_group g { 10.0.0.9 80 }\n\
        virtual_server group g {\n protocol TCP\n real_server 10.0.0.2 80 { }\n}\n";
    expect(lists, &["listen = [\"10.0.0.1:80\"]"]);
}

#[test]
fn the_words_after_a_script_are_no_user() {
    let script = "vrrp_script s {\n script /bin/sh -c \"exit 0\"\n}\n";
    let text = expect(
        &format!("{script}{}", router("track_script { s }")),
        &["only the first 1 words after the keyword count, as in keepalived"],
    );
    assert!(text.contains("command = \"/bin/sh\", interval"), "{text}");
    let own_user = "vrrp_script s {\n script /bin/true\n user nobody\n}\n";
    let text = expect_not(
        &format!("{own_user}{}", router("track_script { s }")),
        &["programs without a user"],
    );
    assert!(text.contains("user = \"nobody\""), "{text}");
}

#[test]
fn a_line_of_a_track_block_has_one_item() {
    let text = expect(
        &router("track_interface {\n eth1 eth2\n eth3 weight 5\n }"),
        &["`eth1 eth2`: \"eth2\" is no option: the line is ignored, as in keepalived"],
    );
    assert!(
        !text.contains("interface = \"eth1\"") && text.contains("interface = \"eth3\""),
        "{text}"
    );
}

#[test]
fn routes_of_another_family_are_left_out() {
    let text = expect(
        &router("virtual_routes {\n default via 192.0.2.1\n fd01::/64 via fd00::1\n }"),
        &["the route `fd01::/64 via fd00::1` is left out", "to = \"0.0.0.0/0\""],
    );
    assert!(!text.contains("to = \"fd01"), "{text}");
    let of_v6 = "vrrp_instance A {\n interface eth0\n virtual_router_id 5\n priority 100\n \
        virtual_ipaddress { fe80::5/64 }\n virtual_routes { default via fe80::1 }\n}\n";
    expect(of_v6, &["to = \"::/0\", via = \"fe80::1\""]);
}

#[test]
fn servers_of_another_family_are_left_out_but_behind_a_tunnel() {
    let two = "real_server 10.0.0.2 80 { }\n real_server fd00::2 80 { }\n";
    let text = expect(
        &service(&format!("lb_kind NAT\n sorry_server fd00::9 80\n {two}")),
        &[
            "`real_server fd00::2 80`: the address is not of the family of the service: left out",
            "`sorry_server fd00::9 80`: the address is not of the family of the service: left out",
        ],
    );
    assert!(!text.contains("[fd00::"), "{text}");
    expect(&service(&format!("lb_kind TUN\n {two}")), &["address = \"[fd00::2]:80\""]);
}

#[test]
fn a_service_without_servers_is_left_out() {
    let error = error_of(&service("sorry_server 10.0.0.9 80"));
    assert!(
        error.starts_with("line 1: nothing in the configuration can be converted:\n"),
        "{error}"
    );
    assert!(error.contains("`virtual_server 192.0.2.5 80` has no real server"), "{error}");
    let two = format!("{}{}", service(""), service("real_server 10.0.0.2 80 { }"));
    let text = expect(&two, &["has no real server: left out, as in keepalived"]);
    assert_eq!(text.matches("[[service]]").count(), 1, "{text}");
}

#[test]
fn weights_have_the_ranges_of_keepalived() {
    expect(&service("weight 0\n real_server 10.0.0.2 80 { }"), &["weight = 1\n"]);
    expect(&service("real_server 10.0.0.2 80 { weight 0 }"), &["weight = 0\n"]);
    expect(
        &service("real_server 10.0.0.2 80 { weight 100000 }"),
        &["WARNING: line 4: weight 100000: a weight is at most 65535", "weight = 65535\n"],
    );
}

#[test]
fn a_netmask_is_of_the_family_of_the_service() {
    let text = expect(
        &service("persistence_granularity 24\n real_server 10.0.0.2 80 { }"),
        &["`persistence_granularity 24`: this is not a netmask of IPv4: left out"],
    );
    assert!(!text.contains("netmask_v6"), "{text}");
}

#[test]
fn a_mask_of_an_address_is_ignored() {
    let text =
        "virtual_server 10.0.0.1/32 80 {\n protocol TCP\n real_server 10.0.0.2/32 81 { }\n}\n";
    expect(text, &["listen = [\"10.0.0.1:80\"]", "address = \"10.0.0.2:81\""]);
}

#[test]
fn what_is_down_at_the_start_stays_so() {
    let text = expect(
        &service(
            "alpha\n real_server 10.0.0.2 80 { TCP_CHECK { } }\n real_server 10.0.0.3 80 {\n alpha no\n \
             TCP_CHECK {\n alpha on\n }\n TCP_CHECK { connect_port 81 }\n }",
        ),
        &["fall = 2, init = \"down\" }"],
    );
    assert_eq!(text.matches("init = \"down\"").count(), 2, "{text}");
    let script = "vrrp_script s {\n script /bin/true\n init_fail\n}\n";
    let text =
        expect(&format!("{script}{}", router("track_script { s }")), &["init = \"fully-down\""]);
    assert!(!text.contains("init_fail"), "{text}");
}

#[test]
fn the_address_that_servers_see_is_named() {
    let seen = "line 1: the servers see the director's address in place of the client's";
    expect(&service("lb_kind NAT\n real_server 10.0.0.2 80 { }"), &[seen]);
    expect("-A -u 10.0.0.1:53 -s rr\n-a -u 10.0.0.1:53 -r 10.0.0.2:53 -m -w 1\n", &[seen]);
}

#[test]
fn a_duration_of_zero_is_the_default() {
    let text = expect(
        &service(
            "delay_loop 0\n connect_timeout 0\n retry 0\n real_server 10.0.0.2 80 { TCP_CHECK { } }\n \
             real_server 10.0.0.3 80 {\n MISC_CHECK {\n misc_path /bin/true\n misc_timeout 0\n }\n }",
        ),
        &[
            "interval = \"60000ms\", fast_interval = \"5000ms\", timeout = \"5000ms\", rise = 1, fall = 2 }",
            "interval = \"60000ms\", timeout = \"60000ms\", rise = 1, fall = 1 }",
            "`connect_timeout 0`: the value is not a number from 0.000001 to 1000000000: the default",
            "`retry 0`: the value is not a number from 1 to 1000000: the default",
        ],
    );
    assert!(!text.contains("\"1ms\""), "{text}");
    expect(&router("advert_int 0\n version 3"), &["advert_interval = \"1000ms\""]);
    let script = "vrrp_script s {\n script /bin/true\n interval 0\n timeout 0\n}\n";
    expect(
        &format!("{script}{}", router("track_script { s }")),
        &["interval = \"1000ms\", timeout = \"1000ms\""],
    );
}

/// A virtual server by mark with these directives.
fn marked(directives: &str) -> String {
    format!("virtual_server fwmark 1 {{\n{directives}\n}}\n")
}

#[test]
fn a_service_by_mark_is_forwarded_by_the_kernel() {
    let text = expect(
        &marked(
            "lb_kind DR\n lb_algo rr\n real_server 10.0.0.2 0 { TCP_CHECK { connect_port 7880 } }",
        ),
        &[
            "name = \"fwmark-1\"\nlisten = [\"fwmark:1\"]\nprotocol = \"tcp\"\nengine = \"ipvs\"",
            "address = \"10.0.0.2:0\"\nweight = 1\nmethod = \"dr\"",
            "port = 7880",
        ],
    );
    assert!(!text.contains("has no `protocol`"), "{text}");
    // The check asks the port that is written, to which the kernel leads with NAT alone.
    expect(
        &marked("lb_kind DR\n real_server 10.0.0.2 80 { TCP_CHECK { } }"),
        &["address = \"10.0.0.2:80\""],
    );
    expect(
        &marked("ops\n persistence_timeout 900\n real_server 10.0.0.2 { }"),
        &["protocol = \"udp\"", "one_packet = true", "timeout = \"900000ms\""],
    );
    for (directives, listen) in [
        ("real_server fd00::2 80 { }", "fwmark:1/ipv6"),
        ("ip_family inet6\n lb_kind TUN\n real_server 10.0.0.2 80 { }", "fwmark:1/ipv6"),
        ("ip_family inet\n lb_kind TUN\n real_server fd00::2 80 { }", "fwmark:1"),
        ("lb_kind TUN\n real_server fd00::2 80 { }", "fwmark:1/ipv6"),
        ("lb_kind TUN\n real_server fd00::2 80 { }\n real_server 10.0.0.2 80 { }", "fwmark:1"),
        (
            "lb_kind TUN\n real_server fd00::2 80 { }\n real_server 10.0.0.2 80 {\n lvs_method NAT\n }",
            "fwmark:1",
        ),
    ] {
        expect(&marked(directives), &[&format!("listen = [\"{listen}\"]")]);
    }
    expect(
        &service("ip_family inet\n real_server 10.0.0.2 80 { }"),
        &["`ip_family inet`: for services by firewall mark only"],
    );
}

#[test]
fn methods_of_servers_are_those_of_the_kernel() {
    let text = expect(
        &service(
            "lb_kind NAT\n real_server 10.0.0.2 8080 { }\n \
             real_server 10.0.0.3 8080 {\n lvs_method DR\n TCP_CHECK { }\n }\n \
             real_server 10.0.0.4 80 {\n lvs_method TUN type gue port 6080 remcsum\n }\n \
             real_server fd00::5 80 {\n lvs_method TUN type gre csum\n }\n \
             real_server 10.0.0.6 80 {\n lvs_method TUN\n }\n \
             real_server 10.0.0.7 80 {\n lvs_method TUN type vxlan\n }",
        ),
        &[
            "address = \"10.0.0.2:8080\"\nweight = 1\nhealth",
            "line 6: `real_server 10.0.0.3 8080`: without NAT keepalived takes the port of the service, 80",
            "address = \"10.0.0.3:80\"\nweight = 1\nmethod = \"dr\"",
            "method = \"tunnel\"\ntunnel = { kind = \"gue\", port = 6080, checksum = \"remote\" }",
            "address = \"[fd00::5]:80\"\nweight = 1\nmethod = \"tunnel\"\n\
             tunnel = { kind = \"gre\", checksum = \"full\" }",
            "address = \"10.0.0.6:80\"\nweight = 1\nmethod = \"tunnel\"\nhealth",
            "WARNING: line 20: `lvs_method TUN type vxlan`: \"type\" is no option of a tunnel, or has no",
        ],
    );
    assert!(!text.contains("the servers see"), "{text}");
    // Of several ports, each server has the one that the client connects to; its check keeps its own.
    let group = "virtual_server_group g {\n 10.0.0.1 80\n 10.0.0.1 443\n}\n\
        virtual_server group g {\n protocol TCP\n lb_kind DR\n sorry_server 10.0.0.9 80\n \
        real_server 10.0.0.2 80 { TCP_CHECK { } }\n}\n";
    expect(
        group,
        &[
            "address = \"10.0.0.2:0\"",
            "port = 80",
            "sorry_server = \"10.0.0.9:0\"\nsorry_server_method = \"dr\"",
        ],
    );
}

#[test]
fn one_service_that_needs_the_kernel_takes_all_there() {
    let nat = service("lb_kind NAT\n real_server 10.0.0.2 80 { }");
    expect_not(&nat, &["engine ="]);
    for other in [
        marked("real_server 10.0.0.2 80 { }"),
        nat.replace("192.0.2.5", "192.0.2.6").replace("NAT", "DR"),
        nat.replace("192.0.2.5", "192.0.2.6").replace("80 { }", "80 {\n lvs_method TUN\n }"),
        nat.replace("192.0.2.5", "192.0.2.6")
            .replace("lb_kind NAT", "sorry_server 10.0.0.9 80\n sorry_server_lvs_method DR"),
    ] {
        let text = expect_not(&format!("{nat}{other}"), &["the servers see"]);
        assert_eq!(text.matches("engine = \"ipvs\"").count(), 2, "{text}");
    }
}

#[test]
fn timeouts_and_the_sync_daemon_are_those_of_the_kernel() {
    let global = "global_defs {\n lvs_timeouts tcp 7200 udp 30 tcpfin 0\n lvs_flush\n \
        lvs_sync_daemon eth1 A id 7 maxlen 1400\n}\n";
    let nat = service("real_server 10.0.0.2 80 { }");
    // The daemon needs the kernel.
    expect(
        &format!("{global}{nat}{}", instance("")),
        &[
            "engine = \"ipvs\"",
            "[ipvs]\ntcp_timeout = \"7200s\"\nudp_timeout = \"30s\"\n\
             sync = { interface = \"eth1\", id = 7 }",
            "line 2: `lvs_timeouts tcp 7200 udp 30 tcpfin 0`: `tcpfin 0` is no timeout",
            "line 4: `lvs_sync_daemon eth1 A id 7 maxlen 1400`: `maxlen 1400`",
            "line 3: `lvs_flush`: the director removes its own services",
        ],
    );
    let inst = "global_defs {\n lvs_sync_daemon eth1 inst A\n}\n";
    expect(&format!("{inst}{nat}{}", instance("")), &["sync = { interface = \"eth1\", id = 5 }"]);
    let of_instance = instance("lvs_sync_daemon_interface eth2");
    expect(&format!("{nat}{of_instance}"), &["sync = { interface = \"eth2\", id = 5 }"]);
    // Without a role it neither sends nor receives.
    let text = expect(&format!("{global}{nat}"), &["left out: without a vrrp_instance"]);
    assert!(text.contains("tcp_timeout") && !text.contains("sync ="), "{text}");
    let text = expect(&format!("{global}{}", instance("")), &["the kernel forwards no service"]);
    assert!(!text.contains("[ipvs]"), "{text}");
    let timeouts = "global_defs {\n lvs_timeouts tcp 7200\n}\n";
    expect(
        &format!("{timeouts}{nat}"),
        &["WARNING: line 2: `lvs_timeouts tcp 7200`: the timeouts are those of the tables"],
    );
}
