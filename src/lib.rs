//! Spreads an existing data source over a cluster.
//!
//! # Features
//!
//! | feature | brings |
//! | --- | --- |
//! | none | the node, its client, the provider trait, and the provider of data in memory |
//! | `gateway` | `gateway`: HTTP for clients and operators |
//! | `metrics` | Prometheus text at the gateway's `/-/metrics` |
//! | `git`, `files` | the providers of git repositories and of files |
//! | `etcd` | `etcd`: coordination through etcd instead of gossip; needs `protoc` to build |
//! | `cli` | nothing for the library; the program `datad-gossip` needs it beside `files`, `gateway` and `git` |
//!
//! All but `etcd` are on by default.

#![warn(missing_debug_implementations)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// What only the gateway or a provider uses of the node is unused in a build without them.
#![cfg_attr(not(all(feature = "files", feature = "gateway", feature = "git")), allow(dead_code, unused_imports))]

mod actors;
pub mod api;
mod client;
pub mod config;
mod core;
mod durable;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(any(feature = "gateway", feature = "git"))]
mod hop;
pub mod key;
mod net;
mod node;
mod operations;
pub mod provider;
pub mod providers;
mod route_error;
mod runtime;
mod transport;
mod util;
mod wiring;
pub mod world;

pub use self::core::{
    balancer::{IntendedAction, PlannedAction},
    catalog::{IntentAck, IntentError, PendingMember, Pin},
    membership::{ClockDifference, Member, MemberState, RemoveError, SeedStatus, View},
    placement, registry,
    registry::HoldingState,
};
pub use client::{
    Client, DrainError, ForecastError, Holding, Location, MemberStatus, Nodes, RemovedMember, Shortage, Status,
};
pub use net::identity::{ClusterKey, Credentials, IdentityError};
pub use node::{Node, NodeBuilder};
pub use operations::{
    drain::Drained,
    explain::{Explanation, NodeReport, RingStep, Unanswered},
    update::UpdatedReplica,
};
pub use route_error::{Attempt, AttemptError, RouteError};
pub use runtime::lifecycle::ActorKind;
pub use transport::{KeyTransport, PathError, PathTransport};
pub use wiring::{AdvertiseError, StartError, StopReason};
