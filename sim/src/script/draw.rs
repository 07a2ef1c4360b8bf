//! From a seed to a script, or from a script with traffic to one with every request in it.
//!
//! Every script leaves out some kinds of faults at random, so that kinds which hide each other's effects also come alone
//! (Groce et al., "Swarm testing", 2012). Every fault lasts a minimum time: one that is over before anybody noticed tests
//! nothing. And now and then nothing happens for a while, because much may only be demanded of a calm cluster.

use std::{ops::Range, time::Duration};

use datad_gossip::config::{NodeConfig, Profile};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use rand_distr::{Distribution, Zipf};

use super::{Actor, Cluster, Data, Fault, FaultKind, Left, Name, Request, RequestKind, Script, Traffic};
use crate::model::Link;

/// Shortest and longest time of a fault, in milliseconds.
const LASTS_MS: Range<u64> = 1_500..12_000;
/// Between two faults: mostly short; sometimes long enough for the cluster to become calm.
const SHORT_GAP_MS: Range<u64> = 300..5_000;
const LONG_GAP_MS: Range<u64> = 15_000..30_000;
const LONG_GAP: f64 = 0.2;
/// The first faults come when the cluster may still be forming.
const FIRST_MS: Range<u64> = 300..8_000;
/// Share of the kinds that a script has.
const KINDS: f64 = 0.4;
/// How likely a fault that can last for good does.
const FOR_GOOD: f64 = 0.04;
/// Most requests that traffic is drawn into.
const REQUESTS_MAX: usize = 2_000_000;

/// What is asked of a script besides its seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Machines with a provider.
    pub nodes: usize,
    /// How long faults go on.
    pub lasts: Duration,
}

