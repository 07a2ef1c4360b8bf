//! Spreads data that a program can fetch over a cluster: every key is kept on as many nodes as
//! asked, and each request goes to a node that has it. There is no coordinator.
//!
//! # A tour
//!
//! A program that takes part does four things, in this order.
//!
//! **1. It has a provider.** A [`Provider`](provider::Provider) keeps the data of one node. It
//! knows what a [`Key`](key::Key) is, fetches it from its origin or copies it from peers
//! ([`update`](provider::Provider::update)), and answers requests for it
//! ([`serve`](provider::Provider::serve)). The node decides which keys it holds, and when it
//! fetches them. The providers in the box are in [`providers`]; [`providers::Memory`] is enough for
//! a first try.
//!
//! - A node whose provider says how much room there is
//!   ([`capacity`](provider::Provider::capacity)) is passed over while it has none.
//! - A provider that can say whether its origin has a key
//!   ([`is_at_origin`](provider::Provider::is_at_origin)) lets its node give up last copies when no
//!   node has room.
//!
//! **2. It starts a node.** [`Node::builder`] takes a name, a [`NodeConfig`](config::NodeConfig)
//! with the addresses of other members, [`Credentials`] and the provider.
//! [`NodeBuilder::start`] returns a [`Node`] that serves, or a [`StartError`].
//! [`Node::shutdown`] ends it in good order; a node that is dropped stops at once.
//!
//! ```text
//! let node = Node::builder(name)
//!     .credentials(Credentials::ClusterKey(secret))
//!     .config(config)
//!     .provider(Arc::new(my_provider))
//!     .start()
//!     .await?;
//! let transport = node.client().transport_for_key(key);   // a tower::Service<http::Request<_>>
//! let response = transport.oneshot(request).await?;
//! ```
//!
//! **3. It asks a client.** [`Node::client`] gives a [`Client`], which is cheap to clone. It
//! answers from the node's own memory who is in the cluster ([`Client::view`]) and who holds a key
//! ([`Client::nodes_for_key`], [`Client::locate`]). [`Client::status`] has the cluster in numbers.
//! It also changes things: [`Client::update`], [`Client::pin`], [`Client::forget`],
//! [`Client::drain`].
//!
//! **4. It sends requests through a transport.** [`Client::transport_for_key`] gives a
//! [`KeyTransport`], bound to one key; [`Client::transport`] gives a [`PathTransport`], which
//! derives the key from the path of each request. Both are `tower::Service`s of HTTP requests. A
//! request without a response ends with a [`RouteError`] or a [`PathError`], which says why.
//!
//! `examples/embed.rs` does all of it with three nodes in one process.
//!
//! # Only consuming
//!
//! A program that only consumes joins as an observer, with the same local lookup:
//! [`Client::join`]. An observer follows two members over a stream each instead of gossiping, so
//! there may be thousands. [`Client::members`] does not list them; [`Status::observers`] counts
//! those that follow a node. Where etcd coordinates, observers are members.
//!
//! # Where else to look
//!
//! - HTTP for clients and operators, in front of a node: `gateway`; its documents: [`api`].
//! - Which nodes should keep a key, and what a node says that it holds: [`placement`] and
//!   [`registry`].
//! - What a node takes from its machine (socket, small disk, clock, seeds): [`world`].
//! - The simulator, which replaces that and runs nodes with your provider under faults: the crate
//!   `datad-sim`, with `Simulation`, in the folder `sim`.
//! - What the cluster promises, and how to run it: `docs/`. How the code is put together:
//!   `ARCHITECTURE.md`.
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
//! | `cli` | nothing for the library; the program needs it, `files`, `gateway` and `git` |
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
