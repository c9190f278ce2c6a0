//! Conversion of the items that the priority of a virtual router depends on.

use std::collections::{BTreeMap, BTreeSet};

use super::global::GlobalSettings;
use super::syntax::KeepalivedDirective;
use super::values::{ImportedCommand, number, positive_seconds, seconds, toml_duration};
use crate::director::import::toml_writer::{
    ImportedConfig, TomlInlineTable, TomlTable, toml_string_array,
};

/// The weight of an item in a line, or in its own block.
#[derive(Clone, Copy, Debug, Default)]
struct TrackWeight {
    weight: i32,
    is_reversed: bool,
}

/// What a virtual router does with the weights of its items.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WeightRule {
    /// They change the priority.
    Applied,
    /// A sync group ignores them: interfaces are tracked without, scripts not at all.
    IgnoredBySyncGroup,
}

/// The tracked items of a virtual router, those of its sync group included.
pub(super) struct TrackImporter<'a> {
    pub(super) global: &'a GlobalSettings<'a>,
    pub(super) rule: WeightRule,
    known: BTreeSet<String>,
}

impl<'a> TrackImporter<'a> {
    pub(super) fn new(global: &'a GlobalSettings<'a>, rule: WeightRule) -> Self {
        Self { global, rule, known: BTreeSet::new() }
    }

    /// Converts the items of a virtual router or of a sync group.
    pub(super) fn import(
        &mut self,
        block: &KeepalivedDirective,
        table: &mut TomlTable,
        output: &mut ImportedConfig,
    ) {
        for (key, kind) in [
            ("track_interface", TrackKind::Interface),
            ("track_script", TrackKind::Script),
            ("track_file", TrackKind::File),
            ("track_process", TrackKind::Process),
        ] {
            for line in block.children_named(key).flat_map(KeepalivedDirective::children) {
                let words = line.mark_used().values();
                if let Some(option) = words.first().filter(|option| *option != "weight") {
                    let report = format!(
                        "{}: {option:?} is no option: the line is ignored, as in keepalived; write a \
                         line for each item",
                        line.text()
                    );
                    output.warn(&line.position, report);
                    continue;
                }
                let item = self.import_item(kind, line.name(), words, line, output);
                item.into_iter().for_each(|item| table.push_subtable(item));
            }
        }
    }

    /// Converts an item; `words` are its weight in the line of the router.
    fn import_item(
        &mut self,
        kind: TrackKind,
        name: &str,
        words: &[String],
        line: &KeepalivedDirective,
        output: &mut ImportedConfig,
    ) -> Option<TomlTable> {
        let block = match kind {
            TrackKind::Interface => None,
            TrackKind::Script => Some(*self.named(&self.global.scripts, name, line, output)?),
            TrackKind::File => Some(*self.named(&self.global.files, name, line, output)?),
            TrackKind::Process => Some(*self.named(&self.global.processes, name, line, output)?),
        };
        if let Some(block) = block {
            block.mark_used();
        }
        let own = block.and_then(|block| block.last_child("weight"));
        let default =
            TrackWeight { weight: i32::from(kind == TrackKind::File), ..Default::default() };
        let default = own.map_or(Some(default), |own| read_weight(own.values(), own, output))?;
        let mut weight = match words {
            [] => default,
            words => read_weight(&words[1..], line, output)?,
        };
        if self.rule == WeightRule::IgnoredBySyncGroup && weight.weight != 0 {
            match kind {
                TrackKind::Process => {}
                TrackKind::Interface => {
                    self.report_ignored(line, "the weight", output);
                    weight.weight = 0;
                }
                TrackKind::File if weight.weight == 1 => {
                    self.report_ignored(line, "the weight", output);
                    weight.weight = 0;
                }
                TrackKind::Script | TrackKind::File => {
                    self.report_ignored(line, "an item with a weight", output);
                    return None;
                }
            }
        }
        if kind == TrackKind::File && weight.weight != 0 {
            let report = format!(
                "track_file {name}: the file's number is not added to the priority: use weight 0, or a \
                 `vrrp_script`"
            );
            output.warn(&line.position, report);
            return None;
        }
        let check = match (kind, block) {
            (TrackKind::Script, Some(block)) => {
                Some(script_check(block, name, self.global, output)?)
            }
            (TrackKind::File, Some(block)) => Some(file_check(block, name, output)?),
            (TrackKind::Process, Some(block)) => Some(process_check(block, name, output)?),
            _ => None,
        };
        let label = match kind {
            TrackKind::Interface => format!("interface {name}"),
            TrackKind::Script => name.to_owned(),
            TrackKind::File => format!("file {name}"),
            TrackKind::Process => format!("process {name}"),
        };
        let label = if weight.is_reversed { format!("{label} reversed") } else { label };
        if !self.known.insert(label.clone()) {
            output.report_skipped(&line.position, format!("{name} is tracked already"));
            return None;
        }
        let mut track = TomlTable::new("[[vrrp.track]]");
        track.insert_string("name", &label);
        if kind == TrackKind::Interface {
            track.insert_string("interface", name);
        }
        weight.write(&mut track, line, output);
        if let Some(check) = check {
            track.insert("check", check);
        }
        Some(track)
    }

    fn report_ignored(
        &self,
        line: &KeepalivedDirective,
        subject: &str,
        output: &mut ImportedConfig,
    ) {
        let report = format!(
            "{}: {subject} is ignored in a sync group without `sync_group_tracking_weight`, as in \
             keepalived",
            line.text()
        );
        output.report_skipped(&line.position, report);
    }

