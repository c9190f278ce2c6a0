//! The program in the kernel: loaded, attached to devices, and pinned so that it outlives this process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, tc};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use rustix::fs::statfs;
use rustix::thread::{CapabilitySet, capabilities};

use super::causes::{load_error, load_with_retries, with_causes};
use super::check_routes::remove_all_routes;
use super::error::PacketError;
use super::layout::LAYOUT_VERSION;
use super::link_name::{link_name, parse_link_name, pinned_names};
use super::maps::PacketMaps;
use super::settings::PacketSettings;
use super::xdp_program::XdpProgram;
#[cfg(test)]
use super::{xdp_mode::XdpMode, xdp_program::loaded_program};
use crate::rtnetlink::RtnetlinkSocket;

/// The program, built from `bpf/`.
#[repr(align(8))]
struct AlignedObject<T: ?Sized>(T);
static OBJECT: &AlignedObject<[u8]> = &AlignedObject(*include_bytes!("bpf/lvs.bpf.o"));

const PROGRAM: &str = "lvs";
/// The program for packets of checks.
const CHECK_PROGRAM: &str = "lvs_checks";
/// The device that it is attached to.
const LOOPBACK: &str = "lo";
pub(super) const LINK_PREFIX: &str = "link-";

/// The part of the room for flows that those have of which nobody is assured.
const UNASSURED_PART: u32 = 4;

/// The type of a BPF file system (`uapi/linux/magic.h`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The first Linux that has links of tcx.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);
/// Where the filter is on older kernels. A program that is there is replaced.
const FILTER_PRIORITY: u16 = 0x6c76;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 1);

/// The program in the kernel. Dropped, it stays.
pub(super) struct PacketProgram {
    program: Ebpf,
    folder: PathBuf,
    /// The devices that it is attached to, by number.
    devices: BTreeMap<u32, String>,
    xdp: XdpProgram,
}

