//! Configurations of other programs: converted, run by a director, and compared with what the kernel has.

use std::time::Duration;

use lvs::director::{Director, DirectorConfig, import};

use super::director::in_namespace;
use super::{ipvsadm, saved};
use crate::guest;

/// Every kind of service and server that the director can have.
const OF_EVERY_KIND: &str = "\
-A -t 10.0.0.1:80 -s wlc -p 300 -M 255.255.255.0
-a -t 10.0.0.1:80 -r 10.0.1.1:80 -g -w 1
-a -t 10.0.0.1:80 -r 10.0.1.2:80 -i -w 2
-a -t 10.0.0.1:80 -r 10.0.1.3:80 -i -w 3 --tun-type gue --tun-port 6080 --tun-csum
-a -t 10.0.0.1:80 -r 10.0.1.4:80 -i -w 4 --tun-type gue --tun-port 6081 --tun-remcsum
-a -t 10.0.0.1:80 -r 10.0.1.5:80 -i -w 5 --tun-type gre
-a -t 10.0.0.1:80 -r [2001:db8::6]:80 -i -w 6 --tun-type gre --tun-csum
-a -t 10.0.0.1:80 -r 10.0.1.7:8080 -m -w 0
-A -t 10.0.0.1:443 -s sh -b sh-fallback,sh-port
-a -t 10.0.0.1:443 -r 10.0.1.1:443 -g -w 65535
-A -u 10.0.0.1:53 -s mh -b mh-fallback,mh-port -o
-a -u 10.0.0.1:53 -r 10.0.1.1:53 -m -w 1
-a -u 10.0.0.1:53 -r 10.0.1.2:5353 -m -w 1
-A -t [2001:db8::1]:443 -s lblcr -p 60 -M 64
-a -t [2001:db8::1]:443 -r [2001:db8::2]:443 -g -w 1
-A -f 7 -s rr -p 360
-a -f 7 -r 10.0.1.1:0 -m -w 1
-a -f 7 -r 10.0.1.2:80 -g -w 1
-a -f 7 -r 10.0.1.3:0 -i -w 1
-A -f 7 -6 -s nq -o
-a -f 7 -6 -r [2001:db8::2]:0 -m -w 1
-A -f 4294967295 -s dh
";

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_saved_table_of_every_kind_is_the_same_after_import_and_start() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        OF_EVERY_KIND.lines().for_each(|line| drop(ipvsadm(line)));
        let (unsorted, expected) = (ipvsadm("-S -n"), saved());
        assert_eq!(expected.len(), OF_EVERY_KIND.lines().count());
        ipvsadm("-C");
        let text = import(&unsorted).expect("a valid configuration");
        assert!(text.starts_with("# Everything was converted."), "{text}");
        let config = DirectorConfig::parse(&text).expect("a valid configuration");
        let director = Director::start(config).await.expect("IPVS is there");
        assert_eq!(saved(), expected);
        director.stop(Duration::ZERO).await;
        assert_eq!(saved(), [""; 0]);
    });
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn a_keepalived_conf_is_what_keepalived_makes_of_it() {
    if !guest::enter() {
        return;
    }
    in_namespace(async {
        let original = "\
global_defs {
    lvs_timeouts tcp 7200 udp 30
}
virtual_server_group shop {
    10.0.0.1 80
    10.0.0.1 443
    fwmark 9
}
virtual_server group shop {
    protocol TCP
    lb_algo rr
    lb_kind DR
    persistence_timeout 50
    real_server 10.0.1.1 80 { weight 3 }
    real_server 10.0.1.2 80 {
        lvs_method TUN type gue port 6080 csum
    }
}
virtual_server fwmark 8 {
    lb_algo wrr
    ops
    real_server 10.0.1.1 53 { }
}
virtual_server 10.0.0.1 25 {
    protocol TCP
    real_server 10.0.1.1 2525 { }
}
";
        let text = import(original).expect("a valid configuration");
        let config = DirectorConfig::parse(&text).expect("a valid configuration");
        let director = Director::start(config).await.expect("IPVS is there");
        let mut expected = vec![
            "-A -f 8 -s wrr -o".to_owned(),
            "-a -f 8 -r 10.0.1.1:53 -m -w 1".to_owned(),
            "-A -t 10.0.0.1:25 -s wlc".to_owned(),
            "-a -t 10.0.0.1:25 -r 10.0.1.1:2525 -m -w 1".to_owned(),
        ];
        for (service, port) in [("-t 10.0.0.1:80", 80), ("-t 10.0.0.1:443", 443), ("-f 9", 0)] {
            let tunnel = "-i -w 1 --tun-type gue --tun-port 6080 --tun-csum";
            expected.extend([
                format!("-A {service} -s rr -p 50"),
                format!("-a {service} -r 10.0.1.1:{port} -g -w 3"),
                format!("-a {service} -r 10.0.1.2:{port} {tunnel}"),
            ]);
        }
        expected.sort();
        assert_eq!(saved(), expected);
        let timeouts = ipvsadm("-L --timeout");
        assert!(timeouts.contains("7200 120 30"), "{timeouts}");
        director.stop(Duration::ZERO).await;
        ipvsadm("--set 900 120 300");
    });
}
