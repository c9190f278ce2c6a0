//! The process that runs the packet engine's program on one packet after another (`BPF_PROG_TEST_RUN`).
//!
//! The kernel does not restore a packet between repeated runs. A program of this benchmark, `bpf/again.bpf.c`,
//! makes each packet anew, of the next flow, and calls the engine's program by its last instruction. What it
//! costs itself is measured with a program that does nothing in place of the engine's.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, MapData, MapInfo, ProgramArray};
use aya::programs::{ProgramFd, ProgramInfo, SchedClassifier, loaded_programs};
use aya::{Ebpf, TestRun as _, TestRunOptions};
use clap::Args;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

/// The program, built from `bpf/again.bpf.c`.
#[repr(align(8))]
struct AlignedObject<T: ?Sized>(T);
static OBJECT: &AlignedObject<[u8]> = &AlignedObject(*include_bytes!("bpf/again.bpf.o"));

/// The octets of a packet's headers, as of the packet: it has no data.
pub(crate) const PACKET_LEN: u64 = 40;
const ETHERNET_LEN: usize = 14;
/// `TC_ACT_REDIRECT` of `uapi/linux/pkt_cls.h`, and what a program without an opinion returns.
const VERDICT_REDIRECT: u32 = 7;
const VERDICT_NEXT: u32 = -1_i32 as u32;

/// Where the engine's program and its flows are.
#[derive(Args, Clone, Debug)]
pub(crate) struct RepeatOrder {
    /// The folder with the pins of the engine.
    pin_folder: PathBuf,
    listen: SocketAddrV4,
    server: SocketAddrV4,
}

/// The packets of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RepeatedPacket {
    /// The first of a connection.
    Open,
    /// To the server.
    Request,
    /// To the client.
    Answer,
    /// To the server, for a program that does nothing with it.
    Nothing,
}

impl RepeatedPacket {
    pub(crate) const ALL: [Self; 4] = [Self::Open, Self::Request, Self::Answer, Self::Nothing];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Request => "request",
            Self::Answer => "answer",
            Self::Nothing => "nothing",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        let packet = Self::ALL.into_iter().find(|it| it.name() == name);
        packet.with_context(|| format!("no packet {name}"))
    }
}

/// Runs what stdin orders until it ends. Prints `ready` and the size of the compiled program in octets, and for
/// each line:
///
/// - `PACKET FLOWS FIRST COUNT`: runs the program on so many packets, of the flows from the first on, and prints
///   `done` and nanoseconds a packet.
/// - `memory`: prints `memory` and the octets of the kernel of the map of flows of IPv4, and of all maps.
pub(crate) async fn serve(order: &RepeatOrder) -> Result<()> {
    let folder = pin_folder(&order.pin_folder)?;
    let mut runner = RepeatedProgram::load(order, &folder)?;
    println!("ready {}", runner.engine.size_jitted());
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["memory"] => {
                let (flows, all) = memory(&folder)?;
                println!("memory {flows} {all}");
            }
            &[packet, flows, first, count] => {
                let packet = RepeatedPacket::parse(packet)?;
                let flows = (flows.parse()?, first.parse()?);
                let nanos = runner.run(packet, flows, count.parse()?)?;
                println!("done {nanos}");
            }
            _ => bail!("not an order: {line}"),
        }
    }
    Ok(())
}

struct RepeatedProgram {
    program: Ebpf,
    packets: Array<MapData, [u8; 52]>,
    callees: ProgramArray<MapData>,
    engine: ProgramInfo,
    listen: SocketAddrV4,
    server: SocketAddrV4,
}

impl RepeatedProgram {
    fn load(order: &RepeatOrder, folder: &Path) -> Result<Self> {
        let mut program = Ebpf::load(&OBJECT.0)?;
        for name in ["again", "nothing"] {
            classifier(&mut program, name)?.load()?;
        }
        let mut map = |name| program.take_map(name).with_context(|| format!("no map {name}"));
        let packets = Array::try_from(map("agains")?)?;
        let callees = ProgramArray::try_from(map("callees")?)?;
        let engine = engine_program(folder)?;
        Ok(Self { program, packets, callees, engine, listen: order.listen, server: order.server })
    }

