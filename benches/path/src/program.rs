//! What the packet engine's programs take for a packet, and what flows take.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::time::sleep;

use crate::engines::PacketReport;
use crate::network::{SERVER_PORT, server_addresses, virtual_address};
use crate::process::Child;
use crate::repeated_packet::{Hook, PACKET_LEN, RepeatedPacket};
use crate::running::{START_TIMEOUT, Stage, report_of};
use crate::spec::PacketMethod;
use crate::statistics::Spread;

/// The flows whose events the engine's thread reads before more are made: it loses none.
const CHUNK: u32 = 2048;
/// The aims for a packet, in nanoseconds.
const TC_AIM: f64 = 300.0;
const XDP_AIM: f64 = 150.0;

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramPlan {
    pub(crate) rounds: usize,
    /// The packets of a run.
    pub(crate) packets: u32,
    /// The flows between which the time of a packet is measured, besides one; a power of two.
    pub(crate) many: u32,
    /// The flows that are held at the end; a power of two. The same for none more.
    pub(crate) held: u32,
}

/// An engine and the process that runs its programs.
struct ProgramBench {
    method: PacketMethod,
    engine: Child,
    runner: Child,
    plan: ProgramPlan,
    /// Where the engine has programs.
    hooks: Vec<Hook>,
    /// The flows that were made.
    made: u32,
    /// Lines for the CSV file.
    rows: Vec<String>,
}

/// Packets at a hook, and the nanoseconds of one in each round.
struct Column {
    hook: Hook,
    packet: RepeatedPacket,
    nanos: Vec<f64>,
}

/// Measures, prints tables, and returns lines for the CSV file.
pub(crate) async fn measure(folder: &Path, core: usize, plan: ProgramPlan) -> Result<Vec<String>> {
    let mut stage = Stage::build(folder, core).await?;
    let mut rows = Vec::new();
    let mut text = "### The programs, by BPF_PROG_TEST_RUN\n\n\
                    | | method | hook | flows | ns/packet | with the wrapper | the wrapper |\n\
                    |---|---|---|---|---|---|---|\n"
        .to_owned();
    for (number, method) in (1..).zip([PacketMethod::Nat, PacketMethod::DirectRouting]) {
        // Flows by direct routing take as much memory.
        let is_held = method == PacketMethod::Nat && plan.held > plan.many;
        let plan = ProgramPlan { held: if is_held { plan.held } else { plan.many }, ..plan };
        let mut bench = ProgramBench::start(&mut stage, number, method, plan).await?;
        for flows in [1, plan.many] {
            bench.make_flows(flows).await?;
            text.push_str(&bench.measure_flows(flows).await?);
        }
        if is_held {
            bench.make_flows(plan.held).await?;
            println!("{}", bench.hold_flows().await?);
        }
        bench.runner.end().await?;
        bench.engine.end().await?;
        rows.extend(bench.rows);
    }
    println!(
        "{text}\nThe aims are {TC_AIM:.0} ns at tc, and {XDP_AIM:.0} ns at XDP, where it is the program that finds the \
         route and the neighbour: after the program at tc the kernel does.\n"
    );
    Ok(rows)
}

impl ProgramBench {
    async fn start(
        stage: &mut Stage,
        number: u8,
        method: PacketMethod,
        plan: ProgramPlan,
    ) -> Result<Self> {
        stage.network.add_director(number)?;
        stage.network.add_virtual_address(number)?;
        let devices = stage.network.add_neighbours(number)?;
        let pins = stage.network.pin_folder(&format!("program-{}", method.name()));
        let pins = pins.display().to_string();
        let mut listen = virtual_address(number);
        if method.answers_directly() {
            // Packets keep their port.
            listen.set_port(SERVER_PORT);
        }
        let listen = listen.to_string();
        // One server, so that it is known whose answers are those of a flow.
        let [server, _] = server_addresses(number).map(|server| server.to_string());
        let options = [
            format!("--flows={}", plan.held),
            format!("--method={}", method.name()),
            format!("--xdp-device=to-client{number}"),
            format!("--xdp-device=to-server{number}"),
        ];
        let line = ["packet", &pins, &listen, &server].map(OsString::from);
        let line = line.into_iter().chain(options.map(OsString::from));
        let mut engine = stage.start_at_director(number, "engine", line)?;
        engine.expect("ready", START_TIMEOUT).await?;
        let devices = devices.map(|device| device.to_string());
        let line = ["repeat", &pins, &listen, &server].into_iter().map(OsString::from);
        let line = line.chain(devices.map(OsString::from));
        let mut runner = stage.start_at_director(number, "runner", line)?;
        let sizes = runner.expect("ready", START_TIMEOUT).await?;
        let mut hooks = Vec::new();
        for (hook, size) in [Hook::Tc, Hook::Xdp].into_iter().zip(sizes.split(' ')) {
            let (method, hook_name) = (method.name(), hook.name());
            println!("{method}: the program at {hook_name} has {size} octets (0: interpreted)");
            hooks.push(hook);
        }
        if !hooks.contains(&Hook::Xdp) {
            println!("XDP: the engine has no program there, left out");
        }
        println!();
        Ok(Self { method, engine, runner, plan, hooks, made: 0, rows: Vec::new() })
    }

