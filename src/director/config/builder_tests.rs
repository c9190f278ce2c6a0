//! A builder and a TOML text of the same values make equal configurations, and refuse the same values
//! in the same words.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::*;
use crate::backend::FailMode;
use crate::balancer::AffinityPolicy;
use crate::forward::Coalesce;
use crate::forward::proxy_protocol::ProxyProtocolVersion;

const SECOND: Duration = Duration::from_secs(1);

fn address(last: u8, port: u16) -> SocketAddr {
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), port).into()
}

fn web() -> ServiceConfigBuilder {
    ServiceConfig::tcp("web").listen(address(1, 80))
}

#[test]
fn each_kind_of_value_is_that_of_toml() {
    let text = r#"
        workers = 2
        drain_timeout = "1s"
        handover = "/run/handover.sock"
        log = { connections = true }
        admin = { listen = "0.0.0.0:9000", token = "sixteen letters.", max_connections = 3 }

        [[service]]
        name = "web"
        listen = ["10.0.0.1:80", "unix:/run/web.sock"]
        scheduler = "rr"
        workers = 1
        persistence = { timeout = "5s", netmask = 24, draining = "expire" }
        slow_start = { window = "1s", aggression = 2.0 }
        fail_mode = 50
        quorum = { weight = 2, advisory = true }
        sorry_server = "10.0.0.9:80"
        ejection = { success_rate = { margin = 3 }, latency = { factor = 3.0, min_hosts = 4 } }

        [[service.health]]
        type = "http"
        path = "/up"
        interval = "1s"
        headers = { host = "web" }
        status = "200-299, 404"
        tls = { trust = "any" }
        [[service.health]]
        type = "udp"
        send_bytes = "0001"
        expect_bytes = "0x"
        reply_lengths = [1, 9]
        [[service.health]]
        type = "command"
        command = "/bin/true"
        arguments = ["a", "b"]

        [service.tcp]
        idle_timeout = "never"
        total_timeout = "1s"
        queue = { capacity = 5, timeout = "1s" }
        source = "client"
        send_proxy = "v2"
        server_names = { "*" = "web" }

        [[service.server]]
        address = "10.0.0.2:80"
        weight = 3

        [[service]]
        name = "dns"
        protocol = "udp"
        listen = "10.0.0.1:53"
        udp = { one_packet = true, coalesce = "never" }
        discovery = { dns = "example.org", port = 53, name_servers = ["10.0.0.3:53"] }

        [vrrp]
        interface = "eth0"
        virtual_router_id = 51
        preempt = false
        addresses = ["10.0.0.1/24"]
        routes = [{ to = "10.9.0.0/16", via = "10.0.0.4" }]
        announce = { repeats = 1, interval = "1s" }
        notify = ["/bin/true", "x"]
        auth_key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        [[vrrp.track]]
        name = "uplink"
        weight = -10
        interface = "eth1"

        [sync]
        listen = "10.0.0.1:8849"
        peer = "10.0.0.2:8849"
        key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "#;
    let key: [u8; 32] = std::array::from_fn(|n| n as u8);
    let http = CheckConfig::http("/up")
        .interval(SECOND)
        .headers([("host", "web")])
        .status([200..=299, 404..=404])
        .tls(CheckTlsConfig::builder().trust(TlsTrustConfig::Any));
    let pattern = "0x".parse().expect("a pattern");
    let udp = CheckConfig::udp().send_bytes([0, 1]).expect_bytes(pattern).reply_lengths(1..=9);
    let ejection = EjectionConfig::builder()
        .success_rate(SuccessRateConfig::builder().margin(3))
        .latency(LatencyFactorConfig::builder(3.0).min_hosts(4));
    let tcp = TcpConfig::builder()
        .idle_timeout(None)
        .total_timeout(SECOND)
        .queue(TcpQueueConfig::builder(5, SECOND))
        .source(SourceAddressConfig::CLIENT)
        .send_proxy(ProxyProtocolVersion::V2)
        .server_names([("*", "web")]);
    let web = web()
        .listen(ListenAddress::Unix("/run/web.sock".into()))
        .scheduler("rr")
        .workers(1)
        .persistence(
            PersistenceConfig::builder(5 * SECOND).netmask(24).draining(AffinityPolicy::Expire),
        )
        .slow_start(SlowStartConfig::builder(SECOND).aggression(2.0))
        .fail_mode(FailMode::PanicBelow(50))
        .quorum(QuorumConfig::builder(2).advisory(true))
        .sorry_server(address(9, 80))
        .ejection(ejection)
        .health(http)
        .health(udp)
        .health(CheckConfig::command("/bin/true").arguments(["a", "b"]))
        .tcp(tcp)
        .server(RealServer::builder(address(2, 80)).weight(3));
    let names = DiscoveryConfig::builder().dns("example.org").port(53);
    let dns = ServiceConfig::udp("dns")
        .listen(address(1, 53))
        .udp(UdpConfig::builder().one_packet(true).coalesce(Coalesce::Never))
        .discovery(names.name_servers([address(3, 53)]));
    let destination = "10.9.0.0/16".parse().expect("an address");
    let router = VrrpConfig::builder("eth0", 51)
        .preempt(false)
        .addresses(["10.0.0.1/24".parse().expect("an address")])
        .routes([VirtualRouteConfig::builder(destination).via(address(4, 0).ip())])
        .announce(AddressAnnounceConfig::builder(1, SECOND))
        .notify(["/bin/true", "x"])
        .auth_key(key)
        .track(TrackConfig::builder("uplink").weight(-10).interface("eth1"));
    let built = DirectorConfig::builder()
        .workers(2)
        .drain_timeout(SECOND)
        .handover("/run/handover.sock")
        .log(LogConfig::builder().connections(true))
        .admin(
            AdminConfig::builder(SocketAddr::from(([0, 0, 0, 0], 9000)))
                .token("sixteen letters.")
                .max_connections(3),
        )
        .service(web)
        .service(dns)
        .vrrp(router)
        .sync(SyncConfig::builder(address(1, 8849), address(2, 8849), key))
        .build();
    let parsed = DirectorConfig::parse(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(built.unwrap_or_else(|error| panic!("{error}")), parsed);
}

#[test]
fn errors_name_the_key_and_have_the_words_of_toml() {
    let server = || RealServer::builder(address(2, 80));
    let service = |service: ServiceConfigBuilder| DirectorConfig::builder().service(service);
    let router = || VrrpConfig::builder("eth0", 51);
    for (builder, expected) in [
        (
            DirectorConfig::builder(),
            "there is neither a [[service]] nor a [[vrrp]]: at least one is required",
        ),
        (DirectorConfig::builder().workers(0).service(web()), "workers: workers is 0, must be"),
        (
            service(web().server(server().weight(70_000))),
            "service.web.server.10.0.0.2:80.weight: weight is 70000, must be from 0 to 65535",
        ),
        (
            service(web().server(server()).server(server().name("two"))),
            "service.web.server.two.address: another server of the service has 10.0.0.2:80",
        ),
        (service(web().scheduler("wcl")), "service.web.scheduler: no scheduler is named wcl"),
        (
            service(web().fail_mode(FailMode::PanicBelow(0))),
            "service.web.fail_mode: fail_mode is 0, must be from 1 to 100",
        ),
        (
            service(web().health(CheckConfig::tcp().path("/"))),
            "service.web.health.path: checks of type \"tcp\" do not use `path`",
        ),
        (
            service(web().health(CheckConfig::tcp()).health(CheckConfig::http("/").rise(0))),
            "service.web.health.2: http check: rise is 0",
        ),
        (
            service(web().health(CheckConfig::http("/").status(RangeInclusive::new(300, 200)))),
            "service.web.health.status: 300..=200 is a range without any code",
        ),
        (
            service(web().tcp(TcpConfig::builder().accept_burst(3))),
            "service.web.tcp.accept_burst: `accept_burst` requires `accept_rate`",
        ),
        (
            service(ServiceConfig::udp("dns").listen(address(1, 53)).on_end(|_| {})),
            "service.dns.on_end: a UDP service has no records of connections",
        ),
        (service(web()).service(web()), "service.web.name: there is another service \"web\""),
        (service(web()).vrrp(router()), "vrrp.addresses: at least one address is required"),
        (
            service(web()).vrrp(router().name("a")).vrrp(router().name("b")),
            "vrrp.a.addresses: at least one",
        ),
        (service(web()).include(["no/such.toml"]), "include.1: there is no file \"no/such.toml\""),
    ] {
        let error = builder.build().expect_err(expected).to_string();
        assert!(error.starts_with(expected), "{expected}\n{error}");
    }
}

#[test]
fn what_a_program_made_is_equal_to_its_clones() {
    let scheduler = SchedulerConfig::custom(crate::scheduler::RoundRobin::new());
    let check = CheckConfig::custom(crate::health::TcpCheck::new()).interval(SECOND);
    let logged = web().on_end(|_| {}).scheduler(scheduler.clone()).health(check.clone());
    let build = |service: &ServiceConfigBuilder| {
        DirectorConfig::builder().service(service.clone()).build().expect("valid")
    };
    assert_eq!(build(&logged), build(&logged));
    assert_ne!(build(&logged), build(&logged.clone().on_end(|_| {})));
    let other = SchedulerConfig::custom(crate::scheduler::RoundRobin::new());
    assert_ne!(build(&logged), build(&logged.clone().scheduler(other)));
    let slower: CheckConfig = check.clone().rise(5).into();
    let other = CheckConfig::custom(crate::health::TcpCheck::new()).interval(SECOND);
    assert_ne!(CheckConfig::from(check.clone()), slower);
    assert_ne!(CheckConfig::from(check), CheckConfig::from(other));
    let error = CheckConfig::custom(crate::health::TcpCheck::new()).path("/");
    let error = DirectorConfig::builder().service(web().health(error)).build();
    let error = error.expect_err("another type's key").to_string();
    assert!(error.contains("checks of type \"custom\" do not use `path`"), "{error}");
}
