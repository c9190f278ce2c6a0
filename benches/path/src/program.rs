//! What the packet engine's program takes for a packet, and what flows take.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::time::sleep;

use crate::engines::PacketReport;
use crate::network::{server_addresses, virtual_address};
use crate::process::Child;
use crate::repeated::{PACKET_LEN, RepeatedPacket};
use crate::running::{START_TIMEOUT, Stage, report_of};
use crate::statistics::Spread;

/// The flows whose events the engine's thread reads before more are made: it loses none.
const CHUNK: u32 = 2048;
/// The aim for a packet, in nanoseconds.
const AIM: f64 = 300.0;

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

/// An engine and the process that runs its program.
struct ProgramBench {
    engine: Child,
    runner: Child,
    plan: ProgramPlan,
    /// The flows that were made.
    made: u32,
    /// Lines for the CSV file.
    rows: Vec<String>,
}

/// Measures, prints tables, and returns lines for the CSV file.
pub(crate) async fn measure(folder: &Path, core: usize, plan: ProgramPlan) -> Result<Vec<String>> {
    let mut stage = Stage::build(folder, core).await?;
    let mut bench = ProgramBench::start(&mut stage, plan).await?;
    let mut text = "### The program, by BPF_PROG_TEST_RUN\n\n\
                    | | flows | ns/packet | with the wrapper | the wrapper |\n|---|---|---|---|---|\n"
        .to_owned();
    bench.make_flows(1).await?;
    text.push_str(&bench.measure_flows(1).await?);
    bench.make_flows(plan.many).await?;
    text.push_str(&bench.measure_flows(plan.many).await?);
    println!("{text}\nThe aim is {AIM:.0} ns.\n");
    if plan.held > plan.many {
        bench.make_flows(plan.held).await?;
        println!("{}", bench.hold_flows().await?);
    }
    bench.runner.end().await?;
    bench.engine.end().await?;
    Ok(bench.rows)
}

impl ProgramBench {
    async fn start(stage: &mut Stage, plan: ProgramPlan) -> Result<Self> {
        let number = 1;
        stage.network.add_director(number)?;
        stage.network.add_virtual_address(number)?;
        let pins = stage.network.pin_folder("program").display().to_string();
        let listen = virtual_address(number).to_string();
        // One server, so that it is known whose answers are those of a flow.
        let [server, _] = server_addresses(number).map(|server| server.to_string());
        let flows = format!("--flows={}", plan.held);
        let line = ["packet", &flows, &pins, &listen, &server].map(OsString::from);
        let mut engine = stage.start_at_director(number, "engine", line)?;
        engine.expect("ready", START_TIMEOUT).await?;
        let line = ["repeat", &pins, &listen, &server].map(OsString::from);
        let mut runner = stage.start_at_director(number, "runner", line)?;
        let size = runner.expect("ready", START_TIMEOUT).await?;
        println!("the compiled program of the engine has {size} octets (0: interpreted)\n");
        Ok(Self { engine, runner, plan, made: 0, rows: Vec::new() })
    }

    /// Runs the program on packets, and returns nanoseconds a packet.
    async fn run(
        &mut self,
        packet: RepeatedPacket,
        (flows, first): (u32, u32),
        count: u32,
    ) -> Result<f64> {
        self.runner.write_line(&format!("{} {flows} {first} {count}", packet.name())).await?;
        Ok(self.runner.expect("done", START_TIMEOUT).await?.parse()?)
    }

    /// Makes flows by their first packets, has the server answer and the client acknowledge it, until there are so many.
    async fn make_flows(&mut self, flows: u32) -> Result<()> {
        while self.made < flows {
            let count = CHUNK.min(flows - self.made);
            // The number of all flows that will be: flows are the same ones whatever their number is now.
            let range = (self.plan.held, self.made);
            self.run(RepeatedPacket::Open, range, count).await?;
            self.run(RepeatedPacket::Answer, range, count).await?;
            // Until then there is room for a quarter of them.
            self.run(RepeatedPacket::Request, range, count).await?;
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
        let mut columns = [Vec::new(), Vec::new(), Vec::new()];
        let kinds = [RepeatedPacket::Nothing, RepeatedPacket::Request, RepeatedPacket::Answer];
        for _ in 0..rounds {
            for (kind, column) in kinds.into_iter().zip(&mut columns) {
                // The first flows of all: none but those are there.
                let nanos = self.run_parts(kind, (held, flows), packets).await?;
                column.push(nanos);
            }
        }
        let sent = u64::from(packets) * rounds as u64 * PACKET_LEN;
        let after = self.settled_report().await?;
        for (name, before, after) in [
            ("the server", before.octets_in, after.octets_in),
            ("clients", before.octets_out, after.octets_out),
        ] {
            let counted = after - before;
            ensure!(counted == sent, "{counted} octets to {name} were counted, not {sent}");
        }
        ensure!(after.failures == before.failures, "{before:?} became {after:?}");
        let [nothing, others @ ..] = columns;
        let mut text = String::new();
        for (kind, column) in kinds.into_iter().skip(1).zip(others) {
            let own: Vec<f64> = column.iter().zip(&nothing).map(|(all, none)| all - none).collect();
            for (round, nanos) in own.iter().enumerate() {
                let row = format!("Program,{}-{flows},ns/packet,{round},{nanos}", kind.name());
                self.rows.push(row);
            }
            let show = |values: &[f64]| {
                Spread::of(values.iter().copied()).map_or_else(String::new, |it| it.text(0))
            };
            text.push_str(&format!(
                "| {} | {flows} | {} | {} | {} |\n",
                kind.name(),
                show(&own),
                show(&column),
                show(&nothing),
            ));
        }
        Ok(text)
    }

    /// Runs the program on packets of the first of all flows, in turn, and returns nanoseconds a packet.
    async fn run_parts(
        &mut self,
        kind: RepeatedPacket,
        (held, flows): (u32, u32),
        packets: u32,
    ) -> Result<f64> {
        if flows == 1 {
            return self.run(kind, (1, 0), packets).await;
        }
        let (mut sum, mut left) = (0.0, packets);
        while left > 0 {
            let count = left.min(flows);
            sum += self.run(kind, (held, 0), count).await? * f64::from(count);
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
        let nanos = self.run(RepeatedPacket::Request, (held, 0), held).await?;
        let nothing = self.run(RepeatedPacket::Nothing, (held, 0), held).await?;
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
