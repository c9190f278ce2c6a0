use super::DirectorConfig;

const VALID: &str = r#"
    [[service]]
    name = "web"
    listen = "10.88.0.100:80"
    scheduler = "wlc"
    persistence = { timeout = "5m", netmask = 24 }
    health = { type = "http", path = "/", interval = "1s", timeout = "500ms", rise = 2, fall = 3 }
    sorry_server = "127.0.0.1:7999"

    [[service.server]]
    address = "127.0.0.1:9001"
    weight = 3
    max_connections = 1000

    [vrrp]
    interface = "eth0"
    virtual_router_id = 51
    advert_interval = "100ms"
    addresses = ["10.88.0.100/24"]

    [sync]
    listen = "10.88.0.1:8849"
    peer = "10.88.0.2:8849"
    key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
"#;

#[test]
fn a_valid_configuration_is_read() {
    let config = DirectorConfig::parse(VALID).expect("valid");
    assert_eq!(config.services[0].servers[0].weight, 3);
    assert_eq!(config.sync.as_ref().expect("[sync] is set").key()[..3], [0, 1, 2]);
    assert!(!format!("{config:?}").contains("0001"), "Debug shows the key");
    assert!(config.services[0].health_plan().is_ok());
}

#[test]
fn errors_name_line_column_key_and_reason() {
    for (valid, invalid, expected) in [
        (
            "scheduler = \"wlc\"",
            "schedular = \"wlc\"",
            "configuration:5:5: service.web.schedular: unknown field `schedular`",
        ),
        ("scheduler = \"wlc\"", "schedular = \"wlc\"", "; did you mean `scheduler`?"),
        (
            "scheduler = \"wlc\"",
            "scheduler = \"wcl\"",
            "configuration:5:17: service.web.scheduler: ",
        ),
        ("10.88.0.100:80", "10.88.0.100", "configuration:4:14: service.web.listen: "),
        ("interval = \"1s\"", "interval = \"1\"", "\"1\" is not a duration such as \"500ms\": "),
        (
            "interval = \"1s\"",
            "interval = 1",
            "configuration:7:54: service.web.health.interval: 1 has no unit: write \"1s\" for seconds",
        ),
        (
            "type = \"http\"",
            "type = \"tcp\"",
            "configuration:7:37: service.web.health.path: checks of type \"tcp\" do not use `path`",
        ),
        ("timeout = \"500ms\"", "timeout = \"2s\"", "service.web.health: "),
        ("weight = 3", "weight = -3", "service.web.server.127.0.0.1:9001.weight: "),
        ("10.88.0.100/24", "10.88.0.100/33", "vrrp.addresses.1: "),
        ("[\"10.88.0.100/24\"]", "[]", "vrrp.addresses: at least one address is required"),
        ("\"100ms\"", "\"5ms\"", "vrrp.advert_interval: "),
        ("router_id = 51", "router_id = 0", "vrrp.virtual_router_id: "),
        ("0102", "01", "sync.key: the key has 31 bytes, and must have 32"),
        ("0102", "0x", "sync.key: the value must be pairs of hexadecimal digits"),
        (
            "weight = 3",
            "weight = 99999",
            "configuration:12:14: service.web.server.127.0.0.1:9001.weight: weight is 99999, must be \
             from 0 to 65535",
        ),
        (
            "scheduler = \"wlc\"",
            "slow_start = { window = \"1s\", min_percent = 0 }",
            "service.web.slow_start.min_percent: min_percent is 0, must be from 1 to 100",
        ),
        (
            "scheduler = \"wlc\"",
            "tcp.server_names = { \"a.b\" = \"wob\" }",
            "tcp.server_names: \"a.b\" leads to service \"wob\", which does not exist; did you mean \
             \"web\"?",
        ),
        (
            "scheduler = \"wlc\"",
            "tcp = { key_by_server_name = true, without_tls = \"wob\" }",
            "tcp.without_tls: leads to service \"wob\", which does not exist; did you mean \"web\"?",
        ),
        (
            "scheduler = \"wlc\"",
            "tcp.without_tls = \"web\"",
            "tcp.without_tls: `without_tls` requires `key_by_server_name` or `server_names`",
        ),
        (
            "advert_interval = \"100ms\"\n    addresses = [",
            "version = 2\n    addresses = [\"fd00::1/64\", ",
            "vrrp.version: VRRP version 2 does not support IPv6: remove the IPv6 addresses",
        ),
        (
            "router_id = 51",
            "router_id = 51\nsource = \"fd00::2\"",
            "vrrp.source: fd00::2 is not an IPv4 address",
        ),
        (
            "router_id = 51",
            "router_id = 51\ntrack = [{ name = \"link\", interface = \"eth1\" }]",
            "vrrp.track.link.name: \"link\" is the name of an item that the director itself tracks",
        ),
        ("[vrrp]", "[vrrrp]", "vrrrp: unknown field `vrrrp`"),
        ("[vrrp]", "[vrrrp]", "; did you mean `vrrp`?"),
        ("weight = 3", "weight =", "configuration:12:13: "),
    ] {
        assert!(VALID.contains(valid));
        let error = DirectorConfig::parse(&VALID.replacen(valid, invalid, 1)).expect_err(invalid);
        assert!(error.to_string().contains(expected), "{invalid}:\n{expected}\n{error}");
    }
}

