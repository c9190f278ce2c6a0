//! What each engine refuses, by the key.

use super::{DirectorConfig, EngineKind};
use crate::engine::{ForwardingMethod, TunnelChecksum, TunnelKind};

/// Returns the error of a service with these lines and a server with those.
fn refusal(service: &str, server: &str) -> String {
    match parse(service, server) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

fn parse(service: &str, server: &str) -> Result<DirectorConfig, super::DirectorConfigError> {
    let listen = match service.contains("listen =") {
        true => "",
        false => "listen = \"10.0.0.1:80\"",
    };
    let address = match server.starts_with("address =") {
        true => "",
        false => "address = \"10.0.1.1:80\"",
    };
    DirectorConfig::parse(&format!(
        "[[service]]\nname = \"web\"\n{listen}\n{service}\n[[service.server]]\n{address}\n{server}\n"
    ))
}

#[test]
fn the_engine_is_a_name_or_a_list_of_names() {
    for (text, engines) in [
        ("", &[EngineKind::Proxy][..]),
        ("engine = \"ipvs\"", &[EngineKind::Ipvs]),
        ("engine = [\"ipvs\", \"proxy\"]", &[EngineKind::Ipvs, EngineKind::Proxy]),
    ] {
        let config = parse(text, "").expect(text);
        assert_eq!(config.services[0].engines(), engines);
    }
    for (text, expected) in [
        ("engine = []", "at least one engine is required"),
        ("engine = [\"ipvs\", \"ipvs\"]", "`ipvs` is there twice"),
        ("engine = [\"proxy\", \"ipvs\"]", "no engine after it would be"),
        ("engine = \"kernel\"", "engine"),
    ] {
        let error = refusal(text, "");
        assert!(error.contains("engine") && error.contains(expected), "{text}: {error:?}");
    }
}

#[test]
fn what_the_kernel_has_nothing_for_is_refused_by_the_name_of_the_key() {
    for (service, key) in [
        ("scheduler = \"p2c\"", "scheduler"),
        ("scheduler = \"lc(overhead=total)\"", "scheduler"),
        ("listen = \"unix:/run/web\"", "listen"),
        ("listen = \"10.0.0.1:0\"", "listen"),
        ("listen = \"0.0.0.0:80\"", "listen"),
        ("workers = 2", "workers"),
        ("freebind = true", "freebind"),
        ("ejection = { consecutive_failures = 5 }", "ejection"),
        ("tcp = { max_connections = 5 }", "tcp.max_connections"),
        ("tcp = { accept_rate = 5 }", "tcp.accept_rate"),
        ("tcp = { send_proxy = \"v1\" }", "tcp.send_proxy"),
        ("tcp = { idle_timeout = \"1m\" }", "tcp.idle_timeout"),
        ("tcp = { queue = { capacity = 1, timeout = \"1s\" } }", "tcp.queue"),
        ("tcp = { source = \"client\" }", "tcp.source"),
        ("tcp = { key_by_server_name = true }", "tcp.key_by_server_name"),
        ("protocol = \"udp\"\nudp = { idle_timeout = \"1m\" }", "udp.idle_timeout"),
        ("protocol = \"udp\"\nudp = { max_flows = 5 }", "udp.max_flows"),
        ("persistence = { timeout = \"1500ms\" }", "persistence.timeout"),
        ("persistence = { timeout = \"1s\", capacity = 5 }", "persistence.capacity"),
        ("persistence = { timeout = \"1s\", quiesced = \"end\" }", "persistence.quiesced"),
    ] {
        for engine in ["\"ipvs\"", "[\"ipvs\", \"proxy\"]"] {
            let error = refusal(&format!("engine = {engine}\n{service}"), "");
            let expected = format!("service.web.{key}");
            let is_named = error.contains(&expected) && error.contains("engine `ipvs`");
            assert!(is_named, "{service}: {error:?}");
        }
        let error = refusal(service, "");
        assert!(!error.contains("engine"), "the proxy can: {error}");
    }
}

#[test]
fn what_the_kernel_can_is_accepted() {
    for service in [
        "scheduler = \"mh(mh-port, mh-fallback)\"",
        "tcp = { cut_on_down = true }",
        "protocol = \"udp\"\nudp = { one_packet = true }",
        "persistence = { timeout = \"5m\", netmask = 24 }",
        "sorry_server = \"10.0.1.9:80\"\nslow_start = { window = \"10s\" }",
        "fail_mode = \"open\"\nquorum = { weight = 1 }",
    ] {
        assert_eq!(refusal(&format!("engine = \"ipvs\"\n{service}"), ""), "", "{service}");
    }
}

#[test]
fn a_mark_is_for_the_kernel_alone() {
    for (service, server) in [
        ("listen = \"fwmark:7\"", ""),
        ("listen = \"fwmark:7\"", "address = \"10.0.1.1:0\""),
        ("listen = [\"fwmark:7\", \"10.0.0.1:80\", \"fwmark:8\"]", ""),
        ("listen = \"fwmark:7/ipv6\"", "address = \"[2001:db8::1]:80\""),
        // The kernel leaves the port of the packet.
        ("listen = \"fwmark:7\"", "address = \"10.0.1.1:81\"\nmethod = \"dr\""),
        ("listen = \"fwmark:7\"\nprotocol = \"udp\"\nudp = { one_packet = true }", ""),
    ] {
        let service = format!("engine = \"ipvs\"\n{service}");
        assert_eq!(refusal(&service, server), "", "{service}, {server}");
    }
    let expected = [
        ("listen = \"fwmark:7\"", "", "listen: the engine `proxy` binds sockets"),
        ("engine = \"proxy\"\nlisten = \"fwmark:7\"", "", "listen: the engine `proxy` binds"),
        ("engine = [\"ipvs\", \"proxy\"]\nlisten = \"fwmark:7\"", "", "listen: the engine `proxy`"),
        ("engine = \"ipvs\"\nlisten = \"fwmark:0\"", "", "is not a firewall mark"),
        ("engine = \"ipvs\"\nlisten = \"fwmark:7:80\"", "", "and no port"),
        (
            "engine = \"ipvs\"\nlisten = [\"fwmark:7\", \"fwmark:7\"]",
            "",
            "listen: service \"web\" listens on fwmark:7 too",
        ),
        (
            "engine = \"ipvs\"\nlisten = \"fwmark:7\"\ntcp = { server_names = { \"a\" = \"web\" } }",
            "",
            "tcp.server_names: the engine `ipvs` cannot do this",
        ),
        (
            "engine = \"ipvs\"\nlisten = \"fwmark:7/ipv6\"",
            "",
            "address: the engine `ipvs` cannot do this: only `tunnel` leads to a server of another",
        ),
    ];
    for (service, server, expected) in expected {
        let error = refusal(service, server);
        assert!(error.contains(expected), "{service}: {error:?}");
    }
    // The protocol of a service is none of a mark's.
    let service = |name, protocol| {
        format!(
            "[[service]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\nengine = \"ipvs\"\n\
             listen = \"fwmark:7\"\n[[service.server]]\naddress = \"10.0.1.1:80\"\n"
        )
    };
    let two = service("a", "tcp") + &service("b", "udp");
    let error = DirectorConfig::parse(&two).expect_err("two services").to_string();
    assert!(error.contains("service.b.listen: service \"a\" listens on fwmark:7 too"), "{error}");
}

#[test]
fn the_sorry_server_has_a_method_that_fits() {
    let sorry = |lines: &str| refusal(&format!("engine = \"ipvs\"\n{lines}"), "");
    for lines in [
        "sorry_server = \"10.0.1.9:81\"",
        "sorry_server = \"10.0.1.9:80\"\nsorry_server_method = \"dr\"",
        "sorry_server = \"[2001:db8::9]:80\"\nsorry_server_method = \"tunnel\"",
    ] {
        assert_eq!(sorry(lines), "", "{lines}");
    }
    for lines in [
        "sorry_server = \"10.0.1.9:81\"\nsorry_server_method = \"dr\"",
        "sorry_server = \"[2001:db8::9]:80\"",
    ] {
        assert!(sorry(lines).contains("service.web.sorry_server: the engine `ipvs`"), "{lines}");
    }
    let error = refusal("sorry_server = \"10.0.1.9:80\"\nsorry_server_method = \"dr\"", "");
    assert!(error.contains("sorry_server_method: the engine `proxy` connects"), "{error}");
}

#[test]
fn forwarding_methods_fit_engine_ports_and_families() {
    let method = |server| {
        let config = parse("engine = \"ipvs\"", server).expect(server);
        config.services[0].servers[0].forwarding_method().expect("accepted")
    };
    assert_eq!(method(""), ForwardingMethod::Nat);
    assert_eq!(method("address = \"10.0.1.1:8080\""), ForwardingMethod::Nat);
    assert_eq!(method("method = \"dr\""), ForwardingMethod::DirectRouting);
    assert_eq!(method("method = \"tunnel\""), ForwardingMethod::Tunnel(TunnelKind::Ipip));
    let gue =
        "method = \"tunnel\"\ntunnel = { kind = \"gue\", port = 6080, checksum = \"remote\" }";
    let kind = TunnelKind::Gue { port: 6080, checksum: TunnelChecksum::Remote };
    assert_eq!(method(gue), ForwardingMethod::Tunnel(kind));
    assert_eq!(
        method("address = \"[2001:db8::1]:80\"\nmethod = \"tunnel\""),
        ForwardingMethod::Tunnel(TunnelKind::Ipip)
    );
    for (server, key) in [
        ("tunnel = { kind = \"gre\" }", "tunnel"),
        ("method = \"dr\"\ntunnel = {}", "tunnel"),
        ("method = \"tunnel\"\ntunnel = { kind = \"gue\" }", "tunnel.port"),
        ("method = \"tunnel\"\ntunnel = { port = 5 }", "tunnel.port"),
        ("method = \"tunnel\"\ntunnel = { checksum = \"full\" }", "tunnel.checksum"),
        (
            "method = \"tunnel\"\ntunnel = { kind = \"gre\", checksum = \"remote\" }",
            "tunnel.checksum",
        ),
        ("address = \"10.0.1.1:81\"\nmethod = \"dr\"", "address"),
        ("address = \"[2001:db8::1]:80\"", "address"),
    ] {
        let error = refusal("engine = \"ipvs\"", server);
        let ends = error.contains(&format!(".{key}: "));
        assert!(ends && error.contains("service.web.server."), "{server}: {error:?}");
    }
    let error = refusal("", "method = \"dr\"");
    assert!(error.contains("the engine `proxy` connects to servers by itself"), "{error:?}");
}

/// Returns the configuration of a service with this check and a server with these lines.
fn checked(
    check: &str,
    engine: &str,
    server: &str,
) -> Result<DirectorConfig, super::DirectorConfigError> {
    parse(&format!("engine = {engine}\nhealth = {{ {check} }}"), server)
}

#[test]
fn a_check_of_the_virtual_address_needs_an_engine_a_socket_and_one_address_family() {
    let tcp = "type = \"tcp\", virtual_address = true";
    let dr = "method = \"dr\"";
    let own_port = format!("{tcp}, port = 8080");
    let nothing = "type = \"tcp\", virtual_address = false";
    for (check, engine, server) in [
        (tcp, "\"ipvs\"", dr),
        (tcp, "\"ipvs\"", "method = \"tunnel\""),
        (tcp, "\"ipvs\"", ""),
        (tcp, "[\"ipvs\", \"proxy\"]", ""),
        (&*own_port, "\"ipvs\"", dr),
        (tcp, "\"packet\"", dr),
        (tcp, "[\"packet\", \"proxy\"]", ""),
        (tcp, "[\"ipvs\", \"packet\"]", dr),
        (nothing, "\"proxy\"", ""),
    ] {
        checked(check, engine, server).expect(check);
    }
    for (check, engine, server, expected) in [
        (tcp, "\"proxy\"", "", "requires `engine = \"ipvs\"` or `\"packet\"`"),
        ("type = \"ping\", virtual_address = true", "\"ipvs\"", dr, "\"ping\" do not use"),
        (
            "type = \"command\", command = \"/bin/true\", virtual_address = true",
            "\"ipvs\"",
            dr,
            "\"command\" do not use",
        ),
        (
            "type = \"file\", file = \"/run/a\", virtual_address = true",
            "\"ipvs\"",
            dr,
            "\"file\" do not use",
        ),
        (
            tcp,
            "\"ipvs\"",
            "address = \"[2001:db8::1]:80\"\nmethod = \"tunnel\"",
            "server [2001:db8::1]:80 is of another address family",
        ),
    ] {
        let error = checked(check, engine, server).expect_err(check).to_string();
        assert!(error.contains("service.web.health.virtual_address: "), "{check}: {error}");
        assert!(error.contains(expected), "{check}: {error}");
    }
    // The check of a single server, and one that a virtual router tracks.
    let own = format!("health = {{ {tcp} }}");
    let error = refusal("", &own);
    assert!(error.contains("server.10.0.1.1:80.health.virtual_address: requires"), "{error}");
    let error = DirectorConfig::parse(&format!(
        "[[vrrp]]\ninterface = \"eth0\"\nvirtual_router_id = 3\naddresses = [\"192.0.2.10/24\"]\n\
         [[vrrp.track]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\ncheck = {{ {tcp} }}\n"
    ));
    let error = error.expect_err("no service").to_string();
    assert!(error.contains("check.virtual_address: a tracked item"), "{error}");
}

#[test]
fn servers_that_are_checked_at_their_own_addresses_alone_are_warned_of() {
    let warnings = |service: &str, server: &str| {
        let config = parse(&format!("engine = \"ipvs\"\n{service}"), server);
        config.expect("accepted").warnings()
    };
    let expected = "service web: the checks of server 10.0.1.1:80 do not see whether it has the virtual \
                    address: `virtual_address = true` in `health` connects there";
    let tcp = "health = { type = \"tcp\" }";
    let of_address = "health = { type = \"tcp\", virtual_address = true }";
    let both = "health = [{ type = \"ping\" }, { type = \"tcp\", virtual_address = true }]";
    let dr = "method = \"dr\"";
    assert_eq!(warnings(tcp, dr), [expected]);
    assert_eq!(warnings(tcp, "method = \"tunnel\""), [expected]);
    assert_eq!(warnings(of_address, &format!("{dr}\n{tcp}")), [expected]);
    let two = format!("{dr}\n[[service.server]]\naddress = \"10.0.1.2:80\"\n{dr}");
    let of_two = expected.replace("10.0.1.1:80", "10.0.1.1:80, and of 1 more,");
    assert_eq!(warnings(tcp, &two), [of_two]);
    for (service, server) in [(tcp, ""), ("", dr), (of_address, dr), (both, dr)] {
        assert_eq!(warnings(service, server), [""; 0], "{service} {server}");
    }
}

#[test]
fn the_marks_of_checks_are_a_range_that_has_room() {
    let marks = |first: &str| {
        let text = format!(
            "[[service]]\nname = \"a\"\nlisten = \"10.0.0.1:80\"\n[ipvs]\ncheck_marks = {first}\n"
        );
        DirectorConfig::parse(&text)
    };
    for (text, first) in [("1", 1), ("4294950912", 4_294_950_912)] {
        let settings = marks(text).expect(text).ipvs().settings();
        assert_eq!(settings.check_marks.get(), first);
    }
    for text in ["0", "4294950913", "4294967295"] {
        let error = marks(text).expect_err(text).to_string();
        assert!(error.contains("ipvs.check_marks: a number from 1 to 4294950912"), "{error}");
    }
}

#[test]
fn a_service_has_no_mark_of_the_checks() {
    let parse = |mark: u32, first: u32| {
        let text = format!(
            "[[service]]\nname = \"a\"\nlisten = \"fwmark:{mark}\"\nengine = \"ipvs\"\n\
             scheduler = \"rr\"\n[ipvs]\ncheck_marks = {first}\n"
        );
        DirectorConfig::parse(&text)
    };
    for (mark, first) in [(99, 100), (16_484, 100), (1, 4_294_950_912)] {
        parse(mark, first).expect("a mark of its own");
    }
    for (mark, first) in [(100, 100), (16_483, 100), (u32::MAX, 4_294_950_912)] {
        let error = parse(mark, first).expect_err("a mark of the checks").to_string();
        assert!(error.contains("service.a.listen: the firewall marks"), "{error}");
    }
}
