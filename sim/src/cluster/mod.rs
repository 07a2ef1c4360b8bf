//! The machines of one run, each with its address, its disk, its clock, and a process while it has power.

mod machine;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use datad_gossip::{
    ActorKind, Client, ClusterKey, Credentials, Drained, Node, StartError,
    config::NodeConfig,
    key::{Key, NodeName},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

pub use self::machine::Machine;
use self::machine::{Running, Slot};
use crate::{
    data::Data,
    invariants::{s07_enough_left, s08_nothing_lost},
    machine::{
        disk::SimDisk,
        fabric::Fabric,
        panics,
        process::Process,
        world::{SimWorld, Skew},
    },
    model::{Clock, Left, MachineSeen, Name, NodeSeen, Snapshot, Violation, What},
    oracle::Oracle,
    script::{Actor, Script},
    trace::Trace,
};

const PORT: u16 = 7_000;
/// How long a node may take to hand over what only it holds.
const HANDOFF: Duration = Duration::from_secs(20);
/// A node that says goodbye has gone by then, or is taken for stuck.
const GOODBYE_MAX: Duration = Duration::from_secs(60);
/// A node that could not start is started again after this, as service managers do.
const RESTART: Duration = Duration::from_secs(2);

/// All machines of a run.
pub struct Cluster {
    /// The network between them.
    pub fabric: Fabric,
    /// What they keep.
    pub data: Box<dyn Data>,
    /// What is true.
    pub oracle: Oracle,
    /// The machines: nodes, then clients.
    pub machines: Vec<Machine>,
    /// Settings of all nodes.
    pub config: NodeConfig,
    /// Bytes of the largest value.
    pub value_bytes_max: u64,
    /// The record of the run.
    pub trace: Trace,
    /// The time of the run.
    pub clock: Clock,
    /// When a process began, or was made to begin anew under another incarnation.
    begun: Vec<Duration>,
    secret: ClusterKey,
    rng: StdRng,
}

/// What a cluster is made of.
pub struct Parts {
    /// The network.
    pub fabric: Fabric,
    /// What the nodes keep.
    pub data: Box<dyn Data>,
    /// A disk for each machine.
    pub disks: Vec<SimDisk>,
    /// What is true.
    pub oracle: Oracle,
    /// The record.
    pub trace: Trace,
    /// The time.
    pub clock: Clock,
}

impl Cluster {
    /// The machines of a script, none of them with power.
    #[must_use]
    pub fn new(script: &Script, mut rng: StdRng, parts: Parts) -> Self {
        let Parts { fabric, data, disks, oracle, trace, clock } = parts;
        let secret = cluster_key(&mut rng);
        let machine = |(number, (name, disk)): (usize, (Name, SimDisk))| Machine {
            name: NodeName::new(name).expect("a valid name"),
            address: SocketAddr::new(ip(number), PORT),
            is_node: number < script.cluster.nodes,
            disk,
            skew: Skew::default(),
            was_skewed: false,
            unwell: Duration::ZERO,
            begun: Duration::ZERO,
            joined: false,
            offs: 0,
            stops: 0,
            every: None,
            process: None,
            disk_lost: None,
            started_unix: None,
        };
        let machines = script.machines().into_iter().zip(disks).enumerate().map(machine).collect();
        Self {
            fabric,
            data,
            oracle,
            machines,
            config: script.node.clone(),
            value_bytes_max: script.data.value_bytes_max as u64,
            trace,
            clock,
            begun: Vec::new(),
            secret,
            rng,
        }
    }

    /// The number of the machine of that name.
    ///
    /// # Panics
    /// There is none; scripts are checked.
    #[must_use]
    pub fn number(&self, name: &str) -> usize {
        let find = |machine: &Machine| machine.name.as_str() == name;
        self.machines.iter().position(find).expect("a checked script names machines that exist")
    }

