//! Takes members off the list that have been dead for `dead_kept` and have nothing that the others lack.
//!
//! Each node decides for itself, by what it knows; the removal then spreads (see
//! `core/membership/removals.rs`), so that one decision is enough and all agree. A dead member
//! stays on the list while only dead members have one of its keys: its ledger says where that key
//! can be found again. [`crate::MemberStatus`] says so. It also stays until this node has read its
//! ledger to the end from another member since it lists it as gone; a node that is alone removes no
//! member.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use super::outlook::Outlook;
use crate::{key::NodeName, operations::sole_copies::keys_only_with, runtime::Shared};

/// Maximum time between two checks. Each check walks over all known keys.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(600);
/// Number of checks within `dead_kept`, if that makes the interval shorter.
const LOOKS: u32 = 16;

/// When this node looks for members that can go.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    looked: Duration,
    under_way: Option<AbortOnDropHandle<()>>,
}

impl Reaper {
    /// Runs a check, if it is due and the node knows enough.
    pub(super) fn look(&mut self, outlook: &Outlook) {
        let (shared, now) = (&outlook.shared, outlook.shared.context.uptime());
        let kept = shared.context.config.dead_kept;
        let busy = self.under_way.as_ref().is_some_and(|task| !task.is_finished());
        if busy || now < self.looked + look_interval(kept) {
            return;
        }
        self.looked = now;
        let overdue = outlook.roster.dead_for(now, kept);
        if overdue.is_empty() {
            shared.gossip.irreplaceable.publish(Arc::default());
            return;
        }
        let task = reap(shared.clone(), overdue);
        self.under_way = Some(AbortOnDropHandle::new(shared.context.tasks.spawn(task)));
    }
}

fn look_interval(kept: Duration) -> Duration {
    (kept / LOOKS).min(LOOK_INTERVAL_MAX)
}

/// Those of `overdue`, with since when this node lists them as gone, whose keys it knows: it has
/// listed them for some time, and has read the ledger of each to the end since then, as another
/// member knows it. A node that has just started hears of dead members before it knows their keys.
fn read_since(
    overdue: &BTreeMap<NodeName, Duration>,
    pulled: &BTreeMap<NodeName, Duration>,
    now: Duration,
    interval: Duration,
) -> BTreeSet<NodeName> {
    let read = |name: &NodeName, since: Duration| pulled.get(name).is_some_and(|began| *began >= since);
    let long = overdue.iter().filter(|(_, since)| now >= **since + interval);
    long.filter(|(name, since)| read(name, **since)).map(|(name, _)| name.clone()).collect()
}

/// Removes the members of `overdue` that have no key that the others lack.
async fn reap(shared: Arc<Shared>, overdue: BTreeMap<NodeName, Duration>) {
    if !knows_enough(&shared).await {
        return;
    }
    let Ok(summary) = shared.ports.registry.summarize().await else { return };
    let interval = look_interval(shared.context.config.dead_kept);
    let read = read_since(&overdue, &summary.pulled, shared.context.uptime(), interval);
    let overdue: BTreeSet<NodeName> = overdue.into_keys().collect();
    let Some(sole) = keys_only_with(&shared, &overdue).await else { return };
    for name in read.iter().filter(|name| !sole.contains_key(*name)) {
        if let Ok(Ok(())) = shared.ports.membership.remove(name.clone()).await {
            info!(member = %name, kept = ?shared.context.config.dead_kept, "it was dead for so long, and others have all that it had");
        }
    }
    shared.gossip.irreplaceable.publish(Arc::new(sole));
}

/// Whether this node has joined, sees a settled cluster, and knows all that the live members claim.
async fn knows_enough(shared: &Arc<Shared>) -> bool {
    let settled = *shared.lifecycle.joined().borrow()
        && shared.disk.scanned.load(Ordering::Acquire)
        && shared.context.uptime() >= shared.lookup.settled_at()
        && shared.lookup.view.load().brake().is_none();
    settled && shared.ports.registry.summarize().await.is_ok_and(|summary| summary.caught_up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> NodeName {
        NodeName::new(format!("n{number}")).unwrap()
    }

    #[test]
    fn a_member_goes_only_after_its_ledger_was_read_since_it_was_listed_as_gone() {
        let at = Duration::from_secs;
        let read = |pulled: Option<u64>, now: u64| {
            let pulled = pulled.map(|began| (name(1), at(began))).into_iter().collect();
            !read_since(&[(name(1), at(100))].into(), &pulled, at(now), at(10)).is_empty()
        };
        assert!(!read(None, 1_000), "its ledger was not read");
        assert!(!read(Some(99), 1_000), "it may have said more since");
        assert!(!read(Some(101), 109), "it is listed only now");
        assert!(read(Some(100), 110));
    }
}
