//! `lvs ctl`: shows and changes a running director, in the style of `ipvsadm`.

mod announce;
mod list;

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use self::announce::{Mode, list_addresses, set_mode};
use self::list::{Columns, EntryKind, list_entries, list_servers};
use crate::client::{AdminArgs, AdminClient, percent_encoded};
use crate::error::CliError;
use crate::output;

/// A command for a director.
#[derive(Debug, clap::Args)]
pub(crate) struct CtlArgs {
    #[command(flatten)]
    pub(crate) connection: AdminArgs,
    #[command(subcommand)]
    command: CtlCommand,
}

#[derive(Debug, Subcommand)]
enum CtlCommand {
    /// Lists services and servers.
    List {
        /// Lists one service only.
        service: Option<String>,
        /// Shows totals since the counters were zeroed.
        #[arg(long)]
        stats: bool,
        /// Shows rates per second, averaged over the last ten seconds.
        #[arg(long, conflicts_with = "stats")]
        rate: bool,
        /// Lists open connections, at most 1000 per service. Those of the engines `ipvs` and
        /// `packet` have the kernel's state and the time after which the kernel forgets them; those of `ipvs`
        /// have `sync` where the active director's kernel told this one of them.
        #[arg(short = 'c', long, conflicts_with_all = ["stats", "rate"])]
        connections: bool,
        /// Lists persistence entries, at most 1000 per service.
        #[arg(long, conflicts_with_all = ["stats", "rate", "connections"])]
        clients: bool,
        /// Prints the director's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Adds a server.
    Add {
        /// The name of the service.
        service: String,
        /// The address of the server, such as 10.0.0.1:80.
        address: String,
        /// A name for people, by which the server can be changed too.
        #[arg(short, long)]
        name: Option<String>,
        /// The weight, 0 to 65535; with 0 it gets no connections.
        #[arg(short, long, default_value_t = 1)]
        weight: u32,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Changes the weight, the limits or the tier of a server; what no option names stays.
    #[command(group = clap::ArgGroup::new("changes").required(true).multiple(true).args(
        ["weight", "max_connections", "resume_connections", "tier"],
    ))]
    Edit {
        #[command(flatten)]
        server: ServerArgs,
        /// The weight, 0 to 65535; with 0 it gets no new connections.
        #[arg(short, long)]
        weight: Option<u32>,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Removes a server; its connections go on.
    Delete(ServerArgs),
    /// Gives a server no new connections; open connections go on.
    Drain(ServerArgs),
    /// Lets a server get connections again.
    Up(ServerArgs),
    /// Disables a server.
    Down(ServerArgs),
    /// Shows the announced addresses, or sets the mode of all.
    Announce {
        /// The mode, which lasts until the director ends; a successor by `handover` begins with `normal`.
        mode: Option<Mode>,
        /// Prints the director's JSON.
        #[arg(long, conflicts_with = "mode")]
        json: bool,
    },
    /// Zeroes the counters.
    Zero {
        /// Zeroes one service only.
        service: Option<String>,
    },
}

/// A server of a service.
#[derive(Debug, clap::Args)]
struct ServerArgs {
    /// The name of the service.
    service: String,
    /// The address of the server, such as 10.0.0.1:80, or its name.
    server: String,
}

/// The limits of a server, and its tier.
#[derive(Debug, clap::Args)]
struct LimitArgs {
    /// The most connections at a time; 0 is no limit.
    #[arg(short = 'x', long)]
    max_connections: Option<u32>,
    /// The number of connections below which a full server gets new connections again; 0 is three
    /// quarters of the most.
    #[arg(short = 'y', long)]
    resume_connections: Option<u32>,
    /// The tier for the scheduler `priority`, 0 to 255; servers of tier 0 serve first.
    #[arg(long)]
    tier: Option<u8>,
}

impl ServerArgs {
    fn path(&self) -> String {
        let (service, server) = (percent_encoded(&self.service), percent_encoded(&self.server));
        format!("/services/{service}/servers/{server}")
    }
}

impl LimitArgs {
    /// Adds the limits that are given to a request.
    fn add_to(&self, body: &mut Value) {
        let limits = [
            ("max_connections", self.max_connections),
            ("resume_connections", self.resume_connections),
            ("tier", self.tier.map(u32::from)),
        ];
        for (key, value) in limits {
            if let Some(value) = value {
                body[key] = value.into();
            }
        }
    }
}

pub(crate) async fn run(args: CtlArgs) -> Result<(), CliError> {
    let client = AdminClient::new(args.connection);
    let (method, path, body) = match args.command {
        CtlCommand::List { service, stats, rate, connections, clients, json } => {
            let service = service.as_deref();
            return match (connections, clients) {
                (true, _) => list_entries(&client, service, EntryKind::Connections, json).await,
                (_, true) => list_entries(&client, service, EntryKind::Clients, json).await,
                _ if stats => list_servers(&client, service, Columns::Stats, json).await,
                _ if rate => list_servers(&client, service, Columns::Rate, json).await,
                _ => list_servers(&client, service, Columns::State, json).await,
            };
        }
        CtlCommand::Add { service, address, name, weight, limits } => {
            let mut body = json!({ "address": address, "weight": weight });
            if let Some(name) = name {
                body["name"] = name.into();
            }
            limits.add_to(&mut body);
            (Method::POST, format!("/services/{}/servers", percent_encoded(&service)), Some(body))
        }
        CtlCommand::Edit { server, weight, limits } => {
            let mut body = json!({});
            if let Some(weight) = weight {
                body["weight"] = weight.into();
            }
            limits.add_to(&mut body);
            (Method::PATCH, server.path(), Some(body))
        }
        CtlCommand::Delete(server) => (Method::DELETE, server.path(), None),
        CtlCommand::Drain(server) => set_state(&server, "drain"),
        CtlCommand::Up(server) => set_state(&server, "up"),
        CtlCommand::Down(server) => set_state(&server, "down"),
        CtlCommand::Announce { mode: Some(mode), .. } => return set_mode(&client, mode).await,
        CtlCommand::Announce { mode: None, json } => return list_addresses(&client, json).await,
        CtlCommand::Zero { service: Some(service) } => {
            (Method::POST, format!("/services/{}/zero", percent_encoded(&service)), None)
        }
        CtlCommand::Zero { service: None } => (Method::POST, "/zero".to_owned(), None),
    };
    let answer = client.send(method, &path, body).await?;
    if let Some(note) = answer["note"].as_str() {
        output::complain(&format!("note: {note}\n"));
    }
    Ok(())
}

fn set_state(server: &ServerArgs, state: &str) -> (Method, String, Option<Value>) {
    (Method::PATCH, server.path(), Some(json!({ "state": state })))
}
