//! One run: do what a script says, watch, heal, judge.
//!
//! ```text
//!   start all -> requests + faults + safety checks -> heal the core for good -> liveness checks until a deadline
//!             -> new requests -> liveness again -> idle for a while -> verdict
//! ```
//!
//! Machines run one after the other, each up to the moment before which nothing that another does now can reach it. All
//! of it is on one thread of its own, whose clock and randomness come from the seed.

mod claims;
mod faults;
pub mod report;
pub mod requests;

use std::{
    collections::{BTreeMap, VecDeque},
    io::Read,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant as RealInstant},
};

use datad_gossip::{
    key::{Key, NodeName},
    placement::{Ring, RingOptions},
};
use rand::{Rng, rngs::StdRng};

use self::{
    claims::Claims,
    faults::Faults,
    report::{Report, Reporter},
    requests::Requests,
};
use crate::{
    cluster::{self, Cluster, Parts, rng},
    data::{Data, builtin::Builtin, custom::Custom, upstream::Upstream},
    invariants::{
        CALM, l12_agreement, l12_intents, l13_replicas, l14_new_requests, l15_idle, s01_no_going_back::NoGoingBack,
        s03_same_owners::SameOwners, s04_few_move::FewMove, s10_no_strangers, s11_bounds, s17_gossip,
    },
    machine::{disk::SimDisk, entropy, fabric, panics},
    model::{Clock, CoreSeen, Event, RequestKind, Violation, What},
    oracle::{self, Oracle, probes::Probes},
    script::{self, Script},
    trace::{Keep, Trace},
};

/// How long the core has to be healthy again after the last fault.
const HEALING: Duration = Duration::from_secs(90);
/// How long slow writes go on, and connections remember what links were like, after these are as usual again.
const AFTERMATH: Duration = Duration::from_secs(5);
/// Between two looks at everything.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Between two looks at whether everything is well again.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(400);
/// Pairs of a node and a key that are compared in one look; with more of them, looks take turns.
const PAIRS_MAX: usize = 1_500;
/// Between two questions to nodes how they are.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);
/// How long an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(4);
/// Stack of a run's thread: debug builds nest deeply.
const STACK_BYTES: usize = 16 << 20;

/// Brings users' own data into a run; called once for a run, with the number of machines.
pub type Bring = Arc<dyn Fn(usize) -> Custom + Send + Sync>;

/// What to run.
#[derive(Clone)]
pub struct Options {
    /// Everything that is not in the script follows from it.
    pub seed: u64,
    /// What happens.
    pub script: Arc<Script>,
    /// What of the trace is kept.
    pub keep: Keep,
    /// Data of the user's own, instead of an upstream's values.
    pub bring: Option<Bring>,
    /// Whether to count what moves and how long repairs take.
    pub report: bool,
    /// Lets the operating system decide something, to see that it is noticed.
    pub leak: bool,
}

impl Options {
    /// A run of this script.
    #[must_use]
    pub fn new(seed: u64, script: impl Into<Arc<Script>>) -> Self {
        Self { seed, script: script.into(), keep: Keep::Hash, bring: None, report: false, leak: false }
    }

    /// A run of what this seed says, five machines for a minute.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        Self::new(seed, script::draw::draw(seed, &script::draw::Shape::default()))
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The name of its script.
    pub scenario: String,
    /// The property that did not hold, if there is one.
    pub violation: Option<Violation>,
    /// Hash of everything that happened.
    pub hash: u64,
    /// What happened, if it was kept.
    pub events: Vec<Event>,
    /// Simulated time.
    pub virtual_time: Duration,
    /// Real time.
    pub wall_time: Duration,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What happened at least once.
    pub probes: Probes,
    /// What requests came to.
    pub requests: requests::Counts,
    /// What updates did.
    pub updates: oracle::Counts,
    /// What became of datagrams.
    pub datagrams: fabric::Counts,
    /// What moved and how long it took, if that was asked for.
    pub report: Option<Report>,
}

impl Outcome {
    /// The line by which a run is told: `seed S scenario X: ok|VIOLATION ... virtual T wall T trace HASH`.
    #[must_use]
    pub fn line(&self) -> String {
        let verdict = self.violation.as_ref().map_or_else(|| "ok".to_owned(), |found| format!("VIOLATION {found}"));
        let Self { seed, scenario, virtual_time, wall_time, hash, .. } = self;
        let (virtual_s, wall_s) = (virtual_time.as_secs_f64(), wall_time.as_secs_f64());
        format!(
            "seed {seed} scenario {scenario}: {verdict} virtual {virtual_s:.3}s wall {wall_s:.2}s trace {hash:016x}"
        )
    }
}