    /// Lets all machines run up to `at`, none further ahead of the others than a datagram takes.
    ///
    /// # Errors
    /// A node panicked by itself, ended by itself, or cannot start.
    pub fn run(&mut self, at: Duration, step: Duration) -> Result<(), Violation> {
        let mut now = self.clock.now();
        while now < at {
            now = at.min(now + step);
            for machine in &mut self.machines {
                if let Some(running) = &mut machine.process {
                    running.process.run(now);
                }
            }
            self.clock.set(now);
        }
        match panics::unasked() {
            Some(panic) => Err(Violation::crash(panic)),
            None => self.tend(),
        }
    }

    /// Takes power from a machine, once more.
    pub fn crash(&mut self, number: usize, left: Left) {
        let now = self.clock.now();
        self.machines[number].offs += 1;
        self.machines[number].unwell = now;
        if left == Left::Nothing {
            self.machines[number].disk_lost = Some(now);
        }
        self.stop(number);
        self.machines[number].disk.crash(&mut self.rng, left);
        self.data.crash(number, left);
        self.oracle.look_again(number, &*self.data);
    }

    /// Gives it back, and starts the node if nothing else keeps it away.
    pub fn restore(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        machine.offs = machine.offs.saturating_sub(1);
        machine.unwell = self.clock.now();
        self.start_if_due(number);
    }

    /// Puts a machine there, with power unless something keeps it from it.
    pub fn join(&mut self, number: usize) {
        self.machines[number].joined = true;
        self.machines[number].unwell = self.clock.now();
        self.start_if_due(number);
    }

    fn start_if_due(&mut self, number: usize) {
        let machine = &self.machines[number];
        if machine.joined && machine.offs == 0 && machine.process.is_none() {
            self.start(number);
        }
    }

    /// Makes a node say goodbye and stop: for good after a drain if `drains`, else as one that is told to stop and will be
    /// back. Either way it first hands over what only it holds.
    pub fn leave(&mut self, number: usize, drains: bool) {
        let now = self.clock.now();
        let machine = &mut self.machines[number];
        machine.offs += 1;
        machine.unwell = now;
        let Some(running) = machine.process.as_mut().filter(|running| running.leaving.is_none()) else { return };
        let node = running.node.lock().expect("nothing panics while it holds this lock").take();
        let Some(Ok(node)) = node else { return self.stop(number) };
        running.client = None;
        let done = Slot::<()>::default();
        running.leaving = Some((now, done.clone()));
        let (client, name, drained) = (node.client(), machine.name.clone(), running.drained.clone());
        running.process.spawn(async move {
            if !drains {
                node.retire(HANDOFF).await;
            } else if let Ok(outcome) = client.drain(&name, false, Some(HANDOFF)).await {
                *drained.lock().expect("nothing panics while it holds this lock") = Some(outcome);
            }
            node.shutdown().await;
            *done.lock().expect("nothing panics while it holds this lock") = Some(());
        });
        let machine = machine.name.to_string();
        self.trace.tell(What::Node { machine, now: "leaves" });
    }

    /// How many times a process began since then. One that is made to fail may begin twice, for others may know it to be
    /// old.
    #[must_use]
    pub fn begun_since(&self, since: Duration) -> usize {
        2 * self.begun.iter().rev().take_while(|began| **began >= since).count()
    }

    /// Makes an actor of a node panic.
    pub fn panic(&mut self, number: usize, actor: Actor) {
        self.machines[number].begun = self.clock.now();
        self.begun.push(self.clock.now());
        let kind = match actor {
            Actor::Membership => ActorKind::Membership,
            Actor::Registry => ActorKind::Registry,
            Actor::Balancer => ActorKind::Balancer,
            Actor::Updater => ActorKind::Updater,
            Actor::Router => ActorKind::Router,
        };
        let machine = &mut self.machines[number];
        machine.unwell = self.clock.now();
        let Some(running) = &mut machine.process else { return };
        running.served = false;
        if let Some(Ok(node)) = &*running.node.lock().expect("nothing panics while it holds this lock") {
            running.process.within(|| node.inject_panic(kind));
            self.oracle.truth().probes.hit("actor recovered");
        }
    }

