//! Rules of the `ipvsadm` command line.

use super::{error_of, expect};

#[test]
fn ipvsadm_gives_direct_servers_the_port_of_the_service() {
    let saved = "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.0.0.2:8080 -g -w 1\n\
        -a -t 10.0.0.1:80 -r 10.0.0.3:8080 -m -w 1\n";
    expect(
        saved,
        &[
            "line 2: the server 10.0.0.2:8080: without -m ipvsadm takes the port of the service, 80",
            "address = \"10.0.0.2:80\"",
            "address = \"10.0.0.3:8080\"",
        ],
    );
}

#[test]
fn ipvsadm_options_have_several_forms() {
    let saved = "-A -t=10.0.0.1:80 --scheduler=sh -bflag-1,flag-2 --persistent=60\n\
        -a -t 10.0.0.1:80 -r10.0.0.2:80 -m -w7\n-A -t 10.0.0.1:81 -s rr -b flag-1\n";
    expect(
        saved,
        &[
            "scheduler = \"sh(sh-fallback, sh-port)\"",
            "persistence = { timeout = \"60s\" }",
            "weight = 7",
            "line 3: the flag `flag-1` has no effect with the scheduler rr",
        ],
    );
    assert_eq!(
        error_of("-A -t 10.0.0.1:80 -s rr\n-A -t 10.0.0.1:80 -s wrr\n"),
        "line 2: the service 10.0.0.1:80 is added twice"
    );
}

/// Every kind that `ipvsadm-save` writes and the director can have.
const OF_EVERY_KIND: &str = "-A -t 10.0.0.1:80 -s wlc -p 300 -M 255.255.255.0\n\
    -a -t 10.0.0.1:80 -r 10.0.1.1:80 -g -w 1\n\
    -a -t 10.0.0.1:80 -r 10.0.1.2:80 -i -w 2 --tun-type ipip\n\
    -a -t 10.0.0.1:80 -r 10.0.1.3:80 -i -w 3 --tun-type gue --tun-port 6080 --tun-csum\n\
    -a -t 10.0.0.1:80 -r 10.0.1.4:80 -i -w 4 --tun-type gre --tun-csum\n\
    -a -t 10.0.0.1:80 -r 10.0.1.5:8080 -m -w 0\n\
    -A -u 10.0.0.1:53 -s mh -b mh-fallback,mh-port -o\n\
    -a -u 10.0.0.1:53 -r 10.0.1.1:53 -m -w 1\n\
    -A -t [2001:db8::1]:443 -s sh -p 60 -M 64 -b sh-port\n\
    -a -t [2001:db8::1]:443 -r [2001:db8::2]:443 -g -w 1\n\
    -A -f 7 -s rr -p 360\n\
    -a -f 7 -r 10.0.1.1:0 -m -w 1\n\
    -a -f 7 -r 10.0.1.2:80 -g -w 1\n\
    -A -f 7 -6 -s nq -o\n\
    -a -f 7 -6 -r [2001:db8::2]:0 -m -w 1\n";

#[test]
fn marks_methods_and_tunnels_are_those_of_the_kernel() {
    let text = expect(
        OF_EVERY_KIND,
        &[
            "# Everything was converted.",
            "listen = \"fwmark:7\"",
            "listen = \"fwmark:7/ipv6\"\nprotocol = \"udp\"",
            "name = \"fwmark-5\"",
            "method = \"tunnel\"\ntunnel = { kind = \"gue\", port = 6080, checksum = \"full\" }",
            "method = \"tunnel\"\ntunnel = { kind = \"gre\", checksum = \"full\" }",
            "address = \"10.0.1.1:0\"\nweight = 1",
            "address = \"10.0.1.2:80\"\nmethod = \"dr\"",
            "udp = { one_packet = true }",
        ],
    );
    assert_eq!(text.matches("engine = \"ipvs\"").count(), 5, "{text}");
}

#[test]
fn marks_that_ipvsadm_writes_as_negative_numbers_are_read() {
    expect("-A -f -1\n-a -f -1 -r 10.0.0.2:0 -m\n", &["listen = \"fwmark:4294967295\""]);
}

#[test]
fn services_of_nat_alone_are_proxied() {
    let saved = "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m\n";
    let text = expect(saved, &["line 1: the servers see the director's address"]);
    assert!(!text.contains("engine ="), "{text}");
    let with_mark = format!("{saved}-A -f 9\n-a -f 9 -r 10.0.0.2:0 -m\n");
    let text = expect(&with_mark, &["listen = \"fwmark:9\""]);
    assert_eq!(text.matches("engine = \"ipvs\"").count(), 2, "{text}");
    assert!(!text.contains("the servers see"), "{text}");
}

#[test]
fn what_the_kernel_cannot_have_is_an_error_of_its_line() {
    let service = "-A -t 10.0.0.1:80 -s rr\n";
    for (lines, expected) in [
        ("-A -f 0", "line 1: \"0\": a firewall mark is a number from 1 to"),
        ("-A -t 10.0.0.1:80 -p -M 64", "line 1: \"64\" is not a netmask"),
        ("-A -s rr", "line 1: an option -t, -u or -f is required"),
        ("-a -f 7 -r 10.0.0.2", "line 1: no `-A` line before this one adds the service"),
        (
            &format!("{service}-a -t 10.0.0.1:80 -r [2001:db8::2]:80 -g"),
            "line 2: the server [2001:db8::2]:80 is not of the family of the service",
        ),
        (
            &format!(
                "{service}-a -t 10.0.0.1:80 -r 10.0.0.2 -g\n-a -t 10.0.0.1:80 -r 10.0.0.2:81 -g"
            ),
            "line 3: the server 10.0.0.2:80 is added twice",
        ),
        (
            &format!("{service}-a -t 10.0.0.1:80 -r 10.0.0.2 -i --tun-type vxlan"),
            "line 2: \"vxlan\" is no type of a tunnel",
        ),
        (
            "-A -t 0.0.0.0:80 -s rr\n-a -t 0.0.0.0:80 -r 10.0.0.2:80 -g",
            "line 1: 0.0.0.0:80: a service of the kernel has one address",
        ),
    ] {
        let error = error_of(lines);
        assert!(error.starts_with(expected), "{lines}: {error}");
    }
    expect(
        &format!("{service}-a -t 10.0.0.1:80 -r 10.0.0.2 -i --tun-type gue"),
        &["WARNING: line 2: a tunnel of type gue requires a port: the tunnel is IP in IP"],
    );
}