/// What libraries draw once for the whole process, they draw in the first run. Its result is discarded.
static WARM: OnceLock<()> = OnceLock::new();

/// Runs a script on a thread of its own. The same options give the same outcome, also in another process: the first call
/// in a process makes a short run before.
///
/// # Panics
/// The script was not checked, or the simulator is broken. Panics of nodes are violations.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "how long it really took is told to people, and decides nothing")]
pub fn run(options: &Options) -> Outcome {
    WARM.get_or_init(warm_up);
    let began = RealInstant::now();
    let mut outcome = on_fresh_thread(options);
    outcome.wall_time = began.elapsed();
    outcome
}

fn warm_up() {
    let shape = script::draw::Shape { nodes: 2, lasts: Duration::from_millis(500) };
    let _ = on_fresh_thread(&Options::new(0, script::draw::draw(0, &shape)));
}

/// Hash maps and generators of a thread begin anew with it.
fn on_fresh_thread(options: &Options) -> Outcome {
    let owned = options.clone();
    let thread = thread::Builder::new().name(format!("seed-{}", options.seed)).stack_size(STACK_BYTES);
    let running = thread.spawn(move || on_thread(&owned)).expect("a thread can be started");
    match running.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn on_thread(options: &Options) -> Outcome {
    entropy::enter(options.seed);
    panics::collect();
    let clock = Clock::new();
    let trace = Trace::new(clock.clone(), options.keep);
    let mut run = Run::new(options, &clock, &trace);
    let violation = run.whole().err();
    match &violation {
        Some(violation) => trace.tell(What::Violation { detail: violation.to_string() }),
        None => trace.note("ok"),
    }
    let truth = run.cluster.oracle.truth();
    let (updates, probes) = (truth.counts, truth.probes.clone());
    drop(truth);
    Outcome {
        seed: options.seed,
        scenario: options.script.name.clone(),
        violation,
        hash: trace.hash(),
        virtual_time: clock.now(),
        wall_time: Duration::ZERO,
        events: trace.take_events(),
        faults: std::mem::take(&mut run.faults.counts),
        probes,
        requests: run.requests.counts,
        updates,
        datagrams: run.cluster.fabric.counts(),
        report: run.reporter.take().map(|reporter| reporter.finish(&run.cluster, &run.requests)),
    }
}

/// What is due at a moment of a script.
#[derive(Debug, Clone, Copy)]
enum Due {
    Begin(usize),
    End(usize),
    Ask(usize),
}

struct Run {
    script: Arc<Script>,
    cluster: Cluster,
    /// Keys that exist.
    keys: Vec<Key>,
    /// What comes, by time.
    due: VecDeque<(Duration, Due)>,
    faults: Faults,
    requests: Requests,
    checks: Checks,
    reporter: Option<Reporter>,
    rng: StdRng,
    leak: bool,
    /// When links, disks or processes were last worse than usual without being gone.
    rough_until: Duration,
    next_check: Duration,
    next_status: Duration,
    next_key: usize,
}

#[derive(Default)]
struct Checks {
    no_going_back: NoGoingBack,
    claims: Claims,
    same_owners: SameOwners,
    few_move: FewMove,
}

impl Run {
    fn new(options: &Options, clock: &Clock, trace: &Trace) -> Self {
        let mut script = Script::clone(&options.script);
        script::draw::expand(&mut rng(options.seed, 1), &mut script);
        let names = script.machines();
        trace.note(format!("{}: {} machines, {} faults", script.name, names.len(), script.faults.len()));
        let fabric =
            fabric::Fabric::new(rng(options.seed, 2).next_u64(), script.network.clone(), clock.clone(), trace.clone());
        let disks: Vec<SimDisk> = names.iter().map(|_| SimDisk::default()).collect();
        let oracle = Oracle::new(&script, clock.clone(), trace.clone());
        let data: Box<dyn Data> = match &options.bring {
            Some(bring) => Box::new(bring(script.cluster.nodes)),
            None => Box::new(builtin(&script, options.seed, &disks, clock)),
        };
        let keys = data.keys();
        let parts = Parts { fabric, data, disks, oracle, trace: trace.clone(), clock: clock.clone() };
        let cluster = Cluster::new(&script, rng(options.seed, 3), parts);
        for machine in 0..script.cluster.nodes {
            cluster.oracle.look_again(machine, &*cluster.data);
        }
        Self {
            due: schedule(&script),
            keys,
            faults: Faults::default(),
            requests: Requests::default(),
            checks: Checks::default(),
            reporter: options.report.then(|| Reporter::new(&cluster)),
            cluster,
            rng: rng(options.seed, 4),
            leak: options.leak,
            rough_until: Duration::ZERO,
            next_check: Duration::ZERO,
            next_status: Duration::ZERO,
            next_key: 0,
            script: Arc::new(script),
        }
    }

    fn whole(&mut self) -> Result<(), Violation> {
        for number in 0..self.cluster.machines.len() {
            if !self.script.is_later(self.cluster.machines[number].name.as_str()) {
                self.cluster.join(number);
            }
        }
        self.turmoil()?;
        self.cluster.trace.note("heal the core");
        self.faults.heal(&mut self.cluster);
        let healed = self.cluster.clock.now();
        self.finish_requests()?;
        self.recover()?;
        // Connections that a fault broke may still be on their way back.
        self.advance(healed + CALM)?;
        self.new_requests()?;
        self.recover()?;
        self.idle()?;
        self.expected()
    }

    /// Requests and faults, with a look at everything now and then.
    fn turmoil(&mut self) -> Result<(), Violation> {
        while let Some((at, due)) = self.due.pop_front() {
            self.advance(at)?;
            match due {
                Due::Begin(number) => {
                    let fault = self.script.faults[number].clone();
                    self.faults.begin(number, &fault, &mut self.cluster, &mut self.rng);
                    self.requests.forget_gone(&self.cluster);
                }
                Due::End(number) => self.faults.end(number, &mut self.cluster),
                Due::Ask(number) => self.ask(number),
            }
        }
        self.advance(self.script.lasts)
    }

    fn ask(&mut self, number: usize) {
        let script = self.script.clone();
        let request = &script.requests[number];
        let Ok(key) = Key::new(request.key.as_str()) else { return };
        let mut machine = self.cluster.number(&request.node);
        if self.leak {
            machine = usize::from(leaked_byte()) % self.cluster.machines.len();
        }
        self.requests.ask(&mut self.cluster, machine, &key, request.what);
    }

    /// Lets time pass up to `at`, and looks at everything on the way.
    fn advance(&mut self, at: Duration) -> Result<(), Violation> {
        let step = self.script.network.latency;
        while self.cluster.clock.now() < at {
            let until = at.min(self.next_check);
            self.cluster.run(until, step)?;
            if until == self.next_check {
                self.next_check += CHECK_INTERVAL;
                self.look()?;
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Violation> {
        let now = self.cluster.clock.now();
        self.faults.tend(&mut self.cluster, &mut self.rng);
        if self.next_status <= now {
            self.next_status = now + STATUS_INTERVAL;
            self.cluster.ask_status();
        }
        let joined = |machine: &cluster::Machine| machine.is_off() || (machine.is_well() && machine.is_serving());
        let calm = self.faults.is_calm() && self.cluster.machines.iter().all(joined);
        let mut truth = self.cluster.oracle.truth();
        truth.calm_since = if calm { truth.calm_since.or(Some(now)) } else { None };
        drop(truth);
        self.suspicions();
        self.requests.forget_gone(&self.cluster);
        if let Some(reporter) = &mut self.reporter {
            reporter.look(&self.cluster, &self.keys);
        }
        self.safety()
    }

    fn safety(&mut self) -> Result<(), Violation> {
        self.requests.judge(&self.cluster)?;
        let now = self.cluster.clock.now();
        self.rough_until = if self.faults.is_smooth() { self.rough_until } else { now };
        self.requests.judge_waiting(&self.cluster, now >= self.rough_until + AFTERMATH)?;
        if let Some(violation) = self.cluster.oracle.violation() {
            return Err(violation);
        }
        let keys = self.some_keys();
        let seen = self.cluster.snapshot(keys);
        let truth = self.cluster.oracle.truth();
        self.checks.no_going_back.check(&seen, |name, key| truth.had(self.cluster.number(name.as_str()), key))?;
        drop(truth);
        self.checks.claims.look(&seen, &self.cluster)?;
        self.checks.same_owners.check(&seen, &self.keys)?;
        self.checks.few_move.check(&seen, &self.keys)?;
        s10_no_strangers::check(&seen)?;
        s11_bounds::check(&seen, self.requests.under_way())?;
        s17_gossip::check(&seen, self.cluster.begun_since(now.saturating_sub(s17_gossip::TOLD_FOR)))
    }

    /// The keys to compare this time: all of them, or the next ones where that would take too long.
    fn some_keys(&mut self) -> Vec<Key> {
        let count = (PAIRS_MAX / self.cluster.machines.len()).clamp(1, self.keys.len());
        let keys = self.keys.iter().cycle().skip(self.next_key).take(count).cloned().collect();
        self.next_key = (self.next_key + count) % self.keys.len();
        keys
    }

    /// Whether a healthy node is taken for dead; for the probe.
    fn suspicions(&self) {
        for (_, machine, client) in self.cluster.up() {
            for member in client.view().members() {
                if member.state != datad_gossip::MemberState::Dead {
                    continue;
                }
                let suspect = &self.cluster.machines[self.cluster.number(member.name.as_str())];
                let linked = self.cluster.fabric.is_linked(machine.address.ip(), suspect.address.ip());
                if suspect.is_well() && suspect.is_serving() && !linked {
                    self.cluster.oracle.truth().probes.hit("false suspicion");
                }
            }
        }
    }

    fn finish_requests(&mut self) -> Result<(), Violation> {
        let deadline = self.cluster.clock.now() + requests::longest(&self.cluster);
        while self.requests.under_way() > 0 && self.cluster.clock.now() < deadline {
            self.advance(self.cluster.clock.now() + CHECK_INTERVAL)?;
            self.drop_outside();
        }
        match self.requests.under_way() {
            0 => Ok(()),
            left => Err(Violation::liveness(14, format!("{left} requests have not ended"))),
        }
    }

    /// Requests at machines that are broken for good are nobody's any more.
    fn drop_outside(&mut self) {
        let core = self.script.core();
        self.requests.retain(|machine| core.contains(self.cluster.machines[machine].name.as_str()));
    }

    /// Waits until everything is as it should be. Nodes that are still to be restarted in turn have their time first.
    fn recover(&mut self) -> Result<(), Violation> {
        let began = self.cluster.clock.now();
        let (mut healing, mut to_restart) = (began, self.faults.to_restart());
        loop {
            match self.liveness(began) {
                Ok(()) => return Ok(()),
                Err(violation) if self.cluster.clock.now() >= healing + HEALING => return Err(violation),
                Err(_) => self.advance(self.cluster.clock.now() + RECOVERY_INTERVAL)?,
            }
            if self.faults.to_restart() != to_restart {
                (healing, to_restart) = (self.cluster.clock.now(), self.faults.to_restart());
            }
        }
    }

    fn liveness(&self, since: Duration) -> Result<(), Violation> {
        let core = self.core(since);
        l12_agreement::check(&core)?;
        l12_intents::check(&core, &self.requests.intents)?;
        l13_replicas::check(&core, self.script.node.disk_low)?;
        l15_idle::check_backlogs(&core)
    }

    /// What is to be seen of the machines that have to be well in the end. What nodes said before `since` does not count.
    fn core(&self, since: Duration) -> CoreSeen {
        let cluster = &self.cluster;
        // Nor do old answers.
        let since = since.max(cluster.clock.now().saturating_sub(2 * STATUS_INTERVAL));
        let core = self.script.core();
        let numbers: Vec<usize> = (0..cluster.machines.len())
            .filter(|number| core.contains(cluster.machines[*number].name.as_str()))
            .collect();
        let machines = || numbers.iter().map(|number| &cluster.machines[*number]);
        let mut nodes: Vec<NodeName> =
            machines().filter(|machine| machine.is_node).map(|machine| machine.name.clone()).collect();
        nodes.sort();
        let truth = cluster.oracle.truth();
        let believed = |key: &Key| {
            let holders = numbers.iter().filter(|number| truth.is_believed(**number, key));
            holders.map(|number| cluster.machines[*number].name.clone()).collect()
        };
        let serves = |number: &&usize| cluster.machines[**number].is_serving();
        CoreSeen {
            names: machines().map(|machine| machine.name.clone()).collect(),
            nodes,
            keys: self.keys.clone(),
            seen: numbers.iter().filter(serves).filter_map(|number| cluster.node(*number, &self.keys)).collect(),
            said: machines().map(|machine| (machine.name.clone(), machine.said(since))).collect(),
            holders: self.keys.iter().map(believed).collect(),
            running: truth.running().iter().filter(|running| numbers.contains(&running.machine)).count(),
            tasks: machines().map(|machine| (machine.name.clone(), machine.tasks())).collect(),
            disks_lost: machines().filter_map(|machine| Some((machine.name.clone(), machine.disk_lost?))).collect(),
            clocks_are_right: !cluster.machines.iter().any(|machine| machine.was_skewed),
        }
    }

    /// Asks every node of the core for every key that the upstream has.
    fn new_requests(&mut self) -> Result<(), Violation> {
        let core = self.script.core();
        let machines: Vec<usize> = core.iter().map(|name| self.cluster.number(name)).collect();
        for key in self.keys.clone() {
            let before = self.requests.counts;
            for &machine in &machines {
                self.requests.ask(&mut self.cluster, machine, &key, RequestKind::Get);
            }
            let asked = self.requests.counts.asked - before.asked;
            if asked < machines.len() as u64 {
                return Err(Violation::liveness(14, format!("only {asked} of {core:?} take requests")));
            }
            self.requests.expect_all(l14_new_requests::check);
            self.finish_requests()?;
        }
        Ok(())
    }

    /// Watches a cluster that has nothing to do.
    fn idle(&mut self) -> Result<(), Violation> {
        let before = self.cluster.fabric.counts().sent;
        self.advance(self.cluster.clock.now() + IDLE)?;
        let sent = self.cluster.fabric.counts().sent - before;
        let core = self.core(Duration::ZERO);
        let running = self.cluster.up().count().max(1);
        l15_idle::check_level(&core, sent as f64 / IDLE.as_secs_f64() / running as f64)
    }

    fn expected(&self) -> Result<(), Violation> {
        let (expect, updates) = (self.script.expect, self.cluster.oracle.truth().counts);
        let failed = self.requests.counts.failed;
        if let Some(most) = expect.failed_max.filter(|most| failed > *most) {
            return Err(Violation::safety(9, format!("{failed} requests failed, expected {most} at most")));
        }
        if let Some(most) = expect.fetches_max.filter(|most| updates.fetches > *most) {
            let detail = format!("the upstream was asked {} times, expected {most} at most", updates.fetches);
            return Err(Violation::safety(6, detail));
        }
        if let Some(most) = expect.copies_max.filter(|most| updates.copies > *most) {
            let detail = format!("{} copies from node to node, expected {most} at most", updates.copies);
            return Err(Violation::liveness(13, detail));
        }
        Ok(())
    }
}

fn schedule(script: &Script) -> VecDeque<(Duration, Due)> {
    let mut due: Vec<(Duration, Due)> = Vec::new();
    for (number, fault) in script.faults.iter().enumerate() {
        due.push((fault.at, Due::Begin(number)));
        if let Some(lasts) = fault.lasts.filter(|_| !fault.kind.is_momentary()) {
            due.push((fault.at + lasts, Due::End(number)));
        }
    }
    due.extend(script.requests.iter().enumerate().map(|(number, request)| (request.at, Due::Ask(number))));
    due.retain(|(at, _)| *at <= script.lasts);
    due.sort_by_key(|(at, _)| *at);
    due.into()
}

/// The data of an upstream, on the owners' disks already if the script says so.
fn builtin(script: &Script, seed: u64, disks: &[SimDisk], clock: &Clock) -> Builtin {
    let keys: Vec<Key> =
        (0..script.data.keys).map(|number| Key::new(format!("key/{number}")).expect("a valid key")).collect();
    let script::Data { value_bytes_max, fetch_max, placed, disk_bytes, .. } = script.data;
    let upstream = Upstream::new(rng(seed, 5).next_u64(), &keys, value_bytes_max, fetch_max, clock.clone());
    let builtin = Builtin::new(upstream, disks.to_vec(), disk_bytes).vouching(script.data.vouches);
    if placed {
        let present = (1..=script.cluster.nodes - script.cluster.later).map(|number| format!("n{number}"));
        let members = present.map(|name| (NodeName::new(name).expect("a valid name"), script.node.weight));
        let ring = Ring::build(members, RingOptions::default());
        for key in &keys {
            for owner in ring.owners(key, script.node.replicas) {
                let number: usize = owner.as_str()[1..].parse().expect("names are a letter and a number");
                builtin.place(number - 1, key);
            }
        }
    }
    builtin
}

/// Something that the seed does not decide.
fn leaked_byte() -> u8 {
    let mut byte = [0];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut byte));
    if read.is_err() { 0 } else { byte[0] }
}
