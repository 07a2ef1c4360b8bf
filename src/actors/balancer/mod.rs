//! The balancer: `actor` decides which keys to look at and asks the owners to vouch before anything is dropped; `sight` is what
//! it sees of a key; `pressure` looks at the room that there is; `eviction` asks the origin about copies that are the only ones.

mod actor;
mod eviction;
pub(crate) mod pressure;
mod sight;

pub(crate) use self::actor::Balancer;
