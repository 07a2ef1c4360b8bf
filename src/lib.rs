//! Spreads an existing data source over a cluster.
mod balancer;
mod catalog;
mod client;
pub mod config;
mod durable;
#[cfg(feature = "etcd")]
pub mod etcd;
mod explain;
pub mod gateway;
pub mod key;
mod meanwhile;
mod membership;
mod net;
mod node;
pub mod placement;
mod places;
pub mod provider;
pub mod providers;
mod published;
mod refresh;
pub mod registry;
mod router;
mod runtime;
mod timers;
mod updater;
pub mod world;

pub use balancer::{IntendedAction, Intention};
pub use catalog::{IntentError, Lacking, Pin, Recorded};
pub use client::{
    Client, DrainError, Holding, HoldingState, Location, MemberStatus, Nodes, RemovedMember, Shortage, Status,
    UpdatedReplica,
};
pub use explain::{Explanation, Insight, Place, Silent};
pub use membership::{ClockDifference, Member, MemberState, RemoveError, SeedStatus, View};
pub use net::identity::{ClusterKey, Credentials, IdentityError};
pub use node::{ActorKind, AdvertiseError, Drained, Node, NodeBuilder, StartError, StopReason};
pub use router::{Attempt, AttemptError, KeyTransport, PathError, PathTransport, RouteError};
