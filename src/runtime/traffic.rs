//! What clients ask for here: when each key was last used, and which keys are hot.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use super::context::Context;
use crate::{
    core::{
        balancer::{HotKeys, LastAccess},
        registry::KeyHasher,
    },
    key::Key,
};

/// Statistics of the requests that this node has answered.
pub(crate) struct Traffic {
    context: Arc<Context>,
    /// When keys were last asked for.
    pub(crate) last_access: LastAccess,
    /// Which keys are asked for so often that more nodes should keep them.
    heat: Mutex<HotKeys>,
}

impl Traffic {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        let last_access = LastAccess::new(KeyHasher::seeded(context.world.seed()));
        Self { last_access, heat: Mutex::new(HotKeys::new(&context.config)), context }
    }

    /// Notes that a client asked for `key` here.
    pub(crate) fn note_use(&self, key: &Key) {
        let (now, rate) = (self.context.uptime(), self.context.config.hot_rate);
        let hits = self.last_access.touch(key, now);
        if HotKeys::is_notable(rate, hits) {
            self.heat().note(now, key, hits);
        }
    }

    /// Decides anew which keys are hot here; whether that is news.
    pub(crate) fn judge_heat(&self) -> bool {
        self.heat().step(self.context.uptime())
    }

    /// How many replicas more than usual which keys should have, as far as this node can tell.
    pub(crate) fn extra_replicas(&self) -> BTreeMap<Key, u8> {
        self.heat().extra_replicas()
    }

    fn heat(&self) -> MutexGuard<'_, HotKeys> {
        self.heat.lock().expect("no panic under this lock")
    }
}
