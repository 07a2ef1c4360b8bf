//! The machines of one run, each with its address, its disk, its data, and a node while it has power.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use datad_gossip::{
    Client, ClusterKey, Credentials, MemberState, Node, config::NodeConfig, key::NodeName, providers::Memory,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::{
    checks::Violation,
    fabric::Fabric,
    origin::Origin,
    trace::Trace,
    world::{MemoryDisk, SimWorld},
};

const PORT: u16 = 7_000;

/// What a crash leaves on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Everything.
    Kept,
    /// Nothing: neither records nor data.
    Lost,
}

/// One machine.
pub struct Machine {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    pub address: SocketAddr,
    /// Its data.
    pub memory: Memory,
    disk: MemoryDisk,
    running: Option<(Node, Client)>,
}

impl Machine {
    /// The handle on its node, while there is one.
    #[must_use]
    pub fn client(&self) -> Option<&Client> {
        self.running.as_ref().map(|(_, client)| client)
    }

    /// Whether its node takes requests.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.client().is_some_and(|client| {
            client.view().member(&self.name).is_some_and(|member| member.state == MemberState::Serving)
        })
    }
}

/// All machines of a run.
pub struct Cluster {
    /// The network between them.
    pub fabric: Fabric,
    /// What they fetch from.
    pub origin: Origin,
    /// The machines, in the order of their names.
    pub machines: Vec<Machine>,
    /// Settings of all nodes.
    pub config: NodeConfig,
    /// The record of the run.
    pub trace: Trace,
    secret: ClusterKey,
    rng: StdRng,
    began: Instant,
}

impl Cluster {
    /// `count` machines without power.
    #[must_use]
    pub fn new(count: usize, seed: u64, config: NodeConfig, fabric: Fabric, origin: Origin, trace: Trace) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let digits: String = (0..4).map(|_| format!("{:016x}", rng.next_u64())).collect();
        let secret = ClusterKey::parse(&digits).expect("these are 64 hexadecimal digits");
        let machines = (0..count)
            .map(|number| Machine {
                name: NodeName::new(format!("n{}", number + 1)).expect("a valid name"),
                address: SocketAddr::new(ip(number), PORT),
                memory: origin.memory(number),
                disk: MemoryDisk::default(),
                running: None,
            })
            .collect();
        Self { fabric, origin, machines, config, trace, secret, rng, began: Instant::now() }
    }

    /// Gives a machine power and starts its node, which joins by itself.
    ///
    /// # Errors
    /// The node does not start, which nothing in the simulation is a reason for.
    pub async fn start(&mut self, number: usize) -> Result<(), Violation> {
        let (name, address) = (self.machines[number].name.clone(), self.machines[number].address);
        self.trace.note(format!("start {name}"));
        self.fabric.power_on(address.ip());
        let mut config = self.config.clone();
        config.listen = address;
        config.seeds = self.machines.iter().map(|machine| machine.address.to_string()).collect();
        config.seeds.remove(number);
        let seed = self.rng.next_u64();
        let machine = &mut self.machines[number];
        let world = SimWorld::new(self.fabric.clone(), machine.disk.clone(), seed, self.began);
        let builder = Node::builder(name.clone()).credentials(Credentials::ClusterKey(self.secret.clone()));
        let builder = builder.config(config).world(Arc::new(world)).provider(Arc::new(machine.memory.clone()));
        let node = Box::pin(builder.launch()).await;
        let node = node.map_err(|error| Violation::safety(11, format!("{name} does not start: {error}")))?;
        let client = node.client();
        machine.running = Some((node, client));
        Ok(())
    }

    /// Takes a machine's power away.
    pub fn crash(&mut self, number: usize, disk: Disk) {
        self.trace.note(format!("crash {} disk {disk:?}", self.machines[number].name));
        let memory = self.origin.memory(number);
        let keys = self.origin.keys();
        let machine = &mut self.machines[number];
        self.fabric.power_off(machine.address.ip());
        machine.running = None;
        self.origin.crashed(number);
        // What tasks of the dead node still do has to miss the data of the next one.
        match disk {
            Disk::Kept => {
                for key in keys {
                    if let Some(bytes) = machine.memory.bytes(&key) {
                        memory.insert(key, bytes);
                    }
                }
            }
            Disk::Lost => machine.disk = MemoryDisk::default(),
        }
        machine.memory = memory;
    }

    /// Machines with power, with their numbers.
    pub fn up(&self) -> impl Iterator<Item = (usize, &Machine, &Client)> {
        self.machines.iter().enumerate().filter_map(|(number, machine)| Some((number, machine, machine.client()?)))
    }

    /// How many machines have no power.
    #[must_use]
    pub fn down(&self) -> usize {
        self.machines.iter().filter(|machine| machine.running.is_none()).count()
    }

    /// Whether a node ended by itself.
    ///
    /// # Errors
    /// It did, and why.
    pub fn none_failed(&self) -> Result<(), Violation> {
        for machine in &self.machines {
            let Some((node, _)) = &machine.running else { continue };
            let failed = pin!(node.failed());
            if let Poll::Ready(reason) = failed.poll(&mut Context::from_waker(Waker::noop())) {
                return Err(Violation::safety(11, format!("{} ended: {reason}", machine.name)));
            }
        }
        Ok(())
    }
}

/// Address of the machine with this number.
#[must_use]
pub fn ip(number: usize) -> IpAddr {
    let [high, low] = u16::try_from(number + 1).expect("fewer than 65,535 machines").to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}
