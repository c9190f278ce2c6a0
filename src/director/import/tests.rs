use std::path::Path;

use super::*;
use crate::director::DirectorConfig;

#[test]
fn the_output_of_ipvsadm_save_is_converted() {
    let saved = "-A -t 10.0.0.1:80 -s wrr -p 300 -M 255.255.255.0 -b sh-port\n\
        -a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m -w 3 -x 100 -y 50\n\
        -a -t 10.0.0.1:80 -r 10.0.0.3:80 -g -w 0\n\
        -A -u [2001:db8::1]:53 -s sh -b sh-port,sh-fallback -o\n\
        -a -u [2001:db8::1]:53 -r [2001:db8::2]:53 -i -w 1 --tun-type ipip\n\
        -A -f 7 -s rr\n-a -f 7 -r 10.0.0.2:0 -m -w 1\n";
    let text = import(saved).expect("a valid file");
    let config = DirectorConfig::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let [tcp, udp] = &*config.services else { panic!("{text}") };
    assert_eq!(tcp.scheduler.to_string(), "wrr");
    assert_eq!(tcp.servers[0].limits().max_connections(), 100);
    assert_eq!((tcp.servers[0].weight, tcp.servers[1].weight), (3, 0));
    assert_eq!(udp.scheduler.to_string(), "sh(sh-port, sh-fallback)");
    assert!(text.contains("netmask = 24") && text.contains("one_packet = true"), "{text}");
    for expected in [
        "line 6: service `-f 7` with its servers",
        "line 5: `--tun-type ipip`",
        "# The servers answered",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let error_of = |text: &str| import(text).expect_err(text).to_string();
    assert_eq!(
        error_of("-A -t www:http -s rr"),
        "line 1: \"www:http\" is not a numeric address: use the output of `ipvsadm-save -n`"
    );
    assert_eq!(
        error_of("-a -t 10.0.0.1:80 -r 10.0.0.2"),
        "line 1: no `-A` line before this one adds the service"
    );
    assert_eq!(error_of("-A -t"), "line 1: -t requires a value");
    assert_eq!(
        error_of("hello"),
        "line 1: the text is neither a keepalived.conf nor the output of ipvsadm-save"
    );
}

/// Converts a file, and parses the result.
fn convert(text: &str) -> (String, DirectorConfig) {
    let text = import(text).expect("a valid file");
    let config = DirectorConfig::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    (text, config)
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
    state MASTER
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
        "max_connections = 100",
        "addresses = [\"10.88.0.100/24\"]",
        "routes = [{ to = \"10.99.0.0/16\", via = \"10.88.0.254\" }]",
        "advert_interval = \"100ms\"",
        "preempt = false",
        "notify_master = [\"/bin/up\", \"now\"]",
        "interface = \"eth1\"\nweight = 5",
        "weight = -20\ncheck = { type = \"command\", command = \"/bin/check\", \
            arguments = [\"it\"], interval = \"2000ms\", timeout = \"2000ms\", rise = 1, fall = 3 }",
        "#   line 4: global_defs: `router_id LVS_1`",
        "`label eth0:1` of 10.88.0.100/24",
        "route `10.98.0.0/16 dev eth9`",
        "`garp_master_delay 5`",
        "`ha_suspend`",
        "`notify_down /bin/cry`",
        "checks of this server: all servers of the service have the checks of line",
        "authentication of type PASS",
        "# DR: the servers answered",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
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

/// Converts keepalived's own samples, where its Debian package is installed.
#[test]
fn the_samples_of_keepalived_are_converted() {
    let folder = Path::new("/usr/share/doc/keepalived/samples");
    let Ok(entries) = std::fs::read_dir(folder) else {
        return println!("skipped: no samples in {}", folder.display());
    };
    let mut count = 0;
    for path in entries.map(|entry| entry.expect("a file").path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with("keepalived.conf.") {
            continue;
        }
        let original = std::fs::read_to_string(&path).expect("text");
        let text = import(&original).unwrap_or_else(|error| panic!("{name}: {error}"));
        let complete = format!("{text}\n[[service]]\nname = \"_\"\nlisten = \"127.0.0.2:1\"\n");
        DirectorConfig::parse(&complete).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        count += 1;
    }
    assert!(count > 20, "{count} samples");
}
