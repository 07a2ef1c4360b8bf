//! The hash of keys inside this process: fast, seeded, and never seen outside.
//!
//! Lookups by key are the hottest thing a node does, so this is foldhash (a multiply and a fold per 16 bytes) and not
//! SipHash. The names of keys may come from strangers, who could try to make thousands that collide: the seed, drawn
//! once per process and given in, keeps them from computing such names, and a key enters a table only once a provider
//! fetches or holds it, so a probe costs its author a fetch. Nothing that is hashed with this is ever iterated, sent
//! or written down, so the seed cannot reach a decision; placement and digests use SipHash with fixed keys instead.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::{FixedState, FoldHasher};

use crate::key::Key;

/// How keys are hashed in the tables of this process. The default has a fixed seed, for tests and simulation; a real
/// node draws its own.
#[derive(Debug, Clone)]
pub struct KeyHasher(FixedState);

impl KeyHasher {
    /// A hasher with this seed: random and secret for a node that serves strangers.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(FixedState::with_seed(seed))
    }

    /// The hash of a key.
    pub(crate) fn hash(&self, key: &Key) -> u64 {
        let mut state = self.0.build_hasher();
        key.hash(&mut state);
        std::hash::Hasher::finish(&state)
    }
}

impl Default for KeyHasher {
    fn default() -> Self {
        Self::seeded(0)
    }
}

impl BuildHasher for KeyHasher {
    type Hasher = FoldHasher<'static>;

    fn build_hasher(&self) -> FoldHasher<'static> {
        self.0.build_hasher()
    }
}
