//! The process that runs the packet engine's programs on one packet after another (`BPF_PROG_TEST_RUN`).
//!
//! The kernel does not restore a packet between repeated runs. A program of this benchmark, `bpf/again.bpf.c`,
//! makes each packet anew, of the next flow, and calls the engine's program by its last instruction. What it
//! costs itself is measured with a program that does nothing in place of the engine's.

use std::iter;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, Map, MapData, MapInfo, ProgramArray};
use aya::programs::{ProgramFd, ProgramInfo, SchedClassifier, Xdp, loaded_programs};
use aya::{Ebpf, TestRun as _, TestRunOptions};
use clap::Args;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

use crate::network::EthernetDevice;
use crate::repeated_packet::{HEADERS_LEN, Hook, RepeatedPacket, frame};

/// The program, built from `bpf/again.bpf.c`.
#[repr(align(8))]
struct AlignedObject<T: ?Sized>(T);
static OBJECT: &AlignedObject<[u8]> = &AlignedObject(*include_bytes!("bpf/again.bpf.o"));

/// The octets of `struct again`, and the places of its fields.
const AGAIN_LEN: usize = 60;
const AGAIN_HEADERS: usize = 12;
const AGAIN_MAC: usize = AGAIN_HEADERS + HEADERS_LEN;

/// Where the engine's programs and its flows are.
#[derive(Args, Clone, Debug)]
pub(crate) struct RepeatOrder {
    /// The folder with the pins of the engine.
    pin_folder: PathBuf,
    listen: SocketAddrV4,
    server: SocketAddrV4,
    to_client: EthernetDevice,
    to_server: EthernetDevice,
}

/// Runs what stdin orders until it ends. Prints `ready` and the sizes of the compiled programs in octets, at tc and, if
/// it is there, at XDP, and for each line:
///
/// - `HOOK PACKET FLOWS FIRST COUNT`: runs the program on so many packets, of the flows from the first on, and prints
///   `done` and nanoseconds a packet.
/// - `memory`: prints `memory` and the octets of the kernel of the map of flows of IPv4, and of all maps.
pub(crate) async fn serve(order: &RepeatOrder) -> Result<()> {
    let folder = pin_folder(&order.pin_folder)?;
    let mut runner = RepeatedPrograms::load(order, &folder)?;
    let callees = iter::once(&runner.tc).chain(&runner.xdp);
    let sizes: Vec<_> = callees.map(|it| it.engine.size_jitted().to_string()).collect();
    println!("ready {}", sizes.join(" "));
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["memory"] => {
                let (flows, all) = memory(&folder)?;
                println!("memory {flows} {all}");
            }
            &[hook, packet, flows, first, count] => {
                let (hook, packet) = (Hook::parse(hook)?, RepeatedPacket::parse(packet)?);
                let flows = (flows.parse()?, first.parse()?);
                let nanos = runner.run(hook, packet, flows, count.parse()?)?;
                println!("done {nanos}");
            }
            _ => bail!("not an order: {line}"),
        }
    }
    Ok(())
}

struct RepeatedPrograms {
    program: Ebpf,
    packets: Array<MapData, [u8; AGAIN_LEN]>,
    tc: Callee,
    /// Not before Linux 5.18.
    xdp: Option<Callee>,
    order: RepeatOrder,
}

/// What is called at a hook.
struct Callee {
    callees: ProgramArray<MapData>,
    nothing: ProgramFd,
    engine: ProgramInfo,
}

impl RepeatedPrograms {
    fn load(order: &RepeatOrder, folder: &Path) -> Result<Self> {
        let mut program = Ebpf::load(&OBJECT.0)?;
        let engine =
            engine_program(folder, "lvs")?.context("the engine's program is not loaded")?;
        at_tc(&mut program, "again")?.load()?;
        let nothing = at_tc(&mut program, "nothing")?;
        nothing.load()?;
        let nothing = nothing.fd()?.try_clone()?;
        let tc = Callee { callees: map(&mut program, "callees")?.try_into()?, nothing, engine };
        let mut xdp = None;
        if let Some(engine) = engine_program(folder, "lvs_xdp_generic")? {
            at_xdp(&mut program, "again_xdp")?.load()?;
            let nothing = at_xdp(&mut program, "nothing_xdp")?;
            nothing.load()?;
            let nothing = nothing.fd()?.try_clone()?;
            let callees = map(&mut program, "xdp_callees")?.try_into()?;
            xdp = Some(Callee { callees, nothing, engine });
        }
        let packets = map(&mut program, "agains")?.try_into()?;
        Ok(Self { program, packets, tc, xdp, order: order.clone() })
    }

