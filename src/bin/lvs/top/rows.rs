//! The servers as `lvs top` lists them: read from the director's status, filtered and sorted.

use serde_json::Value;

/// A server in a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServerRow {
    pub(crate) service: String,
    pub(crate) address: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) state_age_ms: u64,
    pub(crate) reason: String,
    pub(crate) weight: u64,
    pub(crate) max_connections: u64,
    /// Open connections and flows.
    pub(crate) open: u64,
    pub(crate) served: u64,
    /// `None` where nothing counts them.
    pub(crate) failed: Option<u64>,
    pub(crate) connect_p99_ms: Option<f64>,
    pub(crate) is_by_hand: bool,
}

/// The order of the rows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum RowOrder {
    /// As in the configuration.
    #[default]
    Configured,
    /// Servers that are not eligible first.
    State,
    Name,
    Open,
    Served,
    Failed,
}

impl RowOrder {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Configured => "as configured",
            Self::State => "state",
            Self::Name => "name",
            Self::Open => "open",
            Self::Served => "served",
            Self::Failed => "failed",
        }
    }

    pub(crate) const fn next(self) -> Self {
        match self {
            Self::Configured => Self::State,
            Self::State => Self::Name,
            Self::Name => Self::Open,
            Self::Open => Self::Served,
            Self::Served => Self::Failed,
            Self::Failed => Self::Configured,
        }
    }
}

/// Returns the servers of a status, in the order of the configuration.
pub(crate) fn read_rows(status: &Value) -> Vec<ServerRow> {
    let services = status["services"].as_array().into_iter().flatten();
    let rows = services.flat_map(|service| {
        let servers = service["servers"].as_array().into_iter().flatten();
        servers.map(|server| read_row(service, server))
    });
    rows.collect()
}

fn read_row(service: &Value, server: &Value) -> ServerRow {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    ServerRow {
        service: text(&service["name"]),
        address: text(&server["address"]),
        name: text(&server["name"]),
        state: text(&server["state"]),
        state_age_ms: number(&server["state_age_ms"]),
        reason: text(&server["reason"]),
        weight: number(&server["weight"]),
        max_connections: number(&server["max_connections"]),
        open: number(&server["active"]) + number(&server["inactive"]),
        served: number(&server["totals"]["connections"]),
        failed: server["totals"]["failed"].as_u64(),
        connect_p99_ms: server["connect_p99_ms"].as_f64(),
        is_by_hand: server["by_hand"] == true,
    }
}

/// Returns the rows in which a text occurs, in an order.
pub(crate) fn arrange_rows(rows: &[ServerRow], filter: &str, order: RowOrder) -> Vec<ServerRow> {
    let filter = filter.to_lowercase();
    let has_text = |row: &ServerRow| {
        [&row.service, &row.name, &row.address, &row.state]
            .iter()
            .any(|text| text.to_lowercase().contains(&filter))
    };
    let mut shown: Vec<_> = rows.iter().filter(|row| has_text(row)).cloned().collect();
    // All sorts are stable: equal rows stay in the order of the configuration.
    match order {
        RowOrder::Configured => {}
        RowOrder::State => shown.sort_by_key(|row| rank(&row.state)),
        RowOrder::Name => shown
            .sort_by_cached_key(|row| (row.service.clone(), row.name.clone(), row.address.clone())),
        RowOrder::Open => shown.sort_by_key(|row| std::cmp::Reverse(row.open)),
        RowOrder::Served => shown.sort_by_key(|row| std::cmp::Reverse(row.served)),
        RowOrder::Failed => shown.sort_by_key(|row| std::cmp::Reverse(row.failed)),
    }
    shown
}

fn rank(state: &str) -> u8 {
    match state {
        "down" | "ejected" | "withheld" => 0,
        "eligible" => 2,
        _ => 1,
    }
}

/// Returns a server's name and address in `width` characters at most. What does not fit is cut off the
/// name; of an address that is too long alone, the end with the port stays.
pub(crate) fn fit_server(name: &str, address: &str, width: usize) -> String {
    let (name_length, address_length) = (name.chars().count(), address.chars().count());
    if address_length >= width {
        let skipped = address_length - width + 1;
        return match address_length == width {
            true => address.to_owned(),
            false => format!("…{}", address.chars().skip(skipped).collect::<String>()),
        };
    }
    let room = width - address_length - 1;
    match name_length {
        0 => address.to_owned(),
        length if length <= room => format!("{name} {address}"),
        // A name of which nothing but the mark would be left says nothing.
        _ if room < 3 => address.to_owned(),
        _ => format!("{}… {address}", name.chars().take(room - 1).collect::<String>()),
    }
}

/// Returns a duration as one number with its unit.
pub(crate) fn short_duration(millis: u64) -> String {
    match millis / 1000 {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}
