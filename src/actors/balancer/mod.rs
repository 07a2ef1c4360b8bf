//! The balancer: `actor` decides which keys to look at and asks the owners to vouch before anything is dropped; `observation` is what
//! it sees of a key; `candidates` are what it may give up when the disk is full; `eviction` asks the origin about copies that are the only ones.

mod actor;
mod candidates;
mod eviction;
mod observation;

pub(crate) use self::actor::Balancer;
