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
    let address = match server.contains("address =") {
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