    /// Runs a program on packets, and returns nanoseconds a packet.
    async fn run(
        &mut self,
        hook: Hook,
        packet: RepeatedPacket,
        (flows, first): (u32, u32),
        count: u32,
    ) -> Result<f64> {
        let line = format!("{} {} {flows} {first} {count}", hook.name(), packet.name());
        self.runner.write_line(&line).await?;
        Ok(self.runner.expect("done", START_TIMEOUT).await?.parse()?)
    }

    /// Makes flows by their first packets, has the server answer and the client acknowledge it, until there are so many.
    async fn make_flows(&mut self, flows: u32) -> Result<()> {
        // An answer by another way shows by what the client acknowledges, and the client by its next packet.
        let answer = match self.method.answers_directly() {
            true => RepeatedPacket::Request,
            false => RepeatedPacket::Answer,
        };
        while self.made < flows {
            let count = CHUNK.min(flows - self.made);
            // The number of all flows that will be: flows are the same ones whatever their number is now.
            let range = (self.plan.held, self.made);
            // Until the last of them there is room for a quarter of the flows.
            for packet in [RepeatedPacket::Open, answer, RepeatedPacket::Request] {
                self.run(Hook::Tc, packet, range, count).await?;
            }
            self.made += count;
            self.wait_for(|report, made| report.active == made).await?;
        }
        Ok(())
    }

    /// Waits until the engine's report shows something.
    async fn wait_for(
        &mut self,
        is_so: impl Fn(&PacketReport, u64) -> bool,
    ) -> Result<PacketReport> {
        let made = u64::from(self.made);
        let mut report = PacketReport::default();
        for _ in 0..2000 {
            report = report_of(&mut self.engine).await?;
            if is_so(&report, made) {
                return Ok(report);
            }
            sleep(Duration::from_millis(2)).await;
        }
        bail!("{made} flows were made, and the engine reports {report:?}")
    }

    /// Returns table rows of the time for a packet among so many flows, which are there.
    async fn measure_flows(&mut self, flows: u32) -> Result<String> {
        let before = self.settled_report().await?;
        let ProgramPlan { rounds, packets, held, .. } = self.plan;
        let mut columns = self.columns();
        for _ in 0..rounds {
            for Column { hook, packet, nanos } in &mut columns {
                // The first flows of all: none but those are there.
                nanos.push(self.run_parts(*hook, *packet, (held, flows), packets).await?);
            }
        }
        let after = self.settled_report().await?;
        self.check_counted(&columns, before, after)?;
        let show = |values: &[f64]| {
            Spread::of(values.iter().copied()).map_or_else(String::new, |it| it.text(0))
        };
        let mut text = String::new();
        let mut nothing: &[f64] = &[];
        for Column { hook, packet, nanos } in &columns {
            if *packet == RepeatedPacket::Nothing {
                nothing = nanos;
                continue;
            }
            let (method, hook, packet) = (self.method.name(), hook.name(), packet.name());
            let own: Vec<f64> = nanos.iter().zip(nothing).map(|(all, none)| all - none).collect();
            for (round, nanos) in own.iter().enumerate() {
                let row =
                    format!("Program,{method}-{hook}-{packet}-{flows},ns/packet,{round},{nanos}");
                self.rows.push(row);
            }
            text.push_str(&format!(
                "| {packet} | {method} | {hook} | {flows} | {} | {} | {} |\n",
                show(&own),
                show(nanos),
                show(nothing),
            ));
        }
        Ok(text)
    }

