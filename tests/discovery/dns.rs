//! Members from DNS, asked of a real name server.

use std::error::Error as _;
use std::net::SocketAddr;

use lvs::discovery::{AddressFamilies, DnsSource};

use crate::answers::{A, AAAA, Answer, Answers, CNAME, SRV, Zone};
use crate::named::Named;
use crate::world::*;

fn follow(named: &Named, source: DnsSource) -> (BackendSet<SocketAddr>, FeedHandle) {
    follow_at(named.address, source, |feed| feed)
}

fn follow_at(
    name_server: SocketAddr,
    source: DnsSource,
    build: impl FnOnce(Feed<SocketAddr, DnsSource>) -> Feed<SocketAddr, DnsSource>,
) -> (BackendSet<SocketAddr>, FeedHandle) {
    let set = BackendSet::new();
    let source = source.name_servers([name_server]);
    let feed = Feed::new(&set, source)
        .retry(Duration::from_millis(50), Duration::from_millis(200))
        .expect("in order")
        .max_staleness(Duration::from_secs(1))
        .removal(RemovalPolicy::AtOnce);
    let feed = build(feed);
    let handle = feed.handle();
    tokio::spawn(feed.run());
    (set, handle)
}

fn addresses(name: &str) -> DnsSource {
    DnsSource::addresses(name, 80).expect("a name")
}

fn last_error(status: &FeedStatus) -> String {
    status.last_error.as_ref().expect("a failure").to_string()
}

#[tokio::test]
async fn the_set_follows_the_addresses_of_a_name() {
    let records = "web A 10.0.0.2\nweb A 10.0.0.1\nweb AAAA 2001:db8::1\nalias CNAME web";
    let Some(mut named) = Named::start(records).await else { return };
    let (set, _feed) = follow(&named, addresses("web.lvs.test."));
    let (alias, _feed) = follow(&named, addresses("alias.lvs.test.").families(AddressFamilies::V6));
    becomes(&set, &["10.0.0.1:80 1", "10.0.0.2:80 1", "[2001:db8::1]:80 1"]).await;
    becomes(&alias, &["[2001:db8::1]:80 1"]).await;
    let before = serial(&set, "10.0.0.2:80");

    named.change("web A 10.0.0.2\nweb A 10.0.0.3\nweb AAAA 2001:db8::2\nalias CNAME web");
    becomes(&set, &["10.0.0.2:80 1", "10.0.0.3:80 1", "[2001:db8::2]:80 1"]).await;
    becomes(&alias, &["[2001:db8::2]:80 1"]).await;
    assert_eq!(serial(&set, "10.0.0.2:80"), before, "an address that stays keeps its counters");

    // An answer without records of one family is no failure.
    named.change("web AAAA 2001:db8::3");
    becomes(&set, &["[2001:db8::3]:80 1"]).await;
}

#[tokio::test]
async fn a_service_has_priorities_weights_and_ports() {
    let records = "a A 10.0.0.1\nb A 10.0.0.2\nb AAAA 2001:db8::2\n\
                   _web._tcp SRV 10 5 8080 a\n_web._tcp SRV 10 0 8081 b\n_web._tcp SRV 90 7 8082 a";
    let Some(mut named) = Named::start(records).await else { return };
    let (set, _feed) = follow(&named, DnsSource::srv("_web._tcp.lvs.test.").expect("a name"));
    becomes(
        &set,
        &["10.0.0.1:8080 5", "10.0.0.1:8082 7", "10.0.0.2:8081 1", "[2001:db8::2]:8081 1"],
    )
    .await;
    let tier = |name: &str| {
        let snapshot = set.snapshot();
        let found = snapshot.members().iter().find(|member| member.id().as_str() == name);
        found.expect("a member").tier()
    };
    assert_eq!((tier("10.0.0.1:8080"), tier("10.0.0.2:8081"), tier("10.0.0.1:8082")), (0, 0, 1));
    let before = serial(&set, "10.0.0.1:8082");

    // A target that does not exist has no address.
    named.change(
        "a A 10.0.0.1\n_web._tcp SRV 10 5 8080 a\n_web._tcp SRV 10 5 8080 gone\n\
         _web._tcp SRV 1 9 8082 a",
    );
    becomes(&set, &["10.0.0.1:8080 5", "10.0.0.1:8082 9"]).await;
    assert_eq!((tier("10.0.0.1:8082"), tier("10.0.0.1:8080")), (0, 1));
    assert_eq!(serial(&set, "10.0.0.1:8082"), before);
}