    fn named<'b>(
        &self,
        blocks: &'b BTreeMap<&'a str, &'a KeepalivedDirective>,
        name: &str,
        line: &KeepalivedDirective,
        output: &mut ImportedConfig,
    ) -> Option<&'b &'a KeepalivedDirective> {
        let block = blocks.get(name);
        if block.is_none() {
            output.warn(&line.position, format!("{}: there is no block {name:?}", line.text()));
        }
        block
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum TrackKind {
    Interface,
    Script,
    File,
    Process,
}

/// Reads `WEIGHT [reverse|noreverse]`.
fn read_weight(
    words: &[String],
    node: &KeepalivedDirective,
    output: &mut ImportedConfig,
) -> Option<TrackWeight> {
    let weight = words.first().and_then(|weight| weight.parse().ok());
    let Some(weight) = weight.filter(|weight: &i32| weight.unsigned_abs() <= 254) else {
        let report = format!("{}: the weight is no number from -254 to 254: left out", node.text());
        output.warn(&node.position, report);
        return None;
    };
    let is_reversed = words.get(1).is_some_and(|word| word == "reverse");
    if let Some(word) = words.get(1).filter(|word| *word != "reverse" && *word != "noreverse") {
        output.report_skipped(&node.position, format!("{}: {word:?} has no effect", node.text()));
    }
    Some(TrackWeight { weight, is_reversed })
}

impl TrackWeight {
    /// Writes the weight. `weight 10 reverse` lowers the priority by 10 while the item is up: while the
    /// inverted item is down.
    fn write(self, track: &mut TomlTable, line: &KeepalivedDirective, output: &mut ImportedConfig) {
        let weight = if self.is_reversed { -self.weight } else { self.weight };
        if weight != 0 {
            track.insert("weight", weight);
        }
        if self.is_reversed {
            track.insert("inverted", true);
            let report = format!("{}: `reverse` is the key `inverted`", line.text());
            output.report_skipped(&line.position, report);
        }
    }
}

fn script_check(
    script: &KeepalivedDirective,
    name: &str,
    global: &GlobalSettings<'_>,
    output: &mut ImportedConfig,
) -> Option<TomlInlineTable> {
    let command = ImportedCommand::read_with_user(script, "script", &global.script_user, output);
    let Some(command) = command else {
        let report = format!("vrrp_script {name} has no program: it is not tracked");
        output.warn(&script.position, report);
        return None;
    };
    let mut check = TomlInlineTable::default();
    command.write_check(&mut check);
    let period = positive_seconds(script, "interval", output).unwrap_or(1.0).max(0.001);
    let timeout = seconds(script, "timeout", output).unwrap_or(period);
    // keepalived takes 1 s for 0.
    let timeout = if timeout == 0.0 { 1.0 } else { timeout.max(0.001) };
    if timeout > period {
        let report = format!(
            "vrrp_script {name}: it runs every {timeout} s in place of {period} s, because no run waits \
             for the one before, whose timeout is {timeout} s"
        );
        output.report_skipped(&script.position, report);
    }
    check.insert_string("interval", &toml_duration(period.max(timeout)));
    check.insert_string("timeout", &toml_duration(timeout));
    if script.last_child("init_fail").is_some() {
        check.insert_string("init", "fully-down");
    }
    for key in ["rise", "fall"] {
        check.insert(key, number(script, key, 1..=1_000_000_u32, output).unwrap_or(1));
    }
    Some(check)
}

fn file_check(
    block: &KeepalivedDirective,
    name: &str,
    output: &mut ImportedConfig,
) -> Option<TomlInlineTable> {
    let Some(path) = block.child_value("file") else {
        output.warn(&block.position, format!("track_file {name} has no `file`: it is not tracked"));
        return None;
    };
    let mut check = TomlInlineTable::default();
    check.insert_string("type", "file");
    check.insert_string("file", path);
    check.insert("rise", 1);
    check.insert("fall", 1);
    check.insert_string("interval", "1s");
    Some(check)
}

/// Converts a process to a program that looks for it.
fn process_check(
    block: &KeepalivedDirective,
    name: &str,
    output: &mut ImportedConfig,
) -> Option<TomlInlineTable> {
    let words = block.last_child("process").map(KeepalivedDirective::values).unwrap_or_default();
    let simple = block.children().iter().all(|node| matches!(node.name(), "process" | "weight"));
    let [process] = words else { return not_simple(block, name, output) };
    if !simple {
        return not_simple(block, name, output);
    }
    let process = process.rsplit('/').next().unwrap_or_default();
    let mut check = TomlInlineTable::default();
    check.insert_string("type", "command");
    check.insert_string("command", "pgrep");
    // The kernel keeps 15 bytes of a name. Each character that a regular expression uses is escaped.
    let pattern = regex::escape(&process.chars().take(15).collect::<String>());
    check.insert("arguments", toml_string_array(["-x", &*pattern]));
    check.insert("rise", 1);
    check.insert("fall", 1);
    check.insert_string("interval", "1s");
    let report = format!("vrrp_track_process {name}: `pgrep` looks for the process every second");
    output.report_skipped(&block.position, report);
    Some(check)
}

fn not_simple<T>(
    block: &KeepalivedDirective,
    name: &str,
    output: &mut ImportedConfig,
) -> Option<T> {
    let report = format!(
        "vrrp_track_process {name}: a process with arguments, a quorum or delays is not tracked: use a \
         `vrrp_script`"
    );
    block.mark_all_used();
    output.warn(&block.position, report);
    None
}
