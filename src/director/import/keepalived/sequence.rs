//! Lines that keepalived repeats: `~SEQ(name, start, step, end)` and `~LST(name, value, ...)`.

/// The number of repetitions of a line.
const MAX_REPETITIONS: usize = 65_536;

/// A line that is repeated.
#[derive(Debug)]
pub(super) struct RepeatedLine<'a> {
    pub(super) names: Vec<String>,
    /// The values of the names, for each repetition.
    pub(super) values: Vec<Vec<String>>,
    pub(super) rest: &'a str,
}

/// Parses a line that begins with `~SEQ` or `~LST`; `resolve` replaces definitions in its arguments.
pub(super) fn parse<'a, E: ToString>(
    line: &'a str,
    resolve: impl Fn(&str) -> Result<String, E>,
) -> Result<RepeatedLine<'a>, String> {
    let wrong = || format!("{line:?} is not a sequence such as `~SEQ(name, 1, 9) line`");
    let (head, rest) = line.split_once('(').ok_or_else(wrong)?;
    let (arguments, rest) = rest.split_once(')').ok_or_else(wrong)?;
    let arguments = resolve(arguments).map_err(|error| error.to_string())?;
    let rest = rest.trim();
    match head.trim() {
        "~LST" => {
            let mut fields = split_outside_braces(&arguments).into_iter();
            let names = group(fields.next().ok_or_else(wrong)?);
            let values: Vec<_> = fields.map(group).collect();
            let is_complete = values.iter().all(|values| values.len() == names.len());
            if values.is_empty() || !is_complete {
                return Err(wrong());
            }
            Ok(RepeatedLine { names, values, rest })
        }
        head @ ("~SEQ" | "~SEQx") => {
            let fields: Vec<_> = arguments.split(',').map(str::trim).collect();
            let number = |text: &str| parse_number(text).ok_or_else(wrong);
            let (name, numbers) = fields.split_first().ok_or_else(wrong)?;
            let direction = |start: i64, end: i64| if end < start { -1 } else { 1 };
            let (start, step, end) = match numbers {
                [end] => {
                    let end = number(end)?;
                    let start = if end > 0 { 1 } else { -1 };
                    (start, direction(start, end), end)
                }
                [start, end] => {
                    let (start, end) = (number(start)?, number(end)?);
                    (start, direction(start, end), end)
                }
                [start, step, end] => (number(start)?, number(step)?, number(end)?),
                _ => return Err(wrong()),
            };
            if step == 0 || (end - start).signum() == -step.signum() {
                return Err(wrong());
            }
            let mut values = Vec::new();
            let mut value = start;
            while (step > 0 && value <= end) || (step < 0 && value >= end) {
                if values.len() == MAX_REPETITIONS {
                    return Err(format!("{line:?} has more than {MAX_REPETITIONS} values"));
                }
                let text = if head == "~SEQx" { format!("{value:x}") } else { value.to_string() };
                values.push(vec![text]);
                value += step;
            }
            Ok(RepeatedLine { names: vec![(*name).to_owned()], values, rest })
        }
        _ => Err(wrong()),
    }
}

/// Parses a number as C does, with `0x` for hexadecimal digits.
fn parse_number(text: &str) -> Option<i64> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    // Small enough that no sum overflows.
    number.ok().filter(|number| number.unsigned_abs() < 1 << 40)
}

/// Splits at commas that are in no braces.
fn split_outside_braces(text: &str) -> Vec<&str> {
    let (mut fields, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (n, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                fields.push(text[start..n].trim());
                start = n + 1;
            }
            _ => {}
        }
    }
    fields.push(text[start..].trim());
    fields
}

/// Returns the fields of `{a, b}`, or a single field.
fn group(text: &str) -> Vec<String> {
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    inner.split(',').map(|field| field.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_and_lists_are_repeated() {
        let values = |line: &str| {
            let parsed = parse(line, |text| Ok::<_, String>(text.to_owned())).map_err(drop)?;
            assert_eq!(parsed.rest, "x");
            Ok::<_, ()>(parsed.values.iter().map(|values| values.join("/")).collect::<Vec<_>>())
        };
        let expect = |values: &[&str]| Ok(values.iter().map(ToString::to_string).collect());
        assert_eq!(values("~SEQ(N, 0, 3) x"), expect(&["0", "1", "2", "3"]));
        assert_eq!(values("~SEQ(N, 2) x"), expect(&["1", "2"]));
        assert_eq!(values("~SEQ(N, 3, -2, 0) x"), expect(&["3", "1"]));
        assert_eq!(values("~SEQx(N, 0x90, 16, 0xb0) x"), expect(&["90", "a0", "b0"]));
        assert_eq!(values("~LST(N, a, b) x"), expect(&["a", "b"]));
        assert_eq!(values("~LST({N, M}, {1, 2}, {3, 4}) x"), expect(&["1/2", "3/4"]));
        for wrong in
            ["~SEQ(N, 1, 0, 3) x", "~SEQ(N, 1, -1, 3) x", "~SEQ(N) x", "~SEQ(N, 1, 9999999) x"]
        {
            assert_eq!(values(wrong), Err(()), "{wrong}");
        }
    }
}
