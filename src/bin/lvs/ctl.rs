//! `lvs ctl`: shows and changes a running director, in the style of `ipvsadm`.

mod list;

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use self::list::{Columns, EntryKind, list_entries, list_servers};
use crate::client::{AdminArgs, AdminClient, percent_encoded};
use crate::error::CliError;

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
        /// Lists open connections, at most 1000 per service.
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
        server: String,
        /// The weight, 0 to 65535; with 0 it gets no connections.
        #[arg(short, long, default_value_t = 1)]
        weight: u32,
        /// The most connections at a time.
        #[arg(short = 'x', long)]
        max_connections: Option<u32>,
        /// The number of connections below which a full server gets new connections again.
        #[arg(short = 'y', long)]
        resume_connections: Option<u32>,
    },
    /// Changes the weight of a server. To change its limits, add it anew.
    Edit {
        /// The name of the service.
        service: String,
        /// The address of the server, such as 10.0.0.1:80.
        server: String,
        /// The weight, 0 to 65535; with 0 it gets no new connections.
        #[arg(short, long)]
        weight: u32,
    },
    /// Removes a server; its connections go on.
    Delete {
        /// The name of the service.
        service: String,
        /// The address of the server, such as 10.0.0.1:80.
        server: String,
    },
    /// Gives a server no new connections; open connections go on.
    Drain {
        /// The name of the service.
        service: String,
        /// The address of the server, such as 10.0.0.1:80.
        server: String,
    },
    /// Lets a server get connections again.
    Up {
        /// The name of the service.
        service: String,
        /// The address of the server, such as 10.0.0.1:80.
        server: String,
    },
    /// Disables a server.
    Down {
        /// The name of the service.
        service: String,
        /// The address of the server, such as 10.0.0.1:80.
        server: String,
    },
    /// Zeroes the counters.
    Zero {
        /// Zeroes one service only.
        service: Option<String>,
    },
}

pub(crate) async fn run(args: CtlArgs) -> Result<(), CliError> {
    let client = AdminClient::new(args.connection);
    let server_path = |service: &str, server: &str| {
        format!("/services/{}/servers/{}", percent_encoded(service), percent_encoded(server))
    };
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
        CtlCommand::Add { service, server, weight, max_connections, resume_connections } => {
            let mut body = json!({ "address": server, "weight": weight });
            if let Some(limit) = max_connections {
                body["max_connections"] = limit.into();
            }
            if let Some(limit) = resume_connections {
                body["resume_connections"] = limit.into();
            }
            (Method::POST, format!("/services/{}/servers", percent_encoded(&service)), Some(body))
        }
        CtlCommand::Edit { service, server, weight } => {
            (Method::PATCH, server_path(&service, &server), Some(json!({ "weight": weight })))
        }
        CtlCommand::Delete { service, server } => {
            (Method::DELETE, server_path(&service, &server), None)
        }
        CtlCommand::Drain { service, server } => {
            set_state(&server_path(&service, &server), "drain")
        }
        CtlCommand::Up { service, server } => set_state(&server_path(&service, &server), "up"),
        CtlCommand::Down { service, server } => set_state(&server_path(&service, &server), "down"),
        CtlCommand::Zero { service: Some(service) } => {
            (Method::POST, format!("/services/{}/zero", percent_encoded(&service)), None)
        }
        CtlCommand::Zero { service: None } => (Method::POST, "/zero".to_owned(), None),
    };
    client.send(method, &path, body).await.map(drop)
}

fn set_state(path: &str, state: &str) -> (Method, String, Option<Value>) {
    (Method::PATCH, path.to_owned(), Some(json!({ "state": state })))
}
