//! Commands: run one seed, sweep over many, make a failing one smaller, list what there is.

mod list;
mod one;
mod shrink;
mod sweep;

use std::{fmt, ops::Range, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Args, Parser, Subcommand};
use datad_sim::{
    Options, Outcome, Script,
    model::Class,
    script::{draw, scenarios},
};

pub(crate) const CRASH: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const SAFETY: u8 = 3;
pub(crate) const LIVENESS: u8 = 4;
pub(crate) const NONDETERMINISM: u8 = 5;

/// Runs clusters of datad-gossip nodes on a simulated network, disk and clock.
///
/// Everything in a run follows from its seed. Exit status: 0 all properties held, 3 a safety property was violated, 4 a
/// liveness property was violated or a sweep did not bite, 5 a seed did not repeat itself, 1 something panicked or failed,
/// 2 wrong usage. RUST_LOG=datad_sim=info tells what happens, RUST_LOG=debug what the nodes say to it.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one seed and says how it ended.
    Run {
        #[command(flatten)]
        what: What,
        /// The seed, from which everything follows.
        #[arg(long)]
        seed: u64,
        /// Writes every event to this file, one JSON document a line.
        #[arg(long, value_name = "F.jsonl")]
        trace: Option<PathBuf>,
        /// Writes a page to look at: lanes of nodes, faults as bands, requests, claims and repairs as marks.
        #[arg(long, value_name = "F.html")]
        timeline: Option<PathBuf>,
        /// Writes what moved, how long replicas were missing, and what requests came to.
        #[arg(long, value_name = "F.json")]
        report: Option<PathBuf>,
        /// Writes the script of the run, to read or to change.
        #[arg(long, value_name = "F.toml")]
        script: Option<PathBuf>,
        /// Runs twice and names the first event that differs.
        #[arg(long)]
        check_determinism: bool,
        /// Lets the operating system decide something.
        #[arg(long, hide = true)]
        leak: bool,
    },
    /// Runs many seeds, shows how to repeat those that fail, and sums up what happened.
    Sweep {
        #[command(flatten)]
        what: What,
        /// The seeds: `A..B`, without B.
        #[arg(long, value_parser = seeds)]
        seeds: Range<u64>,
        /// Runs at once; as many as there are processors unless given.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
        jobs: Option<u16>,
        /// Runs every so many seeds a second time and demands the same trace.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        check_determinism_every: Option<u64>,
        /// Ends at the first seed that fails.
        #[arg(long)]
        fail_fast: bool,
    },
    /// Looks for the smallest part of a failing seed's script that still fails, and writes it to a file.
    Shrink {
        #[command(flatten)]
        what: What,
        /// The seed that fails.
        #[arg(long)]
        seed: u64,
        /// Where the smaller script goes; `seed-S.toml` unless given.
        #[arg(long, value_name = "F.toml")]
        output: Option<PathBuf>,
    },
    /// Lists the scenarios, the properties that are checked, and what has to happen sometimes.
    List,
}

/// What is run, besides the seed.
#[derive(Args, Clone)]
struct What {
    /// A scenario by name, or a file; without it, everything is drawn from the seed.
    #[arg(long, value_name = "NAME|FILE.toml")]
    scenario: Option<String>,
    /// Machines with a provider; 5, or as many as the scenario says.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=200))]
    nodes: Option<u16>,
    /// Virtual minutes with faults; 1, or as long as the scenario lasts.
    #[arg(long, value_parser = minutes)]
    minutes: Option<f64>,
}

impl What {
    fn options(&self, seed: u64) -> anyhow::Result<Options> {
        Ok(Options::new(seed, self.script(seed)?))
    }

    fn script(&self, seed: u64) -> anyhow::Result<Arc<Script>> {
        let lasts = self.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
        let Some(name) = &self.scenario else {
            let usual = draw::Shape::default();
            let nodes = self.nodes.map_or(usual.nodes, usize::from);
            return Ok(draw::draw(seed, &draw::Shape { nodes, lasts: lasts.unwrap_or(usual.lasts) }).into());
        };
        let mut script = scenarios::load(name)?;
        script.cluster.nodes = self.nodes.map_or(script.cluster.nodes, usize::from);
        script.lasts = lasts.unwrap_or(script.lasts);
        script.check()?;
        Ok(script.into())
    }

    /// The command that runs this seed again.
    fn replay(&self, seed: u64) -> String {
        use fmt::Write;
        let mut command = format!("datad-sim run --seed {seed}");
        if let Some(scenario) = &self.scenario {
            let _ = write!(command, " --scenario {scenario}");
        }
        if let Some(nodes) = self.nodes {
            let _ = write!(command, " --nodes {nodes}");
        }
        if let Some(minutes) = self.minutes {
            let _ = write!(command, " --minutes {minutes}");
        }
        command
    }
}

/// What was drawn for a seed, for people.
fn drawn(script: &Script) -> String {
    let (node, network) = (&script.node, &script.network);
    let mut kinds: Vec<&str> = script.faults.iter().map(|fault| fault.kind.name()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    format!(
        "{} nodes, {} clients, {} replicas, {} updaters, {} keys, {:?} {:?} profile, latency {:?} + {:?}, faults: {}",
        script.cluster.nodes,
        script.cluster.clients,
        node.replicas,
        node.updaters,
        script.data.keys,
        script.lasts,
        node.profile.gossip_interval,
        network.latency,
        network.jitter,
        if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") },
    )
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("expected A..B")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("`{text}`: {error}"));
    let range = number(from)?..number(to)?;
    if range.is_empty() { Err("there is no seed in this range".into()) } else { Ok(range) }
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "expected a number")?;
    if (0.01..=10_000.0).contains(&minutes) { Ok(minutes) } else { Err("expected 0.01 to 10000".into()) }
}

fn status(outcome: &Outcome) -> u8 {
    match outcome.violation.as_ref().map(|violation| violation.class) {
        None => 0,
        Some(Class::Safety) => SAFETY,
        Some(Class::Liveness) => LIVENESS,
        Some(Class::Crash) => CRASH,
    }
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    // Nodes complain of what is done to them; that is only of interest to those who ask for it.
    let quiet = tracing_subscriber::filter::LevelFilter::OFF.into();
    let filter = tracing_subscriber::EnvFilter::builder().with_default_directive(quiet).from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    let done = match cli.command {
        Command::Run { what, seed, trace, timeline, report, script, check_determinism, leak } => {
            one::run(&what, seed, &one::Outputs { trace, timeline, report, script }, check_determinism, leak)
        }
        Command::Sweep { what, seeds, jobs, check_determinism_every, fail_fast } => {
            sweep::sweep(&what, seeds, jobs, check_determinism_every, fail_fast)
        }
        Command::Shrink { what, seed, output } => shrink::shrink(&what, seed, output),
        Command::List => Ok(list::list()),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) if error.is::<datad_sim::script::ScriptError>() => {
            eprintln!("datad-sim: {error:#}");
            ExitCode::from(USAGE)
        }
        Err(error) => {
            eprintln!("datad-sim: {error:#}");
            ExitCode::from(CRASH)
        }
    }
}
