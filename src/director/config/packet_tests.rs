//! The `[packet]` table, and what the engine `packet` refuses by the key.

use std::path::Path;
use std::time::Duration;

use super::{DirectorConfig, EngineKind, PacketConfig, XdpModeConfig};
use crate::packet::{PacketSettings, TunnelSource, XdpMode};

fn parse(service: &str, server: &str) -> Result<DirectorConfig, super::DirectorConfigError> {
    let listen = match service.contains("listen =") {
        true => "",
        false => "listen = \"10.0.0.1:80\"",
    };
    let engine = match service.contains("engine =") {
        true => "",
        false => "engine = \"packet\"",
    };
    let address = match server.starts_with("address =") {
        true => "",
        false => "address = \"10.0.1.1:8080\"",
    };
    DirectorConfig::parse(&format!(
        "[[service]]\nname = \"web\"\n{listen}\n{engine}\n{service}\n[[service.server]]\n{address}\n{server}\n"
    ))
}

/// Returns the errors of a service with these lines and a server with those; empty if there is none.
fn refusal(service: &str, server: &str) -> String {
    parse(service, server).err().map_or_else(String::new, |errors| {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    })
}

#[test]
fn the_engine_packet_is_chosen_alone_or_before_others() {
    for (text, engines) in [
        ("engine = \"packet\"", &[EngineKind::Packet][..]),
        ("engine = [\"packet\", \"proxy\"]", &[EngineKind::Packet, EngineKind::Proxy]),
        (
            "engine = [\"packet\", \"ipvs\", \"proxy\"]",
            &[EngineKind::Packet, EngineKind::Ipvs, EngineKind::Proxy],
        ),
    ] {
        let server = "address = \"10.0.1.1:80\"";
        let config = parse(text, server).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(config.services[0].engines(), engines);
    }
    let error = refusal("engine = [\"packet\", \"packet\"]", "");
    assert!(error.contains("service.web.engine: `packet` is there twice"), "{error}");
}

#[test]
fn what_the_engine_packet_can_do_is_accepted() {
    for (service, server) in [
        ("", ""),
        ("protocol = \"udp\"", ""),
        ("listen = \"[2001:db8::1]:80\"", "address = \"[2001:db8::2]:8080\""),
        ("listen = [\"10.0.0.1:80\", \"10.0.0.2:81\"]", ""),
        ("scheduler = \"p2c\"", ""),
        ("scheduler = \"bounded(ring, factor=1.25)\"", ""),
        ("scheduler = \"sh(sh-port)\"", ""),
        ("persistence = { timeout = \"5m\", netmask = 24, netmask_v6 = 64 }", ""),
        ("persistence = { timeout = \"1500ms\", capacity = 10, draining = \"end\" }", ""),
        ("ejection = { consecutive_failures = 5 }", ""),
        ("slow_start = { window = \"30s\" }", ""),
        ("quorum = { weight = 1 }", ""),
        ("fail_mode = \"open\"", ""),
        ("tcp = { cut_on_down = true }", ""),
        ("sorry_server = \"10.0.1.9:81\"", ""),
        ("sorry_server = \"10.0.1.9:81\"\nsorry_server_method = \"nat\"", ""),
        ("sorry_server = \"10.0.1.9:80\"\nsorry_server_method = \"dr\"", ""),
        ("health = { type = \"tcp\" }", ""),
        ("health = { type = \"tcp\", virtual_address = false }", ""),
        ("", "method = \"nat\""),
        ("", "address = \"10.0.1.1:80\"\nmethod = \"dr\""),
        ("", "address = \"10.0.1.1:0\"\nmethod = \"dr\""),
        ("", "address = \"10.0.1.1:80\"\nmethod = \"tunnel\""),
        ("", "address = \"[2001:db8::1]:80\"\nmethod = \"tunnel\""),
        (
            "sorry_server = \"10.0.1.9:80\"\nsorry_server_method = \"tunnel\"",
            "address = \"10.0.1.1:80\"\nmethod = \"tunnel\"\ntunnel = { kind = \"gue\", port = 6080 }",
        ),
        ("", "max_connections = 5\nweight = 7\ntier = 1"),
        ("", "address = \"10.0.1.1:0\""),
    ] {
        assert_eq!(refusal(service, server), "", "{service} {server}");
    }
}

