//! What the kernel refuses, and what the error says of it.

use lvs::ipvs::{
    IpvsClient, IpvsDaemon, IpvsDaemonState, IpvsDestination, IpvsForwarding, IpvsService,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::{client, run, tcp};
use crate::guest;

#[test]
#[ignore = "runs in a kernel of its own"]
fn errors_name_the_object_and_the_remedy() {
    if !guest::enter() {
        return;
    }
    let mut ipvs = client();
    let key = tcp("10.0.0.1:80");
    let service = IpvsService::new(key, "rr");
    ipvs.add_service(&service).unwrap();
    let mut server = IpvsDestination::new("10.0.1.1:80".parse().unwrap(), IpvsForwarding::Nat);
    ipvs.add_destination(&key, &server).unwrap();
    let mut texts = Vec::new();
    let mut refuse = |result: Result<(), lvs::ipvs::IpvsError>| {
        texts.push(result.expect_err(&format!("number {}", texts.len())).to_string());
    };
    refuse(ipvs.add_service(&service));
    refuse(ipvs.add_service(&IpvsService::new(tcp("10.0.0.1:81"), "nonesuch")));
    refuse(ipvs.edit_service(&IpvsService::new(tcp("10.0.0.1:82"), "rr")));
    refuse(ipvs.add_destination(&key, &server));
    refuse(ipvs.add_destination(&tcp("10.0.0.1:83"), &server));
    server.lower_threshold = 9;
    refuse(ipvs.edit_destination(&key, &server));
    server.address = "10.0.1.2:80".parse().unwrap();
    server.lower_threshold = 0;
    refuse(ipvs.edit_destination(&key, &server));
    refuse(ipvs.stop_daemon(IpvsDaemonState::Backup));
    refuse(ipvs.start_daemon(&IpvsDaemon::new(IpvsDaemonState::Master, "none7", 0)));
    let expected = [
        "add service TCP 10.0.0.1:80: File exists (os error 17): it is there already",
        "add service TCP 10.0.0.1:81: No such file or directory (os error 2): load the scheduler's \
         module (modprobe ip_vs_nonesuch)",
        "edit service TCP 10.0.0.1:82: No such process (os error 3): there is no such service",
        "add destination 10.0.1.1:80 to service TCP 10.0.0.1:80: File exists (os error 17): it is there \
         already",
        "add destination 10.0.1.1:80 to service TCP 10.0.0.1:83: No such process (os error 3): there \
         is no such service",
        "edit destination 10.0.1.1:80 of service TCP 10.0.0.1:80: Numerical result out of range \
         (os error 34): the weight is at most 2147483647, the lower threshold at most the upper one",
        "edit destination 10.0.1.2:80 of service TCP 10.0.0.1:80: No such file or directory \
         (os error 2): the service has no such destination",
        "stop backup sync daemon: No such process (os error 3): it does not run",
        "start master sync daemon on none7: No such device (os error 19): there is no such interface",
    ];
    assert_eq!(texts, expected);
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn without_the_loopback_interface_the_error_says_to_set_it_up() {
    if !guest::enter() {
        return;
    }
    // A namespace whose `lo` was never up has no local routes.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let mut ipvs = client();
    let key = tcp("10.0.0.1:80");
    ipvs.add_service(&IpvsService::new(key, "rr")).unwrap();
    let server = IpvsDestination::new("10.0.1.1:80".parse().unwrap(), IpvsForwarding::Nat);
    let text = ipvs.add_destination(&key, &server).unwrap_err().to_string();
    assert!(text.contains("the interface lo must be up in this network namespace"), "{text}");
    run("ip", "link set lo up");
    ipvs.add_destination(&key, &server).unwrap();
}

#[test]
#[ignore = "runs in a kernel of its own"]
fn without_the_privilege_the_error_names_it() {
    if !guest::enter() {
        return;
    }
    let whole = capabilities(None).unwrap();
    let mut fewer = whole;
    fewer.effective.remove(CapabilitySet::NET_ADMIN);
    set_capabilities(None, fewer).unwrap();
    let texts = [
        IpvsClient::open().unwrap().services().map(drop),
        IpvsClient::open().unwrap().add_service(&IpvsService::new(tcp("10.0.0.1:80"), "rr")),
    ]
    .map(|result| result.unwrap_err().to_string());
    set_capabilities(None, whole).unwrap();
    let expected = [
        "list services: Operation not permitted (os error 1): the process needs CAP_NET_ADMIN",
        "add service TCP 10.0.0.1:80: Operation not permitted (os error 1): the process needs \
         CAP_NET_ADMIN",
    ];
    assert_eq!(texts, expected);
}
