//! Parameters out of range are refused by name.

use lvs::health::{
    EjectionPolicy, FailurePercentageDetector, LatencyDetector, SuccessRateDetector,
};

use super::test_bed::secs;

#[test]
fn each_parameter_out_of_range_is_named() {
    let policy = EjectionPolicy::builder;
    let percentage = FailurePercentageDetector::new;
    let rate = SuccessRateDetector::new;
    let latency = LatencyDetector::new;
    let with_percentage = |detector| policy().failure_percentage(Some(detector));
    let with_rate = |detector| policy().success_rate(Some(detector));
    let with_latency = |detector| policy().latency(Some(detector));
    let cases = [
        ("consecutive_failures is 0,", policy().consecutive_failures(Some(0))),
        ("consecutive_connect_failures is 0,", policy().consecutive_connect_failures(Some(0))),
        ("sweep_interval is 0ns,", policy().sweep_interval(secs(0))),
        ("base_ejection_time is 0ns,", policy().base_ejection_time(secs(0))),
        ("base_ejection_time is 86401s,", policy().base_ejection_time(secs(86_401))),
        ("max_ejection_time is 29s,", policy().max_ejection_time(secs(29))),
        ("max_ejection_time is 86401s,", policy().max_ejection_time(secs(86_401))),
        ("jitter is 86401s,", policy().jitter(secs(86_401))),
        ("max_trial_time is 0ns,", policy().max_trial_time(secs(0))),
        ("max_ejected_percent is 101,", policy().max_ejected_percent(101)),
        ("failure_percentage.percent is 0,", with_percentage(percentage().percent(0))),
        ("failure_percentage.percent is 101,", with_percentage(percentage().percent(101))),
        ("failure_percentage.min_hosts is 0,", with_percentage(percentage().min_hosts(0))),
        ("failure_percentage.min_requests is 0,", with_percentage(percentage().min_requests(0))),
        ("success_rate.deviations is NaN,", with_rate(rate().deviations(f64::NAN))),
        ("success_rate.deviations is 0.0,", with_rate(rate().deviations(0.0))),
        ("success_rate.margin is 101,", with_rate(rate().margin(101))),
        ("success_rate.min_hosts is 1,", with_rate(rate().min_hosts(1))),
        ("success_rate.min_requests is 0,", with_rate(rate().min_requests(0))),
        ("latency.factor is 0.9,", with_latency(latency(0.9))),
        ("latency.factor is inf,", with_latency(latency(f64::INFINITY))),
        ("latency.min_hosts is 1,", with_latency(latency(2.0).min_hosts(1))),
        ("latency.min_requests is 0,", with_latency(latency(2.0).min_requests(0))),
    ];
    for (start, policy) in cases {
        let error = policy.build().expect_err(start).to_string();
        assert!(error.starts_with(start), "{error:?} does not start with {start:?}");
        assert!(error.len() < 120, "{error}");
    }
    assert_eq!(policy().build(), Ok(EjectionPolicy::new()));
    assert_eq!(EjectionPolicy::default(), EjectionPolicy::new());
}

#[test]
fn getters_return_what_the_setters_set() {
    let policy = EjectionPolicy::builder()
        .consecutive_failures(Some(7))
        .consecutive_connect_failures(None)
        .failure_percentage(None)
        .success_rate(Some(SuccessRateDetector::new().margin(9)))
        .latency(Some(LatencyDetector::new(3.0)))
        .sweep_interval(secs(1))
        .base_ejection_time(secs(2))
        .max_ejection_time(secs(3))
        .jitter(secs(4))
        .max_ejected_percent(5)
        .check_ends_ejection(true)
        .ramp(None)
        .max_trial_time(secs(6))
        .build()
        .expect("the policy is valid");
    assert_eq!(policy.consecutive_failures(), Some(7));
    assert_eq!(policy.consecutive_connect_failures(), None);
    assert_eq!(policy.failure_percentage(), None);
    assert_eq!(policy.success_rate(), Some(SuccessRateDetector::new().margin(9)));
    assert_eq!(policy.latency(), Some(LatencyDetector::new(3.0)));
    assert_eq!((policy.sweep_interval(), policy.base_ejection_time()), (secs(1), secs(2)));
    assert_eq!((policy.max_ejection_time(), policy.jitter()), (secs(3), secs(4)));
    assert_eq!(policy.max_ejected_percent(), 5);
    assert!(policy.check_ends_ejection() && policy.has_sweep_detectors());
    assert_eq!((policy.ramp(), policy.max_trial_time()), (None, secs(6)));
}