#[test]
fn what_the_engine_packet_cannot_do_is_refused_by_the_name_of_the_key() {
    for (service, server, key) in [
        ("listen = \"unix:/run/web\"", "", "listen"),
        ("listen = \"fwmark:7\"", "", "listen"),
        ("listen = \"10.0.0.1:0\"", "", "listen"),
        ("listen = \"0.0.0.0:80\"", "", "listen"),
        ("listen = \"[::]:80\"", "address = \"[2001:db8::2]:80\"", "listen"),
        ("workers = 2", "", "workers"),
        ("freebind = true", "", "freebind"),
        ("sorry_server = \"[2001:db8::9]:80\"", "", "sorry_server"),
        ("sorry_server = \"10.0.1.9:81\"\nsorry_server_method = \"dr\"", "", "sorry_server"),
        ("", "method = \"dr\"", "server.10.0.1.1:8080.address"),
        ("", "method = \"tunnel\"", "server.10.0.1.1:8080.address"),
        (
            "",
            "address = \"10.0.1.1:80\"\nmethod = \"tunnel\"\ntunnel = { kind = \"gre\" }",
            "server.10.0.1.1:80.method",
        ),
        (
            "",
            "address = \"10.0.1.1:80\"\nmethod = \"tunnel\"\ntunnel = { kind = \"gue\", port = 6080, \
             checksum = \"full\" }",
            "server.10.0.1.1:80.method",
        ),
        ("", "address = \"[2001:db8::1]:80\"", "server.[2001:db8::1]:80.address"),
        ("listen = \"[2001:db8::1]:80\"", "", "server.10.0.1.1:8080.address"),
    ] {
        let error = refusal(service, server);
        let expected = format!("service.web.{key}: the engine `packet` cannot do this: ");
        assert!(error.contains(&expected), "{service} {server}: {error:?}");
        assert_eq!(error.lines().count(), 1, "one error: {error}");
    }
}

