//! The messages of the parsers of TOML and of its values, in an operator's terms.

use crate::scheduler::suggest;

/// Returns the closest known name for a message such as "unknown field `x`, expected one of `y`,
/// `z`".
pub(super) fn suggested_key(reason: &str) -> Option<String> {
    if !reason.starts_with("unknown ") {
        return None;
    }
    let mut quoted = reason.split('`').skip(1).step_by(2);
    let name = quoted.next()?;
    suggest(name, quoted).map(str::to_owned)
}

/// The ranges of whole numbers that are smaller than those of their types, by the table and the key.
const RANGES: [(&str, &str, &str); 4] = [
    ("server", "weight", "a whole number from 0 to 65535"),
    ("track", "weight", "a whole number from -254 to 254"),
    ("vrrp", "virtual_router_id", "a whole number from 1 to 255"),
    ("vrrp", "priority", "a whole number from 1 to 254"),
];

/// Returns an operator's text for a message of the parsers that is about types of Rust or names no
/// value; `text` is the place in the document, and `names` the tables and keys that lead to it. Other
/// messages are shown as they are.
pub(super) fn explain(message: &str, text: &str, names: &[String]) -> Option<String> {
    match message {
        "invalid socket address syntax" if is_host_with_port(text) => {
            let (host, port) = text.trim_matches(['"', '\'']).rsplit_once(':')?;
            return Some(format!(
                "{text} is not an address with a port, such as \"10.0.0.1:80\". A name is looked up by \
                 `discovery`, in place of `server` tables: discovery = {{ dns = \"{host}\", port = \
                 {port} }}"
            ));
        }
        "duplicate key" => return Some(format!("key `{text}` is set twice")),
        "invalid socket address syntax" => {
            return Some(format!("{text} is not an address with a port, such as \"10.0.0.1:80\""));
        }
        "invalid IP address syntax" => {
            return Some(format!("{text} is not an IP address, such as \"10.0.0.1\""));
        }
        _ => {}
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return Some(rest.replacen(", expected", " is not accepted here, expected", 1));
    }
    let (_, expected) = message.rsplit_once(", expected ")?;
    let is_number = || text.parse::<f64>().is_ok_and(|number| number >= 0.0);
    if expected.starts_with("a duration") && is_number() {
        return Some(format!("{text} has no unit: write \"{text}s\" for seconds"));
    }
    let key = names.last().map(String::as_str);
    let own = RANGES
        .iter()
        .find(|(table, name, _)| Some(*name) == key && names.iter().any(|name| name == table));
    let wanted = match expected {
        "u8" | "u16" | "u32" | "i16" if own.is_some() => own?.2,
        "a nonzero usize" | "a nonzero u32" | "a nonzero u64" => "a whole number of at least 1",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "i16" => "a whole number from -32768 to 32767",
        "u32" => "a whole number from 0 to 4294967295",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "u64" | "usize" => "a whole number of at least 0",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        "enum" => "a name",
        "path string" => "a path",
        "IP address" => "an IP address, such as \"10.0.0.1\"",
        "socket address" => "an address with a port, such as \"10.0.0.1:80\"",
        _ => expected,
    };
    let found =
        if message.starts_with("invalid type: sequence") || message.starts_with("invalid length") {
            "a list"
        } else if message.starts_with("invalid type: map") {
            "a table"
        } else if message.starts_with("invalid ") {
            text
        } else {
            return None;
        };
    Some(format!("{found} is not {wanted}"))
}

/// Returns whether a text is a host name with a port, in quotes.
fn is_host_with_port(text: &str) -> bool {
    let Some((host, port)) = text.trim_matches(['"', '\'']).rsplit_once(':') else { return false };
    let is_part_of_name =
        |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '.' | '_');
    host.chars().all(is_part_of_name)
        && host.contains(|char: char| char.is_ascii_alphabetic())
        && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_suggests_the_closest_known_one() {
        let reason = "unknown field `schedular`, expected one of `name`, `scheduler`, `listen`";
        assert_eq!(suggested_key(reason).as_deref(), Some("scheduler"));
        assert_eq!(suggested_key("unknown field `x`, expected `name`"), None);
        assert_eq!(suggested_key("invalid type: integer `3`, expected a string"), None);
    }
}
