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
    let config = Config::parse(SOUND).expect("sound");
    assert_eq!(config.services[0].servers[0].weight, 3);
    assert_eq!(config.sync.as_ref().expect("there").key()[..3], [0, 1, 2]);
    assert!(!format!("{config:?}").contains("0001"), "keys are not to be shown");
    let plan = config.services[0].plan().expect("sound");
    assert!(plan.is_some());
}

#[test]
fn what_is_wrong_is_named() {
    for (right, wrong, said) in [
        ("scheduler = \"wlc\"", "schedule = \"wlc\"", "unknown field `schedule`"),
        ("scheduler = \"wlc\"", "scheduler = \"wcl\"", "service \"web\", scheduler: "),
        ("10.88.0.100:80", "10.88.0.100", "line 4"),
        ("interval = \"1s\"", "interval = \"1\"", "as in \"500ms\""),
        ("interval = \"1s\"", "interval = 1", "invalid type: integer"),
        ("type = \"http\"", "type = \"tcp\"", "`path` is for type \"http\""),
        ("timeout = \"500ms\"", "timeout = \"2s\"", "service \"web\", health: "),
        ("weight = 3", "weight = -3", "weight"),
        ("10.88.0.100/24", "10.88.0.100/33", "the prefix has 0 to 32 bits"),
        ("[\"10.88.0.100/24\"]", "[]", "[vrrp], addresses: there is none"),
        ("0102", "01", "32 bytes"),
        ("0102", "0x", "hexadecimal"),
        ("[vrrp]", "[vrrrp]", "unknown field `vrrrp`"),
    ] {
        assert!(SOUND.contains(right));
        let error = Config::parse(&SOUND.replacen(right, wrong, 1)).expect_err(wrong);
        assert!(error.to_string().contains(said), "{wrong}: {error}");
    }
    assert!(Config::parse("").is_err());
    let alone = SOUND.split("[vrrp]").next().expect("the beginning").to_owned();
    let sync = SOUND.rsplit("[sync]").next().expect("the end");
    let error = Config::parse(&format!("{alone}[sync]{sync}")).expect_err("no standby");
    assert!(error.to_string().contains("[sync]: without [vrrp]"), "{error}");
    let open = format!("[admin]\nlisten = \"0.0.0.0:9000\"\n{alone}");
    assert!(Config::parse(&open).expect_err("open to all").to_string().contains("[admin]"));
    let twice = format!("{alone}{alone}");
    assert!(Config::parse(&twice).expect_err("twice").to_string().contains("twice"));
}

#[test]
fn the_sample_is_sound() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/standby.toml");
    let config = Config::load(path).expect("sound");
    assert!(config.vrrp.is_some() && config.sync.is_some());
    let error = Config::load("no/such.toml").expect_err("it is not there");
    assert_eq!(error.to_string(), "cannot read no/such.toml");
}