/// An error of a health check is about the key whose value is refused.
#[test]
fn errors_of_checks_name_their_key() {
    for (check, expected) in [
        (
            "type = \"tcp\", send = \"a\", send_bytes = \"00\"",
            "health.send_bytes: `send` and `send_bytes` exclude each other",
        ),
        (
            "type = \"dns\", name = \"a.b\", record_type = \"ZZ\"",
            "health.record_type: \"ZZ\" is not a record type that can be queried, such as A",
        ),
        (
            "type = \"dns\", name = \"a..b\"",
            "health.name: \"a..b\" is not a DNS name: it has an empty label",
        ),
        ("type = \"http\", method = \"G E\"", "health.method: \"G E\" is not an HTTP method"),
        ("type = \"http\", path = \"x\"", "health.path: \"x\" is not an HTTP path"),
        (
            "type = \"tls\", tls = { authorities = \"no/such.pem\" }",
            "health.tls.authorities: cannot read no/such.pem: No such file",
        ),
        (
            "type = \"tls\", tls = { authorities = \"Cargo.toml\" }",
            "health.tls.authorities: Cargo.toml: no valid certificates in PEM: ",
        ),
        (
            "type = \"tls\", tls = { pinned = \"00\" }",
            "health.tls.pinned: \"00\" is not a SHA-256 digest",
        ),
        (
            "type = \"tls\", tls = { trust = \"any\", certificate = \"Cargo.toml\" }",
            "health.tls.certificate: `certificate` requires `key`",
        ),
        (
            "type = \"tls\", tls = { trust = \"any\", certificate = \"Cargo.toml\", key = \"x\" }",
            "health.tls.key: cannot read x: No such file",
        ),
        (
            "type = \"ping\", send_proxy = \"v2\"",
            "health.send_proxy: checks of type \"ping\" do not use `send_proxy`",
        ),
        (
            "type = \"tcp\", init = \"upwards\"",
            "health.init: `upwards` is not accepted here, expected one of `up`, `down`, `fully-up`, \
             `fully-down`",
        ),
    ] {
        let service = "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:1\"\n";
        let error = DirectorConfig::parse(&format!("{service}health = {{ {check} }}\n"));
        let error = error.expect_err(check).to_string();
        assert!(error.contains(expected), "{check}:\n{expected}\n{error}");
    }
}

#[test]
fn a_source_address_of_another_family_than_the_server_is_refused() {
    let service = "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:1\"\n\
                   health = { type = \"tcp\", source = \"127.0.0.1\" }\n";
    let server = |address: &str| format!("[[service.server]]\naddress = \"{address}\"\n");
    let parse = |text: String| DirectorConfig::parse(&text).map_err(|error| error.to_string());
    parse(format!("{service}{}", server("10.0.0.1:80"))).expect("of one family");
    let error = parse(format!("{service}{}{}", server("10.0.0.1:80"), server("[::1]:80")));
    assert_eq!(
        error.expect_err("of two families"),
        "configuration:4:35: service.web.health.source: 127.0.0.1 is not of the family of ::1, \
         which is checked"
    );
}

