//! Random tables of services, which the kernel accepts.

use lvs::ipvs::{
    IpvsDestination, IpvsFamily, IpvsForwarding, IpvsPersistence, IpvsService, IpvsServiceKey,
    IpvsTable, IpvsTunnel, IpvsTunnelChecksum,
};
use proptest::collection::btree_map;
use proptest::prelude::{Just, Strategy, any};
use proptest::sample::select;

/// The keys of random services: few, so that tables have some in common.
pub(crate) fn keys() -> Vec<IpvsServiceKey> {
    let mark = 7.try_into().expect("not 0");
    let address = |text: &str| text.parse().expect("an address");
    vec![
        IpvsServiceKey::tcp(address("10.0.0.1:80")),
        IpvsServiceKey::tcp(address("10.0.0.1:443")),
        IpvsServiceKey::udp(address("10.0.0.1:80")),
        IpvsServiceKey::tcp(address("[2001:db8::1]:80")),
        IpvsServiceKey::Mark { family: IpvsFamily::V4, mark },
        IpvsServiceKey::Mark { family: IpvsFamily::V6, mark },
    ]
}

/// Tables with services of some of [`keys`].
pub(crate) fn tables() -> impl Strategy<Value = IpvsTable> {
    btree_map(select(keys()), any::<[u8; 3]>(), 0..=6)
        .prop_flat_map(|services| {
            let rows: Vec<_> = services
                .into_iter()
                .map(|(key, choice)| {
                    (Just(service(key, choice)), btree_map(0..5u8, any::<[u8; 3]>(), 0..=5))
                })
                .collect();
            rows
        })
        .prop_map(|rows| {
            let mut table = IpvsTable::new();
            for (service, choices) in rows {
                let family = service.key.family();
                let servers =
                    choices.into_iter().map(|(number, choice)| destination(family, number, choice));
                table.insert(service, servers);
            }
            table
        })
}

fn service(key: IpvsServiceKey, [scheduler, flags, persistence]: [u8; 3]) -> IpvsService {
    let schedulers = ["rr", "wlc", "sh", "mh"];
    let mut service = IpvsService::new(key, schedulers[usize::from(scheduler % 4)]);
    service.scheduler_flags.flag1 = flags & 8 != 0;
    service.one_packet = flags & 16 != 0;
    if persistence % 3 == 0 {
        service.persistence = Some(IpvsPersistence::new(key.family(), 60 + u32::from(persistence)));
    }
    service
}

fn destination(family: IpvsFamily, number: u8, choice: [u8; 3]) -> IpvsDestination {
    let [method, weight, limit] = choice;
    let text = match family {
        IpvsFamily::V6 => format!("[2001:db8::1:{number}]:80"),
        _ => format!("10.0.1.{}:80", number + 1),
    };
    let forwarding = match method % 5 {
        0 | 1 => IpvsForwarding::Nat,
        2 => IpvsForwarding::DirectRouting,
        3 => IpvsForwarding::Tunnel(IpvsTunnel::Ipip),
        _ => IpvsForwarding::Tunnel(IpvsTunnel::Gue {
            port: 6080,
            checksum: IpvsTunnelChecksum::Present,
        }),
    };
    let mut destination = IpvsDestination::new(text.parse().expect("an address"), forwarding);
    destination.weight = u32::from(weight % 3);
    if limit % 4 == 0 {
        destination.upper_threshold = 10 + u32::from(limit);
        destination.lower_threshold = u32::from(limit % 10);
    }
    destination
}
