//! Conversion of VRRP instances and sync groups.

use std::collections::{BTreeMap, BTreeSet};

use super::global::GlobalSettings;
use super::syntax::KeepalivedDirective;
use super::tracks::{TrackImporter, WeightRule};
use super::values::ImportedCommand;
use super::virtual_router::{import_virtual_router, priority};
use crate::director::import::toml_writer::ImportedConfig;

/// The keys of the programs of a virtual router or a sync group.
const NOTIFY_KEYS: [&str; 5] =
    ["notify", "notify_master", "notify_backup", "notify_fault", "notify_stop"];

pub(super) fn import(
    nodes: &[KeepalivedDirective],
    global: &GlobalSettings<'_>,
    output: &mut ImportedConfig,
) {
    let instances: Vec<_> = nodes.iter().filter(|node| node.name() == "vrrp_instance").collect();
    // The group of each member.
    let mut groups: BTreeMap<&str, &KeepalivedDirective> = BTreeMap::new();
    let mut group_names = BTreeSet::new();
    for group in nodes.iter().filter(|node| node.name() == "vrrp_sync_group") {
        if !group_names.insert(group.value()) {
            let report = format!("{} is defined twice: only the first is converted", group.text());
            output.warn(&group.position, report);
            group.mark_all_used();
            continue;
        }
        group.mark_used();
        for list in group.children_named("group") {
            let names = list.values().iter();
            let lines = list.children().iter().flat_map(|line| &line.mark_used().words);
            for name in names.chain(lines) {
                let first = groups.entry(name).or_insert(group);
                if !std::ptr::eq(*first, group) {
                    let report = format!(
                        "{name} is a member of {} already, and not of {}, as in keepalived",
                        first.text(),
                        group.text()
                    );
                    output.report_skipped(&group.position, report);
                }
            }
        }
    }
    warn_of_independent(&instances, &groups, output);
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut groups_with_notify = BTreeSet::new();
    for instance in instances {
        instance.mark_used();
        let name = instance.value().unwrap_or_default();
        if !names.insert(name) {
            let report =
                format!("vrrp_instance {name} is defined twice: only the first is converted");
            output.warn(&instance.position, report);
            instance.mark_all_used();
            continue;
        }
        let Some((mut table, identity)) = import_virtual_router(instance, global, output) else {
            instance.mark_all_used();
            continue;
        };
        if !ids.insert(identity.clone()) {
            let (interface, id, is_v6) = identity;
            let family = if is_v6 { "IPv6" } else { "IPv4" };
            let report = format!(
                "vrrp_instance {name} is left out: another has `virtual_router_id {id}` with {family} \
                 addresses on {interface}"
            );
            output.warn(&instance.position, report);
            instance.mark_all_used();
            continue;
        }
        let group = groups.get(name).copied();
        // The programs of a group run once, at the changes of its first member.
        let group_notify = group.filter(|group| groups_with_notify.insert(group.value()));
        for key in NOTIFY_KEYS {
            let blocks = [Some(instance), group_notify];
            let commands: Vec<_> = blocks
                .into_iter()
                .flatten()
                .filter_map(|block| {
                    let node = block.first_child(key)?;
                    if key == "notify" && block.name() == "vrrp_sync_group" {
                        let report = "`notify` of a sync group gets `INSTANCE` with the name of the \
                                      first member in place of `GROUP`";
                        output.report_skipped(&node.position, report);
                    }
                    ImportedCommand::read(block, key, &global.script_user, output)
                })
                .collect();
            match commands.as_slice() {
                [] => {}
                [command] => table.insert(key, command.to_toml()),
                commands => {
                    let tables: Vec<_> = commands.iter().map(ImportedCommand::to_table).collect();
                    table.insert(key, format!("[{}]", tables.join(", ")));
                }
            }
        }
        let ignores_weights =
            group.is_some_and(|group| group.last_child("sync_group_tracking_weight").is_none());
        let rule = match ignores_weights {
            true => WeightRule::IgnoredBySyncGroup,
            false => WeightRule::Applied,
        };
        let mut tracks = TrackImporter::new(global, rule);
        tracks.import(instance, &mut table, output);
        if let Some(group) = group {
            tracks.rule = WeightRule::Applied;
            tracks.import(group, &mut table, output);
        }
        output.push_table(table);
    }
}

/// Warns of virtual routers that keepalived may have as master on different machines.
fn warn_of_independent(
    instances: &[&KeepalivedDirective],
    groups: &BTreeMap<&str, &KeepalivedDirective>,
    output: &mut ImportedConfig,
) {
    let group_of = |instance: &KeepalivedDirective| {
        let group = groups.get(instance.value().unwrap_or_default())?;
        group.value()
    };
    let [first, others @ ..] = instances else { return };
    let group = group_of(first);
    let is_one = others.iter().all(|instance| group.is_some() && group_of(instance) == group);
    if !is_one {
        let mut priorities: Vec<u8> = Vec::new();
        for instance in instances {
            priorities.push(priority(instance, output));
        }
        let report = format!(
            "the vrrp_instances are independent in keepalived (priorities {priorities:?}); a director is \
             master of all of them or of none. Directors that are master of different instances at the \
             same time need a configuration and a process for each"
        );
        output.warn(&first.position, report);
    }
}
