//! Does what a script says goes wrong, and undoes it.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use rand::{Rng, RngExt, rngs::StdRng};

use crate::{
    cluster::{self, Cluster, Stranger},
    machine::{
        disk::Condition,
        fabric::{Effect, Layer},
    },
    model::{Name, What},
    script::{Fault, FaultKind},
};

/// Between two datagrams of rubbish.
const RUBBISH: Duration = Duration::from_millis(150);
const RUBBISH_BYTES_MAX: usize = 1_400;

/// What goes on at the moment.
#[derive(Default)]
pub(super) struct Faults {
    active: BTreeMap<usize, Active>,
    rolls: Vec<Roll>,
    /// How many of each kind there were.
    pub(super) counts: BTreeMap<&'static str, u64>,
}

struct Active {
    fault: Fault,
    /// Layers are counted from 1 in both ways of a link.
    flap: Option<(Duration, bool)>,
    stranger: Option<Stranger>,
    rubbish: Duration,
}

/// Nodes that are restarted one after the other.
struct Roll {
    /// Those to come, the next one last.
    waiting: Vec<usize>,
    current: Option<(usize, bool)>,
}

impl Faults {
    /// Whether nothing is wrong.
    #[must_use]
    pub(super) fn is_calm(&self) -> bool {
        self.active.is_empty() && self.rolls.is_empty()
    }

    /// Whether links are either as good as usual or cut, disks work, and processes run as they should or not at all.
    #[must_use]
    pub(super) fn is_smooth(&self) -> bool {
        let is_smooth = |kind: &FaultKind| {
            use FaultKind::{DegradedLinks, DiskFails, DiskFull, DiskSlow, Flap, Slow, Vanish};
            let worse = matches!(kind, Flap { .. } | Slow { .. } | DegradedLinks { .. });
            !worse && !matches!(kind, DiskFails { .. } | DiskFull { .. } | DiskSlow { .. } | Vanish { .. })
        };
        self.active.values().all(|active| is_smooth(&active.fault.kind))
    }

    /// How many nodes are still to be restarted in turn.
    pub(super) fn to_restart(&self) -> usize {
        self.rolls.iter().map(|roll| roll.waiting.len() + usize::from(roll.current.is_some())).sum()
    }

    /// Begins a fault.
    pub(super) fn begin(&mut self, number: usize, fault: &Fault, cluster: &mut Cluster, rng: &mut StdRng) {
        let kind = &fault.kind;
        *self.counts.entry(kind.name()).or_default() += 1;
        cluster.trace.tell(What::Fault {
            number,
            kind: kind.name(),
            machines: kind.machines().into_iter().cloned().collect(),
            detail: format!("{kind:?}"),
        });
        let mut active = Active { fault: fault.clone(), flap: None, stranger: None, rubbish: cluster.clock.now() };
        match kind {
            FaultKind::Crash { nodes, disk } => {
                if nodes.len() > 1 && nodes.len() == cluster.machines.iter().filter(|machine| machine.is_node).count() {
                    cluster.oracle.truth().probes.hit("all restarted");
                }
                nodes.iter().for_each(|name| cluster.crash(cluster.number(name), *disk));
            }
            FaultKind::Leave { nodes } => nodes.iter().for_each(|name| cluster.leave(cluster.number(name), false)),
            FaultKind::Drain { nodes } => nodes.iter().for_each(|name| cluster.leave(cluster.number(name), true)),
            FaultKind::Roll { nodes } => {
                let waiting = nodes.iter().rev().map(|name| cluster.number(name)).collect();
                self.rolls.push(Roll { waiting, current: None });
            }
            FaultKind::Join { nodes } => nodes.iter().for_each(|name| cluster.join(cluster.number(name))),
            FaultKind::Stranger { name, certificate } => {
                active.stranger = certificate.then(|| cluster.stranger(name));
                let address = cluster::ip(cluster.machines.len());
                for machine in &cluster.machines {
                    let mut bytes = vec![0; rng.random_range(1..RUBBISH_BYTES_MAX)];
                    rng.fill_bytes(&mut bytes);
                    cluster.fabric.inject((address, 7_000).into(), machine.address, &bytes);
                }
                cluster.oracle.truth().probes.hit("stranger knocked");
            }
            FaultKind::Flap { every, .. } => {
                cut(number, kind, cluster);
                active.flap = Some((cluster.clock.now() + *every, true));
            }
            FaultKind::Panic { node, actor } => cluster.panic(cluster.number(node), *actor),
            FaultKind::Remove { node } => cluster.remove(cluster.number(node)),
            _ => change(number, kind, cluster, true),
        }
        if !kind.is_momentary() {
            self.active.insert(number, active);
        }
    }

    /// Ends a fault.
    pub(super) fn end(&mut self, number: usize, cluster: &mut Cluster) {
        let Some(active) = self.active.remove(&number) else { return };
        match &active.fault.kind {
            FaultKind::Crash { nodes, .. } | FaultKind::Leave { nodes } | FaultKind::Drain { nodes } => {
                nodes.iter().for_each(|name| cluster.restore(cluster.number(name)));
            }
            FaultKind::Flap { .. } => mend(number, cluster),
            FaultKind::Stranger { .. } => cluster.fabric.power_off(cluster::ip(cluster.machines.len())),
            kind => change(number, kind, cluster, false),
        }
        cluster.trace.tell(What::Over { number });
    }

