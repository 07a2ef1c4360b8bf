//! The simulator's command line: one seed, or many.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufWriter, Write},
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use datad_sim::{
    Options, Outcome,
    checks::Class,
    run,
    trace::{Event, What, first_difference},
};
use indicatif::{ProgressBar, ProgressStyle};

const CRASH: u8 = 1;
const SAFETY: u8 = 3;
const LIVENESS: u8 = 4;
const NONDETERMINISM: u8 = 5;

/// Runs clusters of datad-gossip nodes on a simulated network, disk and clock.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one seed.
    Run {
        /// The seed, from which everything follows.
        #[arg(long)]
        seed: u64,
        #[command(flatten)]
        shape: Shape,
        /// Writes every event to this file, one JSON document a line.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Runs twice and demands that the same happens.
        #[arg(long)]
        check_determinism: bool,
    },
    /// Runs many seeds and shows how to repeat those that fail.
    Sweep {
        /// The seeds: `A..B`, without B.
        #[arg(long, value_parser = seeds)]
        seeds: Range<u64>,
        /// Runs at once.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
        jobs: u16,
        #[command(flatten)]
        shape: Shape,
    },
}

#[derive(Args, Clone, Copy)]
struct Shape {
    /// Machines.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    nodes: u16,
    /// Virtual minutes with faults.
    #[arg(long, default_value_t = 1.0, value_parser = minutes)]
    minutes: f64,
}

impl Shape {
    fn options(self, seed: u64) -> Options {
        let mut options = Options::new(seed);
        options.nodes = self.nodes.into();
        options.faulty = Duration::from_secs_f64(self.minutes * 60.0);
        options
    }
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    warm_up();
    let done = match cli.command {
        Command::Run { seed, shape, trace, check_determinism } => {
            one(shape.options(seed), trace.as_deref(), check_determinism)
        }
        Command::Sweep { seeds, jobs, shape } => Ok(sweep(seeds, jobs, shape)),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("datad-sim: {error:#}");
            ExitCode::from(CRASH)
        }
    }
}

/// A short run that nobody looks at: what libraries draw once for the whole process, they draw now.
fn warm_up() {
    let mut options = Options::new(0);
    (options.nodes, options.faulty) = (2, Duration::from_millis(500));
    let _ = run(&options);
}

fn one(mut options: Options, trace: Option<&Path>, twice: bool) -> anyhow::Result<u8> {
    options.keep_events = twice || trace.is_some();
    let outcome = run(&options);
    if let Some(path) = trace {
        write(path, &outcome.events).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if twice {
        let again = run(&options);
        if let Some((at, first, second)) = first_difference(&outcome.events, &again.events) {
            let show = |event: Option<Event>| event.map_or_else(|| "nothing".to_owned(), |event| event.to_string());
            println!("event {at} differs:\n  first:  {}\n  second: {}", show(first), show(second));
            println!("{}", last_line(&outcome));
            return Ok(NONDETERMINISM);
        }
        println!("twice the same {} events", outcome.events.len());
    }
    println!("{:?}", outcome.counts);
    println!("{}", last_line(&outcome));
    Ok(status(&outcome))
}

fn sweep(seeds: Range<u64>, jobs: u16, shape: Shape) -> u8 {
    let bar = ProgressBar::new(seeds.end - seeds.start);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} eta {eta} {msg}").expect("a valid template"),
    );
    let waiting = Mutex::new(seeds.collect::<VecDeque<u64>>());
    let failed = Mutex::new(Vec::new());
    let next = || waiting.lock().expect("nothing panics while it holds this lock").pop_front();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(seed) = next() {
                    let (status, line) = match catch_unwind(AssertUnwindSafe(|| run(&shape.options(seed)))) {
                        Ok(outcome) => (status(&outcome), last_line(&outcome)),
                        Err(_) => (CRASH, format!("seed {seed} scenario random: PANIC")),
                    };
                    if status != 0 {
                        let (nodes, minutes) = (shape.nodes, shape.minutes);
                        let replay = format!("datad-sim run --seed {seed} --nodes {nodes} --minutes {minutes}");
                        bar.suspend(|| println!("{line}\n  replay: {replay}"));
                        failed.lock().expect("nothing panics while it holds this lock").push((status, seed));
                        bar.set_message(format!("failed: {seed}, ..."));
                    }
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut failed = failed.into_inner().expect("nothing panics while it holds this lock");
    failed.sort_unstable();
    let seeds: Vec<u64> = failed.iter().map(|(_, seed)| *seed).collect();
    println!("{} seeds in {:.0?}, {} failed: {seeds:?}", bar.position(), bar.elapsed(), failed.len());
    failed.first().map_or(0, |(status, _)| *status)
}

fn status(outcome: &Outcome) -> u8 {
    match outcome.violation.as_ref().map(|violation| violation.class) {
        None => 0,
        Some(Class::Safety) => SAFETY,
        Some(Class::Liveness) => LIVENESS,
    }
}

fn last_line(outcome: &Outcome) -> String {
    let verdict = outcome.violation.as_ref().map_or_else(|| "ok".to_owned(), |found| format!("VIOLATION {found}"));
    let Outcome { seed, virtual_time, wall_time, hash, .. } = outcome;
    let (virtual_s, wall_s) = (virtual_time.as_secs_f64(), wall_time.as_secs_f64());
    format!("seed {seed} scenario random: {verdict} virtual {virtual_s:.3}s wall {wall_s:.2}s trace {hash:016x}")
}

fn write(path: &Path, events: &[Event]) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for event in events {
        let at = event.at.as_secs_f64();
        let line = match &event.what {
            What::Datagram { from, to, length, hash } => {
                let hash = format!("{hash:016x}");
                serde_json::json!({ "at": at, "from": from, "to": to, "length": length, "hash": hash })
            }
            What::Note(note) => serde_json::json!({ "at": at, "note": note }),
        };
        writeln!(file, "{line}")?;
    }
    Ok(file.flush()?)
}
