//! A kernel that has not loaded IPVS.

use lvs::ipvs::IpvsClient;

use crate::guest;

#[test]
#[ignore = "runs in a kernel of its own"]
fn the_error_says_what_to_load() {
    if !guest::enter() {
        return;
    }
    let error = IpvsClient::open().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kernel has no IPVS in this network namespace: load the module ip_vs (modprobe ip_vs)"
    );
}
