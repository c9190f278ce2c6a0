//! The lists that `lvs ctl list` prints.

use serde_json::Value;

use crate::client::{AdminClient, json_text, percent_encoded};
use crate::error::CliError;
use crate::output;

/// The columns of the list of servers.
#[derive(Clone, Copy)]
pub(super) enum Columns {
    State,
    Stats,
    Rate,
}

/// Entries of which a busy service has many.
#[derive(Clone, Copy)]
pub(super) enum EntryKind {
    Connections,
    Clients,
}

/// Lists the servers of each service, or of one.
pub(super) async fn list_servers(
    client: &AdminClient,
    service: Option<&str>,
    columns: Columns,
    json: bool,
) -> Result<(), CliError> {
    let status = client.get("/status").await?;
    if json {
        return output::print(format!("{status:#}\n")).map_err(CliError::Output);
    }
    let history = match columns {
        Columns::Rate => client.get("/history").await?,
        Columns::State | Columns::Stats => Value::Null,
    };
    let services = status["services"].as_array().into_iter().flatten();
    let wanted = services.filter(|found| service.is_none_or(|name| found["name"] == name));
    let wanted: Vec<_> = wanted.collect();
    if let (Some(name), []) = (service, &*wanted) {
        return Err(CliError::UnknownService(name.to_owned()));
    }
    let role = if status["active"] == true { "active" } else { "standby" };
    let mut text = format!("lvs {}, {role}\n", json_text(&status["version"]));
    let heads = match columns {
        Columns::State => ["State", "Weight", "ActiveConn", "InActConn", ""],
        Columns::Stats => ["Conns", "Failed", "InBytes", "OutBytes", ""],
        Columns::Rate => ["CPS", "", "InBPS", "OutBPS", ""],
    };
    text += &format!("{:<33} {}\n", "Prot LocalAddress:Port Scheduler", row(heads));
    for service in wanted {
        text += &service_lines(service, &history, columns);
    }
    output::print(&text).map_err(CliError::Output)
}

fn row<T: std::fmt::Display>(cells: [T; 5]) -> String {
    let cells = cells.map(|cell| format!("{cell:>10}"));
    cells.join(" ").trim_end().to_owned()
}

/// Returns the line of a service, and one for each of its servers.
fn service_lines(service: &Value, history: &Value, columns: Columns) -> String {
    let listens = service["listen"].as_array().into_iter().flatten();
    let listens: Vec<_> = listens.map(json_text).collect();
    let protocol = json_text(&service["protocol"]).to_uppercase();
    let mut line =
        format!("{protocol}  {} {}", listens.join(","), json_text(&service["scheduler"]));
    if service["persistent"].as_u64().is_some_and(|clients| clients > 0) {
        line += &format!(" persistent ({} clients)", service["persistent"]);
    }
    let totals = &service["totals"];
    let name = json_text(&service["name"]);
    let lines = &history["services"][name];
    let mut text = match columns {
        Columns::State => format!("{line}  [{name}]\n"),
        Columns::Stats => {
            let cells = ["accepted", "refused", "bytes_to_servers", "bytes_to_clients"];
            let [a, b, c, d] = cells.map(|cell| counted(&totals[cell]));
            format!("{line:<33} {}\n", row([a, b, c, d, String::new()]))
        }
        Columns::Rate => {
            let [a, b, c] = ["accepted", "bytes_to_servers", "bytes_to_clients"]
                .map(|cell| shortened(mean(&lines[cell])));
            format!("{line:<33} {}\n", row([a, String::new(), b, c, String::new()]))
        }
    };
    let servers = service["servers"].as_array().into_iter().flatten();
    let mut servers: Vec<_> = servers.collect();
    servers.sort_by_key(|server| json_text(&server["address"]));
    for server in servers {
        let address = json_text(&server["address"]);
        let totals = &server["totals"];
        let cells = match columns {
            Columns::State => {
                let mark = if server["by_hand"] == true { "*" } else { "" };
                [
                    format!("{}{mark}", json_text(&server["state"])),
                    server["weight"].to_string(),
                    server["active"].to_string(),
                    server["inactive"].to_string(),
                    json_text(&server["reason"]).to_owned(),
                ]
            }
            Columns::Stats => {
                let cells = ["connections", "failed", "bytes_in", "bytes_out"];
                let [a, b, c, d] = cells.map(|cell| counted(&totals[cell]));
                [a, b, c, d, String::new()]
            }
            Columns::Rate => {
                let rate = shortened(mean(&lines["servers"][address]));
                [rate, String::new(), String::new(), String::new(), String::new()]
            }
        };
        let server = match server["name"].as_str() {
            Some(name) => format!("{address} {name}"),
            None => address.to_owned(),
        };
        text += &format!("  -> {server:<28} {}\n", row(cells));
    }
    text
}

