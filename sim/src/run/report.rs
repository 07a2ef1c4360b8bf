//! What a run cost, in numbers: for planning a cluster rather than for judging the code.

use std::time::Duration;

use datad_gossip::key::Key;
use serde::Serialize;

use super::requests::{self, Requests};
use crate::{cluster::Cluster, oracle};

/// A time during which keys had fewer replicas than they should.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shortage {
    /// When it began, in seconds.
    pub began_s: f64,
    /// How long it took until every key had its replicas again, in seconds; `None` if it never did.
    pub restored_after_s: Option<f64>,
    /// Most keys that were short at once.
    pub keys_max: usize,
    /// Most keys that had no live replica at all at once.
    pub keys_without_any_max: usize,
}

/// What a run cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Machines with a provider.
    pub nodes: usize,
    /// Keys that exist.
    pub keys: usize,
    /// Bytes of all values together, once.
    pub bytes: u64,
    /// Replicas each key should have.
    pub replicas: usize,
    /// What moved.
    pub moved: oracle::Counts,
    /// Bytes fetched from the upstream.
    pub fetched_bytes: u64,
    /// Bytes copied from node to node.
    pub copied_bytes: u64,
    /// Times without enough replicas.
    pub shortages: Vec<Shortage>,
    /// What requests came to.
    pub requests: requests::Counts,
    /// Share of requests for keys that exist which failed.
    pub failed_share: f64,
    /// Share of requests that waited for longer than a second.
    pub waited_share: f64,
    /// Half of the good requests took less, in milliseconds.
    pub median_ms: Option<u32>,
    /// 99 in 100 of the good requests took less, in milliseconds.
    pub p99_ms: Option<u32>,
    /// Datagrams that were sent.
    pub datagrams: u64,
}

/// Counts while a run goes on.
pub struct Reporter {
    shortages: Vec<Shortage>,
    nodes: usize,
}

impl Reporter {
    /// Before the run.
    #[must_use]
    pub fn new(cluster: &Cluster) -> Self {
        let nodes = cluster.machines.iter().filter(|machine| machine.is_node).count();
        Self { shortages: Vec::new(), nodes }
    }

    /// Looks at the replicas that live machines have. Keys that nobody ever had are not missing.
    pub fn look(&mut self, cluster: &Cluster, keys: &[Key]) {
        let live: Vec<usize> = (0..self.nodes).filter(|number| cluster.machines[*number].started().is_some()).collect();
        let wanted = cluster.config.replicas.min(live.len());
        let (mut short, mut none) = (0, 0);
        let truth = cluster.oracle.truth();
        for key in keys {
            let replicas = live.iter().filter(|number| truth.holds(**number, key)).count();
            if replicas < wanted && (0..self.nodes).any(|number| truth.had(number, key)) {
                short += 1;
                none += usize::from(replicas == 0);
            }
        }
        let now = cluster.clock.now();
        let open = self.shortages.last_mut().filter(|shortage| shortage.restored_after_s.is_none());
        match open {
            Some(shortage) if short == 0 => {
                let took = now.saturating_sub(Duration::from_secs_f64(shortage.began_s));
                shortage.restored_after_s = Some(took.as_secs_f64());
            }
            Some(shortage) => {
                shortage.keys_max = shortage.keys_max.max(short);
                shortage.keys_without_any_max = shortage.keys_without_any_max.max(none);
            }
            None if short > 0 => self.shortages.push(Shortage {
                began_s: now.as_secs_f64(),
                restored_after_s: None,
                keys_max: short,
                keys_without_any_max: none,
            }),
            None => {}
        }
    }

    /// After the run.
    #[must_use]
    pub fn finish(self, cluster: &Cluster, requests: &Requests) -> Report {
        let truth = cluster.oracle.truth();
        let mut took = requests.took_ms.clone();
        took.sort_unstable();
        let at =
            |share: f64| took.get(((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1))).copied();
        let share = |count: u64| count as f64 / requests.counts.asked.max(1) as f64;
        let keys = cluster.data.keys();
        Report {
            nodes: self.nodes,
            keys: keys.len(),
            bytes: keys.iter().map(|key| cluster.data.size(key)).sum(),
            replicas: cluster.config.replicas,
            moved: truth.counts,
            fetched_bytes: truth.fetched_bytes,
            copied_bytes: truth.copied_bytes,
            shortages: self.shortages,
            requests: requests.counts,
            failed_share: share(requests.counts.failed),
            waited_share: share(requests.counts.waited),
            median_ms: at(0.5),
            p99_ms: at(0.99),
            datagrams: cluster.fabric.counts().sent,
        }
    }
}