    /// Runs a program on packets of the flows from `first` on, and returns nanoseconds a packet.
    fn run(
        &mut self,
        hook: Hook,
        packet: RepeatedPacket,
        (flows, first): (u32, u32),
        count: u32,
    ) -> Result<u128> {
        ensure!(flows.is_power_of_two(), "{flows} flows are no power of two");
        let callee = match hook {
            Hook::Tc => &mut self.tc,
            Hook::Xdp => self.xdp.as_mut().context("the engine has no program at XDP")?,
        };
        let is_nothing = packet == RepeatedPacket::Nothing;
        let called = if is_nothing { callee.nothing.try_clone()? } else { callee.engine.fd()? };
        callee.callees.set(0, &called, 0)?;
        let is_answer = packet == RepeatedPacket::Answer;
        let device = if is_answer { self.order.to_server } else { self.order.to_client };
        let headers = packet.headers(self.order.listen, self.order.server);
        let mut value = [0; AGAIN_LEN];
        for (at, word) in [(0, first), (4, flows - 1), (8, u32::from(is_answer))] {
            value[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        value[AGAIN_HEADERS..AGAIN_MAC].copy_from_slice(&headers);
        value[AGAIN_MAC..AGAIN_MAC + 6].copy_from_slice(&device.mac);
        self.packets.set(0, value, 0)?;
        let (frame, context) = (frame(device.mac, headers), hook.context(device.index));
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: count,
            ..TestRunOptions::default()
        };
        let result = match hook {
            Hook::Tc => at_tc(&mut self.program, "again")?.test_run(options)?,
            Hook::Xdp => at_xdp(&mut self.program, "again_xdp")?.test_run(options)?,
        };
        let expected = if is_nothing { hook.next_verdict() } else { hook.redirect_verdict() };
        let verdict = result.return_value;
        ensure!(
            verdict == expected,
            "{packet:?} at {}: the verdict is {verdict}, not {expected}",
            hook.name()
        );
        Ok(result.duration.as_nanos())
    }
}

fn map(program: &mut Ebpf, name: &str) -> Result<Map> {
    program.take_map(name).with_context(|| format!("no map {name}"))
}

fn at_tc<'a>(program: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = program.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

fn at_xdp<'a>(program: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = program.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

/// Returns the folder of the one layout in a folder of pins.
fn pin_folder(layouts: &Path) -> Result<PathBuf> {
    let mut folders = std::fs::read_dir(layouts)?;
    let folder = folders.next().context("the engine has pinned nothing")??.path();
    ensure!(folders.next().is_none(), "several layouts are pinned");
    Ok(folder)
}

/// Returns the program of a name that uses the pinned flows, if it is loaded.
fn engine_program(folder: &Path, name: &str) -> Result<Option<ProgramInfo>> {
    let flows = MapInfo::from_pin(folder.join("flows_ipv4"))?.id();
    for program in loaded_programs() {
        let program = program?;
        let uses_flows = program.map_ids()?.is_some_and(|maps| maps.contains(&flows));
        if uses_flows && program.name_as_str() == Some(name) {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

/// Returns the kernel's memory of the flows and of all maps, in octets.
fn memory(folder: &Path) -> Result<(u64, u64)> {
    let (mut flows, mut all) = (0, 0);
    for pin in std::fs::read_dir(folder)? {
        let pin = pin?;
        let name = pin.file_name();
        // Links are pinned, too.
        let is_link = ["link-", "xdp-"].iter().any(|it| name.to_string_lossy().starts_with(it));
        if is_link {
            continue;
        }
        let map = MapData::from_pin(pin.path())?;
        let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let text = std::fs::read_to_string(path)?;
        let octets = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        let octets = octets.and_then(|text| text.trim().parse::<u64>().ok());
        let octets = octets.with_context(|| format!("{}: no memlock", name.display()))?;
        all += octets;
        if name == "flows_ipv4" {
            flows = octets;
        }
    }
    ensure!(flows > 0, "the flows have no memory");
    Ok((flows, all))
}