impl std::fmt::Debug for PacketProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketProgram").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl PacketProgram {
    /// Loads the program, with the maps that an earlier process has left in the folder of the settings. New maps
    /// have room for the flows of the settings.
    pub(super) fn load(settings: &PacketSettings) -> Result<(Self, PacketMaps), PacketError> {
        require_capabilities()?;
        let versions = settings.pin_folder.as_path();
        let folder = versions.join(format!("v{LAYOUT_VERSION}"));
        create_pin_folder(&folder)
            .map_err(|source| PacketError::PinFolder { path: folder.clone(), source })?;
        // An odd number: the ends of the numbers of places that follow each other in one are never the same.
        let places = [settings.flows, settings.ipv6_flows].map(|it| (it / UNASSURED_PART) | 1);
        let mut loader = EbpfLoader::new();
        // Two entries a flow.
        loader
            .default_map_pin_directory(&folder)
            .map_max_entries("flows_ipv4", settings.flows.saturating_mul(2))
            .map_max_entries("flows_ipv6", settings.ipv6_flows.saturating_mul(2))
            .map_max_entries("places_ipv4", places[0])
            .map_max_entries("places_ipv6", places[1]);
        let mut program = loader.load(&OBJECT.0).map_err(|error| load_error(&error))?;
        let classifier = classifier(&mut program, PROGRAM)?;
        load_with_retries(|| classifier.load())?;
        let mut maps = PacketMaps::from_program(&mut program)?;
        if !maps.has_place_rings()? {
            maps.set_place_rings(places)?;
        }
        // Frames go to none of the devices until it is known which have the program.
        maps.clear_xdp_devices()?;
        let xdp =
            XdpProgram::take_over(&mut program, &folder, settings.xdp_mode, &settings.xdp_devices);
        let mut loaded = Self { program, folder, devices: BTreeMap::new(), xdp };
        loaded.replace_earlier_program();
        loaded.remove_other_layouts(versions);
        Ok((loaded, maps))
    }

    /// Takes over the links that an earlier process has left, in one step for each device: no packet passes
    /// without a program. A link whose device is gone is removed.
    fn replace_earlier_program(&mut self) {
        for name in pinned_names(&self.folder) {
            let Some((index, device)) = parse_link_name(LINK_PREFIX, &name) else { continue };
            match self.take_over_link(&name) {
                Ok(()) => {
                    self.devices.insert(index, device);
                }
                Err(error) => {
                    tracing::info!("engine packet: the program left {device}: {error}");
                    // The device is attached anew if it is there.
                    let _ = fs::remove_file(self.folder.join(name));
                }
            }
        }
    }

    /// Removes programs and maps of other layouts. Their flows end: they cannot be read.
    fn remove_other_layouts(&self, versions: &Path) {
        for entry in fs::read_dir(versions).into_iter().flatten().flatten() {
            let path = entry.path();
            if path != self.folder {
                let layout = entry.file_name();
                tracing::warn!(
                    "engine packet: flows of the layout {} of an earlier version end",
                    layout.display()
                );
                if let Err(error) = fs::remove_dir_all(&path) {
                    tracing::error!("engine packet: {}: {error}", path.display());
                }
            }
        }
    }

    fn take_over_link(&mut self, name: &str) -> Result<(), String> {
        let link = PinnedLink::from_pin(self.folder.join(name)).map_err(|it| with_causes(&it))?;
        let link = FdLink::from(link);
        let link: SchedClassifierLink =
            link.try_into().map_err(|it: LinkError| with_causes(&it))?;
        let classifier =
            classifier(&mut self.program, PROGRAM).map_err(|error| error.to_string())?;
        let id = classifier.attach_to_link(link).map_err(|it| with_causes(&it))?;
        // The link stays pinned under its name; this owner of it is not needed.
        let link = classifier.take_link(id).map_err(|it| with_causes(&it))?;
        drop(link);
        Ok(())
    }

    /// Attaches the program to the ingress of a device, if it is not.
    pub(super) fn attach(&mut self, index: u32, device: &str) -> Result<(), PacketError> {
        if self.devices.get(&index).is_some_and(|known| known == device) {
            return Ok(());
        }
        let attach_error = |reason| PacketError::Attach { device: device.to_owned(), reason };
        let folder = self.folder.clone();
        let link = attach(classifier(&mut self.program, PROGRAM)?, device, TcAttachType::Ingress)
            .map_err(attach_error)?;
        if has_tcx() {
            let link: FdLink =
                link.try_into().map_err(|it: LinkError| attach_error(with_causes(&it)))?;
            let path = folder.join(link_name(LINK_PREFIX, index, device));
            let _ = fs::remove_file(&path);
            link.pin(path).map_err(|it| attach_error(with_causes(&it)))?;
        } else {
            // A filter stays when its owner is forgotten.
            std::mem::forget(link);
        }
        self.devices.insert(index, device.to_owned());
        Ok(())
    }

    /// Attaches the program for packets of checks: until the answer is dropped, or, with none, until [`detach`].
    pub(super) fn attach_checks(&mut self) -> Result<Option<SchedClassifierLink>, PacketError> {
        let classifier = classifier(&mut self.program, CHECK_PROGRAM)?;
        if classifier.fd().is_err() {
            load_with_retries(|| classifier.load())?;
        }
        let link = attach(classifier, LOOPBACK, TcAttachType::Egress)
            .map_err(|reason| PacketError::Attach { device: LOOPBACK.to_owned(), reason })?;
        if has_tcx() {
            return Ok(Some(link));
        }
        // A successor has the same filter, which the end of this process must not take away.
        std::mem::forget(link);
        Ok(None)
    }

    /// Attaches the XDP program to a device, if it is not.
    pub(super) fn attach_xdp(&mut self, index: u32, device: &str) -> Result<(), PacketError> {
        self.xdp.attach(&mut self.program, index, device)
    }

    /// Detaches it from others than some devices.
    pub(super) fn retain_xdp_devices(&mut self, is_wanted: impl Fn(u32) -> bool) {
        self.xdp.retain(is_wanted);
    }

    /// Returns whether a device has it, as far as this process knows, and no other has detached it.
    pub(super) fn has_xdp(&self, index: u32) -> bool {
        self.xdp.is_attached(index)
    }

    /// Returns the devices whose frames the XDP program gets, by their numbers.
    pub(super) fn xdp_devices(&self) -> &BTreeMap<u32, String> {
        self.xdp.devices()
    }

    /// Forgets devices that are gone.
    pub(super) fn retain_devices(&mut self, is_present: impl Fn(u32, &str) -> bool) {
        let folder = &self.folder;
        self.devices.retain(|index, device| {
            let stays = is_present(*index, device);
            if !stays {
                let _ = fs::remove_file(folder.join(link_name(LINK_PREFIX, *index, device)));
            }
            stays
        });
    }

    /// Returns the names of the devices that the program is attached to.
    pub(super) fn devices(&self) -> impl Iterator<Item = &str> {
        self.devices.values().map(String::as_str)
    }

    /// Runs the program once on a frame, as if a device had received it, and returns its verdict and the frame
    /// after it.
    #[cfg(test)]
    pub(super) fn test_run(&mut self, frame: &[u8]) -> (i32, Vec<u8>) {
        let classifier = classifier(&mut self.program, PROGRAM).expect("the program is there");
        let (verdict, output) = test_run(classifier, frame);
        (verdict as i32, output)
    }

    /// Runs the XDP program once on a frame, and returns its verdict and the frame after it.
    #[cfg(test)]
    pub(super) fn test_run_xdp(&mut self, frame: &[u8]) -> (u32, Vec<u8>) {
        let xdp = loaded_program(&mut self.program, XdpMode::Native).expect("the program is there");
        test_run(xdp, frame)
    }
}