#[tokio::test]
async fn missing_services_and_targets_remove_no_member() {
    let records = "a A 10.0.0.1\n_web._tcp SRV 1 1 80 a";
    let Some(mut named) = Named::start(records).await else { return };
    let (set, mut feed) = follow(&named, DnsSource::srv("_web._tcp.lvs.test.").expect("a name"));
    becomes(&set, &["10.0.0.1:80 1"]).await;
    let failures = [
        (
            "_web._tcp SRV 0 0 0 .",
            "the service is not available: the only target of its SRV records is the root",
        ),
        ("_web._tcp SRV 1 1 80 gone", "no target of the SRV records has an address"),
        ("_web._tcp TXT nothing", "the name has no SRV record"),
        ("other A 10.0.0.1", "the name does not exist (NXDOMAIN)"),
    ];
    for (changed, expected) in failures {
        named.change(changed);
        let expected = format!("cannot resolve _web._tcp.lvs.test.: {expected}");
        until(&mut feed, |s| s.last_error.is_some() && last_error(s) == expected).await;
        assert_eq!(shows(&set), ["10.0.0.1:80 1"], "{changed}");
    }
    named.change(records);
    until(&mut feed, |status| status.state == FeedState::Current).await;
}

#[tokio::test]
async fn nxdomain_and_nodata_keep_the_last_good_answer() {
    let Some(mut named) = Named::start("web A 10.0.0.1").await else { return };
    let (set, mut feed) = follow(&named, addresses("web.lvs.test."));
    becomes(&set, &["10.0.0.1:80 1"]).await;
    named.change("other A 10.0.0.1");
    let status = until(&mut feed, |status| status.state == FeedState::Failing).await;
    assert_eq!(
        last_error(&status),
        "cannot resolve web.lvs.test.: the name does not exist (NXDOMAIN)"
    );
    named.change("web TXT nothing");
    let nodata = "cannot resolve web.lvs.test.: the name has no A or AAAA record";
    until(&mut feed, |status| last_error(status) == nodata).await;
    assert_eq!(shows(&set), ["10.0.0.1:80 1"]);
    named.change("web A 10.0.0.2");
    becomes(&set, &["10.0.0.2:80 1"]).await;
}

#[tokio::test]
async fn without_the_name_server_the_members_stay_and_become_stale() {
    let Some(mut named) = Named::start("web A 10.0.0.1").await else { return };
    let source = addresses("web.lvs.test.").timeout(Duration::from_millis(500));
    let (set, mut feed) = follow(&named, source);
    becomes(&set, &["10.0.0.1:80 1"]).await;
    named.stop();
    let status = until(&mut feed, |status| status.state == FeedState::Stale).await;
    assert!(
        last_error(&status).starts_with("cannot resolve web.lvs.test.: "),
        "{}",
        last_error(&status)
    );
    assert_eq!((status.members, shows(&set)), (1, vec!["10.0.0.1:80 1".to_owned()]));
    assert!(status.failing_since.is_some());
}

#[tokio::test]
async fn a_name_server_that_never_answers_fails_in_time() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let mut source = addresses("web.lvs.test.")
        .name_servers([silent.local_addr().expect("bound")])
        .timeout(Duration::from_millis(100));
    let error = source.next().await.expect("no end").map(drop).expect_err("no answer");
    assert_eq!(error.source().expect("a cause").to_string(), "no answer within 100ms");
}

#[test]
fn refresh_times_out_of_order_are_refused() {
    let source = addresses("web.lvs.test.");
    let error = source.refresh_between(Duration::from_secs(2), Duration::from_secs(1));
    let error = error.expect_err("out of order").to_string();
    assert_eq!(error, "refresh_between.max is 1s, must be at least 2s");
}

#[test]
fn invalid_names_are_refused() {
    for name in ["", "a..b", &"x".repeat(64), &"x.".repeat(200)] {
        let error = DnsSource::addresses(name, 80).map(drop).expect_err("no name");
        assert!(matches!(error, DiscoveryError::Resolve { .. }), "{name}: {error}");
        assert!(DnsSource::srv(name).is_err(), "{name}");
    }
}

/// Returns a zone with a service of these targets, of which the `silent` ones get no answer.
fn service(targets: &[u8], silent: &[u8]) -> Zone {
    let name = |n: &u8| format!("t{n}.lvs.test.");
    let records = targets.iter().map(|n| Answer::Srv(80, name(n))).collect();
    let mut zone = vec![("_web._tcp.lvs.test.".to_owned(), SRV, records)];
    for n in targets.iter().filter(|n| !silent.contains(n)) {
        zone.push((name(n), A, vec![Answer::A(*n)]));
        zone.push((name(n), AAAA, vec![Answer::NoData]));
    }
    zone
}