    /// Has the first node that serves take this one off the list of members, which is gone.
    pub fn remove(&mut self, number: usize) {
        let name = self.machines[number].name.clone();
        let others =
            self.machines.iter_mut().enumerate().filter(|(other, machine)| *other != number && machine.is_node);
        let mut running = others.filter_map(|(_, machine)| machine.process.as_mut());
        let Some(running) = running.find(|running| running.client.is_some()) else { return };
        let (client, trace) = (running.client.clone().expect("it was found by that"), self.trace.clone());
        running.process.spawn(async move {
            if client.remove_member(&name).await.is_ok() {
                trace.tell(What::Node { machine: name.to_string(), now: "removed" });
            }
        });
    }

    fn start(&mut self, number: usize) {
        let now = self.clock.now();
        let seeds = (0..self.machines.len()).filter(|other| *other != number && self.machines[*other].is_node);
        let mut config = self.config.clone();
        config.listen = self.machines[number].address;
        config.seeds = seeds.map(|other| self.machines[other].address.to_string()).collect();
        let credentials = Credentials::ClusterKey(self.secret.clone());
        let machine = &mut self.machines[number];
        let skew = machine.skew.load(Ordering::Relaxed);
        let unix = i64::try_from(now.as_millis()).unwrap_or(i64::MAX).saturating_add(skew);
        if machine.started_unix.is_some_and(|last| unix < last) {
            self.oracle.truth().probes.hit("clock went back");
        }
        machine.started_unix = Some(unix);
        let mut process = Process::start(self.rng.next_u64(), self.clock.clone(), now);
        (0..machine.stops).for_each(|_| process.stop());
        process.set_every(machine.every, now);
        let (fabric, disk, clock) = (self.fabric.clone(), machine.disk.clone(), self.clock.clone());
        let world = SimWorld::new(fabric, disk, self.rng.next_u64(), clock, machine.skew.clone());
        let mut builder = Node::builder(machine.name.clone()).credentials(credentials).config(config);
        builder = builder.world(Arc::new(world));
        if machine.is_node {
            builder = builder.provider(self.oracle.watch(number, self.data.provider(number)));
            // A user's provider may begin anew at every start.
            self.oracle.look_again(number, &*self.data);
        }
        let node = Slot::default();
        let started = node.clone();
        process.spawn(async move {
            let node = Box::pin(builder.launch()).await;
            *started.lock().expect("nothing panics while it holds this lock") = Some(node);
        });
        self.oracle.starts(number);
        let held_at_start = self.oracle.truth().held_by(number);
        machine.process = Some(Running {
            process,
            node,
            client: None,
            status: Slot::default(),
            leaving: None,
            drained: Slot::default(),
            started: now,
            served: false,
            held_at_start,
        });
        machine.begun = now;
        let machine = machine.name.to_string();
        self.begun.push(now);
        self.trace.tell(What::Node { machine, now: "starts" });
    }

    /// Asks every node how it is; the answers come as soon as they can.
    pub fn ask_status(&mut self) {
        let now = self.clock.now();
        for machine in &mut self.machines {
            let Some(running) = &mut machine.process else { continue };
            let Some(client) = running.client.clone() else { continue };
            let slot = running.status.clone();
            let oracle = self.oracle.clone();
            running.process.spawn(async move {
                let (status, pins) = (client.status().await, client.pins().await);
                if status.repairs_paused.is_some() {
                    oracle.truth().probes.hit("repairs held back");
                }
                if status.hot > 0 {
                    oracle.truth().probes.hit("hot key");
                }
                *slot.lock().expect("nothing panics while it holds this lock") = Some((now, status, pins));
            });
        }
    }

    /// Machines whose node has begun, with their numbers.
    pub fn up(&self) -> impl Iterator<Item = (usize, &Machine, &Client)> {
        self.machines.iter().enumerate().filter_map(|(number, machine)| Some((number, machine, machine.client()?)))
    }

