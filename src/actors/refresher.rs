//! The refresher: asks the origins of held keys for changes when the settings say so.
//!
//! Supervised by the node and restarted alone; it is only there if a policy is set. It can find out
//! again everything that it keeps, except when keys were refreshed: after a restart it draws these
//! times at random. *In*: finished updates from the updater; its own walk over the known keys.
//! *Out*: refreshes, first here and then at the other holders.
//!
//! Invariants: only the first ready holder of a key asks; at most half of the updaters work on
//! refreshes, and the pool prefers requests and repairs; a walk is a small slice at a time.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use rand::{RngExt, rngs::StdRng};
use tracing::debug;

use crate::{
    core::{refresh::Schedule, registry::HolderState},
    key::{Key, NodeName},
    operations::update::update_held,
    runtime::{
        Shared,
        mailbox::{Envelope, receives},
        ports::refresher::Request,
    },
};

/// How often the actor looks for keys that are due.
const TICK: Duration = Duration::from_millis(100);
/// Keys that one slice looks at: well below a millisecond of work.
const SLICE_KEYS: usize = 256;
/// Pause between two slices of a walk: a million keys take less than a minute and a few percent of
/// a core.
const PACE: Duration = Duration::from_millis(10);
/// Time between two walks. The actor hears of keys that arrive while the node runs; a walk finds
/// the older ones.
const WALK_INTERVAL: Duration = Duration::from_secs(60);

pub(crate) enum Message {
    /// A request from another actor.
    Asked(Envelope<Request>),
    /// A part of all keys.
    Walked(Vec<Key>),
    /// A refresh that this actor asked for has ended.
    Ended,
    /// Look for keys that are due.
    Tick,
}

receives!(Message: Asked(Request));

pub(crate) struct Refresher;

pub(crate) struct State {
    shared: Arc<Shared>,
    myself: ActorRef<Message>,
    schedule: Schedule,
    running: usize,
    walking: bool,
    next_walk: Duration,
    rng: StdRng,
}

impl Actor for Refresher {
    type Msg = Message;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(&self, myself: ActorRef<Message>, shared: Arc<Shared>) -> Result<State, ActorProcessingErr> {
        myself.send_interval(TICK, || Message::Tick);
        let (next_walk, rng) = (shared.context.uptime(), shared.context.rng());
        Ok(State { shared, myself, schedule: Schedule::default(), running: 0, walking: false, next_walk, rng })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Asked(asked) => match asked.open() {
                Request::Refreshed { key, changed } => state.refreshed(&key, changed),
                Request::Due { key, reply } => {
                    _ = reply.send(state.schedule.due_in(state.shared.context.uptime(), &key))
                }
            },
            Message::Walked(keys) => state.walked(&keys),
            Message::Ended => {
                state.running -= 1;
                state.ask_for_due();
            }
            Message::Tick => state.tick(),
        }
        Ok(())
    }
}

impl State {
    fn refreshed(&mut self, key: &Key, changed: Option<bool>) {
        let chance = self.rng.random();
        if let Some(policy) = self.shared.context.config.refresh_policy(key) {
            self.schedule.refreshed(self.shared.context.uptime(), key, policy, changed, chance);
        }
    }

    fn tick(&mut self) {
        if !self.walking && self.shared.context.uptime() >= self.next_walk {
            self.walking = true;
            self.ask_for_keys(None);
        }
        self.ask_for_due();
    }

    fn ask_for_keys(&self, after: Option<Key>) {
        let (shared, myself) = (self.shared.clone(), self.myself.clone());
        self.shared.context.spawn(async move {
            tokio::time::sleep(PACE).await;
            let keys = shared.ports.registry.keys(after, "", SLICE_KEYS).await.unwrap_or_default();
            let _ = myself.send_message(Message::Walked(keys));
        });
    }

    fn walked(&mut self, keys: &[Key]) {
        let now = self.shared.context.uptime();
        for key in keys {
            if let Some(policy) = self.shared.context.config.refresh_policy(key)
                && self.is_ready(key)
            {
                self.schedule.learn(now, key, policy, self.rng.random());
            }
        }
        match keys.last() {
            Some(last) if keys.len() == SLICE_KEYS => self.ask_for_keys(Some(last.clone())),
            _ => (self.walking, self.next_walk) = (false, now + WALK_INTERVAL),
        }
    }

    /// Refreshes the keys that are due and that this node has to refresh, as far as updaters are
    /// free.
    fn ask_for_due(&mut self) {
        let now = self.shared.context.uptime();
        // Before that, this node may take holders for dead that would ask the origin as well.
        if now < self.shared.lookup.settled_at() {
            return;
        }
        for _ in 0..SLICE_KEYS {
            if self.running >= (self.shared.context.config.updaters / 2).max(1) {
                return;
            }
            let Some(key) = self.schedule.take_due(now) else { return };
            if !self.is_ready(&key) {
                self.schedule.forget(&key);
                continue;
            }
            let holders = self.shared.lookup.holders_by_preference(&key);
            if holders.first() == Some(&self.shared.context.name) {
                self.refresh(key, holders);
            }
        }
    }

    fn is_ready(&self, key: &Key) -> bool {
        self.shared.lookup.index.state(key, &self.shared.context.name) == Some(HolderState::Ready)
    }

    fn refresh(&mut self, key: Key, holders: Vec<NodeName>) {
        self.running += 1;
        let (shared, myself) = (self.shared.clone(), self.myself.clone());
        self.shared.context.spawn(async move {
            match update_held(&shared, &key, holders, shared.context.config.update_timeout).await {
                Ok(replicas) => {
                    for replica in replicas.iter().filter(|replica| replica.error.is_some()) {
                        debug!(%key, node = %replica.node, error = ?replica.error, "a copy was not refreshed");
                    }
                }
                Err(error) => debug!(%key, %error, "not refreshed"),
            }
            let _ = myself.send_message(Message::Ended);
        });
    }
}
