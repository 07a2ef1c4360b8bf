//! What clients ask for here: when each key was last used, and which keys are hot.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use super::context::Context;
use crate::{
    core::{
        balancer::{Heat, Uses},
        registry::KeyHasher,
    },
    key::Key,
};

/// Statistics of the requests that this node has answered.
pub(crate) struct Traffic {
    context: Arc<Context>,
    /// When keys were last asked for.
    pub(crate) uses: Uses,
    /// Which keys are asked for so often that more nodes should keep them.
    heat: Mutex<Heat>,
}

impl Traffic {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        let uses = Uses::new(KeyHasher::seeded(context.world.seed()));
        Self { uses, heat: Mutex::new(Heat::new(&context.config)), context }
    }

    /// Notes that a client asked for `key` here.
    pub(crate) fn note_use(&self, key: &Key) {
        let (now, rate) = (self.context.uptime(), self.context.config.hot_rate);
        let hits = self.uses.touch(key, now);
        if Heat::is_notable(rate, hits) {
            self.heat().note(now, key, hits);
        }
    }

    /// Decides anew which keys are hot here; whether that is news.
    pub(crate) fn judge_heat(&self) -> bool {
        self.heat().step(self.context.uptime())
    }

    /// How many replicas more than usual which keys should have, as far as this node can tell.
    pub(crate) fn extras(&self) -> BTreeMap<Key, u8> {
        self.heat().extras()
    }

    fn heat(&self) -> MutexGuard<'_, Heat> {
        self.heat.lock().expect("no panic under this lock")
    }
}
