//! The command `status`: the cluster in numbers, and how shortages are told.

use std::time::Duration;

use datad_gossip::api::{Clock, Disk, Seed, Shortage, Status};

use super::{
    ask::{Ask, print},
    failure::Failure,
    table::{Table, bytes_text, yes_no},
};

/// For how long a key has lacked replicas.
pub(super) fn age(shortage: &Shortage) -> String {
    humantime::format_duration(Duration::from_secs(shortage.seconds)).to_string()
}

/// Why a key lacks replicas.
pub(super) fn why(shortage: &Shortage) -> String {
    shortage.reason.clone().unwrap_or_else(|| format!("not known here: locate {} --explain", shortage.key))
}

fn shortage_text(shortage: &Shortage) -> String {
    let Shortage { key, ready, replicas, .. } = shortage;
    format!("{key}: {ready} of {replicas} for {}: {}", age(shortage), why(shortage))
}

fn clock_text(clock: &Clock) -> String {
    let far = humantime::format_duration(Duration::from_secs(clock.ahead_seconds.unsigned_abs()));
    let way = if clock.ahead_seconds < 0 { "behind" } else { "ahead of" };
    format!("that of {} is {far} {way} this node's", clock.node)
}

fn disk_text(disk: &Disk) -> String {
    let percent = 100.0 * disk.used as f64 / disk.total.max(1) as f64;
    format!("{} of {} used ({percent:.0} %)", bytes_text(disk.used), bytes_text(disk.total))
}

/// How many seeds answer, and a line for each that does not.
fn seed_lines(seeds: &[Seed]) -> Vec<(&'static str, String)> {
    let answering = seeds.iter().filter(|seed| seed.answers).count();
    let count = (!seeds.is_empty()).then(|| ("seeds", format!("{answering} of {} answer", seeds.len())));
    let silent = seeds.iter().filter(|seed| !seed.answers);
    let silent = silent.map(|seed| ("seed", format!("{}: {}", seed.address, seed.reason.as_deref().unwrap_or("?"))));
    count.into_iter().chain(silent).collect()
}

pub(super) async fn status(ask: &Ask) -> Result<(), Failure> {
    let document = ask.endpoint.get("status", &[]).await?;
    print(document, ask.json, |status: &Status| {
        let mut pairs = vec![
            ("node", status.node.to_string()),
            ("members", status.members.to_string()),
            ("keys", status.keys.to_string()),
            ("under replicated", status.under_replicated.to_string()),
            ("hot", status.hot.to_string()),
            ("fetching", status.fetching.to_string()),
            ("repairs", format!("{} running, {} waiting", status.repairs_running, status.repairs_waiting)),
            ("converged", yes_no(status.converged)),
        ];
        pairs.extend(status.lacking.iter().map(|shortage| ("lacks replicas", shortage_text(shortage))));
        pairs.extend(status.scanning.map(|found| ("reading its disk", format!("{found} keys so far"))));
        pairs.extend((status.observers > 0).then(|| ("observers", status.observers.to_string())));
        pairs.extend(status.repairs_paused.clone().map(|why| ("repairs paused", why)));
        pairs.extend(status.disk.as_ref().map(|disk| ("disk", disk_text(disk))));
        pairs.extend(status.full.then(|| ("full", "yes: no new keys are taken here".into())));
        pairs.extend(seed_lines(&status.seeds));
        pairs.extend(status.clocks_apart.iter().map(|clock| ("clock", clock_text(clock))));
        pairs.extend(status.waiting_for.iter().map(|what| ("waiting for", what.clone())));
        pairs.extend(status.trouble.clone().map(|trouble| ("trouble", trouble)));
        Table::of_pairs(pairs).text()
    })
}
