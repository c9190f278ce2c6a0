//! The XDP program, attached to devices, and pinned as the other one is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{Xdp, XdpMode as LinkMode};

use super::causes::{load_error, load_with_retries, with_causes};
use super::error::PacketError;
use super::link_name::{link_name, parse_link_name, pinned_names};
use super::xdp_mode::XdpMode;

/// What the names of pinned links begin with, by mode.
const LINK_PREFIXES: [(&str, XdpMode); 2] =
    [("xdp-native-", XdpMode::Native), ("xdp-generic-", XdpMode::Generic)];

/// The devices whose frames the program gets.
#[derive(Debug)]
pub(super) struct XdpProgram {
    folder: PathBuf,
    mode: XdpMode,
    /// By number.
    devices: BTreeMap<u32, String>,
}

impl XdpProgram {
    /// Takes over the links of these devices that an earlier process has left in a folder, and removes others.
    pub(super) fn take_over(
        program: &mut Ebpf,
        folder: &Path,
        mode: XdpMode,
        wanted: &[String],
    ) -> Self {
        let mut this = Self { folder: folder.to_owned(), mode, devices: BTreeMap::new() };
        for (name, link) in pinned_links(folder) {
            let is_wanted = link.mode == mode && wanted.contains(&link.device);
            let result = is_wanted.then(|| take_over_link(program, mode, &folder.join(&name)));
            match result {
                Some(Ok(())) => {
                    this.devices.insert(link.index, link.device);
                    continue;
                }
                Some(Err(error)) => {
                    tracing::info!(
                        "engine packet: the XDP program at {} is attached anew, and not taken over: {error}",
                        link.device
                    );
                }
                None => {}
            }
            let _ = fs::remove_file(folder.join(name));
        }
        this
    }

    /// Attaches the program to a device, if it is not.
    pub(super) fn attach(
        &mut self,
        program: &mut Ebpf,
        index: u32,
        device: &str,
    ) -> Result<(), PacketError> {
        if self.devices.get(&index).is_some_and(|known| known == device) {
            return Ok(());
        }
        let attach_error = |reason| PacketError::Attach { device: device.to_owned(), reason };
        let xdp = loaded_program(program, self.mode)?;
        let mode = match self.mode {
            XdpMode::Native => LinkMode::Driver,
            XdpMode::Generic => LinkMode::Skb,
        };
        let id =
            xdp.attach_to_if_index(index, mode).map_err(|it| attach_error(with_causes(&it)))?;
        let link = xdp.take_link(id).map_err(|it| attach_error(with_causes(&it)))?;
        let link: FdLink =
            link.try_into().map_err(|it: LinkError| attach_error(with_causes(&it)))?;
        let path = self.path(index, device);
        let _ = fs::remove_file(&path);
        link.pin(path).map_err(|it| attach_error(with_causes(&it)))?;
        self.devices.insert(index, device.to_owned());
        Ok(())
    }

    /// Detaches the program from others than some devices.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(u32) -> bool) {
        let gone = self.devices.iter().filter(|(index, _)| !is_wanted(**index));
        for (index, device) in gone {
            let _ = fs::remove_file(self.path(*index, device));
        }
        self.devices.retain(|index, _| is_wanted(*index));
    }

    /// Returns whether a device has the program, and its link is where it was pinned.
    pub(super) fn is_attached(&self, index: u32) -> bool {
        self.devices.get(&index).is_some_and(|device| self.path(index, device).exists())
    }

    /// Returns the devices, by their numbers.
    pub(super) fn devices(&self) -> &BTreeMap<u32, String> {
        &self.devices
    }

    fn path(&self, index: u32, device: &str) -> PathBuf {
        let prefix = LINK_PREFIXES.iter().find(|(_, mode)| *mode == self.mode);
        let prefix = prefix.map_or("", |(prefix, _)| *prefix);
        self.folder.join(link_name(prefix, index, device))
    }
}

/// A link that is pinned.
pub(super) struct PinnedXdpLink {
    mode: XdpMode,
    index: u32,
    pub(super) device: String,
}

/// Returns the links in a folder, with their names.
pub(super) fn pinned_links(folder: &Path) -> Vec<(String, PinnedXdpLink)> {
    let links = pinned_names(folder).into_iter().filter_map(|name| {
        let parse = |&(prefix, mode): &(&str, XdpMode)| {
            let (index, device) = parse_link_name(prefix, &name)?;
            Some(PinnedXdpLink { mode, index, device })
        };
        let link = LINK_PREFIXES.iter().find_map(parse)?;
        Some((name, link))
    });
    links.collect()
}

fn take_over_link(program: &mut Ebpf, mode: XdpMode, path: &Path) -> Result<(), String> {
    let link = PinnedLink::from_pin(path).map_err(|it| with_causes(&it))?;
    let link: XdpLink = FdLink::from(link).try_into().map_err(|it: LinkError| with_causes(&it))?;
    let xdp = loaded_program(program, mode).map_err(|it| it.to_string())?;
    let id = xdp.attach_to_link(link).map_err(|it| with_causes(&it))?;
    // It stays pinned under its name.
    drop(xdp.take_link(id).map_err(|it| with_causes(&it))?);
    Ok(())
}

/// Returns the program, and loads it if it is not.
pub(super) fn loaded_program(program: &mut Ebpf, mode: XdpMode) -> Result<&mut Xdp, PacketError> {
    let name = match mode {
        XdpMode::Native => "lvs_xdp",
        XdpMode::Generic => "lvs_xdp_generic",
    };
    let missing = || PacketError::Load { reason: format!("there is no program {name}") };
    let program = program.program_mut(name).ok_or_else(missing)?;
    let program: &mut Xdp = program.try_into().map_err(|error| load_error(&error))?;
    if program.fd().is_err() {
        load_with_retries(|| program.load())?;
    }
    Ok(program)
}