#[cfg(test)]
fn test_run<P>(program: &P, frame: &[u8]) -> (u32, Vec<u8>)
where
    P: for<'a> aya::TestRun<Opts<'a> = aya::TestRunOptions<'a>, Result = aya::TestRunResult>,
{
    let mut output = vec![0; frame.len() + 256];
    let options = aya::TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut output),
        ..Default::default()
    };
    let result = program.test_run(options).expect("the kernel runs programs for tests");
    output.truncate(result.data_size_out as usize);
    (result.return_value, output)
}

/// Checks that the process may do what is to be done: what the kernel says else is not always that it may not.
fn require_capabilities() -> Result<(), PacketError> {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let has_bpf = effective.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN);
    if has_bpf && effective.contains(CapabilitySet::NET_ADMIN) {
        return Ok(());
    }
    let source = io::Error::from_raw_os_error(libc::EPERM);
    Err(PacketError::Capability { action: "loading the program", source })
}

/// Makes a folder in a BPF file system.
fn create_pin_folder(folder: &Path) -> io::Result<()> {
    let present = folder.ancestors().find(|path| path.exists()).unwrap_or(folder);
    if statfs(present)?.f_type.cast_unsigned() != BPF_FS_MAGIC {
        return Err(io::Error::other(format!("{} is none", present.display())));
    }
    fs::create_dir_all(folder)
}

/// Removes the program from these devices and all that have a link of it, what leads checks to servers, and the maps, of
/// every layout.
pub(super) fn detach<'a>(
    folder: &Path,
    devices: impl Iterator<Item = &'a str>,
) -> Result<(), PacketError> {
    let pin_error = |source| PacketError::PinFolder { path: folder.to_owned(), source };
    if !has_tcx() {
        for device in devices {
            // What is dropped is detached. The device may be gone.
            drop(attached_filter(device, TcAttachType::Ingress));
        }
        drop(attached_filter(LOOPBACK, TcAttachType::Egress));
    }
    RtnetlinkSocket::open()
        .and_then(|mut netlink| remove_all_routes(&mut netlink))
        .map_err(|source| PacketError::Netlink { source })?;
    let versions = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        versions => versions.map_err(pin_error)?,
    };
    for version in versions {
        let version = version.map_err(pin_error)?.path();
        for pin in fs::read_dir(&version).map_err(pin_error)? {
            fs::remove_file(pin.map_err(pin_error)?.path()).map_err(pin_error)?;
        }
        fs::remove_dir(&version).map_err(pin_error)?;
    }
    fs::remove_dir(folder).map_err(pin_error)
}

/// Returns the filter of a device on a kernel without tcx, whether it is there or not.
fn attached_filter(device: &str, direction: TcAttachType) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(device, direction, FILTER_PRIORITY, FILTER_HANDLE, None)
}

/// Attaches a program to a device, in place of the filter that an earlier process has left on a kernel without tcx.
fn attach(
    classifier: &mut SchedClassifier,
    device: &str,
    direction: TcAttachType,
) -> Result<SchedClassifierLink, String> {
    let id = if has_tcx() {
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        classifier.attach_with_options(device, direction, options)
    } else {
        // A device that has the queueing discipline already is fine.
        let _ = tc::qdisc_add_clsact(device);
        let filter = attached_filter(device, direction).map_err(|error| error.to_string())?;
        classifier.attach_to_link(filter).or_else(|_| {
            let options = NlOptions {
                priority: FILTER_PRIORITY,
                handle: FILTER_HANDLE,
                ..NlOptions::default()
            };
            classifier.attach_with_options(device, direction, TcAttachOptions::Netlink(options))
        })
    };
    let id = id.map_err(|error| with_causes(&error))?;
    classifier.take_link(id).map_err(|error| with_causes(&error))
}

/// Returns whether the kernel has links of tcx, which can be replaced in place and pinned.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= TCX_SINCE)
}

fn classifier<'a>(
    program: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, PacketError> {
    let missing = || PacketError::Load { reason: format!("there is no program {name}") };
    let program = program.program_mut(name).ok_or_else(missing)?;
    program.try_into().map_err(|error| load_error(&error))
}
