//! The work that requests of clients and peers cause, whichever actors it needs.
//!
//! | file | concern |
//! | --- | --- |
//! | `send` | one request, from the first attempt to an answer |
//! | `ensure` | a key that no node holds is fetched, by the node that leads |
//! | `serve` | a request is answered from this node alone |
//! | `peer_client`, `rate_limited` | an update copies from other nodes, no faster than it may |
//! | `update` | all replicas of a key are brought up to date |
//! | `spread` | an intent is written down everywhere |
//! | `pull` | ledgers of other members are read |
//! | `disk_watch` | how much room there is |
//! | `drain` | this node goes away without loss |
//! | `explain` | why a key is where it is |
//! | `scan` | the local data is read and registered |
//! | `publish` | a new view of the members becomes the one to go by |
//! | `watch`, `followed` | what this node sees of the members, told to observers, and what these make of it |
//! | `sole_copies` | which keys only members that are gone have |

pub(crate) mod disk_watch;
pub(crate) mod drain;
pub(crate) mod ensure;
pub(crate) mod explain;
pub(crate) mod followed;
mod guarded;
pub(crate) mod peer_client;
pub(crate) mod publish;
pub(crate) mod pull;
mod rate_limited;
pub(crate) mod scan;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod sole_copies;
pub(crate) mod spread;
pub(crate) mod update;
pub(crate) mod watch;

pub(crate) use self::guarded::GuardedBody;
