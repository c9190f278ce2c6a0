//! `ctl`: shows and changes a running director, in the style of `ipvsadm`.

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Client, Where};
use crate::program::Error;

#[derive(Debug, clap::Args)]
pub(crate) struct CtlArgs {
    #[command(flatten)]
    at: Where,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
        service: String,
        server: String,
        #[arg(short, long, default_value_t = 1)]
        weight: u32,
        /// The connection limit.
        #[arg(short = 'x', long)]
        max_connections: Option<u32>,
        /// After it has reached the limit, it gets no connections until it has fewer than these.
        #[arg(short = 'y', long)]
        resume_connections: Option<u32>,
    },
    /// Changes the weight of a server.
    Edit {
        service: String,
        server: String,
        #[arg(short, long)]
        weight: u32,
    },
    /// Removes a server; its connections go on.
    Delete { service: String, server: String },
    /// Gives a server no new connections; open connections go on.
    Drain { service: String, server: String },
    /// Lets a server get connections again.
    Up { service: String, server: String },
    /// Disables a server.
    Down { service: String, server: String },
    /// Zeroes the counters.
    Zero {
        /// Zeroes one service only.
        service: Option<String>,
    },
}

pub(crate) async fn run(args: CtlArgs) -> Result<(), Error> {
    let client = Client::new(args.at);
    let server_path = |service: &str, server: &str| {
        format!("/services/{}/servers/{}", escaped(service), escaped(server))
    };
    let (method, path, body) = match args.command {
        Command::List { service, stats, rate, connections, clients, json } => {
            let columns = match (stats, rate) {
                (true, _) => List::Stats,
                (_, true) => List::Rate,
                _ => List::State,
            };
            let service = service.as_deref();
            return match (connections, clients) {
                (true, _) => list_many(&client, service, Many::Connections, json).await,
                (_, true) => list_many(&client, service, Many::Clients, json).await,
                _ => list(&client, service, columns, json).await,
            };
        }
        Command::Add { service, server, weight, max_connections, resume_connections } => {
            let mut body = json!({ "address": server, "weight": weight });
            if let Some(limit) = max_connections {
                body["max_connections"] = limit.into();
            }
            if let Some(limit) = resume_connections {
                body["resume_connections"] = limit.into();
            }
            (Method::POST, format!("/services/{}/servers", escaped(&service)), Some(body))
        }
        Command::Edit { service, server, weight } => {
            (Method::PATCH, server_path(&service, &server), Some(json!({ "weight": weight })))
        }
        Command::Delete { service, server } => {
            (Method::DELETE, server_path(&service, &server), None)
        }
        Command::Drain { service, server } => state(&server_path(&service, &server), "drain"),
        Command::Up { service, server } => state(&server_path(&service, &server), "up"),
        Command::Down { service, server } => state(&server_path(&service, &server), "down"),
        Command::Zero { service: Some(service) } => {
            (Method::POST, format!("/services/{}/zero", escaped(&service)), None)
        }
        Command::Zero { service: None } => (Method::POST, "/zero".to_owned(), None),
    };
    client.ask(method, &path, body).await.map(drop)
}

fn state(path: &str, state: &str) -> (Method, String, Option<Value>) {
    (Method::PATCH, path.to_owned(), Some(json!({ "state": state })))
}

/// Percent-encodes a segment of a path.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// The columns of the list of servers.
#[derive(Clone, Copy)]
enum List {
    State,
    Stats,
    Rate,
}

/// A list that is long for a busy service.
#[derive(Clone, Copy)]
enum Many {
    Connections,
    Clients,
}

async fn list(client: &Client, service: Option<&str>, list: List, json: bool) -> Result<(), Error> {
    let status = client.get("/status").await?;
    if json {
        println!("{status:#}");
        return Ok(());
    }
    let history = match list {
        List::Rate => client.get("/history").await?,
        _ => Value::Null,
    };
    let services = status["services"].as_array().into_iter().flatten();
    let wanted = services.filter(|found| service.is_none_or(|name| found["name"] == name));
    let wanted: Vec<_> = wanted.collect();
    if let (Some(name), []) = (service, &*wanted) {
        return Err(format!("there is no service {name:?}").into());
    }
    println!(
        "lvs {}, {}",
        text(&status["version"]),
        match status["active"] == true {
            true => "active",
            false => "standby",
        }
    );
    let columns = match list {
        List::State => ["State", "Weight", "ActiveConn", "InActConn", ""],
        List::Stats => ["Conns", "Failed", "InBytes", "OutBytes", ""],
        List::Rate => ["CPS", "", "InBPS", "OutBPS", ""],
    };
    println!("{:<33} {}", "Prot LocalAddress:Port Scheduler", row(columns));
    for service in wanted {
        print_service(service, &history, list);
    }
    Ok(())
}

