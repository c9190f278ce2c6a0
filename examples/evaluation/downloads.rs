//! Long downloads: clients that read a slow answer, and check each octet.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock;
use crate::process::Error;
use crate::server::{DOWNLOAD, SERVER, octet};

/// How many downloads are under way when something fails.
pub(crate) const COUNT: usize = 20;
/// A download that got nothing for so long does not go on. Octets that a failure lost are sent again
/// after 0.2, 0.6 and 1.4 s, by the kernel's timeouts of TCP.
const SILENCE: Duration = Duration::from_secs(1);

/// The options of the process of the downloads.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DownloadArgs {
    #[arg(long)]
    pub(crate) to: SocketAddr,
    /// When the downloads end, by the monotonic clock in microseconds.
    #[arg(long)]
    pub(crate) until_us: u64,
    #[arg(long)]
    pub(crate) output: PathBuf,
}

impl DownloadArgs {
    /// Returns the arguments of a process whose downloads end at a moment.
    pub(crate) fn words(to: SocketAddr, until: Duration, output: &Path) -> [String; 4] {
        [
            "downloads".to_owned(),
            format!("--to={to}"),
            format!("--until-us={}", until.as_micros()),
            format!("--output={}", output.display()),
        ]
    }
}

/// What became of a download.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct DownloadRecord {
    /// The number of the server that answered.
    pub(crate) server: Option<u8>,
    /// The octets that came, in order.
    pub(crate) octets: u64,
    /// The moment at which the last of them came.
    pub(crate) last_us: u64,
    /// Whether the connection was open at the end.
    pub(crate) is_open: bool,
}

impl DownloadRecord {
    /// Returns whether octets came until a moment.
    fn is_under_way(&self, at: Duration) -> bool {
        self.octets > 0 && Duration::from_micros(self.last_us) + SILENCE >= at
    }

    /// Returns whether all octets came in order until the end of the run.
    fn is_complete(&self, end: Duration) -> bool {
        self.is_open && self.is_under_way(end)
    }
}

/// The long downloads that were under way when something failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DownloadStats {
    /// All, with those from the server that failed.
    pub(crate) under_way: usize,
    /// Those from other servers: no balancer can save the rest.
    pub(crate) can_survive: usize,
    /// Those of which every octet came in order until the end of the run.
    pub(crate) survived: usize,
}

impl DownloadStats {
    /// Counts the downloads around a failure, of a server too if there is the number of one.
    pub(crate) fn new(
        records: &[DownloadRecord],
        failed_server: Option<u8>,
        (at, end): (Duration, Duration),
    ) -> Self {
        let under_way = records.iter().filter(|record| record.is_under_way(at));
        let can_survive = under_way
            .clone()
            .filter(|record| failed_server.is_none() || record.server != failed_server);
        let survived = can_survive.clone().filter(|record| record.is_complete(end)).count();
        Self { under_way: under_way.count(), can_survive: can_survive.count(), survived }
    }

    /// Returns the fraction of the downloads that survived, of those that could.
    pub(crate) fn share(&self) -> f64 {
        self.survived as f64 / self.can_survive.max(1) as f64
    }
}

/// Reads what became of the downloads.
pub(crate) fn read(path: &Path) -> Result<Vec<DownloadRecord>, Error> {
    Ok(csv::Reader::from_path(path)?.deserialize().collect::<Result<_, _>>()?)
}

pub(crate) fn run(args: DownloadArgs) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let until = Duration::from_micros(args.until_us);
    let records = runtime.block_on(async {
        let mut clients = JoinSet::new();
        for _ in 0..COUNT {
            clients.spawn(download(args.to, until));
        }
        clients.join_all().await
    });
    let mut output = csv::Writer::from_path(&args.output)?;
    for record in records {
        output.serialize(record)?;
    }
    Ok(output.flush()?)
}

async fn download(to: SocketAddr, until: Duration) -> DownloadRecord {
    let mut record = DownloadRecord::default();
    let left = until.saturating_sub(clock::now());
    let ended = timeout(left, receive(to, &mut record)).await;
    record.is_open = ended.is_err();
    record
}

/// Receives octets until the download breaks or ends, or an octet is wrong.
async fn receive(to: SocketAddr, record: &mut DownloadRecord) -> Result<(), Error> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(DOWNLOAD).header(HOST, "evaluation").body(Empty::<Bytes>::new())?;
    let (head, mut body) = sender.send_request(request).await?.into_parts();
    let server = head.headers.get(SERVER).and_then(|name| name.to_str().ok());
    record.server = server.and_then(|name| name.parse().ok());
    while let Some(frame) = body.frame().await {
        for received in frame?.into_data().unwrap_or_default() {
            if received != octet(record.octets) {
                return Err(format!("octet {} is wrong", record.octets).into());
            }
            record.octets += 1;
        }
        record.last_us = clock::now().as_micros().try_into().unwrap_or(u64::MAX);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_survives_if_it_goes_on_to_the_end() {
        let record = |server, last_us, is_open| DownloadRecord {
            server: Some(server),
            octets: 1,
            last_us,
            is_open,
        };
        let records = [
            record(1, 4_500_000, true),
            record(2, 4_500_000, true),
            // It broke.
            record(2, 4_500_000, false),
            // Nothing came after the failure.
            record(2, 2_000_000, true),
            // It never began.
            DownloadRecord::default(),
        ];
        let times = (Duration::from_secs(2), Duration::from_secs(5));
        let stats = DownloadStats::new(&records, None, times);
        assert_eq!(stats, DownloadStats { under_way: 4, can_survive: 4, survived: 2 });
        assert_eq!(stats.share(), 0.5);
        let stats = DownloadStats::new(&records, Some(1), times);
        assert_eq!(stats, DownloadStats { under_way: 4, can_survive: 3, survived: 1 });
    }
}
