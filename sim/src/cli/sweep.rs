//! Many seeds, and what they came to.

use std::{
    collections::BTreeMap,
    num::NonZero,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use datad_sim::{Outcome, oracle::probes::Probes, run};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use super::{CRASH, LIVENESS, NONDETERMINISM, What, drawn, status};

/// So many seeds are enough for every probe to fire.
const PROBES_AFTER: u64 = 1_000;
/// Without a terminal there is a line of progress this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Sum {
    /// How long the sweep had run when it last wrote a line of progress.
    told: Duration,
    /// Seeds that failed, by how.
    failed: BTreeMap<u8, Vec<u64>>,
    seeds: u64,
    repeated: u64,
    virtual_time: Duration,
    wall_time: Duration,
    faults: BTreeMap<&'static str, u64>,
    probes: Probes,
    asked: u64,
    good: u64,
}

impl Sum {
    fn failures(&self) -> usize {
        self.failed.values().map(Vec::len).sum()
    }

    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.virtual_time += outcome.virtual_time;
        self.wall_time += outcome.wall_time;
        self.asked += outcome.requests.asked;
        self.good += outcome.requests.good;
        self.probes.add(&outcome.probes);
        for (kind, count) in &outcome.faults {
            *self.faults.entry(kind).or_default() += count;
        }
    }
}

pub(crate) fn sweep(
    what: &What,
    seeds: Range<u64>,
    jobs: Option<u16>,
    twice_every: Option<u64>,
    fail_fast: bool,
) -> anyhow::Result<u8> {
    what.script(seeds.start)?;
    let jobs = jobs.map_or_else(|| thread::available_parallelism().map_or(1, NonZero::get), usize::from);
    let bar = ProgressBar::new(seeds.end - seeds.start);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} eta {eta} {msg}");
    bar.set_style(style.expect("a valid template"));
    let (next, sum, enough) = (Mutex::new(seeds.clone()), Mutex::new(Sum::default()), Arc::new(AtomicBool::new(false)));
    // Ends with its summary; an impatient second Ctrl-C ends it at once.
    flag::register_conditional_shutdown(SIGINT, 128 + SIGINT, enough.clone())?;
    flag::register(SIGINT, enough.clone())?;
    flag::register(SIGTERM, enough.clone())?;
    let next = || next.lock().expect("nothing panics while it holds this lock").next();
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(seed) = next().filter(|_| !enough.load(Ordering::Relaxed)) {
                    let twice = twice_every.is_some_and(|every| (seed - seeds.start).is_multiple_of(every));
                    if one(what, seed, twice, &bar, &sum) != 0 && fail_fast {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let sum = sum.into_inner().expect("nothing panics while it holds this lock");
    let status = tell(&sum, what, bar.elapsed());
    let left = seeds.end - seeds.start - sum.seeds;
    if left > 0 {
        println!("ended early: {left} seeds were not run");
    }
    Ok(if status == 0 && left > 0 { CRASH } else { status })
}

fn one(what: &What, seed: u64, twice: bool, bar: &ProgressBar, sum: &Mutex<Sum>) -> u8 {
    let options = match what.options(seed) {
        Ok(options) => options,
        Err(error) => {
            bar.suspend(|| println!("seed {seed}: {error}"));
            return CRASH;
        }
    };
    let outcome = run::run(&options);
    let repeats = !twice || run::run(&options).hash == outcome.hash;
    let status = if repeats { status(&outcome) } else { NONDETERMINISM };
    if status != 0 {
        let (line, replay) = (outcome.line(), what.replay(seed));
        let more = if repeats { "" } else { " --check-determinism" };
        bar.suspend(|| println!("{line}\n  drawn: {}\n  replay: {replay}{more}", drawn(&options.script)));
    }
    let mut sum = sum.lock().expect("nothing panics while it holds this lock");
    sum.add(&outcome);
    sum.repeated += u64::from(twice);
    if status != 0 {
        sum.failed.entry(status).or_default().push(seed);
        bar.set_message(format!("{} failed", sum.failures()));
    }
    bar.inc(1);
    if bar.is_hidden() && bar.elapsed() - sum.told >= PROGRESS_EVERY {
        sum.told = bar.elapsed();
        let (done, all) = (bar.position(), bar.length().unwrap_or_default());
        let (took, left) = (HumanDuration(bar.elapsed()), HumanDuration(bar.eta()));
        eprintln!("{done} of {all} seeds in {took}, {left} to go, {} failed", sum.failures());
    }
    status
}

fn tell(sum: &Sum, what: &What, took: Duration) -> u8 {
    let list = |counts: Vec<String>| if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    let speed = sum.virtual_time.as_secs_f64() / sum.wall_time.as_secs_f64().max(f64::EPSILON);
    println!(
        "{} seeds in {took:.0?}, {:.0} virtual s, {speed:.0} times real time on each core, {} repeated",
        sum.seeds,
        sum.virtual_time.as_secs_f64(),
        sum.repeated
    );
    println!("requests: {} asked, {} good", sum.asked, sum.good);
    println!("faults: {}", list(sum.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect()));
    let probes = datad_sim::oracle::probes::ALL.iter().map(|(name, _)| format!("{name} {}", sum.probes.count(name)));
    println!("probes: {}", list(probes.collect()));
    let silent = sum.probes.silent();
    let toothless = what.scenario.is_none() && sum.seeds >= PROBES_AFTER && !silent.is_empty();
    if toothless {
        println!("these never happened, so the sweep shows nothing about them: {}", silent.join(", "));
    }
    for seeds in sum.failed.values() {
        for seed in seeds {
            println!("failed: {}", what.replay(*seed));
        }
    }
    println!("{} of {} seeds failed", sum.failures(), sum.seeds);
    sum.failed.keys().next().copied().unwrap_or(if toothless { LIVENESS } else { 0 })
}
