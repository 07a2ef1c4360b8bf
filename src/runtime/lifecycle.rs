//! How far this node's life is: whether it has joined, what keeps it from its work, whether it is on its way out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use super::{context::Context, peers::Peers};
use crate::{
    core::membership::{Joining, SeedStatus, View},
    net::wire::HelloRefusal,
    util::published::Published,
};

/// The actors of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[doc(hidden)]
pub enum ActorKind {
    Membership,
    Registry,
    Balancer,
    Updater,
    Router,
    Catalog,
    Refresher,
}

/// The stages of one node's life.
pub(crate) struct Lifecycle {
    context: Arc<Context>,
    peers: Arc<Peers>,
    /// The configured seeds, and how they were last found. Empty where etcd coordinates.
    pub(crate) seeds: Published<Vec<SeedStatus>>,
    /// Whether this node has been part of its cluster since the process began; never taken back.
    joined: watch::Sender<bool>,
    /// Whether this node is on its way out for good: it takes no keys and drops none.
    pub(crate) draining: AtomicBool,
    /// Whether it is about to stop, to be back soon: likewise.
    pub(crate) leaving: AtomicBool,
    /// An incarnation of this node that others know, if its own is older.
    pub(crate) known_incarnation: AtomicU64,
    /// What keeps an actor from its work for longer than a restart would mend, in words.
    degraded: Mutex<BTreeMap<ActorKind, String>>,
}

impl Lifecycle {
    pub(crate) fn new(context: Arc<Context>, peers: Arc<Peers>, seeds: Vec<SeedStatus>) -> Self {
        Self {
            context,
            peers,
            seeds: Published::new(seeds),
            joined: watch::Sender::new(false),
            draining: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            known_incarnation: AtomicU64::new(0),
            degraded: Mutex::default(),
        }
    }

    /// What keeps this node from taking part fully, in words.
    pub(crate) fn degraded_reason(&self) -> Option<String> {
        let degraded = self.degraded.lock().expect("no panic under this lock");
        // One cause often stops several.
        let distinct: BTreeSet<&str> = degraded.values().map(String::as_str).collect();
        (!distinct.is_empty()).then(|| distinct.into_iter().collect::<Vec<_>>().join("; "))
    }

    /// Says what keeps this actor from its work, or that nothing does any more. Whether that is news.
    pub(crate) fn set_degraded(&self, actor: ActorKind, trouble: Option<String>) -> bool {
        let mut degraded = self.degraded.lock().expect("no panic under this lock");
        match trouble {
            Some(trouble) => degraded.insert(actor, trouble.clone()) != Some(trouble),
            None => degraded.remove(&actor).is_some(),
        }
    }

    /// Takes note of the members that are about to be published, or, while this node has not joined, of those that are: its clock
    /// may be right now.
    pub(crate) fn note_members(&self, view: &View) {
        if !*self.joined.borrow() && self.lacking(view).is_empty() {
            tracing::info!(members = view.alive().count(), "joined");
            self.joined.send_replace(true);
        }
    }

    /// Whether this node has been part of its cluster: it met another member if it names seeds, and as many members as it
    /// expects. What it loses later does not count.
    pub(crate) fn joined(&self) -> watch::Receiver<bool> {
        self.joined.subscribe()
    }

    /// What this node lacks to be part of its cluster as `view` shows it, in words.
    pub(crate) fn lacking(&self, view: &View) -> Vec<String> {
        let rejection = self.peers.net.certificate_rejection(self.context.world.unix_ms());
        let (seeds, alive, expected) = (&self.seeds.load(), view.alive().count(), self.context.config.expect_members);
        Joining { seeds, alive, expected, rejection }.lacking()
    }

    /// Fails if others know a later start of this node: its disk was lost and its clock set back. It has to begin anew
    /// after that one, or they never listen to it.
    pub(crate) fn check_incarnation(&self, own: u64) -> Result<(), String> {
        let known = match &*self.peers.net.refusals().borrow() {
            Some(HelloRefusal::Outdated { incarnation, .. }) if *incarnation >= own => *incarnation,
            _ => return Ok(()),
        };
        self.known_incarnation.fetch_max(known, Ordering::AcqRel);
        Err(format!("others know incarnation {known} of this node, which has {own}"))
    }

    /// Whether this node takes no keys and drops none, because it will not be there in a moment.
    pub(crate) fn is_on_its_way_out(&self) -> bool {
        self.draining.load(Ordering::Acquire) || self.leaving.load(Ordering::Acquire)
    }
}
