//! Settings out of range are refused by name.

use std::time::Duration;

use lvs::scheduler::RoundRobin;
use lvs::tower::{Balance, Hedge, ReadyFirst, ReconnectConfig, Retry};
use lvs::{BackendSet, Balancer, SettingError};

#[test]
fn each_setting_out_of_range_is_named() {
    let balancer =
        || Balancer::new(&BackendSet::<()>::new(), RoundRobin::new()).expect("an empty set");
    let balance = || Balance::new(balancer());
    let hedge = || Hedge::new(|request: &u32| Some(*request));
    let ms = Duration::from_millis;
    let cases: [(&str, Option<SettingError>); 11] = [
        ("candidates is 0, must be at least 1", balance().candidates(0).err()),
        ("max_in_flight is 0, must be at least 1", balance().max_in_flight(0).err()),
        ("candidates is 0, must be at least 1", ReadyFirst::new(balancer()).candidates(0).err()),
        ("timeout is 0ns, must be at least 1ns", balance().timeout(ms(0)).err()),
        ("timeout is 0ns, must be at least 1ns", ReadyFirst::new(balancer()).timeout(ms(0)).err()),
        ("quantile is 0.4, must be from 0.5 to 0.9999", hedge().quantile(0.4).err()),
        ("quantile is 1.0, must be from 0.5 to 0.9999", hedge().quantile(1.0).err()),
        ("quantile is NaN, must be from 0.5 to 0.9999", hedge().quantile(f64::NAN).err()),
        ("window is 19ms, must be at least 20ms", hedge().window(ms(19)).err()),
        (
            "attempts is 0, must be at least 1",
            Retry::new(|request: &u32| Some(*request)).attempts(0).err(),
        ),
        (
            "backoff.longest is 1ms, must be at least 2ms",
            ReconnectConfig::new().backoff(ms(2), ms(1)).err(),
        ),
    ];
    for (expected, error) in cases {
        assert_eq!(error.expect(expected).to_string(), expected);
    }
    assert!(balance().max_in_flight(usize::MAX).is_ok(), "more than tokio's semaphore has");
    assert!(hedge().quantile(0.5).and_then(|hedge| hedge.window(ms(20))).is_ok());
}