    /// A machine that does not belong starts: a node with a key of its own, which knows where the others are.
    #[must_use]
    pub fn stranger(&mut self, name: &str) -> Stranger {
        let number = self.machines.len();
        let address = SocketAddr::new(ip(number), PORT);
        let mut config = self.config.clone();
        config.listen = address;
        config.seeds = self.machines.iter().map(|machine| machine.address.to_string()).collect();
        let key = cluster_key(&mut self.rng);
        let mut process = Process::start(self.rng.next_u64(), self.clock.clone(), self.clock.now());
        let seed = self.rng.next_u64();
        let world = SimWorld::new(self.fabric.clone(), SimDisk::default(), seed, self.clock.clone(), Skew::default());
        let builder = Node::builder(NodeName::new(name).expect("a checked name"))
            .credentials(Credentials::ClusterKey(key))
            .config(config)
            .provider(Arc::new(datad_gossip::providers::Memory::default()))
            .world(Arc::new(world));
        process.spawn(async move {
            if let Ok(node) = Box::pin(builder.launch()).await {
                node.failed().await;
            }
        });
        process.run(self.clock.now());
        Stranger { process, address }
    }

    fn stop(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        self.fabric.power_off(machine.address.ip());
        self.oracle.crashed(number);
        let Some(running) = machine.process.take() else { return };
        // The handle goes first, and with the runtime around it: it tells actors that nobody runs any more.
        let Running { process, node, client, .. } = running;
        process.within(move || drop((node, client)));
        drop(process);
        self.trace.tell(What::Node { machine: machine.name.to_string(), now: "is off" });
    }

    /// Takes in what nodes have become: begun, serving, gone, failed.
    fn tend(&mut self) -> Result<(), Violation> {
        for number in 0..self.machines.len() {
            let now = self.clock.now();
            let machine = &mut self.machines[number];
            let Some(running) = &mut machine.process else {
                if now >= machine.unwell + RESTART {
                    self.start_if_due(number);
                }
                continue;
            };
            if let Some((since, done)) = &running.leaving {
                let drained = running.drained.lock().expect("nothing panics while it holds this lock").take();
                if let Some(drained) = drained {
                    self.judge_drain(number, &drained)?;
                    continue;
                }
                let done = done.lock().expect("nothing panics while it holds this lock").is_some();
                let stuck = running.process.is_well() && now > *since + GOODBYE_MAX + (machine.unwell - *since);
                if stuck && !done {
                    let detail = format!("{} does not come to an end of its goodbye", machine.name);
                    return Err(Violation::liveness(15, detail));
                }
                if done {
                    self.stop(number);
                    self.start_if_due(number);
                }
                continue;
            }
            if running.client.is_none() && !self.has_begun(number)? {
                continue;
            }
            self.note_serving(number);
            self.none_ended(number)?;
        }
        Ok(())
    }

    /// Judges a drain that has just ended.
    fn judge_drain(&self, number: usize, drained: &Drained) -> Result<(), Violation> {
        let mut truth = self.oracle.truth();
        truth.probes.hit(if drained.left { "drained" } else { "drain refused" });
        let now = self.clock.now();
        let lives = |other: &usize| {
            let machine = &self.machines[*other];
            machine.started().is_some() || now.saturating_sub(machine.unwell) < s07_enough_left::LATELY
        };
        // What came behind the node's back, or vanished there, it cannot hand over.
        let is_alone = |key: &Key| {
            let has_it = truth.holds(number, key) && truth.is_believed(number, key) && !truth.forgotten.contains(key);
            let mut others = (0..self.machines.len()).filter(|other| *other != number).filter(lives);
            has_it && !others.any(|other| truth.had(other, key))
        };
        let alone = self.data.keys().into_iter().filter(is_alone);
        s08_nothing_lost::check(&self.machines[number].name, drained, alone)
    }

