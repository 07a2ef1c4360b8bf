//! Requests that an update sends to the nodes it copies from.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, Response};

use super::rate_limited::RateLimitedBody;
use crate::{
    key::{Key, NodeName},
    net::wire::{Purpose, Rejection},
    provider::{self, Body, BoxError, PeerFetch, UpdateReason},
    runtime::Shared,
};

/// Requests that an update sends to the nodes it copies from.
pub(crate) struct PeerClient {
    shared: Arc<Shared>,
    reason: UpdateReason,
}

impl PeerClient {
    pub(crate) fn new(shared: &Arc<Shared>, reason: UpdateReason) -> Self {
        Self { shared: shared.clone(), reason }
    }
}

#[async_trait]
impl PeerFetch for PeerClient {
    async fn fetch(&self, peer: &NodeName, key: &Key, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let shared = &self.shared;
        let connected = shared.peers.peer(peer).await?;
        let patience = shared.context.config.request_patience;
        let answer = tokio::time::timeout(patience, connected.exchange(key, Purpose::Export, request)).await;
        let answer = answer.map_err(|_| Rejection::Failed(format!("no answer within {patience:?}")))??;
        Ok(match self.reason {
            UpdateReason::Repair | UpdateReason::Rebalance => answer.map(|body| {
                provider::body(RateLimitedBody::new(body, shared.routing.copy_rate.clone(), shared.context.began()))
            }),
            UpdateReason::Request | UpdateReason::Refresh => answer,
        })
    }
}