#[tokio::test]
async fn targets_that_do_not_answer_delay_no_other() {
    let targets: Vec<u8> = (1..=20).collect();
    let names = Answers::start(service(&targets, &[3, 4])).await;
    let source = || DnsSource::srv("_web._tcp.lvs.test.").expect("a name");
    let mut asked = source().name_servers([names.address]);
    // A whole list would need the answers of all.
    let first = asked.next().await.expect("no end").expect("an answer");
    assert!(matches!(first, MemberUpdate::Insert(_)), "{first:?}");
    let (set, feed) = follow_at(names.address, source(), |feed| feed);
    let member = |n: &u8| format!("10.0.0.{n}:80 1");
    let mut expected: Vec<String> =
        targets.iter().filter(|n| ![3, 4].contains(*n)).map(member).collect();
    expected.sort();
    becomes(&set, &expected.iter().map(|line| &**line).collect::<Vec<_>>()).await;
    assert_eq!(feed.status().failures, 0);

    // The records change while the silent targets are still looked up, and one of them answers.
    names.change(service(&[1, 3, 21], &[21]));
    becomes(&set, &["10.0.0.1:80 1", "10.0.0.3:80 1"]).await;
}

#[tokio::test]
async fn a_service_may_be_an_alias_also_of_one_whose_target_is_silent() {
    let zone: Zone = vec![
        ("alias.lvs.test.".into(), CNAME, vec![Answer::Cname("second.lvs.test.")]),
        ("second.lvs.test.".into(), CNAME, vec![Answer::Cname("_web._tcp.lvs.test.")]),
    ];
    let names = Answers::start([zone.clone(), service(&[1, 2], &[2])].concat()).await;
    let (set, _feed) =
        follow_at(names.address, DnsSource::srv("alias.lvs.test.").expect("a name"), |feed| feed);
    becomes(&set, &["10.0.0.1:80 1"]).await;

    let circle = vec![("a.lvs.test.".to_owned(), CNAME, vec![Answer::Cname("a.lvs.test.")])];
    names.change(circle);
    let mut source = DnsSource::srv("a.lvs.test.").expect("a name").name_servers([names.address]);
    assert!(source.next().await.expect("no end").is_err(), "an alias of itself leads nowhere");
}

#[tokio::test]
async fn an_empty_answer_is_accepted_where_that_is_asked_for() {
    let zone = |answer: Answer| {
        vec![
            ("web.lvs.test.".to_owned(), A, vec![answer]),
            ("web.lvs.test.".to_owned(), AAAA, vec![Answer::NoData]),
        ]
    };
    let names = Answers::start(zone(Answer::A(1))).await;
    let source = addresses("web.lvs.test.").allow_empty();
    let (set, mut feed) = follow_at(names.address, source, Feed::allow_empty);
    becomes(&set, &["10.0.0.1:80 1"]).await;
    names.change(zone(Answer::NoData));
    becomes(&set, &[]).await;
    assert_eq!(feed.status().state, FeedState::Current);
    // No answer is no empty answer.
    names.change(zone(Answer::A(2)));
    becomes(&set, &["10.0.0.2:80 1"]).await;
    names.change(Vec::new());
    until(&mut feed, |status| status.state == FeedState::Failing).await;
    assert_eq!(shows(&set), ["10.0.0.2:80 1"]);
    drop(feed);

    let no_service = |target: &str| {
        vec![
            ("_web._tcp.lvs.test.".to_owned(), SRV, vec![Answer::Srv(0, target.to_owned())]),
            ("gone.lvs.test.".to_owned(), A, vec![Answer::NxDomain]),
            ("gone.lvs.test.".to_owned(), AAAA, vec![Answer::NxDomain]),
        ]
    };
    for target in [".", "gone.lvs.test."] {
        names.change(no_service(target));
        let source = || DnsSource::srv("_web._tcp.lvs.test.").expect("a name");
        let mut strict = source().name_servers([names.address]);
        assert!(strict.next().await.expect("no end").is_err(), "{target}");
        let mut source = source().name_servers([names.address]).allow_empty();
        match source.next().await.expect("no end").expect("an answer") {
            MemberUpdate::All(members) => assert!(members.is_empty(), "{members:?}"),
            update => panic!("{update:?}"),
        }
    }
}