impl Default for Shape {
    fn default() -> Self {
        Self { nodes: 5, lasts: Duration::from_secs(60) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Crash,
    CrashUnsynced,
    CrashEmpty,
    CrashAll,
    Leave,
    Drain,
    Roll,
    Pause,
    Slow,
    Panic,
    Partition,
    OneWay,
    NotTransitive,
    Flap,
    Loss,
    Late,
    Disorder,
    Corruption,
    Narrow,
    Clock,
    DiskFull,
    DiskSlow,
    DiskFails,
    Vanish,
    Appear,
    UpstreamSlow,
    UpstreamDown,
    UpstreamLacks,
    Change,
    Stranger,
}

const ALL: [Kind; 30] = [
    Kind::Crash,
    Kind::CrashUnsynced,
    Kind::CrashEmpty,
    Kind::CrashAll,
    Kind::Leave,
    Kind::Drain,
    Kind::Roll,
    Kind::Pause,
    Kind::Slow,
    Kind::Panic,
    Kind::Partition,
    Kind::OneWay,
    Kind::NotTransitive,
    Kind::Flap,
    Kind::Loss,
    Kind::Late,
    Kind::Disorder,
    Kind::Corruption,
    Kind::Narrow,
    Kind::Clock,
    Kind::DiskFull,
    Kind::DiskSlow,
    Kind::DiskFails,
    Kind::Vanish,
    Kind::Appear,
    Kind::UpstreamSlow,
    Kind::UpstreamDown,
    Kind::UpstreamLacks,
    Kind::Change,
    Kind::Stranger,
];

/// The script of a seed.
#[must_use]
pub fn draw(seed: u64, shape: &Shape) -> Script {
    let mut rng = StdRng::seed_from_u64(seed);
    let clients = rng.random_range(0..=2);
    let later = if shape.nodes > 2 && rng.random_bool(0.3) { rng.random_range(1..=shape.nodes / 2) } else { 0 };
    let mut script = Script {
        name: "random".into(),
        about: format!("drawn from seed {seed}"),
        seed: Some(seed),
        lasts: shape.lasts,
        cluster: Cluster { nodes: shape.nodes, clients, later },
        node: node(&mut rng),
        network: network(&mut rng),
        data: data(&mut rng),
        traffic: Some(Traffic {
            per_second: rng.random_range(2.0..25.0),
            skew: rng.random_range(0.0..1.5),
            herds: rng.random_range(0.0..0.2),
            updates: if rng.random_bool(0.5) { rng.random_range(0.0..0.2) } else { 0.0 },
            intents: if rng.random_bool(0.4) { rng.random_range(0.0..0.05) } else { 0.0 },
        }),
        ..Script::default()
    };
    joins(&mut rng, &mut script);
    faults(&mut rng, &mut script);
    expand(&mut rng, &mut script);
    script
}

/// Draws the requests of a script that says only how many there are.
pub fn expand(rng: &mut StdRng, script: &mut Script) {
    let Some(traffic) = script.traffic.take() else { return };
    let machines = script.machines();
    let keys = script.data.keys as f64;
    let zipf = Zipf::new(keys, traffic.skew).expect("checked: there are keys, and skew is not negative");
    // Not every run has the same favourites.
    let mut order: Vec<usize> = (0..script.data.keys).collect();
    order.shuffle(rng);
    let mean_ms = 1_000.0 / traffic.per_second;
    let mut at_ms = 0.0;
    while script.requests.len() < REQUESTS_MAX {
        at_ms += -mean_ms * f64::ln(rng.random_range(f64::EPSILON..1.0));
        let at = Duration::from_millis(at_ms as u64);
        if at >= script.lasts {
            break;
        }
        let missing = script.data.missing > 0 && rng.random_bool(0.03);
        let key = if missing {
            format!("missing/{}", rng.random_range(0..script.data.missing))
        } else {
            format!("key/{}", order[zipf.sample(rng) as usize - 1])
        };
        let what = request_kind(rng, &traffic);
        let what = if missing && what.is_intent() { RequestKind::Get } else { what };
        if !what.is_intent() && rng.random_bool(traffic.herds) {
            let ask = |node: &Name| Request { at, node: node.clone(), key: key.clone(), what };
            script.requests.extend(machines.iter().map(ask));
        } else {
            let node = machines[rng.random_range(0..machines.len())].clone();
            script.requests.push(Request { at, node, key, what });
        }
    }
    script.requests.sort_by_key(|request| request.at);
}

fn request_kind(rng: &mut StdRng, traffic: &Traffic) -> RequestKind {
    if rng.random_bool(traffic.intents) {
        return [RequestKind::Pin, RequestKind::Pin, RequestKind::Unpin, RequestKind::Forget][rng.random_range(0..4)];
    }
    if rng.random_bool(traffic.updates) { RequestKind::Update } else { RequestKind::Get }
}

fn network(rng: &mut StdRng) -> Link {
    Link {
        latency: Duration::from_millis(rng.random_range(1..6)),
        jitter: Duration::from_millis(rng.random_range(0..5)),
        loss: if rng.random_bool(0.3) { rng.random_range(0.0..0.01) } else { 0.0 },
        duplication: if rng.random_bool(0.3) { rng.random_range(0.0..0.01) } else { 0.0 },
        mtu: if rng.random_bool(0.5) { 1_472 } else { 8_972 },
        ..Link::default()
    }
}

fn node(rng: &mut StdRng) -> NodeConfig {
    let mut config = NodeConfig::default();
    config.profile = if rng.random_bool(0.3) { Profile::local() } else { Profile::lan() };
    config.replicas = rng.random_range(1..=3);
    config.updaters = rng.random_range(1..=4);
    config.repair_delay = Duration::from_millis(rng.random_range(500..8_000));
    config.trim_delay = Duration::from_millis(rng.random_range(200..4_000));
    config.request_patience = Duration::from_millis(rng.random_range(5_000..20_000));
    config.update_timeout = Duration::from_millis(rng.random_range(8_000..30_000));
    config.not_found_ttl = Duration::from_millis(rng.random_range(0..10_000));
    config.balance_interval = Duration::from_secs(rng.random_range(10..300));
    config.mass_failure_pause = Duration::from_millis(rng.random_range(1_000..30_000));
    config.repairs = rng.random_range(1..=4);
    if rng.random_bool(0.3) {
        config.hot_rate = rng.random_range(1..6);
        config.hot_hold = Duration::from_millis(rng.random_range(2_000..15_000));
    }
    config.repair_bytes_per_second = if rng.random_bool(0.3) { rng.random_range(50_000..1_000_000) } else { 0 };
    config
}

fn data(rng: &mut StdRng) -> Data {
    Data {
        keys: rng.random_range(5..40),
        missing: rng.random_range(0..4),
        value_bytes_max: if rng.random_bool(0.2) { 200_000 } else { 4_000 },
        disk_bytes: None,
        vouches: false,
        placed: rng.random_bool(0.3),
        fetch_max: Duration::from_millis(rng.random_range(20..2_000)),
    }
}

/// Machines that come later do so one by one or all at once.
fn joins(rng: &mut StdRng, script: &mut Script) {
    let Cluster { nodes, later, .. } = script.cluster;
    let names: Vec<Name> = (nodes - later + 1..=nodes).map(|number| format!("n{number}")).collect();
    let groups: Vec<Vec<Name>> =
        if rng.random_bool(0.3) { vec![names] } else { names.into_iter().map(|name| vec![name]).collect() };
    for nodes in groups.into_iter().filter(|nodes| !nodes.is_empty()) {
        let at = Duration::from_millis(rng.random_range(0..=script.lasts.as_millis() as u64 * 3 / 4));
        script.faults.push(Fault { at, lasts: None, kind: FaultKind::Join { nodes } });
    }
}

fn faults(rng: &mut StdRng, script: &mut Script) {
    let kinds: Vec<Kind> = ALL.into_iter().filter(|_| rng.random_bool(KINDS)).collect();
    let end_ms = script.lasts.as_millis() as u64;
    let mut at_ms = rng.random_range(FIRST_MS);
    let mut gone = Gone::default();
    while at_ms < end_ms && !kinds.is_empty() {
        let kind = kinds[rng.random_range(0..kinds.len())];
        let kind = fault_kind(rng, script, kind);
        let lasts_ms = rng.random_range(LASTS_MS);
        let for_good = rng.random_bool(FOR_GOOD);
        let at = Duration::from_millis(at_ms);
        if gone.leaves_enough(script, &kind, at, Duration::from_millis(lasts_ms)) {
            let lasts = (!kind.is_momentary()).then_some(Duration::from_millis(lasts_ms));
            script.faults.push(Fault { at, lasts, kind });
            make_permanent(script, for_good);
        }
        let gap = if rng.random_bool(LONG_GAP) { LONG_GAP_MS } else { SHORT_GAP_MS };
        at_ms += rng.random_range(gap);
    }
    script.faults.sort_by_key(|fault| fault.at);
}

/// Makes the last fault one that never ends, where that leaves a core and everybody can tell who is part of it.
fn make_permanent(script: &mut Script, for_good: bool) {
    let Some(fault) = script.faults.last_mut().filter(|_| for_good) else { return };
    let lasts = fault.lasts;
    match &mut fault.kind {
        FaultKind::Crash { .. } | FaultKind::Leave { .. } | FaultKind::Pause { .. } => fault.lasts = None,
        _ => return,
    }
    if script.core().iter().filter(|name| name.starts_with('n')).count() < script.cluster.nodes.div_ceil(2) {
        script.faults.last_mut().expect("it was there above").lasts = lasts;
    }
}

/// Machines that are away, and until when: never more than half of them at once, for those left would only wait.
#[derive(Default)]
struct Gone(Vec<(Duration, Name)>);

impl Gone {
    fn leaves_enough(&mut self, script: &Script, kind: &FaultKind, at: Duration, lasts: Duration) -> bool {
        let away = match kind {
            FaultKind::Crash { nodes, .. } | FaultKind::Leave { nodes } | FaultKind::Drain { nodes } => nodes,
            FaultKind::Pause { node } => std::slice::from_ref(node),
            _ => return true,
        };
        self.0.retain(|(until, _)| *until > at);
        let all = away.len() == script.cluster.nodes;
        if !all && (self.0.len() + away.len()) * 2 > script.cluster.nodes {
            return false;
        }
        self.0.extend(away.iter().map(|name| (at + lasts, name.clone())));
        true
    }
}

fn fault_kind(rng: &mut StdRng, script: &Script, kind: Kind) -> FaultKind {
    let node = one(rng, script);
    let ms = |rng: &mut StdRng, range: Range<u64>| Duration::from_millis(rng.random_range(range));
    let everywhere = rng.random_bool(0.5);
    let weather = |rng: &mut StdRng, link: Link| {
        let from = if everywhere { Vec::new() } else { vec![one(rng, script)] };
        FaultKind::DegradedLinks { from, to: Vec::new(), link }
    };
    match kind {
        Kind::Crash => FaultKind::Crash { nodes: some(rng, script), disk: Left::Kept },
        Kind::CrashUnsynced => FaultKind::Crash { nodes: some(rng, script), disk: Left::Synced },
        Kind::CrashEmpty => FaultKind::Crash { nodes: vec![node], disk: Left::Nothing },
        Kind::CrashAll => FaultKind::Crash { nodes: nodes(script), disk: Left::Synced },
        Kind::Leave => FaultKind::Leave { nodes: vec![node] },
        Kind::Drain => FaultKind::Drain { nodes: some(rng, script) },
        Kind::Roll => {
            let mut nodes = nodes(script);
            nodes.shuffle(rng);
            FaultKind::Roll { nodes }
        }
        Kind::Pause => FaultKind::Pause { node },
        Kind::Slow => FaultKind::Slow { node, every: ms(rng, 20..400) },
        Kind::Panic => {
            let actors = [Actor::Membership, Actor::Registry, Actor::Balancer, Actor::Updater, Actor::Router];
            FaultKind::Panic { node, actor: actors[rng.random_range(0..actors.len())] }
        }
        Kind::Partition | Kind::OneWay => {
            let (from, to) = parts(rng, script);
            FaultKind::Cut { from, to, one_way: kind == Kind::OneWay }
        }
        Kind::NotTransitive => FaultKind::Cut { from: vec![node], to: vec![one(rng, script)], one_way: false },
        Kind::Flap => {
            let (from, to) = parts(rng, script);
            FaultKind::Flap { from, to, every: ms(rng, 100..2_500) }
        }
        Kind::Loss => {
            let (loss, duplication) = (rng.random_range(0.02..0.25), rng.random_range(0.0..0.1));
            weather(rng, Link { loss, duplication, ..Link::default() })
        }
        Kind::Late => {
            let (latency, jitter) = (ms(rng, 5..150), ms(rng, 0..100));
            weather(rng, Link { latency, jitter, ..Link::default() })
        }
        Kind::Disorder => {
            let (reordering, duplication) = (rng.random_range(0.05..0.5), rng.random_range(0.0..0.2));
            weather(rng, Link { reordering, duplication, ..Link::default() })
        }
        Kind::Corruption => {
            let corruption = rng.random_range(0.005..0.1);
            weather(rng, Link { corruption, ..Link::default() })
        }
        Kind::Narrow => {
            let bytes_per_second = rng.random_range(20_000..500_000);
            weather(rng, Link { bytes_per_second, ..Link::default() })
        }
        Kind::Clock => {
            let far = if rng.random_bool(0.2) { 365 * 24 * 3_600_000 } else { 60_000 };
            FaultKind::Clock { node, jump_ms: rng.random_range(-far..far) }
        }
        Kind::DiskFull => FaultKind::DiskFull { node },
        Kind::DiskSlow => FaultKind::DiskSlow { node, delay: ms(rng, 50..3_000) },
        Kind::DiskFails => FaultKind::DiskFails { node },
        Kind::Vanish => FaultKind::Vanish { node, keys: keys(rng, script) },
        Kind::Appear => FaultKind::Appear { node, keys: keys(rng, script) },
        Kind::UpstreamSlow => FaultKind::UpstreamSlow { delay: ms(rng, 500..4_000) },
        Kind::UpstreamDown => FaultKind::UpstreamDown {},
        Kind::UpstreamLacks => FaultKind::UpstreamLacks { keys: keys(rng, script) },
        Kind::Change => FaultKind::Change { keys: keys(rng, script) },
        Kind::Stranger => {
            let name = if rng.random_bool(0.5) { node } else { "stranger".into() };
            FaultKind::Stranger { name, certificate: rng.random_bool(0.7) }
        }
    }
}

fn nodes(script: &Script) -> Vec<Name> {
    (1..=script.cluster.nodes).map(|number| format!("n{number}")).collect()
}

fn one(rng: &mut StdRng, script: &Script) -> Name {
    format!("n{}", rng.random_range(1..=script.cluster.nodes))
}

/// Mostly one machine; sometimes two at the same moment.
fn some(rng: &mut StdRng, script: &Script) -> Vec<Name> {
    let mut all = nodes(script);
    all.shuffle(rng);
    all.truncate(if rng.random_bool(0.2) { 2 } else { 1 });
    all
}

/// All machines, the clients too, in two parts, neither empty.
fn parts(rng: &mut StdRng, script: &Script) -> (Vec<Name>, Vec<Name>) {
    let mut all = script.machines();
    all.shuffle(rng);
    let size = rng.random_range(1..all.len().max(2));
    let rest = all.split_off(size.min(all.len()));
    (all, rest)
}

fn keys(rng: &mut StdRng, script: &Script) -> Vec<String> {
    let mut all: Vec<String> = (0..script.data.keys).map(|number| format!("key/{number}")).collect();
    all.shuffle(rng);
    let half = (script.data.keys / 2).max(1);
    all.truncate(rng.random_range(1..=half));
    all
}

/// A value of a key, the same whenever it is asked for.
#[must_use]
pub fn value(seed: u64, number: usize, version: usize, bytes_max: usize) -> Vec<u8> {
    let mixed = seed ^ (number as u64) << 32 ^ (version as u64) << 8;
    let mut rng = StdRng::seed_from_u64(mixed);
    // Many small ones and few large ones.
    let length = (bytes_max as f64 * rng.random::<f64>().powi(4)) as usize;
    let mut bytes = vec![0; length.max(1)];
    rng.fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_can_be_run_and_every_kind_is_drawn() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let script = draw(seed, &Shape::default());
            script.check().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(script, draw(seed, &Shape::default()));
            seen.extend(script.faults.iter().map(|fault| fault.kind.name()));
        }
        assert!(seen.len() >= 23, "only {seen:?}");
    }

    #[test]
    fn a_cluster_of_one_or_two_can_be_drawn_too() {
        for seed in 0..100 {
            for nodes in [1, 2] {
                draw(seed, &Shape { nodes, ..Shape::default() }).check().unwrap();
            }
        }
    }
}
