//! What requests of clients and peers make happen, whichever actors they need for it.
//!
//! | file | concern |
//! | --- | --- |
//! | `send` | one request, from the first attempt to an answer |
//! | `ensure` | a key that no node holds is fetched, by the node that leads |
//! | `serve` | a request is answered from this node alone |
//! | `peer_client`, `paced` | an update copies from other nodes, no faster than it may |
//! | `update` | all replicas of a key are brought up to date |
//! | `spread` | an intent is written down everywhere |
//! | `pull` | ledgers of other members are read |
//! | `drain` | this node goes away without loss |
//! | `explain` | why a key is where it is |
//! | `sole_copies` | which keys only members that are gone have |

pub(crate) mod drain;
pub(crate) mod ensure;
pub(crate) mod explain;
mod guarded;
mod paced;
pub(crate) mod peer_client;
pub(crate) mod pull;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod sole_copies;
pub(crate) mod spread;
pub(crate) mod update;

pub(crate) use self::guarded::Guarded;
