//! A failing seed made smaller.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::Context;
use datad_sim::{
    Options, Script,
    cluster::rng,
    run,
    script::{draw, shrink},
};
use indicatif::{ProgressBar, ProgressStyle};

use super::{What, status};

pub(crate) fn shrink(what: &What, seed: u64, output: Option<PathBuf>) -> anyhow::Result<u8> {
    let mut script = Script::clone(&*what.script(seed)?);
    draw::expand(&mut rng(seed, 1), &mut script);
    let whole = run::run(&Options::new(seed, script.clone()));
    let Some(violation) = &whole.violation else {
        println!("{}\nnothing to shrink: this seed does not fail", whole.line());
        return Ok(0);
    };
    println!("{}", whole.line());
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {pos} runs, {elapsed}: {msg}").expect("a valid template"));
    let property = violation.property;
    let mut fails = |script: &Script| {
        bar.inc(1);
        let outcome = run::run(&Options::new(seed, Arc::new(script.clone())));
        let same = outcome.violation.is_some_and(|violation| violation.property == property);
        if same {
            let shrink::Size { faults, requests } = shrink::size(script);
            bar.set_message(format!("{faults} faults and {requests} requests are left"));
        }
        same
    };
    let mut small = shrink::shrink(script, &mut fails);
    bar.finish_and_clear();
    (small.seed, small.name) = (Some(seed), format!("seed-{seed}"));
    small.about = format!("property {property} does not hold: {}", violation.detail);
    let path = output.unwrap_or_else(|| PathBuf::from(format!("seed-{seed}.toml")));
    fs::write(&path, small.to_toml()).with_context(|| format!("cannot write {}", path.display()))?;
    let shrink::Size { faults, requests } = shrink::size(&small);
    println!("{faults} faults and {requests} requests are left after {} runs", bar.position());
    println!("replay: datad-sim run --seed {seed} --scenario {}", path.display());
    Ok(status(&whole))
}
