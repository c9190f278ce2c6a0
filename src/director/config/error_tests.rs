//! Tests of several errors, of tables that conflict, and of warnings.

use super::DirectorConfig;

#[test]
fn all_errors_of_a_phase_are_listed_in_order() {
    let lines = |text: &str| {
        let error = DirectorConfig::parse(text).expect_err(text);
        error.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // Keys and types.
    let text = "workers = \"two\"\n\
        [[service]]\nname = \"web\"\nlisten = \"127.0.0.1:1\"\nschedular = \"rr\"\n\
        health = { type = \"tcp\", interval = 2 }\n\
        [[service.server]]\naddress = \"shop.example.org:80\"\n\
        [[service.server]]\naddress = \"10.0.0.1:80\"\nweight = -1\n\
        [[service]]\nlisten = \"127.0.0.1:2\"\n\
        [vrrp]\ninterface = \"eth0\"\nvirtual_router_id = 300\naddresses = [\"10.0.0.9/24\"]\n";
    let expected = [
        "configuration:1:11: workers: \"two\" is not a whole number of at least 0",
        "configuration:5:1: service.web.schedular: unknown field `schedular`, expected",
        "configuration:6:37: service.web.health.interval: 2 has no unit: write \"2s\" for seconds",
        "configuration:8:11: service.web.server.shop.example.org:80.address: \"shop.example.org:80\" is \
         not an address with a port, such as \"10.0.0.1:80\". A name is looked up by `discovery`, in \
         place of `server` tables: discovery = { dns = \"shop.example.org\", port = 80 }",
        "configuration:11:10: service.web.server.10.0.0.1:80.weight: -1 is not a whole number from 0 to \
         65535",
        "configuration:12:1: service.2: missing field `name`",
        "configuration:16:21: vrrp.virtual_router_id: 300 is not a whole number from 1 to 255",
    ];
    let found = lines(text);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{expected}\n{found}");
    }
    // Values.
    let text = "[admin]\nlisten = \"0.0.0.0:9\"\n\
        [[service]]\nname = \"web\"\nlisten = \"127.0.0.1:1\"\nscheduler = \"no_such_rule\"\n\
        workers = 0\n\
        [[service.server]]\naddress = \"10.0.0.1:80\"\nweight = 65536\n\
        [[service.server]]\naddress = \"10.0.0.1:80\"\n";
    let found = lines(text);
    assert_eq!(found.len(), 5, "{found:#?}");
    let known = "no scheduler is named no_such_rule; those that exist are bounded, dh, ";
    assert!(found.iter().any(|line| line.contains(known)), "{found:#?}");
    // Syntax, and variables.
    assert_eq!(lines("a = \nb = \n").len(), 2);
    let found = lines("handover = \"${LVS_NONE_A}\"\ninclude = [\"${LVS_NONE_B}\"]\n");
    assert!(found[0].contains("LVS_NONE_A") || found[1].contains("LVS_NONE_A"), "{found:#?}");
    assert_eq!(found.len(), 2, "{found:#?}");
    assert_eq!(
        lines("workers = 1\nworkers = 2\n"),
        ["configuration:2:1: key `workers` is set twice"]
    );
}

#[test]
fn listeners_that_overlap_are_refused() {
    let service = |name: &str, listen: &str| {
        format!("[[service]]\nname = \"{name}\"\nlisten = \"{listen}\"\n")
    };
    let admin = |listen: &str| format!("[admin]\nlisten = \"{listen}\"\n");
    for (text, expected) in [
        (
            service("a", "0.0.0.0:80") + &service("b", "127.0.0.1:80"),
            "service.b.listen: 127.0.0.1:80 overlaps 0.0.0.0:80, on which service \"a\" listens",
        ),
        (
            service("a", "127.0.0.1:80") + &service("b", "[::]:80"),
            "service.b.listen: [::]:80 overlaps 127.0.0.1:80, on which service \"a\" listens",
        ),
        (
            admin("127.0.0.1:80") + &service("a", "0.0.0.0:80"),
            "admin.listen: 127.0.0.1:80 overlaps 0.0.0.0:80, on which service \"a\" listens",
        ),
    ] {
        let error = DirectorConfig::parse(&text).expect_err(&text).to_string();
        assert!(error.contains(expected), "{expected}\n{error}");
    }
    let text = service("a", "0.0.0.0:0") + &service("b", "127.0.0.1:0") + &admin("127.0.0.1:0");
    DirectorConfig::parse(&text).expect("free ports do not overlap");
}

