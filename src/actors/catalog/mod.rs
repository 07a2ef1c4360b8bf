//! The catalog: `actor` writes intents down and pulls those of others, `journal` is the log on disk.
//!
//! ```text
//!   Client --write--> actor: stamp, append to the journal, show --+--> intents: lock-free reads (how many replicas?)
//!      |                 ^                                         +--> balancer: look at these keys
//!      | push            | take in                                 +--> updater: drop copies of before a forget
//!      +--> all other members, at once; each answers when it is on its disk
//!
//!   gossip: a digest each ---> two that differ for some rounds: pull, in pages, both ways
//! ```

mod actor;
mod journal;

pub(crate) use self::actor::CatalogKeeper;
