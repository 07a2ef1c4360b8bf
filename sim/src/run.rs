//! One seed: derive everything from it, let it go wrong, heal it, judge it.
//!
//! ```text
//!   start all -> requests + faults + safety checks -> end all faults -> liveness checks until a deadline -> verdict
//! ```

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant as RealInstant},
};

use bytes::Bytes;
use datad_gossip::{
    config::{NodeConfig, Profile},
    key::Key,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    runtime::{Builder, RngSeed},
    task::JoinSet,
    time::Instant,
};

use crate::{
    checks::{
        CALM, Violation, l12_agreement, l13_replicas, l14_new_requests, l15_idle, s01_no_going_back::NoGoingBack,
        s02_ready_is_there, s03_same_owners, s09_answers,
    },
    cluster::Cluster,
    entropy,
    fabric::{Fabric, Weather},
    faults::Faults,
    origin::Origin,
    request::{self, Answer},
    trace::{Event, Trace},
};

/// How long the cluster has to be healthy again after the last fault.
const HEALING: Duration = Duration::from_secs(60);
/// Between two looks at everything.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// A request may end this much after its deadline: its answer has to be read.
const DEADLINE_SLACK: Duration = Duration::from_secs(10);
/// Requests under way; further ones are left out.
const REQUESTS_MAX: usize = 256;
/// When a bug is put in.
const PLANTING: Duration = Duration::from_secs(2);
const STACK_BYTES: usize = 16 << 20;

/// A bug that is put in, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// All machines lose their data and the nodes do not notice.
    SilentLoss,
    /// Fetches get bytes that were never published.
    WrongBytes,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Machines; 1 to 100.
    pub nodes: usize,
    /// Virtual time with faults.
    pub faulty: Duration,
    /// Keep the events and not just their hash.
    pub keep_events: bool,
    /// A bug to put in.
    pub plant: Option<Plant>,
}

impl Options {
    /// Five machines for a minute.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, nodes: 5, faulty: Duration::from_secs(60), keep_events: false, plant: None }
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The property that did not hold, if there is one.
    pub violation: Option<Violation>,
    /// Hash of everything that happened.
    pub hash: u64,
    /// Everything that happened, if it was kept.
    pub events: Vec<Event>,
    /// Simulated time.
    pub virtual_time: Duration,
    /// Real time.
    pub wall_time: Duration,
    /// What the run did.
    pub counts: Counts,
}

/// What a run did, so that one sees whether it bites.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were answered with data.
    pub answered: u64,
    /// Requests that were answered with an error.
    pub refused: u64,
    /// Faults.
    pub faults: u64,
    /// Asks of the origin.
    pub asks: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Datagrams lost.
    pub lost: u64,
}

/// Runs one seed on a thread of its own.
///
/// # Panics
/// What runs panicked: a crash, not a verdict.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "how long it really took is told to people, and decides nothing")]
pub fn run(options: &Options) -> Outcome {
    let began = RealInstant::now();
    let owned = options.clone();
    let thread = thread::Builder::new().name(format!("seed-{}", options.seed)).stack_size(STACK_BYTES);
    let running = thread.spawn(move || on_thread(&owned)).expect("a thread can be started");
    let mut outcome = match running.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    outcome.wall_time = began.elapsed();
    outcome
}

fn on_thread(options: &Options) -> Outcome {
    entropy::enter(options.seed);
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).rng_seed(RngSeed::from_bytes(&options.seed.to_le_bytes()));
    let runtime = builder.build().expect("a runtime without I/O needs nothing");
    runtime.block_on(Box::pin(in_runtime(options)))
}

async fn in_runtime(options: &Options) -> Outcome {
    let trace = Trace::new(options.keep_events);
    let mut run = Run::new(options, trace.clone());
    let violation = Box::pin(run.whole()).await.err();
    trace.note(violation.as_ref().map_or_else(|| "ok".to_owned(), ToString::to_string));
    let mut counts = run.counts;
    counts.faults = run.faults.count;
    counts.asks = run.cluster.origin.asks();
    (counts.datagrams, counts.lost) = (trace.datagrams(), run.cluster.fabric.lost());
    Outcome {
        seed: options.seed,
        violation,
        hash: trace.hash(),
        virtual_time: trace.now(),
        wall_time: Duration::ZERO,
        events: trace.take_events(),
        counts,
    }
}

