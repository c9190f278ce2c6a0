//! A director that announces, in a network namespace of the test; they need root.

use std::process::Command;

use super::*;
use crate::announce::AnnouncementState;
use crate::backend::BackendAdminState;
use crate::director::config::DirectorConfig;
use crate::director::handle::Director;
use crate::director::overrides::ServerChange;
use crate::director::testing::{run_in_namespace, until};

const LOOPBACK_UP: [&str; 1] = ["link set lo up"];
const ADDRESS: &str = "203.0.113.10";
const OTHER: &str = "203.0.113.11";

/// Returns a configuration of these addresses, and a service at each.
fn config(addresses: &[&str]) -> DirectorConfig {
    let services = addresses.iter().enumerate().map(|(n, address)| {
        format!(
            "[[service]]\nname = \"s{n}\"\nlisten = \"{address}:80\"\n\
             [[service.server]]\naddress = \"127.0.0.1:9\"\n"
        )
    });
    let services: String = services.collect();
    let text = format!(
        "drain_timeout = \"0s\"\n[announce]\naddresses = {addresses:?}\nwithdraw_delay = \"0s\"\n\
         recovery_delay = \"0s\"\n{services}"
    );
    DirectorConfig::parse(&text).expect("sound")
}

fn states(director: &Director) -> Vec<(String, AnnouncementState)> {
    let status = director.status().announce;
    let addresses = status.into_iter().flat_map(|status| status.addresses);
    addresses.map(|address| (address.address.to_string(), address.state)).collect()
}

#[test]
fn a_reload_changes_the_addresses_and_ends_the_announcements() {
    run_in_namespace(&LOOPBACK_UP, async || {
        let announced = |address: &str| (address.to_owned(), AnnouncementState::Announced);
        let director = Director::start(config(&[ADDRESS])).await.expect("it starts");
        until("it is announced", || states(&director) == [announced(ADDRESS)]).await;
        let both = [announced(ADDRESS), announced(OTHER)];
        director.reload(config(&[ADDRESS, OTHER])).await.expect("it reloads");
        until("both are announced", || states(&director) == both).await;
        // At once: the announcer forgets the address, as `drain_timeout` is 0.
        director.reload(config(&[ADDRESS])).await.expect("it reloads");
        let mut attempts = 0;
        while let Err(error) = director.reload(config(&[ADDRESS, OTHER])).await {
            // The listener of the service that was removed.
            assert!(error.to_string().contains("in use") && attempts < 1000, "{error}");
            attempts += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        until("both are announced again", || states(&director) == both).await;
        let without = DirectorConfig::parse(
            "[[service]]\nname = \"s0\"\nlisten = \"127.0.0.1:80\"\n\
             [[service.server]]\naddress = \"127.0.0.1:9\"\n",
        );
        director.reload(without.expect("sound")).await.expect("it reloads");
        assert!(director.status().announce.is_none());
        let error = director.set_announce_mode(AnnounceMode::Drain).expect_err("there are none");
        assert!(matches!(error, DirectorError::NoAnnouncements), "{error}");
        until("the interface is gone", || {
            let links = Command::new("ip").args(["-br", "link"]).output().expect("`ip`");
            !String::from_utf8_lossy(&links.stdout).contains("lvs-announce")
        })
        .await;
        director.stop(Duration::ZERO).await;
    });
}

#[test]
fn announcements_whose_thread_panics_are_counted_and_start_again_with_their_mode() {
    run_in_namespace(&LOOPBACK_UP, async || {
        let director = Director::start(config(&[ADDRESS])).await.expect("it starts");
        director.set_announce_mode(AnnounceMode::Drain).expect("there are some");
        let draining = [(ADDRESS.to_owned(), AnnouncementState::Draining)];
        until("it drains", || states(&director) == draining).await;
        let restarts = || director.status().task_restarts[ANNOUNCE_TASK];
        assert_eq!(restarts(), 0, "shown before the first panic");
        director.panic_announcements();
        until("the restart", || restarts() == 1).await;
        until("it drains again", || states(&director) == draining).await;
        director.stop(Duration::ZERO).await;
    });
}

#[test]
fn services_without_a_listener_count_where_clients_are_led_to_them() {
    let text = format!(
        "drain_timeout = \"0s\"\n[announce]\naddresses = [\"{ADDRESS}\"]\nwithdraw_delay = \"0s\"\n\
         [[service]]\nname = \"tls\"\nlisten = \"{ADDRESS}:443\"\n\
         tcp.server_names = {{ \"shop.example\" = \"shop\" }}\n\
         [[service]]\nname = \"shop\"\n[[service.server]]\naddress = \"127.0.0.1:9\"\n"
    );
    run_in_namespace(&LOOPBACK_UP, async || {
        let config = DirectorConfig::parse(&text).expect("sound");
        let director = Director::start(config).await.expect("it starts");
        let state = |state| vec![(ADDRESS.to_owned(), state)];
        until("it is announced", || states(&director) == state(AnnouncementState::Announced)).await;
        let down = ServerChange::new().with_state(BackendAdminState::Disabled);
        director.change_server("shop", "127.0.0.1:9", down).expect("a server");
        until("a last resort", || states(&director) == state(AnnouncementState::LastResort)).await;
        director.stop(Duration::ZERO).await;
    });
}

#[test]
fn a_stop_that_is_cancelled_while_it_serves_on_ends_at_once() {
    run_in_namespace(&LOOPBACK_UP, async || {
        let text = format!(
            "[announce]\naddresses = [\"{ADDRESS}\"]\nwithdraw_delay = \"1h\"\n\
             [[service]]\nname = \"s0\"\nlisten = \"{ADDRESS}:80\"\n\
             [[service.server]]\naddress = \"127.0.0.1:9\"\n"
        );
        let director = Director::start(DirectorConfig::parse(&text).expect("sound")).await;
        let director = director.expect("it starts");
        let announced = [(ADDRESS.to_owned(), AnnouncementState::Announced)];
        until("it is announced", || states(&director) == announced).await;
        let stop = director.stop(Duration::from_secs(3600));
        let waited = tokio::time::timeout(Duration::from_millis(300), stop).await;
        assert!(waited.is_err(), "it serves on");
        let ended = tokio::time::timeout(Duration::from_secs(20), director.wait_ended()).await;
        assert!(ended.is_ok(), "the director ends");
        assert!(director.status().announce.is_none());
    });
}