    /// Ends all faults that are not for good.
    pub(super) fn heal(&mut self, cluster: &mut Cluster) {
        let numbers: Vec<usize> = self.active.keys().copied().collect();
        for number in numbers {
            let fault = &self.active[&number].fault;
            let for_good = fault.lasts.is_none() && !fault.kind.victims().is_empty();
            if !for_good {
                self.end(number, cluster);
            }
        }
    }

    /// Lets time pass for faults that move by themselves.
    pub(super) fn tend(&mut self, cluster: &mut Cluster, rng: &mut StdRng) {
        let now = cluster.clock.now();
        for (number, active) in &mut self.active {
            if let (Some((next, is_cut)), FaultKind::Flap { every, .. }) = (&mut active.flap, &active.fault.kind)
                && *next <= now
            {
                if *is_cut {
                    mend(*number, cluster)
                } else {
                    cut(*number, &active.fault.kind, cluster)
                }
                (*next, *is_cut) = (now + *every, !*is_cut);
            }
            if let Some(stranger) = &mut active.stranger {
                stranger.process.run(now);
                if active.rubbish + RUBBISH <= now {
                    active.rubbish = now;
                    let mut bytes = vec![0; rng.random_range(1..RUBBISH_BYTES_MAX)];
                    rng.fill_bytes(&mut bytes);
                    let target = rng.random_range(0..cluster.machines.len());
                    cluster.fabric.inject(stranger.address, cluster.machines[target].address, &bytes);
                }
            }
        }
        self.rolls.retain_mut(|roll| roll.go_on(cluster));
    }
}

impl Roll {
    /// Whether there is more to do.
    fn go_on(&mut self, cluster: &mut Cluster) -> bool {
        match &mut self.current {
            None => {
                let Some(next) = self.waiting.pop() else { return false };
                cluster.leave(next, false);
                self.current = Some((next, false));
            }
            Some((number, back)) if !*back => {
                if cluster.machines[*number].process().is_none() {
                    cluster.restore(*number);
                    *back = true;
                }
            }
            Some((number, _)) => {
                if cluster.machines[*number].is_serving() {
                    self.current = None;
                }
            }
        }
        true
    }
}

/// A fault that is a state of a thing, which is so or not.
fn change(number: usize, kind: &FaultKind, cluster: &mut Cluster, begins: bool) {
    let now = cluster.clock.now();
    let add = |count: &mut u32| *count = if begins { *count + 1 } else { count.saturating_sub(1) };
    match kind {
        FaultKind::Pause { node } => {
            let machine = cluster.number(node);
            let machine = &mut cluster.machines[machine];
            machine.unwell = now;
            if begins { machine.stop() } else { machine.go_on(now) }
        }
        FaultKind::Slow { node, every } => {
            let machine = cluster.number(node);
            cluster.machines[machine].unwell = now;
            cluster.machines[machine].set_every(begins.then_some(*every), now);
        }
        FaultKind::Cut { .. } => {
            if begins {
                cut(number, kind, cluster)
            } else {
                mend(number, cluster)
            }
        }
        FaultKind::DegradedLinks { from, to, link } => {
            if begins {
                let layer = Layer { from: ips(from, cluster), to: ips(to, cluster), what: Effect::Worse(link.clone()) };
                cluster.fabric.lay(layer_number(number), layer);
            } else {
                mend(number, cluster);
            }
        }
        FaultKind::Clock { node, jump_ms } => {
            let by = if begins { *jump_ms } else { -jump_ms };
            let number = cluster.number(node);
            cluster.machines[number].skew.fetch_add(by, Ordering::Relaxed);
            cluster.machines[number].was_skewed = true;
        }
        FaultKind::DiskFull { node } => change_disk(node, cluster, |disk| add(&mut disk.full)),
        FaultKind::DiskFails { node } => change_disk(node, cluster, |disk| add(&mut disk.failing)),
        FaultKind::DiskSlow { node, delay } => change_disk(node, cluster, |disk| {
            disk.delay = if begins { disk.delay + *delay } else { disk.delay.saturating_sub(*delay) };
        }),
        kind => {
            if cluster.data.fault(kind, begins) {
                for name in kind.machines() {
                    cluster.oracle.look_again(cluster.number(name), &*cluster.data);
                }
            }
        }
    }
}

fn change_disk(node: &str, cluster: &Cluster, change: impl FnOnce(&mut Condition)) {
    cluster.machines[cluster.number(node)].disk.change(change);
}

fn ips(names: &[Name], cluster: &Cluster) -> std::collections::BTreeSet<std::net::IpAddr> {
    names.iter().map(|name| cluster.machines[cluster.number(name)].address.ip()).collect()
}

/// The layers of a fault: one for each way.
fn layer_number(number: usize) -> u64 {
    2 * number as u64
}

fn cut(number: usize, kind: &FaultKind, cluster: &Cluster) {
    let (from, to, one_way) = match kind {
        FaultKind::Cut { from, to, one_way } => (from, to, *one_way),
        FaultKind::Flap { from, to, .. } => (from, to, false),
        _ => return,
    };
    // For a layer, nobody means everybody; a cut between somebody and nobody is none.
    if from.is_empty() || to.is_empty() {
        return;
    }
    let (from, to) = (ips(from, cluster), ips(to, cluster));
    let there = Layer { from: from.clone(), to: to.clone(), what: Effect::Cut };
    cluster.fabric.lay(layer_number(number), there);
    if !one_way {
        cluster.fabric.lay(layer_number(number) + 1, Layer { from: to, to: from, what: Effect::Cut });
    }
}

fn mend(number: usize, cluster: &Cluster) {
    cluster.fabric.lift(layer_number(number));
    cluster.fabric.lift(layer_number(number) + 1);
}