/// A file is read on the machine where its checks run; a text need not be.
#[test]
fn the_program_of_a_check_must_exist_where_a_file_is_loaded() {
    let folder = std::env::temp_dir().join(format!("lvs-programs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("main.toml");
    let service = "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:1\"\n";
    let check = |program: &str| format!("{{ type = \"command\", command = \"{program}\" }}");
    let load = |text: &str| {
        DirectorConfig::parse(text).expect("the programs are not looked for");
        std::fs::write(&path, text).expect("a file");
        DirectorConfig::load(&path).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(load(&format!("{service}health = {}\n", check("true"))), Ok(()));
    let error = load(&format!("{service}health = {}\n", check("/no/such/check")));
    let error = error.expect_err("the program does not exist");
    let expected =
        "main.toml:4:40: service.web.health.command: program /no/such/check does not exist";
    assert!(error.ends_with(expected), "{error}");
    let tracked = format!(
        "{service}[vrrp]\ninterface = \"lo\"\nvirtual_router_id = 1\naddresses = [\"10.0.0.9\"]\n\
         [[vrrp.track]]\nname = \"a\"\ncheck = {}\n",
        check("/no/such/check")
    );
    let error = load(&tracked).expect_err("the program does not exist");
    assert!(error.contains("a.check.command: program /no/such"), "{error}");
    std::fs::remove_dir_all(folder).expect("the folder is removed");
}

#[test]
fn checks_send_the_proxy_header_of_their_service() {
    let sends = |service: &str, check: &str| {
        let text = format!(
            "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:1\"\n{service}\nhealth = {{ {check} }}\n"
        );
        let config = DirectorConfig::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let plan = format!("{:?}", config.services[0].health_plan().expect("a plan"));
        let header = plan.split("proxy_header: ").nth(1).expect("a check");
        header.split([',', ' ', '}']).next().expect("a word").to_owned()
    };
    let v2 = "tcp = { send_proxy = \"v2\" }";
    assert_eq!(sends("", "type = \"tcp\""), "None");
    assert_eq!(sends(v2, "type = \"http\""), "Some(V2)");
    assert_eq!(sends("tcp = { send_proxy = \"v1\" }", "type = \"redis\""), "Some(V1)");
    assert_eq!(sends(v2, "type = \"tcp\", send_proxy = \"none\""), "None");
    assert_eq!(sends(v2, "type = \"tcp\", port = 8081"), "None", "another program");
    assert_eq!(sends(v2, "type = \"tcp\", port = 8081, send_proxy = \"v2\""), "Some(V2)");
    assert_eq!(sends(v2, "type = \"agent\", port = 8081"), "None");
    assert_eq!(sends(v2, "type = \"ping\""), "None");
    assert_eq!(sends("", "type = \"tcp\", send_proxy = \"v1\""), "Some(V1)");
}

#[test]
fn tables_that_do_not_fit_together_are_refused() {
    let service = VALID.split("[vrrp]").next().expect("the services").to_owned();
    let sync = VALID.rsplit("[sync]").next().expect("the sync table");
    let error_of = |text: &str| DirectorConfig::parse(text).expect_err(text).to_string();
    let error = error_of("");
    assert!(error.contains("there is neither a [[service]] nor a [[vrrp]]"), "{error}");
    let error = error_of(&format!("{service}[sync]{sync}"));
    assert!(error.contains("sync: [sync] requires [vrrp]"), "{error}");
    let error = error_of(&format!("[admin]\nlisten = \"0.0.0.0:9000\"\n{service}"));
    assert!(
        error.starts_with("configuration:2:10: admin.listen: 0.0.0.0:9000 is not a"),
        "{error}"
    );
    let error = error_of(&format!("{service}{service}"));
    assert!(error.contains("service.web.name: there is another service \"web\""), "{error}");
    let error = error_of(&format!("{service}{}", service.replace("web", "mail")));
    assert!(error.contains("service.mail.listen: service \"web\" listens on"), "{error}");
    let server = "[[service.server]]\naddress = \"127.0.0.1:9001\"\n";
    let error = error_of(&format!("{service}{server}"));
    assert!(error.contains("127.0.0.1:9001.address: another server of the service has"), "{error}");
    let router = |name: &str, address: &str| {
        format!(
            "[[vrrp]]\n{name}interface = \"e\"\nvirtual_router_id = 3\naddresses = [\"{address}\"]\n"
        )
    };
    let pair = router("", "192.0.2.1/24") + &router("", "fe80::1/64");
    assert!(DirectorConfig::parse(&pair).is_ok(), "one number in two families, without a service");
    let error = error_of(&(router("", "192.0.2.1/24") + &router("", "192.0.2.2/24")));
    assert!(error.contains("there is another IPv4 virtual router 3 on e"), "{error}");
    let named = "name = \"a\"\n";
    let error = error_of(&(router(named, "192.0.2.1/24") + &router(named, "fe80::1/64")));
    assert!(error.contains("there is another virtual router \"a\""), "{error}");
    let small = "[[service]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\n";
    let error = error_of(&format!("{small}quorum_up = [\"x\"]\n"));
    assert!(error.contains("`quorum_up` requires `quorum`"), "{error}");
    let server = "[[service.server]]\naddress = \"127.0.0.1:9009\"\n";
    let error =
        error_of(&format!("{service}{server}notify_up = {{ command = [\"x\"], group = \"g\" }}"));
    assert!(error.contains("`group` requires `user`"), "{error}");
    let error = error_of(&format!("{service}{server}notify_up = [\"x\", {{ command = [\"x\"] }}]"));
    assert!(error.contains("strings or tables, not both"), "{error}");
    let error = error_of("include = [\"more.toml\"]");
    assert!(error.contains("configuration:1:"), "{error}");
}

#[test]
fn a_file_includes_other_files() {
    let folder = std::env::temp_dir().join(format!("lvs-config-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("services")).expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let service = |name: &str, port: u16| {
        format!("[[service]]\nname = \"{name}\"\nlisten = \"127.0.0.1:{port}\"\n")
    };
    let main = write("main.toml", "include = [\"services/*.toml\"]\nworkers = 2\n");
    write("services/b.toml", &service("b", 2));
    write("services/a.toml", &(service("a", 1) + "scheduler = \"${LVS_NO_SUCH:-rr}\"\n"));
    let config = DirectorConfig::load(&main).expect("a valid file");
    let names: Vec<_> = config.services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((config.services[0].scheduler.to_string(), config.workers), ("rr".into(), Some(2)));

    let error = || DirectorConfig::load(&main).expect_err("an invalid file").to_string();
    write("services/b.toml", &service("a", 2));
    assert!(
        error().contains("services/b.toml:2:8: service.a.name: there is another service"),
        "{}",
        error()
    );
    write("services/b.toml", &format!("workers = 3\n{}", service("b", 2)));
    assert!(
        error().contains("services/b.toml:1:11: workers: another file has `workers` already"),
        "{}",
        error()
    );
    write("services/b.toml", "include = [\"x.toml\"]\n");
    assert!(error().contains("only the first file may include other files"), "{}", error());
    write("services/b.toml", &service("${LVS_NO_SUCH}", 2));
    assert!(error().contains("services/b.toml:2:8: environment variable"), "{}", error());
    write("main.toml", "include = [\"none.toml\"]\n");
    assert!(error().contains("include.1: there is no file \"none.toml\""), "{}", error());
    std::fs::remove_dir_all(folder).expect("the folder is removed");
}

#[test]
fn the_examples_are_valid() {
    let path = |name: &str| format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let config = DirectorConfig::load(path("standby.toml")).expect("a valid file");
    assert!(config.has_standby() && config.sync.is_some());
    let config =
        DirectorConfig::load(path("director.toml")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.services.len(), 8);
    let error = DirectorConfig::load("no/such.toml").expect_err("the file does not exist");
    assert!(error.to_string().starts_with("cannot read no/such.toml: No such file"), "{error}");
}

/// The error about an unknown key lists the known keys: the example has each of them.
#[test]
fn the_example_has_every_key() {
    let example = include_str!("../../../examples/director.toml");
    let service = "[[service]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\n";
    let mut count = 0;
    for (table, rest) in [
        ("", "\n[[service]]\nname = \"a\"\n"),
        ("[log]\n", service),
        ("[admin]\n", service),
        (service, ""),
        ("persistence = { ", ""),
        ("slow_start = { ", ""),
        ("quorum = { ", ""),
        ("discovery = { ", ""),
        ("health = { ", ""),
        ("health.tls = { ", ""),
        ("ejection = { ", ""),
        ("ejection.failure_percentage = { ", ""),
        ("ejection.success_rate = { ", ""),
        ("ejection.latency = { ", ""),
        ("[service.tcp]\n", ""),
        ("[service.udp]\n", ""),
        ("[[service.server]]\n", ""),
        ("[vrrp]\n", ""),
        ("vrrp.notify = { ", ""),
        ("vrrp.routes = [{ ", ""),
        ("vrrp.announce = { ", ""),
        ("[[vrrp.track]]\n", ""),
        ("[sync]\n", ""),
        ("[ipvs]\n", service),
        ("ipvs.sync = { ", ""),
        ("[packet]\n", service),
    ] {
        let (unknown_key, unknown) = ("no_such_key", "no_such_key = 1");
        let text = match table {
            "" => format!("{unknown}{rest}"),
            _ if table.ends_with("[{ ") => format!("{table}{unknown} }}]"),
            _ if table.ends_with("{ ") && table.starts_with("ipvs") => {
                format!("{table}{unknown} }}\n{service}")
            }
            _ if table.ends_with("{ ") && table.starts_with("vrrp") => {
                format!("{table}{unknown} }}")
            }
            _ if table.ends_with("{ ") => format!("{service}{table}{unknown} }}"),
            _ if table.starts_with("[service") || table.starts_with("[[service.") => {
                format!("{service}{table}{unknown}")
            }
            _ => format!("{table}{unknown}\n{rest}"),
        };
        let errors = DirectorConfig::parse(&text).expect_err("an unknown key");
        // Keys that are required are missing too.
        let mut errors = errors.iter().map(ToString::to_string);
        let error = errors.find(|error| error.contains(unknown_key)).expect(table);
        assert!(error.contains("unknown field `no_such_key`, expected"), "{table}: {error}");
        for key in error.split('`').skip(1).step_by(2).skip(1) {
            assert!(
                example.contains(&format!("{key} ="))
                    || example.contains(&format!(".{key}]"))
                    || example.contains(&format!("[{key}]")),
                "{table}: {key}"
            );
            count += 1;
        }
    }
    assert!(count > 150, "{count} keys");
}