/// A counter, shortened; a dash for one that nothing counts.
fn counted(counter: &Value) -> String {
    counter.as_u64().map_or_else(|| "-".to_owned(), shortened)
}

/// The mean of the last ten seconds.
fn mean(line: &Value) -> u64 {
    let values: Vec<u64> =
        line.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    let last = &values[values.len().saturating_sub(10)..];
    last.iter().sum::<u64>().checked_div(last.len() as u64).unwrap_or(0)
}

/// Numbers as `ipvsadm` shortens them.
fn shortened(number: u64) -> String {
    match number {
        0..100_000_000 => number.to_string(),
        100_000_000..100_000_000_000 => format!("{}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{}G", number / 1_000_000_000),
        _ => format!("{}T", number / 1_000_000_000_000),
    }
}

/// A time in milliseconds as minutes and seconds; a dash for one that nothing knows.
fn minutes(millis: &Value) -> String {
    let seconds = millis.as_u64().map(|millis| millis / 1000);
    seconds.map_or_else(|| "-".to_owned(), |all| format!("{:02}:{:02}", all / 60, all % 60))
}

/// Lists the connections or the persistence entries of each service, or of one.
pub(super) async fn list_entries(
    client: &AdminClient,
    service: Option<&str>,
    kind: EntryKind,
    json: bool,
) -> Result<(), CliError> {
    let status = client.get("/status").await?;
    let services = status["services"].as_array().into_iter().flatten();
    let services = services.map(|service| (json_text(&service["name"]), &service["engine"]));
    let services: Vec<_> =
        services.filter(|(name, _)| service.is_none_or(|wanted| wanted == *name)).collect();
    if let (Some(name), []) = (service, &*services) {
        return Err(CliError::UnknownService(name.to_owned()));
    }
    let [path, client_key, time_key, time_head] = match kind {
        EntryKind::Connections => ["connections", "client", "age_ms", "age"],
        EntryKind::Clients => ["clients", "network", "left_ms", "expire"],
    };
    let row = |[service, client, local, server, time]: [&str; 5], of_kernel: Option<[&str; 3]>| {
        let mut text = format!("{service:<12} {client:<40} {local:<24} {server:<24} {time:>8}");
        if let Some([state, expire, origin]) = of_kernel {
            text += &format!(" {state:<11} {expire:>8} {origin}");
        }
        text + "\n"
    };
    if !json {
        let has_kernel = matches!(kind, EntryKind::Connections)
            && services.iter().any(|(_, engine)| *engine != "proxy");
        let of_kernel = has_kernel.then_some(["state", "expire", "origin"]);
        let head = row(["service", "client", "local", "server", time_head], of_kernel);
        output::print(&head).map_err(CliError::Output)?;
    }
    for (name, _) in services {
        let path = format!("/services/{}/{path}", percent_encoded(name));
        let entries = client.get(&path).await?;
        let mut text = String::new();
        if json {
            text = format!("{entries:#}\n");
        } else {
            for entry in entries.as_array().into_iter().flatten() {
                let [client, local, server] =
                    [client_key, "local", "server"].map(|key| entry[key].as_str().unwrap_or("-"));
                let time = minutes(&entry[time_key]);
                let expire = minutes(&entry["expires_ms"]);
                let of_kernel = entry["state"]
                    .as_str()
                    .map(|state| [state, &expire, json_text(&entry["origin"])]);
                text += &row([name, client, local, server, &time], of_kernel);
            }
        }
        output::print(&text).map_err(CliError::Output)?;
    }
    Ok(())
}
