mod ipvsadm_rules;
mod keepalived_rules;

use std::path::Path;

use super::*;
use crate::director::DirectorConfig;

/// Converts a file, and parses the result.
fn convert(text: &str) -> (String, DirectorConfig) {
    let text = import(text).unwrap_or_else(|error| panic!("{error}"));
    let config = DirectorConfig::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    (text, config)
}

/// Converts a file whose result must have these texts.
fn expect(original: &str, expected: &[&str]) -> String {
    let (text, _) = convert(original);
    for expected in expected {
        assert!(text.contains(expected), "no {expected:?} in\n{text}");
    }
    text
}

fn error_of(text: &str) -> String {
    import(text).expect_err(text).to_string()
}

#[test]
fn the_output_of_ipvsadm_save_is_converted() {
    let saved = "-A -t 10.0.0.1:80 -s wrr -p 300 -M 255.255.255.0 -b sh-port\n\
        -a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m -w 3 -x 100 -y 50\n\
        -a -t 10.0.0.1:80 -r 10.0.0.3:80 -g -w 0\n\
        -A -u [2001:db8::1]:53 -s sh -b sh-port,sh-fallback -o\n\
        -a -u [2001:db8::1]:53 -r [2001:db8::2]:53 -i -w 1 --tun-type ipip\n\
        -A -t 10.0.0.9:0 -s rr -p\n-a -t 10.0.0.9:0 -r 10.0.0.2:0 -m -w 1\n";
    let (text, config) = convert(saved);
    let [tcp, udp] = &*config.services else { panic!("{text}") };
    assert_eq!(tcp.scheduler.to_string(), "wrr");
    assert_eq!(tcp.servers[0].limits().max_connections(), 100);
    assert_eq!((tcp.servers[0].weight, tcp.servers[1].weight), (3, 0));
    assert_eq!(udp.scheduler.to_string(), "sh(sh-port, sh-fallback)");
    assert!(text.contains("netmask = 24") && text.contains("one_packet = true"), "{text}");
    for expected in [
        "WARNING: line 6: the service of every port of 10.0.0.9 (port 0) is left out",
        "address = \"10.0.0.3:80\"\nmethod = \"dr\"\nweight = 0",
        "address = \"[2001:db8::2]:53\"\nmethod = \"tunnel\"\nweight = 1",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(
        error_of("-A -t www:80 -s rr"),
        "line 1: \"www:80\" is not a numeric address with the number or a known name of a port: use \
         the output of `ipvsadm-save -n`"
    );
    assert_eq!(
        error_of("-a -t 10.0.0.1:80 -r 10.0.0.2"),
        "line 1: no `-A` line before this one adds the service"
    );
    assert_eq!(error_of("-A -t"), "line 1: -t requires a value");
    assert!(!text.contains("the servers see"), "{text}");
    assert_eq!(text.matches("engine = \"ipvs\"").count(), 2, "{text}");
    assert_eq!(
        error_of("hello"),
        "line 1: the text is neither a keepalived.conf nor the output of ipvsadm-save"
    );
}

#[test]
fn names_of_ports_are_those_of_the_system() {
    if super::ipvs::service_port("http", "tcp").is_none() {
        return println!("skipped: /etc/services does not know http");
    }
    let saved = "-A -t 10.0.0.1:http -s rr\n-a -t 10.0.0.1:http -r 10.0.0.2:https -m -w 1\n";
    expect(saved, &["listen = \"10.0.0.1:80\"", "address = \"10.0.0.2:443\""]);
}

const KEEPALIVED: &str = r#"
! A pair of directors for a shop
global_defs {
    router_id LVS_1
}
vrrp_script chk {
    script "/bin/check it"
    interval 2
    weight -20
    fall 3
}
vrrp_instance VI_1 {
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority 150
    advert_int 0.1
    nopreempt
    authentication { auth_type PASS
        auth_pass 1111 }
    virtual_ipaddress {
        10.88.0.100/24 dev eth0 label eth0:1
    }
    virtual_routes {
        10.99.0.0/16 via 10.88.0.254
        10.98.0.0/16 dev eth9
    }
    track_interface { eth1 weight 5
        eth2 }
    track_script { chk }
    notify_master "/bin/up now"
    garp_master_delay 5
}
virtual_server 10.88.0.100 443 {
    delay_loop 6
    lvs_sched sh
    sh-port
    lvs_method DR
    protocol TCP
    persistence_timeout 50
    persistence_granularity 255.255.0.0
    quorum 2
    hysteresis 1
    sorry_server 10.88.1.9 443
    ha_suspend
    real_server 10.88.1.1 443 {
        weight 3
        uthreshold 100
        inhibit_on_failure
        SSL_GET {
            url {
                path /up
                status_code 200-299 404
                digest 640205b7b0fc66c1ea91c463fac6334d
            }
            connect_timeout 2
            retry 3
            delay_before_retry 2
            connect_port 8443
        }
    }
    real_server 10.88.1.2 443 {
        TCP_CHECK { connect_timeout 3 }
        notify_down "/bin/cry"
    }
}
"#;

#[test]
fn a_keepalived_conf_is_converted_and_the_rest_is_named() {
    let (text, config) = convert(KEEPALIVED);
    assert_eq!((config.services.len(), config.vrrp.len()), (1, 1));
    for line in [
        "scheduler = \"sh(sh-port)\"",
        "persistence = { timeout = \"50000ms\", netmask = 16 }",
        "quorum = { weight = 2, hysteresis = 1 }",
        "sorry_server = \"10.88.1.9:443\"",
        "health = { type = \"http\", path = \"/up\", \
            body_digest = \"640205b7b0fc66c1ea91c463fac6334d\", status = \"200-299, 404\", \
            tls = { trust = \"any\" }, interval = \"6000ms\", fast_interval = \"2000ms\", \
            timeout = \"2000ms\", rise = 1, fall = 4, port = 8443 }",
        "health = { type = \"tcp\", interval = \"6000ms\", fast_interval = \"3000ms\", \
            timeout = \"3000ms\", rise = 1, fall = 2 }",
        "notify_down = [\"/bin/cry\"]",
        "max_connections = 100",
        "addresses = [\"10.88.0.100/24\"]",
        "routes = [{ to = \"10.99.0.0/16\", via = \"10.88.0.254\" }]",
        "advert_interval = \"1000ms\"",
        "preempt = false",
        "notify_master = [\"/bin/up\", \"now\"]",
        "interface = \"eth1\"\nweight = 5",
        "weight = -20\ncheck = { type = \"command\", command = \"/bin/check\", \
            arguments = [\"it\"], interval = \"2000ms\", timeout = \"2000ms\", rise = 1, fall = 3 }",
        "#   line 4: `router_id LVS_1`: there are no mails",
        "`label eth0:1` of 10.88.0.100/24",
        "the route `10.98.0.0/16 dev eth9` is left out",
        "`garp_master_delay 5`",
        "`ha_suspend`",
        "WARNING: line 19: vrrp_instance VI_1: `auth_type PASS` is not supported",
        "BOTH WOULD BE MASTER",
        "retries begin every 3 s in place of 1 s",
        "engine = \"ipvs\"",
        "sorry_server_method = \"dr\"",
        "address = \"10.88.1.1:443\"\nweight = 3\nmethod = \"dr\"",
        "`inhibit_on_failure`: a server that is down is removed",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("1111"), "the password is not in the result");
}

#[test]
fn every_directive_is_converted_or_named() {
    let (text, _) = convert(KEEPALIVED);
    // An unknown directive in each block.
    for (n, line) in KEEPALIVED.lines().enumerate().filter(|(_, line)| line.ends_with('{')) {
        let mut lines: Vec<_> = KEEPALIVED.lines().collect();
        lines.insert(n + 1, "no_such_directive 7");
        let (converted, _) = convert(&lines.join("\n"));
        assert!(converted.contains("no_such_directive"), "below {line}\n{converted}");
        assert!(!text.contains("no_such_directive"));
    }
}

#[test]
fn virtual_routers_without_services_are_a_configuration() {
    let (_, config) = convert(
        "vrrp_instance A {\n interface e\n virtual_router_id 9\n virtual_ipaddress { 192.0.2.9/24 }\n}\n",
    );
    assert_eq!((config.services.len(), config.vrrp.len()), (0, 1));
}

#[test]
fn a_pair_of_families_has_one_virtual_router_id() {
    let pair = "vrrp_sync_group G { group {\n F\n S\n} }\n\
        vrrp_instance F {\n interface e\n virtual_router_id 7\n virtual_ipaddress { 192.0.2.9/24 }\n}\n\
        vrrp_instance S {\n interface e\n virtual_router_id 7\n virtual_ipaddress {\n fe80::9/64\n}\n}\n";
    let (text, config) = convert(pair);
    assert_eq!(config.vrrp.len(), 2, "{text}");
    assert!(!text.contains("WARNING"), "{text}");
    assert!(text.contains("version = 2") && text.contains("version = 3"), "{text}");
    let same = pair.replace("fe80::9/64", "192.0.2.10/24");
    expect(&same, &["WARNING: line 10: vrrp_instance S is left out: another has"]);
    let ungrouped = pair.replace("group {\n F\n S\n}", "group {\n F\n}");
    expect(&ungrouped, &["the vrrp_instances are independent in keepalived"]);
}

/// A virtual router with these directives.
fn router(directives: &str) -> String {
    format!(
        "vrrp_instance R {{\n interface e\n virtual_router_id 5\n \
         virtual_ipaddress {{ 192.0.2.5/24 }}\n{directives}\n}}\n"
    )
}

#[test]
fn the_version_is_the_global_one() {
    let global = "global_defs {\n vrrp_version 3\n}\n".to_owned();
    expect(&(global.clone() + &router("")), &["version = 3"]);
    expect(&(global + &router("version 2")), &["version = 2"]);
    expect(
        &router("advert_int 0.2"),
        &["version = 2", "advert_interval = \"1000ms\"", "advert_int 0.2"],
    );
    expect(&router("version 3\n advert_int 0.2"), &["advert_interval = \"200ms\""]);
}

#[test]
fn keys_and_passwords_of_advertisements_are_loud() {
    let key = "a".repeat(32);
    let hmac = format!("auth_hmac {{\n key 1 {key}\n}}");
    expect(&router(&hmac), &[&format!("auth_key = \"{}\"", "61".repeat(32))]);
    let two = format!("auth_hmac {{\n key 1 {key}\n key 2 {key}\n}}");
    expect(&router(&two), &["WARNING: line 5: `auth_hmac`", "BOTH"]);
    let text =
        expect(&router("authentication {\n auth_type AH\n auth_pass secret\n}"), &["BOTH WOULD"]);
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn addresses_beside_the_advertised_ones_stay_so() {
    let text = expect(
        &router("virtual_ipaddress_excluded {\n 192.0.2.6\n 2001:db8::6/64\n}"),
        &[
            "addresses = [\"192.0.2.5/24\"]",
            "excluded_addresses = [\"192.0.2.6/32\", \"2001:db8::6/64\"]",
        ],
    );
    assert!(text.contains("# Everything was converted."), "{text}");
    expect(
        &router("virtual_ipaddress {\n 2001:db8::7/64\n 192.0.2.8/24 dev other\n}"),
        &[
            "2001:db8::7/64 is not of the family",
            "192.0.2.8/24 is added to the interface",
            "not to other",
        ],
    );
}

#[test]
fn programs_keep_their_words_and_users() {
    expect(
        &router(
            "notify \"/bin/a 'b c' d\" root\n notify_master /bin/m nobody nogroup\n \
             notify_backup \"/bin/b -q\"\n notify_stop '/bin/s \"x y\"'",
        ),
        &[
            "notify = { command = [\"/bin/a\", \"b c\", \"d\"], user = \"root\" }",
            "notify_master = { command = [\"/bin/m\"], user = \"nobody\", group = \"nogroup\" }",
            "notify_backup = [\"/bin/b\", \"-q\"]",
            "notify_stop = [\"/bin/s\", \"x y\"]",
            "programs without a user run as the director's user",
        ],
    );
    let global = "global_defs {\n script_user nobody\n}\n".to_owned();
    let text = expect(
        &(global + &router("notify_fault /bin/f")),
        &["notify_fault = { command = [\"/bin/f\"], user = \"nobody\" }"],
    );
    assert!(!text.contains("keepalived_script"), "{text}");
}

#[test]
fn tracked_scripts_run_as_keepalived_runs_them() {
    let scripts = "vrrp_script q {\n script \"/bin/sh -c 'exit 0'\"\n weight -20\n user nobody\n}\n\
        vrrp_script r {\n script \"</dev/tcp/127.0.0.1/22\"\n}\n\
        vrrp_script p {\n script \"pidof x >/dev/null || exit 1\"\n timeout 5\n}\n";
    expect(
        &(scripts.to_owned() + &router("track_script {\n q\n r weight 3\n p\n}")),
        &[
            "command = \"/bin/sh\", arguments = [\"-c\", \"exit 0\"], user = \"nobody\"",
            "command = \"/bin/sh\", arguments = [\"-c\", \"</dev/tcp/127.0.0.1/22\"]",
            "command = \"pidof\", arguments = [\"x\", \">/dev/null\", \"||\", \"exit\", \"1\"]",
            "name = \"r\"\nweight = 3",
            "vrrp_script p: it runs every 5 s in place of 1 s",
        ],
    );
    expect(&router("track_script {\n gone\n}"), &["WARNING: line 6: `gone`: there is no block"]);
}

#[test]
fn reversed_items_are_inverted() {
    let script = "vrrp_script m {\n script /bin/true\n weight -50 reverse\n}\n".to_owned();
    expect(
        &(script.clone()
            + &router("track_script { m }\n track_interface { e1 weight 5 reverse\n e2 }")),
        &[
            "name = \"m reversed\"\nweight = 50\ninverted = true",
            "name = \"interface e1 reversed\"\ninterface = \"e1\"\nweight = -5\ninverted = true",
            "name = \"interface e2\"\ninterface = \"e2\"\n",
        ],
    );
    let text =
        expect(&(script + &router("track_script { m weight 0 reverse }")), &["inverted = true"]);
    assert!(!text.contains("weight ="), "{text}");
}

#[test]
fn a_sync_group_has_its_programs_once_and_its_items_for_all() {
    let group = "vrrp_sync_group G {\n group {\n A\n B\n}\n notify_master \"/bin/g x\" root\n \
        track_interface { up }\n}\n\
        vrrp_instance A {\n interface e\n virtual_router_id 1\n use_vmac a\n vmac_xmit_base\n \
        notify_master /bin/a\n virtual_ipaddress { 192.0.2.1/24 }\n track_interface { z weight 9 }\n}\n\
        vrrp_instance B {\n interface e\n virtual_router_id 2\n virtual_ipaddress { 192.0.2.2/24 }\n}\n";
    let text = expect(
        group,
        &[
            "notify_master = [{ command = [\"/bin/a\"] }, { command = [\"/bin/g\", \"x\"], user = \"root\" }]",
            "virtual_mac = true",
            "`z weight 9`: the weight is ignored in a sync group",
        ],
    );
    assert_eq!(text.matches("/bin/g").count(), 1, "{text}");
    assert_eq!(text.matches("name = \"interface up\"").count(), 2, "{text}");
}

#[test]
fn files_and_processes_are_tracked() {
    let blocks = "track_file f {\n file /run/f\n weight 0\n}\ntrack_file w {\n file /run/w\n}\n\
        vrrp_track_process p {\n process /usr/sbin/haproxy\n}\n\
        vrrp_track_process q {\n process a b\n quorum 2\n}\n";
    expect(
        &(blocks.to_owned()
            + &router("track_file {\n f\n w\n}\n track_process {\n p weight 4\n q\n}")),
        &[
            "name = \"file f\"\ncheck = { type = \"file\", file = \"/run/f\"",
            "track_file w: the file's number is not added",
            "command = \"pgrep\", arguments = [\"-x\", \"haproxy\"]",
            "vrrp_track_process p: `pgrep` looks",
            "vrrp_track_process q: a process with arguments",
        ],
    );
}

/// A virtual server with these directives.
fn service(directives: &str) -> String {
    format!("virtual_server 192.0.2.5 80 {{\n protocol TCP\n delay_loop 9\n{directives}\n}}\n")
}

#[test]
fn each_server_has_its_own_checks() {
    let checked = service(
        "real_server 192.0.2.11 80 {\n MISC_CHECK {\n misc_path \"/bin/c 192.0.2.11 80\" nobody\n}\n}\n\
         real_server 192.0.2.12 80 {\n MISC_CHECK {\n misc_path \"/bin/c 192.0.2.12 80\"\n user games\n}\n}\n\
         real_server 192.0.2.13 80 {\n weight 2\n}",
    );
    let (text, config) = convert(&checked);
    for expected in [
        "arguments = [\"192.0.2.11\", \"80\"]",
        "arguments = [\"192.0.2.12\", \"80\"], user = \"games\"",
        "weight = 2\nhealth = []",
        "timeout = \"9000ms\", rise = 1, fall = 1",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(config.services[0].servers.iter().all(|server| server.health.is_some()), "{text}");
    let same = service(
        "real_server 192.0.2.11 80 { PING_CHECK { } }\n real_server 192.0.2.12 80 { PING_CHECK { } }",
    );
    let (text, config) = convert(&same);
    assert!(config.services[0].servers.iter().all(|server| server.health.is_none()), "{text}");
    assert!(text.contains("health = { type = \"ping\""), "{text}");
}

#[test]
fn a_quorum_without_sorry_server_only_reports() {
    let servers = "real_server 192.0.2.11 80 { weight 1 }\n real_server 192.0.2.12 80 { weight 1 }";
    let quorum = |directives: &str| service(&format!("{directives}\n{servers}"));
    expect(&quorum("quorum 2"), &["quorum = { weight = 2, advisory = true }"]);
    expect(
        &quorum("quorum 9\n hysteresis 5\n sorry_server 192.0.2.9"),
        &[
            "quorum = { weight = 2, hysteresis = 1 }",
            "sorry_server = \"192.0.2.9:80\"",
            "`quorum 9` is above",
            "`hysteresis 5`: 1",
        ],
    );
    expect(
        &quorum("quorum_up \"/bin/u x\" root\n quorum_down /bin/d"),
        &[
            "quorum = { weight = 1, advisory = true }",
            "quorum_up = { command = [\"/bin/u\", \"x\"], user = \"root\" }",
            "quorum_down = [\"/bin/d\"]",
        ],
    );
}

#[test]
fn values_that_are_refused_are_named() {
    let text = expect(
        &service(
            "lb_algo mh\n mh-port\n persistence_timeout 0\n real_server 192.0.2.11 80 { weight many }",
        ),
        &[
            "`persistence_timeout 0`: there is no persistence",
            "`weight many`: the value is not a number from 0 to 2147483647",
            "scheduler = \"mh(mh-port)\"",
        ],
    );
    assert!(!text.contains("persistence ="), "{text}");
    expect(
        &service("lb_algo best\n real_server 192.0.2.11 80 { }"),
        &["WARNING: line 1: scheduler `best`"],
    );
    expect(&router("priority high"), &["`priority high`: the value is not a number from 1 to 255"]);
    expect(
        "virtual_server 192.0.2.5 53 {\n real_server 192.0.2.11 53 { }\n}\n",
        &["WARNING: line 1: the virtual_server has no `protocol`: it is a UDP service"],
    );
}

#[test]
fn groups_have_ranges_and_marks() {
    let group = "virtual_server_group G {\n 192.0.2.1 80\n 192.0.2.10-12 443\n 192.0.2.250-192.0.3.1 80\n \
        192.0.2.32/30 81\n 2001:db8::1-5 80\n}\n\
        virtual_server group G {\n protocol TCP\n virtualhost shop.example\n \
        real_server 198.51.100.1 80 { HTTP_GET {\n url { path /a\n }\n url { path /b\n \
        virtualhost b.example\n }\n } }\n real_server 198.51.100.2 { TCP_CHECK { } }\n}\n";
    let (text, config) = convert(group);
    assert_eq!(config.services[0].listen.0.len(), 1 + 3 + 8 + 4 + 5, "{text}");
    for expected in [
        "headers = { host = \"shop.example\" }",
        "headers = { host = \"b.example\" }",
        "address = \"198.51.100.2:0\"\nweight = 1\nhealth = []",
        "a check without `connect_port` is left out",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    // The kernel forwards by a mark, and to servers of the same family.
    let marked = group.replace(" 192.0.2.1 80\n", " fwmark 7\n");
    let (text, config) = convert(&marked);
    assert_eq!(config.services[0].listen.0.len(), 3 + 8 + 4 + 1, "{text}");
    for expected in [
        "\"fwmark:7\"]",
        "engine = \"ipvs\"",
        "WARNING: line 8: left out: [2001:db8::1]:80 and 4 more: not of the family of 192.0.2.10:443",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    for (wrong, line) in [("fwmark 0", 2), ("fwmark", 2), ("fwmark x", 2)] {
        let error = error_of(&group.replace("192.0.2.1 80", wrong));
        let expected = format!("line {line}: `{wrong}`: a firewall mark is a number from 1 to");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn definitions_conditions_and_sequences_are_resolved() {
    let original = "$VIP=192.0.2.6\n$PRIO=150\n$BASE=192.0.${NET}\n$NET=2\n@main $W=7\n@^main $W=8\n\
        $SERVER= \\\n real_server ${BASE}.${N} 80 { \\\n weight $W \\\n }\n\
        vrrp_instance A {\n interface e\n virtual_router_id 6\n priority $PRIO\n \
        virtual_ipaddress { ${VIP}/24 }\n}\n\
        virtual_server $VIP 80 {\n protocol TCP\n ~SEQ(N, 11, 13) $SERVER\n \
        ~LST(M, 21, 22) real_server 192.0.2.${M} 80 { weight 1 }\n}\n";
    let text = Importer::new().config_id("main").import(original).expect("a valid file");
    for expected in [
        "priority = 150",
        "addresses = [\"192.0.2.6/24\"]",
        "address = \"192.0.2.13:80\"\nweight = 7",
        "address = \"192.0.2.22:80\"\nweight = 1",
        "condition `@main`",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let other = Importer::new().config_id("other").import(original).expect("a valid file");
    assert!(other.contains("weight = 8"), "{other}");
    expect(&router("priority $UNKNOWN"), &["`$UNKNOWN` is not defined", "`priority $UNKNOWN`"]);
    let endless = error_of("$A=${B}\n$B=${A}\nvrrp_instance $A {\n}\n");
    assert!(endless.contains("the definitions name each other"), "{endless}");
    let bomb = "~SEQ(A, 60000) ~SEQ(B, 60000) $X=1\n";
    assert!(error_of(bomb).contains("the definitions make more than"), "{}", error_of(bomb));
}

#[test]
fn included_files_are_read() {
    let folder = std::env::temp_dir().join(format!("lvs-import-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("d")).expect("a folder");
    std::fs::write(folder.join("d/a.conf"), "include ../b.conf\n").expect("a file");
    std::fs::write(folder.join("b.conf"), "priority 42\nwrong 1\n").expect("a file");
    let original = router("include d/*.conf\n include none.conf");
    let text = Importer::new().folder(&folder).import(&original).expect("a valid file");
    std::fs::remove_dir_all(&folder).expect("the folder is removed");
    assert!(text.contains("priority = 42"), "{text}");
    assert!(text.contains("b.conf line 2: `wrong 1` is not a known keyword here"), "{text}");
    assert!(text.contains("`include none.conf` names no file"), "{text}");
    assert!(error_of(&original).contains("import the file, not its text"));
}

/// Converts keepalived's own samples, where its Debian package is installed.
#[test]
fn the_samples_of_keepalived_are_converted() {
    let folder = Path::new("/usr/share/doc/keepalived/samples");
    let Ok(entries) = std::fs::read_dir(folder) else {
        return println!("skipped: no samples in {}", folder.display());
    };
    let (mut converted, mut refused) = (0, 0);
    for path in entries.map(|entry| entry.expect("a file").path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with("keepalived.conf.") {
            continue;
        }
        let original = std::fs::read_to_string(&path).expect("text");
        match Importer::new().folder(folder).import(&original) {
            Ok(text) => {
                DirectorConfig::parse(&text)
                    .unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
                // That sample names the members of its group without the block `group`.
                let is_old = name.ends_with("lvs_syncd");
                assert!(is_old || !text.contains("not a known keyword"), "{name}\n{text}");
                converted += 1;
            }
            Err(error) => {
                let reason = error.to_string();
                assert!(reason.contains("nothing in the"), "{name}: {reason}");
                refused += 1;
            }
        }
    }
    assert!(converted > 18, "{converted} samples are converted, {refused} refused");
}