struct Run {
    rng: StdRng,
    cluster: Cluster,
    faults: Faults,
    /// Keys that the origin has, and some that it does not have.
    keys: Vec<Key>,
    /// Requests under way, by the machine that was asked.
    requests: Vec<JoinSet<Asked>>,
    /// Mean time between two requests.
    pace: Duration,
    no_going_back: NoGoingBack,
    faulty: Duration,
    plant: Option<Plant>,
    counts: Counts,
}

/// A request that ended.
struct Asked {
    key: Key,
    began: Instant,
    answer: Answer,
}

impl Run {
    fn new(options: &Options, trace: Trace) -> Self {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let weather = weather(&mut rng);
        let config = config(&mut rng);
        let values = values(&mut rng);
        let mut keys: Vec<Key> = values.keys().cloned().collect();
        keys.extend((0..3).map(|number| key(&format!("missing/{number}"))));
        trace.note(format!("{weather:?} replicas {} keys {}", config.replicas, keys.len()));
        let fabric = Fabric::new(rng.next_u64(), weather.clone(), trace.clone());
        let origin = Origin::new(rng.next_u64(), values);
        let cluster = Cluster::new(options.nodes, rng.next_u64(), config, fabric, origin, trace);
        Self {
            faults: Faults::new(&mut rng, weather),
            cluster,
            keys,
            requests: (0..options.nodes).map(|_| JoinSet::new()).collect(),
            pace: Duration::from_millis(rng.random_range(20..400)),
            no_going_back: NoGoingBack::default(),
            faulty: options.faulty,
            plant: options.plant,
            counts: Counts::default(),
            rng,
        }
    }

    async fn whole(&mut self) -> Result<(), Violation> {
        for number in 0..self.cluster.machines.len() {
            self.cluster.start(number).await?;
        }
        self.turmoil().await?;
        self.cluster.trace.note("heal everything");
        self.faults.heal(&mut self.cluster).await?;
        self.finish_requests().await?;
        self.recover().await?;
        l14_new_requests::check(&self.cluster).await?;
        self.recover().await
    }

    /// Requests and faults, with a look at everything now and then.
    async fn turmoil(&mut self) -> Result<(), Violation> {
        let end = Instant::now() + self.faulty;
        let planting = Instant::now() + PLANTING;
        let (mut request, mut check) = (Instant::now(), Instant::now());
        while Instant::now() < end {
            if request <= Instant::now() {
                self.ask_something();
                let pace = u64::try_from(self.pace.as_millis()).unwrap_or(u64::MAX);
                request = Instant::now() + Duration::from_millis(self.rng.random_range(1..=2 * pace));
            }
            if self.faults.next() <= Instant::now() {
                let crashed = self.faults.step(&mut self.rng, &mut self.cluster).await?;
                crashed.into_iter().for_each(|number| self.requests[number] = JoinSet::new());
            }
            if check <= Instant::now() {
                self.safety()?;
                if planting <= Instant::now() {
                    self.put_in_bug();
                }
                check = Instant::now() + CHECK_INTERVAL;
            }
            tokio::time::sleep_until(request.min(check).min(self.faults.next()).min(end)).await;
        }
        Ok(())
    }

    /// Mostly one request at one node; sometimes the same one at all nodes at once.
    fn ask_something(&mut self) {
        let key = self.keys[self.rng.random_range(0..self.keys.len())].clone();
        if self.rng.random_bool(0.1) {
            (0..self.requests.len()).for_each(|number| self.ask(number, &key));
        } else {
            let number = self.rng.random_range(0..self.requests.len());
            self.ask(number, &key);
        }
    }

    fn ask(&mut self, number: usize, key: &Key) {
        let machine = &self.cluster.machines[number];
        let Some(client) = machine.client().filter(|_| machine.is_serving()).cloned() else { return };
        if self.requests.iter().map(JoinSet::len).sum::<usize>() >= REQUESTS_MAX {
            return;
        }
        let (key, began) = (key.clone(), Instant::now());
        let patience = self.cluster.config.request_patience + DEADLINE_SLACK;
        self.requests[number].spawn(async move {
            let answer = request::ask(client, key.clone(), patience).await;
            Asked { key, began, answer }
        });
    }

