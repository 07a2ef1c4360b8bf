//! What the actors of one node share, in parts. An actor takes the parts that it needs.
//!
//! | part | what it is |
//! | --- | --- |
//! | `context` | name, settings, provider and surroundings of the node; its tasks |
//! | `lookup` | the members and the holders of keys: snapshots, read without locks |
//! | `peers` | the other nodes, by name |
//! | `gossip` | what gossip reads of this node and shows of the others |
//! | `disk` | how much disk space there is, and how far the scan of the local data is |
//! | `traffic` | what clients ask for here |
//! | `routing` | what all requests share: `previews`, `underway` |
//! | `admission` | how much the node does for its peers at once |
//! | `lifecycle` | joined, in trouble, on its way out |
//! | `ports`, `mailbox` | what others may ask of each actor, and where that goes |
//!
//! `shared` holds all parts, for operations and clients.

pub(crate) mod admission;
pub(crate) mod context;
pub(crate) mod disk;
pub(crate) mod gossip;
pub(crate) mod lifecycle;
pub(crate) mod lookup;
pub(crate) mod mailbox;
pub(crate) mod peers;
pub(crate) mod ports;
mod previews;
pub(crate) mod routing;
pub(crate) mod shared;
pub(crate) mod traffic;
mod underway;

pub(crate) use self::{context::Context, lookup::Names, shared::Shared};
