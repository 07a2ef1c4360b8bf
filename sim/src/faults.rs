//! What goes wrong in a run: which kinds at all, when, and for how long.
//!
//! Every run leaves out some kinds at random, so that kinds which hide each other's effects also come alone (Groce et
//! al., "Swarm testing", 2012). Every fault lasts a minimum time: one that is over before anybody noticed tests nothing.

use std::{net::IpAddr, time::Duration};

use rand::{RngExt, rngs::StdRng};
use tokio::time::Instant;

use crate::{
    checks::Violation,
    cluster::{Cluster, Disk},
    fabric::Weather,
};

/// Shortest and longest time of a fault, in milliseconds.
const LASTS_MS: std::ops::Range<u64> = 1_500..12_000;
/// Between two faults: mostly short; sometimes long enough for the cluster to become calm.
const SHORT_GAP_MS: std::ops::Range<u64> = 300..5_000;
const LONG_GAP_MS: std::ops::Range<u64> = 15_000..25_000;
const LONG_GAP: f64 = 0.25;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Crash,
    EmptyDisk,
    Partition,
    OneWay,
    Loss,
    Latency,
}

const KINDS: [Kind; 6] = [Kind::Crash, Kind::EmptyDisk, Kind::Partition, Kind::OneWay, Kind::Loss, Kind::Latency];

#[derive(Debug)]
enum Active {
    Down(usize),
    Cut,
    Weather,
}

/// The faults of one run.
#[derive(Debug)]
pub struct Faults {
    kinds: Vec<Kind>,
    active: Vec<(Instant, Active)>,
    next: Instant,
    fair: Weather,
    calm_since: Option<Instant>,
    /// How many there were.
    pub count: u64,
}

impl Faults {
    /// Chooses the kinds. Between faults links behave like `fair`.
    #[must_use]
    pub fn new(rng: &mut StdRng, fair: Weather) -> Self {
        let kinds = KINDS.into_iter().filter(|_| rng.random_bool(0.6)).collect();
        let next = Instant::now() + Duration::from_millis(rng.random_range(SHORT_GAP_MS));
        Self { kinds, active: Vec::new(), next, fair, calm_since: Some(Instant::now()), count: 0 }
    }

    /// Since when nothing has been wrong.
    #[must_use]
    pub fn calm_since(&self) -> Option<Instant> {
        self.calm_since
    }

    /// When something begins or ends next.
    #[must_use]
    pub fn next(&self) -> Instant {
        self.active.iter().map(|(until, _)| *until).fold(self.next, Instant::min)
    }

    /// Ends what is over and begins what is due. Returns the machines that crashed.
    ///
    /// # Errors
    /// A node does not start again.
    pub async fn step(&mut self, rng: &mut StdRng, cluster: &mut Cluster) -> Result<Vec<usize>, Violation> {
        let now = Instant::now();
        while let Some(over) = self.active.iter().position(|(until, _)| *until <= now) {
            let (_, fault) = self.active.remove(over);
            self.end(fault, cluster).await?;
        }
        let mut crashed = Vec::new();
        if self.next <= now {
            let gap = if rng.random_bool(LONG_GAP) { LONG_GAP_MS } else { SHORT_GAP_MS };
            self.next = now + Duration::from_millis(rng.random_range(gap));
            crashed.extend(self.begin(rng, cluster));
        }
        cluster.origin.set_calm_since(self.calm_since);
        Ok(crashed)
    }

    /// Ends all faults, for good.
    ///
    /// # Errors
    /// A node does not start again.
    pub async fn heal(&mut self, cluster: &mut Cluster) -> Result<(), Violation> {
        for (_, fault) in std::mem::take(&mut self.active) {
            self.end(fault, cluster).await?;
        }
        cluster.origin.set_calm_since(self.calm_since);
        Ok(())
    }

    async fn end(&mut self, fault: Active, cluster: &mut Cluster) -> Result<(), Violation> {
        match fault {
            Active::Down(number) => cluster.start(number).await?,
            Active::Cut => {
                cluster.trace.note("links mended");
                cluster.fabric.mend();
            }
            Active::Weather => {
                cluster.trace.note("fair weather");
                cluster.fabric.set_weather(self.fair.clone());
            }
        }
        self.calm_since = self.active.is_empty().then(Instant::now);
        Ok(())
    }

    fn begin(&mut self, rng: &mut StdRng, cluster: &mut Cluster) -> Option<usize> {
        if self.kinds.is_empty() {
            return None;
        }
        let kind = self.kinds[rng.random_range(0..self.kinds.len())];
        let until = Instant::now() + Duration::from_millis(rng.random_range(LASTS_MS));
        let (cut, weather) = (self.is_active(&Active::Cut), self.is_active(&Active::Weather));
        let mut crashed = None;
        let fault = match kind {
            Kind::Crash | Kind::EmptyDisk => {
                let number = rng.random_range(0..cluster.machines.len());
                if cluster.machines[number].client().is_none() || cluster.down() * 2 >= cluster.machines.len() - 1 {
                    return None;
                }
                cluster.crash(number, if kind == Kind::Crash { Disk::Kept } else { Disk::Lost });
                crashed = Some(number);
                Active::Down(number)
            }
            Kind::Partition | Kind::OneWay if !cut => {
                partition(rng, cluster, kind == Kind::OneWay);
                Active::Cut
            }
            Kind::Loss | Kind::Latency if !weather => {
                let mut bad = self.fair.clone();
                if kind == Kind::Loss {
                    (bad.loss, bad.duplication) = (rng.random_range(0.02..0.25), rng.random_range(0.0..0.1));
                } else {
                    bad.latency += Duration::from_millis(rng.random_range(5..150));
                    bad.jitter += Duration::from_millis(rng.random_range(0..100));
                }
                cluster.trace.note(format!("weather {bad:?}"));
                cluster.fabric.set_weather(bad);
                Active::Weather
            }
            _ => return None,
        };
        self.count += 1;
        self.calm_since = None;
        self.active.push((until, fault));
        crashed
    }

    fn is_active(&self, like: &Active) -> bool {
        self.active.iter().any(|(_, fault)| std::mem::discriminant(fault) == std::mem::discriminant(like))
    }
}

/// Cuts the machines into two parts at random, neither empty.
fn partition(rng: &mut StdRng, cluster: &Cluster, one_way: bool) {
    let mut ips: Vec<IpAddr> = cluster.machines.iter().map(|machine| machine.address.ip()).collect();
    let size = rng.random_range(1..ips.len().max(2));
    let part: Vec<IpAddr> = (0..size.min(ips.len())).map(|_| ips.remove(rng.random_range(0..ips.len()))).collect();
    cluster.trace.note(format!("cut {part:?} {} {ips:?}", if one_way { "->" } else { "<->" }));
    for &here in &part {
        for &there in &ips {
            cluster.fabric.cut(here, there);
            if !one_way {
                cluster.fabric.cut(there, here);
            }
        }
    }
}