    /// Returns what is measured in a round, without figures: at each hook, what the wrapper takes comes first.
    fn columns(&self) -> Vec<Column> {
        let mut packets = vec![RepeatedPacket::Nothing, RepeatedPacket::Request];
        if !self.method.answers_directly() {
            packets.push(RepeatedPacket::Answer);
        }
        let at = |&hook: &Hook| {
            let packets = packets.iter();
            packets.map(move |&packet| Column { hook, packet, nanos: Vec::new() })
        };
        self.hooks.iter().flat_map(at).collect()
    }

    /// Fails unless the engine has counted all packets of these columns as carried where they were.
    fn check_counted(
        &self,
        columns: &[Column],
        before: PacketReport,
        after: PacketReport,
    ) -> Result<()> {
        let runs = |is_counted: &dyn Fn(&Column) -> bool| {
            (columns.iter().filter(|it| is_counted(it)).count() * self.plan.rounds) as u64
        };
        let packets =
            |packet| runs(&|it: &Column| it.packet == packet) * u64::from(self.plan.packets);
        let to_server = packets(RepeatedPacket::Request);
        let to_clients = packets(RepeatedPacket::Answer);
        let at_xdp = runs(&|it| it.hook == Hook::Xdp && it.packet != RepeatedPacket::Nothing)
            * u64::from(self.plan.packets);
        for (name, counted, expected) in [
            ("octets to the server", after.octets_in - before.octets_in, to_server * PACKET_LEN),
            ("octets to clients", after.octets_out - before.octets_out, to_clients * PACKET_LEN),
            ("packets at XDP", after.at_xdp - before.at_xdp, at_xdp),
        ] {
            // The program at XDP leaves a packet in a while to the one at tc, for the sake of its neighbour.
            let is_all = counted <= expected && expected - counted <= expected / 1000;
            ensure!(is_all, "{counted} {name} were counted, not {expected}");
        }
        ensure!(after.failures == before.failures, "{before:?} became {after:?}");
        Ok(())
    }

    /// Runs the program on packets of the first of all flows, in turn, and returns nanoseconds a packet.
    async fn run_parts(
        &mut self,
        hook: Hook,
        packet: RepeatedPacket,
        (held, flows): (u32, u32),
        packets: u32,
    ) -> Result<f64> {
        if flows == 1 {
            return self.run(hook, packet, (1, 0), packets).await;
        }
        let (mut sum, mut left) = (0.0, packets);
        while left > 0 {
            let count = left.min(flows);
            sum += self.run(hook, packet, (held, 0), count).await? * f64::from(count);
            left -= count;
        }
        Ok(sum / f64::from(packets))
    }

    /// Returns a report that holds everything: the engine reads its counters once a second.
    async fn settled_report(&mut self) -> Result<PacketReport> {
        sleep(Duration::from_millis(2500)).await;
        report_of(&mut self.engine).await
    }

    /// Finds each of the flows, and tells what memory they take.
    async fn hold_flows(&mut self) -> Result<String> {
        let held = self.plan.held;
        let before = self.settled_report().await?;
        let nanos = self.run(Hook::Tc, RepeatedPacket::Request, (held, 0), held).await?;
        let nothing = self.run(Hook::Tc, RepeatedPacket::Nothing, (held, 0), held).await?;
        let after = self.settled_report().await?;
        let found = (after.octets_in - before.octets_in) / PACKET_LEN;
        self.runner.write_line("memory").await?;
        let line = self.runner.expect("memory", START_TIMEOUT).await?;
        let octets: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
        let Ok(&[kernel, all]) = octets.as_deref() else { bail!("printed {line:?}") };
        let process = self.engine.resident_bytes()?;
        let lost = u64::from(held) - found;
        let own = nanos - nothing;
        for (name, value) in [
            ("held", u64::from(held)),
            ("found", found),
            ("kernel", kernel),
            ("kernel-all-maps", all),
            ("process", process),
        ] {
            self.rows.push(format!("Flows,{name},,0,{value}"));
        }
        let each = |octets: u64| octets as f64 / f64::from(held);
        Ok(format!(
            "### {held} flows, held by a table with room for as many\n\n\
             found again: {found}, lost: {lost}; {own:.0} ns/packet, each of another flow\n\
             memory of the kernel: {} MiB, {:.0} octets a flow; of all maps: {} MiB\n\
             memory of the engine's process: {} MiB, {:.0} octets a flow\n",
            kernel >> 20,
            each(kernel),
            all >> 20,
            process >> 20,
            each(process),
        ))
    }
}
