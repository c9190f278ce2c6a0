//! A name server of a few lines: it answers as it is told, and not at all for the names that it is told
//! nothing of.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// A record, or the lack of one.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    A(u8),
    Cname(&'static str),
    /// A port and a target.
    Srv(u16, String),
    /// The name exists without records of the type.
    NoData,
    NxDomain,
}

/// Name, type and answers; a name that is missing gets no answer.
pub(crate) type Zone = Vec<(String, u16, Vec<Answer>)>;

pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const AAAA: u16 = 28;
pub(crate) const SRV: u16 = 33;

pub(crate) struct Answers {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    task: JoinHandle<()>,
}

impl Answers {
    pub(crate) async fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        let address = socket.local_addr().expect("bound");
        let zone = Arc::new(Mutex::new(zone));
        let shared = Arc::clone(&zone);
        let task = tokio::spawn(async move {
            let mut query = [0; 512];
            loop {
                let (len, client) = socket.recv_from(&mut query).await.expect("a query");
                let answer = answer(&shared.lock().expect("no panic"), &query[..len]);
                if let Some(answer) = answer {
                    socket.send_to(&answer, client).await.expect("sent");
                }
            }
        });
        Self { address, zone, task }
    }

    pub(crate) fn change(&self, zone: Zone) {
        *self.zone.lock().expect("no panic") = zone;
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(zone: &Zone, query: &[u8]) -> Option<Vec<u8>> {
    const HEADER_LEN: usize = 12;
    let (mut at, mut name) = (HEADER_LEN, String::new());
    while query[at] != 0 {
        let label = &query[at + 1..at + 1 + usize::from(query[at])];
        name += &format!("{}.", String::from_utf8_lossy(label).to_lowercase());
        at += label.len() + 1;
    }
    let asked = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let question = &query[HEADER_LEN..at + 5];
    let told: Vec<_> = zone.iter().filter(|(known, ..)| *known == name).collect();
    let answers = match told.iter().find(|(_, kind, _)| *kind == asked) {
        Some((.., answers)) => answers.clone(),
        // An alias answers for every type.
        None => match told.iter().find(|(_, kind, _)| *kind == CNAME) {
            Some((.., answers)) => answers.clone(),
            None if told.is_empty() => return None,
            None => vec![Answer::NoData],
        },
    };
    let is_nx = answers.iter().any(|answer| matches!(answer, Answer::NxDomain));
    let records: Vec<_> = answers.iter().filter_map(record).collect();
    let mut out = query[..2].to_vec();
    out.extend([0x84, if is_nx { 3 } else { 0 }, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    out.extend(question);
    for (kind, data) in records {
        // The name of the question, class IN, TTL 1.
        out.extend([0xc0, 12, 0, kind as u8, 0, 1, 0, 0, 0, 1]);
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

fn record(answer: &Answer) -> Option<(u16, Vec<u8>)> {
    match answer {
        Answer::A(last) => Some((A, Ipv4Addr::new(10, 0, 0, *last).octets().to_vec())),
        Answer::Cname(name) => Some((CNAME, encode_name(name))),
        Answer::Srv(port, target) => {
            let [high, low] = port.to_be_bytes();
            Some((SRV, [&[0, 1, 0, 1, high, low], &*encode_name(target)].concat()))
        }
        Answer::NoData | Answer::NxDomain => None,
    }
}

fn encode_name(name: &str) -> Vec<u8> {
    let labels = name.trim_end_matches('.').split('.').filter(|label| !label.is_empty());
    let mut out: Vec<u8> =
        labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    out.push(0);
    out
}