#[test]
fn errors_of_syntax_are_in_the_order_of_the_lines() {
    let error = DirectorConfig::parse("\u{1}\nn").expect_err("no TOML");
    let lines: Vec<_> = error.iter().map(|error| error.position().expect("a position").0).collect();
    assert_eq!(lines, [1, 2], "{error}");
}

#[test]
fn what_is_seldom_meant_is_warned_of() {
    let text = "[[service]]\nname = \"a\"\nlisten = [\"127.0.0.1:80\", \"127.0.0.1:0\"]\n\
        [[service.server]]\naddress = \"127.0.0.1:80\"\nnotify_down = [\"/no/such\", \"x\"]\n\
        [[service]]\nname = \"b\"\nlisten = \"127.0.0.1:81\"\nquorum = { weight = 1 }\nquorum_up = [\"/bin/sh\"]\n\
        quorum_down = [\"/dev/null\"]\n[[vrrp]]\ninterface = \"eth0\"\nvirtual_router_id = 3\n\
        addresses = [\"192.0.2.10/24\"]\nnotify_master = [\"no-such-program\"]\n";
    assert_eq!(
        DirectorConfig::parse(text).expect("allowed").warnings(),
        [
            "service a: server 127.0.0.1:80 is the address that the service listens on: it would connect \
             to itself",
            "service a listens on 127.0.0.1:0: port 0 is another free port at each start",
            "service a, server 127.0.0.1:80: notify_down: program /no/such does not exist",
            "service b has no servers: it refuses every client",
            "service b: quorum_down: program /dev/null is not a file",
            "virtual router 3@eth0: notify_master: program no-such-program is in no folder of PATH",
        ]
    );
}

#[test]
fn services_that_only_route_or_are_only_routed_to_are_warned_of_what_has_no_effect() {
    let text = "[[service]]\nname = \"front\"\nlisten = \"127.0.0.1:443\"\n\
        tcp.server_names = { \"a.example\" = \"a\", \"*\" = \"b\" }\n\
        [[service]]\nname = \"a\"\nsorry_server = \"127.0.0.1:5\"\ntcp = { idle_timeout = \"1s\" }\n\
        [[service.server]]\naddress = \"127.0.0.1:1\"\n\
        [[service]]\nname = \"b\"\ntcp = { send_proxy = \"v1\" }\n";
    let server = "[[service.server]]\naddress = \"127.0.0.1:2\"\n";
    let warnings = |text: &str| DirectorConfig::parse(text).expect("allowed").warnings();
    let of_a = "service a has no `listen`: its `sorry_server`, `tcp` have no effect, those of the service \
                that leads here count";
    // The service that routes needs no servers, and the others do.
    assert_eq!(warnings(text), [of_a, "service b has no servers: it refuses every client"]);
    let text = format!("{text}{server}");
    let front = text.replacen(
        "[[service]]\nname = \"a\"",
        &format!("{server}[[service]]\nname = \"a\""),
        1,
    );
    let of_front = "service front: its servers get no connection: `server_names` lead each one to another \
                    service";
    assert_eq!(warnings(&front), [of_front, of_a]);
    // It leads to itself.
    assert_eq!(
        warnings(&front.replace("\"*\" = \"b\"", "\"*\" = \"front\", \"b.example\" = \"b\"")),
        [of_a]
    );
}

