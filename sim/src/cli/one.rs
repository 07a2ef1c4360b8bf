//! One seed, with everything that can be known of it.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use datad_sim::{
    Outcome,
    model::{Event, What, first_difference},
    timeline,
    trace::Keep,
};

use super::{NONDETERMINISM, drawn, status};

/// Files to write.
pub(crate) struct Outputs {
    pub(crate) trace: Option<PathBuf>,
    pub(crate) timeline: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
    pub(crate) script: Option<PathBuf>,
}

pub(crate) fn run(what: &super::What, seed: u64, outputs: &Outputs, twice: bool, leak: bool) -> anyhow::Result<u8> {
    let mut options = what.options(seed)?;
    options.keep = match outputs {
        _ if twice => Keep::All,
        Outputs { trace: Some(_), .. } => Keep::All,
        Outputs { timeline: Some(_), .. } => Keep::Story,
        _ => Keep::Hash,
    };
    options.report = outputs.report.is_some();
    options.leak = leak;
    if let Some(path) = &outputs.script {
        write(path, &options.script.to_toml())?;
    }
    let outcome = datad_sim::run(&options);
    if let Some(path) = &outputs.trace {
        write_events(path, &outcome.events).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &outputs.timeline {
        let story: Vec<Event> =
            outcome.events.iter().filter(|event| !matches!(event.what, What::Datagram { .. })).cloned().collect();
        write(path, &timeline::page(&options.script, &outcome, &story))?;
    }
    if let (Some(path), Some(report)) = (&outputs.report, &outcome.report) {
        write(path, &serde_json::to_string_pretty(report)?)?;
    }
    if twice {
        let again = datad_sim::run(&options);
        if let Some((at, first, second)) = first_difference(&outcome.events, &again.events) {
            let show = |event: Option<Event>| event.map_or_else(|| "nothing".to_owned(), |event| event.to_string());
            println!("event {at} differs:\n  first:  {}\n  second: {}", show(first), show(second));
            println!("{}", outcome.line());
            return Ok(NONDETERMINISM);
        }
        println!("twice the same {} events", outcome.events.len());
    }
    tell(what, &options.script, &outcome);
    Ok(status(&outcome))
}

fn tell(what: &super::What, script: &datad_sim::Script, outcome: &Outcome) {
    let Outcome { requests, updates, datagrams, .. } = outcome;
    println!("{}", drawn(script));
    println!(
        "requests: {} asked, {} good, {} failed, {} waited over a second; upstream asked {} times, {} copies, {} dropped; \
         datagrams: {} sent, {} lost, {} corrupted, {} overtaken, {} twice",
        requests.asked,
        requests.good,
        requests.failed,
        requests.waited,
        updates.fetches,
        updates.copies,
        updates.dropped,
        datagrams.sent,
        datagrams.lost,
        datagrams.corrupted,
        datagrams.overtaken,
        datagrams.duplicated,
    );
    if outcome.violation.is_some() {
        println!("replay: {} --timeline seed-{}.html", what.replay(outcome.seed), outcome.seed);
    }
    println!("{}", outcome.line());
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn write_events(path: &Path, events: &[Event]) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for event in events {
        serde_json::to_writer(&mut file, event)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}
