//! The settings of `global_defs` that other blocks depend on, and the items that they name.

use std::collections::BTreeMap;

use super::syntax::KeepalivedDirective;
use super::values::{ScriptUser, number, seconds, switch};
use crate::director::import::toml_writer::ImportedConfig;

/// The global settings, and the named blocks.
#[derive(Debug)]
pub(super) struct GlobalSettings<'a> {
    pub(super) vrrp_version: u8,
    pub(super) script_user: ScriptUser,
    pub(super) interface: String,
    pub(super) start_delay: Option<f64>,
    pub(super) checksum_as_v2: bool,
    /// The last `lvs_sync_daemon` of `global_defs`, or else the last `lvs_sync_daemon_interface`.
    pub(super) sync_daemon: Option<&'a KeepalivedDirective>,
    /// The last `lvs_timeouts`.
    pub(super) timeouts: Option<&'a KeepalivedDirective>,
    pub(super) scripts: BTreeMap<&'a str, &'a KeepalivedDirective>,
    pub(super) processes: BTreeMap<&'a str, &'a KeepalivedDirective>,
    pub(super) files: BTreeMap<&'a str, &'a KeepalivedDirective>,
}

impl<'a> GlobalSettings<'a> {
    pub(super) fn read(nodes: &'a [KeepalivedDirective], output: &mut ImportedConfig) -> Self {
        let mut settings = Self {
            vrrp_version: 2,
            script_user: ScriptUser::default(),
            interface: "eth0".to_owned(),
            start_delay: None,
            checksum_as_v2: false,
            sync_daemon: None,
            timeouts: None,
            scripts: named(nodes, &["vrrp_script"]),
            processes: named(nodes, &["vrrp_track_process"]),
            files: named(nodes, &["track_file", "vrrp_track_file"]),
        };
        for instance in nodes.iter().filter(|node| node.name() == "vrrp_instance") {
            let interface = instance.last_child("lvs_sync_daemon_interface");
            settings.sync_daemon = interface.or(settings.sync_daemon);
        }
        for block in nodes.iter().filter(|node| node.name() == "global_defs") {
            block.mark_used();
            if let Some(version) = number(block, "vrrp_version", 2..=3, output) {
                settings.vrrp_version = version;
            }
            if let Some(node) = block.last_child("script_user") {
                settings.script_user = ScriptUser::from_words(node.values(), node, output);
            }
            if let Some(interface) = block.child_value("default_interface") {
                settings.interface = interface.to_owned();
            }
            let start_delay = seconds(block, "vrrp_startup_delay", output);
            settings.start_delay = start_delay.or(settings.start_delay);
            settings.checksum_as_v2 |= switch(block, "v3_checksum_as_v2", output);
            settings.sync_daemon = block.last_child("lvs_sync_daemon").or(settings.sync_daemon);
            settings.timeouts = block.last_child("lvs_timeouts").or(settings.timeouts);
        }
        settings
    }
}

/// Returns the blocks of these keywords by the name of each; of several with a name, keepalived uses
/// the first.
fn named<'a>(
    nodes: &'a [KeepalivedDirective],
    keywords: &[&str],
) -> BTreeMap<&'a str, &'a KeepalivedDirective> {
    let blocks = nodes.iter().rev().filter(|node| keywords.contains(&node.name()));
    blocks.filter_map(|node| Some((node.value()?, node))).collect()
}
