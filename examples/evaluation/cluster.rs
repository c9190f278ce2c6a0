//! Real servers on this machine, a balancer before them, and clients.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::balancer::{Balancer, Real, Wanted, Whose};
use crate::clock;
use crate::measure::{Busiest, Cpu, Seen, Step, read};
use crate::plan::{PATIENCE, WORK};
use crate::process::{Error, Place, Process, free, idle, pause, processors, until};
use crate::theory::Queue;

/// Real servers, and what balances over them.
pub(crate) struct Cluster {
    servers: Vec<Process>,
    balancer: Option<Balancer>,
    to: SocketAddr,
    folder: PathBuf,
}

/// A real server; without a queue it answers at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) queue: Option<Queue>,
    pub(crate) weight: u32,
    /// The most connections that it is to be given.
    pub(crate) most: Option<u32>,
}

impl Cluster {
    /// Starts servers, and a balancer with its rule unless one server is to be alone.
    pub(crate) fn start(
        folder: &Path,
        kinds: &[Kind],
        balancer: Option<(Whose, &str)>,
    ) -> Result<Self, Error> {
        let place = Place::default();
        let (mut servers, mut reals) = (Vec::new(), Vec::new());
        for (kind, number) in kinds.iter().zip(1u8..) {
            let address = free()?;
            servers.push(server(&place, folder, number, address, kind.queue)?);
            reals.push(Real { address, weight: kind.weight, most: kind.most });
        }
        for real in &reals {
            until("a server serves", || answers(real.address))?;
        }
        let mut to = reals[0].address;
        let mut running = None;
        if let Some((whose, rule)) = balancer {
            to = free()?;
            let wanted = Wanted { listen: to, servers: &reals, rule, vrrp: None };
            let started = Balancer::start(whose, &place, (folder, "balancer"), &wanted)?;
            until("a balancer serves", || answers(to))
                .map_err(|error| format!("{error}: {}", started.carrier().said()))?;
            running = Some(started);
        }
        Ok(Self { servers, balancer: running, to, folder: folder.to_owned() })
    }

    /// Loads it with so many requests in a second, and measures for so long behind the beginning.
    pub(crate) fn load(
        &self,
        rate: f64,
        (warm, time): (Duration, Duration),
    ) -> Result<Step, Error> {
        let output = self.folder.join("asked.csv");
        let longer = warm + time + Duration::from_millis(50);
        let begun = clock::now();
        let words = load_words(self.to, rate, longer, &output, true);
        let mut clients = Process::part(&Place::default(), (&self.folder, "load"), &words)?;
        pause((begun + warm).saturating_sub(clock::now()))?;
        let before = self.clocks(&clients)?;
        pause(time)?;
        let after = self.clocks(&clients)?;
        clients.wait()?;
        let mut asked = read(&output)?;
        asked.retain(|it| (before.at..before.at + time).contains(&it.at()));
        let whose = self.balancer.as_ref().map(Balancer::whose);
        let servers = self.servers.len() as u32;
        let seen = Seen::new(&asked, time);
        Ok(Step { whose, servers, offered: rate, seen, cpu: after.since(&before)? })
    }

    fn clocks(&self, clients: &Process) -> Result<Clocks, Error> {
        let balancer = self.balancer.iter().map(Balancer::carrier).collect::<Vec<_>>();
        let servers = self.servers.iter().collect::<Vec<_>>();
        let processes = [balancer, servers, vec![clients]];
        let at = clock::now();
        Ok(Clocks {
            at,
            idle: idle()?,
            processes: processes.each_ref().map(|all| all.iter().map(|it| it.cpu()).collect()),
            threads: processes.map(|all| all.iter().flat_map(|it| it.threads()).collect()),
        })
    }
}

/// What those who take part have had of the processors: what balances, the servers, the clients.
struct Clocks {
    at: Duration,
    idle: Duration,
    processes: [Vec<Duration>; 3],
    threads: [BTreeMap<i32, Duration>; 3],
}

impl Clocks {
    fn since(&self, before: &Self) -> Result<Cpu, Error> {
        let share = |now: Duration, then: Duration| {
            now.saturating_sub(then).as_secs_f64() / (self.at - before.at).as_secs_f64()
        };
        let [director, server, clients] = [0, 1, 2].map(|it| {
            let [now, then] = [self, before].map(|clocks| &clocks.processes[it]);
            share(now.iter().sum(), then.iter().sum()) / now.len().max(1) as f64
        });
        let busiest = [0, 1, 2].map(|it| {
            let then = |thread| before.threads[it].get(thread).copied().unwrap_or_default();
            let threads = self.threads[it].iter().map(|(thread, now)| share(*now, then(thread)));
            threads.fold(0.0, f64::max)
        });
        let busiest = Busiest { director: busiest[0], server: busiest[1], clients: busiest[2] };
        let machine = (1.0 - share(self.idle, before.idle) / processors()?).max(0.0);
        Ok(Cpu { director, server, clients, machine, busiest })
    }
}

/// A server's process.
pub(crate) fn server(
    place: &Place,
    folder: &Path,
    number: u8,
    address: SocketAddr,
    queue: Option<Queue>,
) -> Result<Process, Error> {
    let micros = |time: Duration| time.as_micros().to_string();
    let none = Queue { workers: 0, line: 0, service: Duration::ZERO };
    let queue = queue.unwrap_or(none);
    let words = [
        "server".to_owned(),
        format!("--listen={address}"),
        format!("--number={number}"),
        format!("--workers={}", queue.workers),
        format!("--line={}", queue.line),
        format!("--service-us={}", micros(queue.service)),
        format!("--cpu-us={}", micros(WORK)),
    ];
    Process::part(place, (folder, &format!("server{number}")), &words)
}

/// What clients are told.
pub(crate) fn load_words(
    to: SocketAddr,
    rate: f64,
    time: Duration,
    output: &Path,
    many: bool,
) -> Vec<String> {
    let mut words = vec![
        "load".to_owned(),
        format!("--to={to}"),
        format!("--rate={rate}"),
        format!("--seconds={}", time.as_secs_f64()),
        format!("--patience-ms={}", PATIENCE.as_millis()),
        format!("--output={}", output.display()),
    ];
    words.extend(many.then(|| "--many".to_owned()));
    words
}

fn answers(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: evaluation\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
