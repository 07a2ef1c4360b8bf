//! What all requests share on their way to a node that has their key.

use std::sync::Arc;

use super::{previews::Previews, underway::Underway};
use crate::{
    config::NodeConfig,
    core::router::{CopyRateLimiter, PeerStats, RetryBudget},
    key::Key,
    util::{places::Places, published::Published},
};

/// Requests that wait for as long as a fetch gets on. Further ones wait for `request_patience`: each takes a stream to the node
/// that fetches, and a connection has 1,024.
const LONG_WAITS_MAX: usize = 256;

/// The statistics and the limits of routing.
#[derive(Debug)]
pub(crate) struct Routing {
    /// How each peer has been doing.
    pub(crate) peer_stats: Published<PeerStats>,
    pub(crate) retry_budget: RetryBudget,
    /// How fast this node copies from others what no client waits for.
    pub(crate) copy_rate: Arc<CopyRateLimiter>,
    /// Heads that the origin is asked for.
    pub(crate) previews: Previews,
    /// Requests that wait for as long as a fetch gets on. No key has all of them.
    pub(crate) long_waits: Places<Key>,
    /// The updates that run here, and how far each is.
    pub(crate) underway: Underway,
}

impl Routing {
    pub(crate) fn new(config: &NodeConfig) -> Self {
        Self {
            peer_stats: Published::new(PeerStats::default()),
            retry_budget: RetryBudget::default(),
            copy_rate: Arc::new(CopyRateLimiter::new(config.repair_bytes_per_second)),
            previews: Previews::default(),
            long_waits: Places::new(LONG_WAITS_MAX),
            underway: Underway::default(),
        }
    }
}