fn row<T: std::fmt::Display>(cells: [T; 5]) -> String {
    let cells = cells.map(|cell| format!("{cell:>10}"));
    cells.join(" ").trim_end().to_owned()
}

fn print_service(service: &Value, history: &Value, list: List) {
    let listens = service["listen"].as_array().into_iter().flatten();
    let listens: Vec<_> = listens.map(text).collect();
    let protocol = text(&service["protocol"]).to_uppercase();
    let mut line = format!("{protocol}  {} {}", listens.join(","), text(&service["scheduler"]));
    if service["persistent"].as_u64().is_some_and(|clients| clients > 0) {
        line += &format!(" persistent ({} clients)", service["persistent"]);
    }
    let totals = &service["totals"];
    let name = text(&service["name"]);
    let lines = &history["services"][name];
    match list {
        List::State => println!("{line}  [{name}]"),
        List::Stats => {
            let cells = ["accepted", "refused", "bytes_to_servers", "bytes_to_clients"];
            let [a, b, c, d] = cells.map(|cell| big(totals[cell].as_u64().unwrap_or(0)));
            println!("{line:<33} {}", row([a, b, c, d, String::new()]));
        }
        List::Rate => {
            let [a, b, c] = ["accepted", "bytes_to_servers", "bytes_to_clients"]
                .map(|cell| big(mean(&lines[cell])));
            println!("{line:<33} {}", row([a, String::new(), b, c, String::new()]));
        }
    }
    let servers = service["servers"].as_array().into_iter().flatten();
    let mut servers: Vec<_> = servers.collect();
    servers.sort_by_key(|server| text(&server["address"]));
    for server in servers {
        let address = text(&server["address"]);
        let totals = &server["totals"];
        let cells = match list {
            List::State => {
                let hand = if server["by_hand"] == true { "*" } else { "" };
                [
                    format!("{}{hand}", text(&server["state"])),
                    server["weight"].to_string(),
                    server["active"].to_string(),
                    server["inactive"].to_string(),
                    text(&server["reason"]).to_owned(),
                ]
            }
            List::Stats => {
                let cells = ["connections", "failed", "bytes_in", "bytes_out"];
                let [a, b, c, d] = cells.map(|cell| big(totals[cell].as_u64().unwrap_or(0)));
                [a, b, c, d, String::new()]
            }
            List::Rate => {
                let rate = big(mean(&lines["servers"][address]));
                [rate, String::new(), String::new(), String::new(), String::new()]
            }
        };
        println!("  -> {address:<28} {}", row(cells));
    }
}

/// The mean of the last ten seconds.
fn mean(line: &Value) -> u64 {
    let values: Vec<u64> =
        line.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let last = &values[values.len().saturating_sub(10)..];
    last.iter().sum::<u64>().checked_div(last.len() as u64).unwrap_or(0)
}

/// Numbers as `ipvsadm` shortens them.
fn big(number: u64) -> String {
    match number {
        0..100_000_000 => number.to_string(),
        100_000_000..100_000_000_000 => format!("{}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{}G", number / 1_000_000_000),
        _ => format!("{}T", number / 1_000_000_000_000),
    }
}

/// Lists the connections or the persistence entries of each service.
async fn list_many(
    client: &Client,
    service: Option<&str>,
    many: Many,
    json: bool,
) -> Result<(), Error> {
    let status = client.get("/status").await?;
    let names =
        status["services"].as_array().into_iter().flatten().map(|service| text(&service["name"]));
    let names: Vec<_> = names.filter(|name| service.is_none_or(|wanted| wanted == *name)).collect();
    if let (Some(name), []) = (service, &*names) {
        return Err(format!("there is no service {name:?}").into());
    }
    let [path, client_key, time_key, time_head] = match many {
        Many::Connections => ["connections", "client", "age_ms", "age"],
        Many::Clients => ["clients", "network", "left_ms", "expire"],
    };
    let row = |[service, client, local, server, time]: [&str; 5]| {
        println!("{service:<12} {client:<40} {local:<24} {server:<24} {time:>8}");
    };
    if !json {
        row(["service", "client", "local", "server", time_head]);
    }
    for name in names {
        let entries = client.get(&format!("/services/{}/{path}", escaped(name))).await?;
        if json {
            println!("{entries:#}");
            continue;
        }
        for entry in entries.as_array().into_iter().flatten() {
            let [client, local, server] =
                [client_key, "local", "server"].map(|key| entry[key].as_str().unwrap_or("-"));
            let seconds = entry[time_key].as_u64().unwrap_or(0) / 1000;
            row([name, client, local, server, &format!("{:02}:{:02}", seconds / 60, seconds % 60)]);
        }
    }
    Ok(())
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
