//! Rules that make no sense are told by name.

use lvs::health::outlier::{
    EjectionPolicy, FailurePercentageDetector, LatencyDetector, SuccessRateDetector,
};

use super::world::secs;

#[test]
fn each_parameter_out_of_range_is_named() {
    let rules = EjectionPolicy::new;
    let percentage = FailurePercentageDetector::new;
    let rate = SuccessRateDetector::new;
    let latency = LatencyDetector::new;
    let of_percentage = |it| rules().failure_percentage(Some(it));
    let of_rate = |it| rules().success_rate(Some(it));
    let of_latency = |it| rules().latency(Some(it));
    let cases = [
        ("consecutive_failures is 0,", rules().consecutive_failures(Some(0))),
        ("consecutive_connect_failures is 0,", rules().consecutive_connect_failures(Some(0))),
        ("sweep_interval is 0ns,", rules().sweep_interval(secs(0))),
        ("base_ejection_time is 0ns,", rules().base_ejection_time(secs(0))),
        ("base_ejection_time is 86401s,", rules().base_ejection_time(secs(86_401))),
        ("max_ejection_time is 29s,", rules().max_ejection_time(secs(29))),
        ("max_ejection_time is 86401s,", rules().max_ejection_time(secs(86_401))),
        ("jitter is 86401s,", rules().jitter(secs(86_401))),
        ("max_ejected_percent is 101,", rules().max_ejected_percent(101)),
        ("failure_percentage.percent is 0,", of_percentage(percentage().percent(0))),
        ("failure_percentage.percent is 101,", of_percentage(percentage().percent(101))),
        ("failure_percentage.min_hosts is 0,", of_percentage(percentage().min_hosts(0))),
        ("failure_percentage.min_requests is 0,", of_percentage(percentage().min_requests(0))),
        ("success_rate.deviations is NaN,", of_rate(rate().deviations(f64::NAN))),
        ("success_rate.deviations is 0,", of_rate(rate().deviations(0.0))),
        ("success_rate.margin is 101,", of_rate(rate().margin(101))),
        ("success_rate.min_hosts is 1,", of_rate(rate().min_hosts(1))),
        ("success_rate.min_requests is 0,", of_rate(rate().min_requests(0))),
        ("latency.factor is 0.9,", of_latency(latency(0.9))),
        ("latency.factor is inf,", of_latency(latency(f64::INFINITY))),
        ("latency.min_hosts is 1,", of_latency(latency(2.0).min_hosts(1))),
        ("latency.min_requests is 0,", of_latency(latency(2.0).min_requests(0))),
    ];
    for (start, rules) in cases {
        let said = rules.validate().expect_err(start).to_string();
        assert!(said.starts_with(start), "{said:?} does not start with {start:?}");
        assert!(said.len() < 120, "{said}");
    }
    assert_eq!(rules().validate(), Ok(()));
    assert_eq!(EjectionPolicy::default(), rules());
}