/// The keys of the tables of the forwarders, as their errors list them.
#[test]
fn every_key_of_the_forwarders_tables_is_refused_but_one() {
    let mut refused = 0;
    for (table, protocol) in [("tcp", "tcp"), ("udp", "udp")] {
        let unknown = format!("protocol = \"{protocol}\"\n{table} = {{ no_such_key = 1 }}");
        let error = refusal(&unknown, "");
        let keys: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        assert!(keys.len() > 4, "{error}");
        for key in keys {
            // A value of each type, of which one is accepted and not the default.
            let values = [
                "true",
                "3",
                "\"17s\"",
                "\"never\"",
                "\"random\"",
                "\"v2\"",
                "\"10.0.0.7\"",
                "[\"10.0.0.0/8\"]",
                "\"always\"",
                "{ \"a\" = \"b\" }",
                "{ capacity = 5, timeout = \"3s\" }",
                "\"b\"",
                "false",
            ];
            let error = values.iter().find_map(|value| {
                let lines = format!("protocol = \"{protocol}\"\n{table} = {{ {key} = {value} }}");
                let error = refusal(&lines, "");
                let is_refused = error
                    .contains(&format!("service.web.{table}.{key}: the engine `packet` cannot"));
                is_refused.then_some(error)
            });
            match key {
                "cut_on_down" => assert_eq!(error, None),
                _ => {
                    assert!(error.is_some(), "{table}.{key} is not refused");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn a_callback_for_ended_connections_is_refused() {
    use super::{RealServer, ServiceConfig};
    let service = ServiceConfig::tcp("web")
        .listen(std::net::SocketAddr::from(([10, 0, 0, 1], 80)))
        .engine(EngineKind::Packet)
        .server(RealServer::builder(std::net::SocketAddr::from(([10, 0, 1, 1], 80))))
        .on_end(|_| {});
    let error = DirectorConfig::builder().service(service).build().expect_err("refused");
    let error = error.to_string();
    assert!(error.contains("service.web.on_end: the engine `packet` cannot do this"), "{error}");
}

#[test]
fn a_check_says_what_the_engine_packet_bypasses() {
    let warnings = |engine: &str| {
        let text = format!(
            "[[service]]\nname = \"web\"\nlisten = \"10.0.0.1:80\"\nengine = {engine}\n\
             server = [{{ address = \"10.0.1.1:8080\" }}]\n"
        );
        DirectorConfig::parse(&text).expect("it is valid").warnings()
    };
    for engine in ["\"packet\"", "[\"packet\", \"proxy\"]"] {
        let warnings = warnings(engine);
        assert!(warnings.len() == 1 && warnings[0].contains("netfilter"), "{warnings:?}");
    }
    assert_eq!(warnings("\"proxy\""), [""; 0]);
}

fn table(keys: &str) -> Result<PacketConfig, String> {
    let text = format!("[[service]]\nname = \"a\"\nlisten = \"10.0.0.1:80\"\n[packet]\n{keys}\n");
    DirectorConfig::parse(&text).map(|config| config.packet()).map_err(|error| error.to_string())
}

#[test]
fn the_table_becomes_the_settings_of_the_engine() {
    assert_eq!(table("").expect("empty").settings(), PacketSettings::default());
    let full = "flows = 1024\nipv6_flows = 512\ndevices = [\"eth0\", \"eth1\"]\nredirect_peer = false\n\
        xdp_devices = [\"eth1\"]\nxdp_mode = \"generic\"\n\
        tunnel_sources = [\"172.16.0.0/16\"]\ncheck_marks = 32768\ndecisions_per_second = 7\nalive_for = \"3s\"\n\
        tcp_timeout = \"1h\"\nclosing_timeout = \"2s\"\nudp_timeout = \"3s\"\n\
        pin_folder = \"/run/bpf/lvs\"\nkeep_at_stop = true";
    let table = table(full).expect("valid");
    assert!(table.keep_at_stop && !table.settings().redirect_peer);
    let settings = table.settings();
    assert_eq!((settings.flows, settings.ipv6_flows), (1024, 512));
    let source: TunnelSource = "172.16.0.0/16".parse().expect("a network");
    assert_eq!(settings.tunnel_sources, [source]);
    assert_eq!(settings.check_marks.get(), 32_768);
    assert_eq!(settings.decisions_per_second, 7);
    assert_eq!(settings.alive_for, Duration::from_secs(3));
    assert_eq!(settings.devices, ["eth0", "eth1"]);
    assert_eq!(
        (settings.xdp_devices, settings.xdp_mode),
        (vec!["eth1".to_owned()], XdpMode::Generic)
    );
    assert_eq!(settings.tcp_timeout, Duration::from_secs(3600));
    assert_eq!(settings.closing_timeout, Duration::from_secs(2));
    assert_eq!(settings.udp_timeout, Duration::from_secs(3));
    assert_eq!(settings.pin_folder, Path::new("/run/bpf/lvs"));
    let built = PacketConfig::builder()
        .flows(1024)
        .ipv6_flows(512)
        .devices(["eth0".to_owned(), "eth1".to_owned()])
        .redirect_peer(false)
        .xdp_devices(["eth1".to_owned()])
        .xdp_mode(XdpModeConfig::Generic)
        .tunnel_sources([source])
        .check_marks(32_768)
        .decisions_per_second(7)
        .alive_for(Duration::from_secs(3))
        .tcp_timeout(Duration::from_secs(3600))
        .closing_timeout(Duration::from_secs(2))
        .udp_timeout(Duration::from_secs(3))
        .pin_folder("/run/bpf/lvs")
        .keep_at_stop(true);
    assert_eq!(PacketConfig::from(built), table);
}

#[test]
fn values_out_of_their_ranges_are_refused() {
    for keys in [
        "flows = 1",
        "flows = 16777216",
        "decisions_per_second = 1",
        "alive_for = \"100ms\"",
        "alive_for = \"1h\"",
        "tcp_timeout = \"1s\"",
        "tcp_timeout = \"365days\"",
        "closing_timeout = \"1500ms\"",
        "devices = []",
        "tunnel_sources = [\"172.16.0.0/16\", \"fd00:16::/64\"]",
        "devices = [\"fifteen-letters\"]",
    ] {
        table(keys).unwrap_or_else(|error| panic!("{keys}: {error}"));
    }
    let timeout = "a time from 1 s to 365 days is expected";
    for (keys, key, reason) in [
        ("flows = 0", "flows", "a number from 1 to 16777216 is expected"),
        ("flows = 16777217", "flows", "a number from 1 to 16777216 is expected"),
        ("ipv6_flows = 16777217", "ipv6_flows", "a number from 1 to 16777216 is expected"),
        ("decisions_per_second = 0", "decisions_per_second", "a number from 1 is expected"),
        ("tunnel_sources = [\"10.0.0.0/8\", \"172.16.0.0/16\"]", "tunnel_sources", "one network"),
        ("tunnel_sources = [\"10.0.0.1/8\"]", "tunnel_sources", "bits beyond"),
        ("check_marks = 0", "check_marks", "a multiple of 16384"),
        ("check_marks = 16385", "check_marks", "a multiple of 16384"),
        ("check_marks = 1819672576", "check_marks", "the same firewall marks"),
        ("alive_for = \"99ms\"", "alive_for", "a time from 100 ms to 1 h is expected"),
        ("alive_for = \"61m\"", "alive_for", "a time from 100 ms to 1 h is expected"),
        ("tcp_timeout = \"999ms\"", "tcp_timeout", timeout),
        ("tcp_timeout = \"366days\"", "tcp_timeout", timeout),
        ("closing_timeout = \"0s\"", "closing_timeout", timeout),
        ("udp_timeout = \"0s\"", "udp_timeout", timeout),
        ("pin_folder = \"lvs\"", "pin_folder", "an absolute path is expected"),
        ("devices = [\"eth0\", \"\"]", "devices.2", "has 1 to 15 bytes"),
        ("devices = [\"sixteen--letters\"]", "devices", "has 1 to 15 bytes"),
        ("xdp_devices = [\"\"]", "xdp_devices", "has 1 to 15 bytes"),
        ("xdp_devices = [\"eth1\"]\ndevices = [\"eth0\"]", "xdp_devices", "eth1 is not among"),
        ("xdp_mode = \"offload\"", "xdp_mode", "expected `native` or `generic`"),
    ] {
        let error = table(keys).expect_err(keys);
        assert!(error.contains(&format!("packet.{key}")), "{keys}: {error}");
        assert!(error.contains(reason), "{keys}: {error}");
    }
}

#[test]
fn a_running_engine_keeps_all_but_what_happens_at_the_stop() {
    let before = table("flows = 5\nudp_timeout = \"3s\"").expect("valid");
    let after = table("flows = 6\nudp_timeout = \"3s\"\nkeep_at_stop = true").expect("valid");
    assert_eq!(before.keys_for_restart(&after), ["flows"]);
    assert_eq!(before.keys_for_restart(&before), [""; 0]);
    let after = table("flows = 5\nudp_timeout = \"3s\"\nkeep_at_stop = true").expect("valid");
    assert_eq!(before.keys_for_restart(&after), [""; 0]);
}