#[test]
fn a_virtual_router_number_stands_for_two_address_families() {
    let text = |second: &str| {
        format!(
            "[[service]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\n[[vrrp]]\nname = \"V4\"\ninterface \
             = \"eth0\"\nvirtual_router_id = 3\nversion = 2\nadvert_interval = \"1s\"\naddresses = \
             [\"192.0.2.10/24\"]\n[[vrrp]]\ninterface = \"eth0\"\nvirtual_router_id = 3\n{second}\n"
        )
    };
    let v6 = "addresses = [\"fe80::3/64\"]";
    DirectorConfig::parse(&text(v6)).expect("one number in two families");
    for (second, expected) in [
        ("addresses = [\"192.0.2.11/24\"]", "there is another IPv4 virtual router 3 on eth0"),
        ("name = \"V4\"\naddresses = [\"fe80::3/64\"]", "there is another virtual router \"V4\""),
        (
            "addresses = [\"fe80::3/64\"]\npeers = [\"10.0.0.2\"]",
            "peers: 10.0.0.2 is for a virtual router with IPv4 addresses, and `addresses` has none",
        ),
    ] {
        let error = DirectorConfig::parse(&text(second)).expect_err(second).to_string();
        assert!(error.contains(expected), "{expected}\n{error}");
    }
}

/// The reference lists all keys; each is given a value of every type.
#[test]
fn an_error_says_what_is_wanted_without_words_of_rust() {
    const VALUES: [&str; 7] = ["true", "1", "-1", "1.5", "\"x y\"", "[[1]]", "{ x = 1 }"];
    const WORDS: [&str; 14] = [
        "struct", "enum", "tuple", "newtype", "variant", "sequence", "map", "usize", "u64", "u32",
        "u16", "u8", "i32", "i16",
    ];
    let mut seen = 0;
    for_each_key(|section, key, _, parse| {
        for value in VALUES {
            let Err(error) = parse(value) else { continue };
            seen += 1;
            for word in WORDS {
                let mut words = error.split(|char: char| !char.is_ascii_alphanumeric());
                assert!(!words.any(|it| it == word), "{section} {key} = {value}: {word}:\n{error}");
            }
        }
    });
    assert!(seen > 800, "{seen}");
}

/// What serde derives for a struct reads a list too, as the values of its keys in their order.
#[test]
fn a_list_is_not_a_table() {
    let mut seen = 0;
    for_each_key(|section, key, key_type, parse| {
        let is_table = key_type.starts_with("[table](");
        let is_list = key_type.contains("array");
        // The text has a service already.
        if (!is_table && !key_type.contains("array of: [table](")) || key == "service" {
            return;
        }
        // A list of tables has tables in it; these would be their first key, or none.
        for inner in ["", "\"5m\"", "1", "true"] {
            let value = if is_list { format!("[[{inner}]]") } else { format!("[{inner}]") };
            let error = parse(&value).expect_err(key);
            let (_, name) = section.trim_matches(['[', ']']).rsplit_once('.').unwrap_or_default();
            let expected = "a list is not a table";
            assert!(
                error.contains(expected) && error.contains(key) && error.contains(name),
                "{section} {key} = {value}:\n{error}"
            );
            seen += 1;
        }
    });
    assert!(seen > 60, "{seen}");
}

/// Calls a function for each key of the reference, with the header of its table, its name, its type, and
/// a function that parses a configuration with this key alone and a value.
fn for_each_key(test: impl FnMut(&str, &str, &str, &dyn Fn(&str) -> Result<(), String>)) {
    const BASE: &str = "[[service]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\n";
    let mut test = test;
    let reference = include_str!("../../../docs/configuration.md");
    let mut section = String::new();
    for line in reference.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.split('`').nth(1).unwrap_or_default().to_owned();
        }
        let row = line.strip_prefix("| `").and_then(|row| row.split_once("` | "));
        let Some((key, row)) = row.filter(|_| section.is_empty() || section.starts_with('['))
        else {
            continue;
        };
        let key_type = row.split(" | ").next().unwrap_or_default();
        let parent = if section.starts_with("[vrrp.") { "[[vrrp]]\n" } else { "" };
        test(&section, key, key_type, &|value| {
            let key = format!("{key} = {value}\n");
            let text = match section.is_empty() {
                true => format!("{key}{BASE}"),
                false => format!("{BASE}{parent}{section}\n{key}"),
            };
            DirectorConfig::parse(&text).map(drop).map_err(|error| error.to_string())
        });
    }
}