    fn safety(&mut self) -> Result<(), Violation> {
        for number in 0..self.requests.len() {
            while let Some(asked) = self.requests[number].try_join_next() {
                self.judge(number, asked.expect("requests neither panic nor are they cancelled"))?;
            }
        }
        if let Some(violation) = self.cluster.origin.violation() {
            return Err(violation);
        }
        self.cluster.none_failed()?;
        self.no_going_back.check(&self.cluster)?;
        s02_ready_is_there::check(&self.cluster)?;
        s03_same_owners::check(&self.cluster)
    }

    fn judge(&mut self, number: usize, asked: Asked) -> Result<(), Violation> {
        let Asked { key, began, answer } = asked;
        match &answer {
            Answer::Body(..) => self.counts.answered += 1,
            _ => self.counts.refused += 1,
        }
        if let Answer::Error(error) = &answer {
            self.cluster.trace.note(format!("{}: {error}", self.cluster.machines[number].name));
        }
        let calm = self.faults.calm_since().is_some_and(|since| began >= since + CALM);
        let value = self.cluster.origin.value(&key);
        s09_answers::check(&key, value.as_ref(), &answer, calm).map_err(|violation| {
            let name = &self.cluster.machines[number].name;
            Violation { detail: format!("asked at {name}: {}", violation.detail), ..violation }
        })
    }

    async fn finish_requests(&mut self) -> Result<(), Violation> {
        for number in 0..self.requests.len() {
            while let Some(asked) = self.requests[number].join_next().await {
                self.judge(number, asked.expect("requests neither panic nor are they cancelled"))?;
            }
        }
        Ok(())
    }

    /// Waits until everything is as it should be.
    async fn recover(&mut self) -> Result<(), Violation> {
        let deadline = Instant::now() + HEALING;
        loop {
            self.safety()?;
            match self.liveness().await {
                Err(violation) if Instant::now() >= deadline => return Err(violation),
                Err(_) => tokio::time::sleep(CHECK_INTERVAL).await,
                Ok(()) => return Ok(()),
            }
        }
    }

    async fn liveness(&self) -> Result<(), Violation> {
        l12_agreement::check(&self.cluster).await?;
        l13_replicas::check(&self.cluster)?;
        l15_idle::check(&self.cluster).await
    }

    fn put_in_bug(&mut self) {
        match self.plant {
            Some(Plant::SilentLoss) => {
                for (_, machine, _) in self.cluster.up() {
                    self.keys.iter().for_each(|key| _ = machine.memory.lose(key));
                }
            }
            Some(Plant::WrongBytes) => self.cluster.origin.give_wrong_bytes(),
            None => return,
        }
        self.plant = None;
    }
}

fn weather(rng: &mut StdRng) -> Weather {
    Weather {
        latency: Duration::from_millis(rng.random_range(0..5)),
        jitter: Duration::from_millis(rng.random_range(0..5)),
        loss: if rng.random_bool(0.3) { rng.random_range(0.0..0.01) } else { 0.0 },
        duplication: if rng.random_bool(0.3) { rng.random_range(0.0..0.01) } else { 0.0 },
        mtu: if rng.random_bool(0.5) { 1_472 } else { 8_972 },
    }
}

fn config(rng: &mut StdRng) -> NodeConfig {
    let mut config = NodeConfig::default();
    config.profile = if rng.random_bool(0.5) { Profile::local() } else { Profile::lan() };
    config.replicas = rng.random_range(1..=3);
    config.updaters = rng.random_range(1..=4);
    config.repair_delay = Duration::from_millis(rng.random_range(500..8_000));
    config.trim_delay = Duration::from_millis(rng.random_range(200..4_000));
    config.request_patience = Duration::from_millis(rng.random_range(5_000..20_000));
    config.not_found_ttl = Duration::from_millis(rng.random_range(0..10_000));
    config.balance_interval = Duration::from_secs(rng.random_range(10..300));
    config
}

fn values(rng: &mut StdRng) -> BTreeMap<Key, Bytes> {
    let count = rng.random_range(5..40);
    let long = |rng: &mut StdRng| if rng.random_bool(0.1) { 100_000 } else { 2_000 };
    (0..count)
        .map(|number| {
            let longest = long(rng);
            let mut bytes = vec![0; rng.random_range(1..longest)];
            rng.fill_bytes(&mut bytes);
            (key(&format!("key/{number}")), Bytes::from(bytes))
        })
        .collect()
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a valid key")
}