    /// Runs the program on packets of the flows from `first` on, and returns nanoseconds a packet.
    fn run(
        &mut self,
        packet: RepeatedPacket,
        (flows, first): (u32, u32),
        count: u32,
    ) -> Result<u128> {
        ensure!(flows.is_power_of_two(), "{flows} flows are no power of two");
        let callee: ProgramFd = match packet {
            RepeatedPacket::Nothing => {
                classifier(&mut self.program, "nothing")?.fd()?.try_clone()?
            }
            _ => self.engine.fd()?,
        };
        self.callees.set(0, &callee, 0)?;
        let is_answer = packet == RepeatedPacket::Answer;
        let client = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let (source, destination, flags) = match packet {
            RepeatedPacket::Open => (client, self.listen, TCP_SYN),
            RepeatedPacket::Answer => (self.server, client, TCP_ACK),
            RepeatedPacket::Request | RepeatedPacket::Nothing => (client, self.listen, TCP_ACK),
        };
        let headers = headers(source, destination, flags);
        // `struct again`
        let mut value = [0; 52];
        for (at, word) in [(0, first), (4, flows - 1), (8, u32::from(is_answer))] {
            value[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        value[12..].copy_from_slice(&headers);
        self.packets.set(0, value, 0)?;
        let mut frame = vec![0; ETHERNET_LEN];
        frame[12..].copy_from_slice(&[8, 0]);
        frame.extend(headers);
        let options =
            TestRunOptions { data_in: Some(&frame), repeat: count, ..TestRunOptions::default() };
        let result = classifier(&mut self.program, "again")?.test_run(options)?;
        let expected =
            if packet == RepeatedPacket::Nothing { VERDICT_NEXT } else { VERDICT_REDIRECT };
        let verdict = result.return_value;
        ensure!(verdict == expected, "{packet:?}: the verdict is {verdict}, not {expected}");
        Ok(result.duration.as_nanos())
    }
}

const TCP_SYN: u8 = 2;
const TCP_ACK: u8 = 16;

/// Returns the headers of a packet. Checksums are adjusted by what changes, and may be wrong.
fn headers(
    source: SocketAddrV4,
    destination: SocketAddrV4,
    flags: u8,
) -> [u8; PACKET_LEN as usize] {
    let mut headers = [0; PACKET_LEN as usize];
    // IPv4: version and length, total length, time to live, protocol.
    headers[0] = 0x45;
    headers[3] = PACKET_LEN as u8;
    (headers[8], headers[9]) = (64, 6);
    headers[12..16].copy_from_slice(&source.ip().octets());
    headers[16..20].copy_from_slice(&destination.ip().octets());
    // TCP: ports, length, flags.
    headers[20..22].copy_from_slice(&source.port().to_be_bytes());
    headers[22..24].copy_from_slice(&destination.port().to_be_bytes());
    (headers[32], headers[33]) = (0x50, flags);
    headers
}

fn classifier<'a>(program: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
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

/// Returns the program that uses the pinned flows.
fn engine_program(folder: &Path) -> Result<ProgramInfo> {
    let flows = MapInfo::from_pin(folder.join("flows_ipv4"))?.id();
    for program in loaded_programs() {
        let program = program?;
        let uses_flows = program.map_ids()?.is_some_and(|maps| maps.contains(&flows));
        if uses_flows && program.name_as_str() == Some("lvs") {
            return Ok(program);
        }
    }
    bail!("the program of the engine is not loaded")
}

/// Returns the kernel's memory of the flows and of all maps, in octets.
fn memory(folder: &Path) -> Result<(u64, u64)> {
    let (mut flows, mut all) = (0, 0);
    for pin in std::fs::read_dir(folder)? {
        let pin = pin?;
        let name = pin.file_name();
        // Links are pinned, too.
        if name.to_string_lossy().starts_with("link-") {
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