    /// What is to be seen of all machines at this moment, and what their nodes know of `keys`.
    #[must_use]
    pub fn snapshot(&self, keys: Vec<Key>) -> Snapshot {
        let machine = |machine: &Machine| MachineSeen {
            name: machine.name.clone(),
            address: machine.address,
            is_node: machine.is_node,
            is_well: machine.is_well(),
            unwell: machine.unwell,
            tasks: machine.tasks(),
            status: machine.status(),
        };
        let machines = self.machines.iter().map(machine).collect();
        let nodes = self.up().map(|(number, ..)| number).filter_map(|number| self.node(number, &keys)).collect();
        Snapshot { now: self.clock.now(), replicas: self.config.replicas, keys, machines, nodes }
    }

    /// What the node of this machine sees, if it runs.
    #[must_use]
    pub fn node(&self, number: usize, keys: &[Key]) -> Option<NodeSeen> {
        let machine = &self.machines[number];
        let client = machine.client()?;
        Some(NodeSeen {
            machine: number,
            name: machine.name.clone(),
            is_node: machine.is_node,
            started: machine.started().unwrap_or_default(),
            view: client.view(),
            located: keys.iter().map(|key| client.locate(key)).collect(),
        })
    }

    /// Whether the node of this machine has begun. If it could not, it is tried again.
    fn has_begun(&mut self, number: usize) -> Result<bool, Violation> {
        let machine = &mut self.machines[number];
        let Some(running) = &mut machine.process else { return Ok(false) };
        let failed = match &*running.node.lock().expect("nothing panics while it holds this lock") {
            None => return Ok(false),
            Some(Ok(node)) => {
                running.client = Some(node.client());
                return Ok(true);
            }
            // What a broken disk is a reason for.
            Some(Err(StartError::Disk(error))) => error.to_string(),
            Some(Err(error)) => {
                return Err(Violation::safety(11, format!("{} does not start: {error}", machine.name)));
            }
        };
        self.trace.note(format!("{} could not start: {failed}", machine.name));
        machine.unwell = self.clock.now();
        self.stop(number);
        Ok(false)
    }

    fn note_serving(&mut self, number: usize) {
        let machine = &self.machines[number];
        let serving = machine.is_serving();
        let Some(running) = &self.machines[number].process else { return };
        if !serving || running.served {
            return;
        }
        let (started, held) = (running.started, running.held_at_start);
        let mut truth = self.oracle.truth();
        if held > 0 && started > Duration::ZERO {
            truth.probes.hit("resumed");
        }
        if held == 0 && truth.had_any(number) {
            truth.probes.hit("came back empty");
        }
        drop(truth);
        self.trace.tell(What::Node { machine: self.machines[number].name.to_string(), now: "serves" });
        if let Some(running) = &mut self.machines[number].process {
            running.served = true;
        }
    }

    fn none_ended(&self, number: usize) -> Result<(), Violation> {
        let machine = &self.machines[number];
        let Some(running) = &machine.process else { return Ok(()) };
        let slot = running.node.lock().expect("nothing panics while it holds this lock");
        let Some(Ok(node)) = &*slot else { return Ok(()) };
        let failed = pin!(node.failed());
        match failed.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(reason) => Err(Violation::safety(11, format!("{} ended: {reason}", machine.name))),
            Poll::Pending => Ok(()),
        }
    }
}

/// A machine that does not belong, with a certificate of its own making.
pub struct Stranger {
    /// Its process.
    pub process: Process,
    /// Its address.
    pub address: SocketAddr,
}

fn cluster_key(rng: &mut StdRng) -> ClusterKey {
    let digits: String = (0..4).map(|_| format!("{:016x}", rng.next_u64())).collect();
    ClusterKey::parse(&digits).expect("these are 64 hexadecimal digits")
}

/// Address of the machine with this number.
#[must_use]
pub fn ip(number: usize) -> IpAddr {
    let [high, low] = u16::try_from(number + 1).expect("fewer than 65,535 machines").to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}

/// Seeds of the parts of a run, none of which depends on how much another draws.
#[must_use]
pub fn rng(seed: u64, part: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(part))
}
