use super::*;

const SOUND: &str = r#"
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
fn a_sound_configuration_is_read() {
    let config = DirectorConfig::parse(SOUND).expect("sound");
    assert_eq!(config.services[0].servers[0].weight, 3);
    assert_eq!(config.sync.as_ref().expect("there").key()[..3], [0, 1, 2]);
    assert!(!format!("{config:?}").contains("0001"), "keys are not to be shown");
    assert!(config.services[0].health_plan().is_ok());
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (right, wrong, said) in [
        (
            "scheduler = \"wlc\"",
            "schedular = \"wlc\"",
            "configuration:5:5: service.web.schedular: unknown field `schedular`",
        ),
        ("scheduler = \"wlc\"", "schedular = \"wlc\"", "; did you mean `scheduler`?"),
        (
            "scheduler = \"wlc\"",
            "scheduler = \"wcl\"",
            "configuration:5:17: service.web.scheduler: no scheduler is named wcl, did you mean",
        ),
        ("10.88.0.100:80", "10.88.0.100", "configuration:4:14: service.web.listen: "),
        ("interval = \"1s\"", "interval = \"1\"", "as in \"500ms\""),
        (
            "interval = \"1s\"",
            "interval = 1",
            "configuration:7:54: service.web.health.interval: invalid type: integer `1`",
        ),
        (
            "type = \"http\"",
            "type = \"tcp\"",
            "configuration:7:37: service.web.health.path: checks of type tcp have none",
        ),
        ("timeout = \"500ms\"", "timeout = \"2s\"", "service.web.health: "),
        ("weight = 3", "weight = -3", "service.web.server.127.0.0.1:9001.weight: "),
        ("10.88.0.100/24", "10.88.0.100/33", "vrrp.addresses.1: \"10.88.0.100/33\" is not an address"),
        ("[\"10.88.0.100/24\"]", "[]", "vrrp.addresses: there is none"),
        ("\"100ms\"", "\"5ms\"", "vrrp.advert_interval: advertisement interval 5ms is not valid in version 3"),
        ("router_id = 51", "router_id = 0", "vrrp.virtual_router_id: virtual router number 0"),
        ("0102", "01", "sync.key: a key of 32 bytes"),
        ("0102", "0x", "sync.key: a key is written in hexadecimal"),
        ("[vrrp]", "[vrrrp]", "vrrrp: unknown field `vrrrp`"),
        ("[vrrp]", "[vrrrp]", "; did you mean `vrrp`?"),
        ("weight = 3", "weight =", "configuration:12:13: "),
    ] {
        assert!(SOUND.contains(right));
        let error = DirectorConfig::parse(&SOUND.replacen(right, wrong, 1)).expect_err(wrong);
        assert!(error.to_string().contains(said), "{wrong}:\n{said}\n{error}");
    }
}

#[test]
fn parts_that_do_not_fit_together_are_named() {
    let alone = SOUND.split("[vrrp]").next().expect("the beginning").to_owned();
    let sync = SOUND.rsplit("[sync]").next().expect("the end");
    let said = |text: &str| DirectorConfig::parse(text).expect_err("unsound").to_string();
    assert!(said("").contains("there is no [[service]]"));
    let error = said(&format!("{alone}[sync]{sync}"));
    assert!(error.contains("sync: without [vrrp] there is no standby"), "{error}");
    let error = said(&format!("[admin]\nlisten = \"0.0.0.0:9000\"\n{alone}"));
    assert!(error.starts_with("configuration:2:10: admin.listen: 0.0.0.0:9000 is not"), "{error}");
    let error = said(&format!("{alone}{alone}"));
    assert!(error.contains("service.web.name: there is a service \"web\" already"), "{error}");
    let error = said(&format!("{alone}{}", alone.replace("web", "mail")));
    assert!(error.contains("service.mail.listen: service \"web\" listens on"), "{error}");
    let server = "[[service.server]]\naddress = \"127.0.0.1:9001\"\n";
    let error = said(&format!("{alone}{server}"));
    assert!(error.contains("127.0.0.1:9001.address: 127.0.0.1:9001 is there twice"), "{error}");
    let error = said("include = [\"more.toml\"]");
    assert!(error.contains("configuration:1:"), "{error}");
}

#[test]
fn files_include_others() {
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
    let config = DirectorConfig::load(&main).expect("sound");
    let names: Vec<_> = config.services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((&*config.services[0].scheduler, config.workers.map(usize::from)), ("rr", Some(2)));

    let said = || DirectorConfig::load(&main).expect_err("unsound").to_string();
    write("services/b.toml", &service("a", 2));
    assert!(
        said().contains("services/b.toml:2:8: service.a.name: there is a service"),
        "{}",
        said()
    );
    write("services/b.toml", &format!("workers = 3\n{}", service("b", 2)));
    assert!(said().contains("services/b.toml:1:11: workers: another file has"), "{}", said());
    write("services/b.toml", "include = [\"x.toml\"]\n");
    assert!(said().contains("only the first file includes others"), "{}", said());
    write("services/b.toml", &service("${LVS_NO_SUCH}", 2));
    assert!(said().contains("services/b.toml:2:8: environment variable"), "{}", said());
    write("main.toml", "include = [\"none.toml\"]\n");
    assert!(said().contains("include.1: there is no file \"none.toml\""), "{}", said());
    std::fs::remove_dir_all(folder).expect("it is there");
}

#[test]
fn the_samples_are_sound() {
    let path = |name: &str| format!("{}/examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let config = DirectorConfig::load(path("standby.toml")).expect("sound");
    assert!(config.has_standby() && config.sync.is_some());
    let config =
        DirectorConfig::load(path("director.toml")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.services.len(), 6);
    let error = DirectorConfig::load("no/such.toml").expect_err("it is not there");
    assert_eq!(error.to_string(), "cannot read no/such.toml");
}

/// Each key that can be said is said in the sample: an unknown one is answered by those that are.
#[test]
fn the_sample_says_everything() {
    let sample = include_str!("../../../examples/director.toml");
    let service = "[[service]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\n";
    let mut said = 0;
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
        ("vrrp.routes = [{ ", ""),
        ("vrrp.announce = { ", ""),
        ("[[vrrp.track]]\n", ""),
        ("[sync]\n", ""),
    ] {
        let unknown = "no_such_key = 1";
        let text = match table {
            "" => format!("{unknown}{rest}"),
            _ if table.ends_with("[{ ") => format!("{table}{unknown} }}]"),
            _ if table.ends_with("{ ") && table.starts_with("vrrp") => {
                format!("{table}{unknown} }}")
            }
            _ if table.ends_with("{ ") => format!("{service}{table}{unknown} }}"),
            _ if table.starts_with("[service") || table.starts_with("[[service.") => {
                format!("{service}{table}{unknown}")
            }
            _ => format!("{table}{unknown}\n{rest}"),
        };
        let error = DirectorConfig::parse(&text).expect_err("unknown").to_string();
        assert!(error.contains("unknown field `no_such_key`, expected"), "{table}: {error}");
        for key in error.split('`').skip(1).step_by(2).skip(1) {
            assert!(
                sample.contains(&format!("{key} ="))
                    || sample.contains(&format!(".{key}]"))
                    || sample.contains(&format!("[{key}]")),
                "{table}: {key}"
            );
            said += 1;
        }
    }
    assert!(said > 150, "{said} keys");
}
