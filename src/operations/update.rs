//! Bringing the replicas of a key up to date: one holder asks the origin, the others copy from it.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

use super::ensure::{Wanted, ensure};
use crate::{
    core::{
        registry::HolderState,
        updater::{FETCH_MAX, Origin},
    },
    key::{Key, NodeName},
    net::{
        CallError,
        wire::{Ensured, Rejection, calls},
    },
    route_error::{Attempt, AttemptError, RouteError, retry_after},
    runtime::Shared,
};

/// How the update of one replica went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UpdatedReplica {
    /// The node.
    pub node: NodeName,
    /// Why it is not up to date, if it is not.
    pub error: Option<String>,
}

/// Brings every replica of `key` up to date, or has it fetched if no node holds it.
///
/// # Errors
/// The key could not be fetched, or not by the node that asks the origin.
pub(crate) async fn update(shared: &Arc<Shared>, key: &Key) -> Result<Vec<UpdatedReplica>, RouteError> {
    let holders = shared.lookup.holders_by_preference(key);
    if holders.is_empty() { create(shared, key).await } else { update_held(shared, key, holders, FETCH_MAX).await }
}

/// Has the first of `holders` ask the origin and the others copy from it. All nodes that update the
/// same key pick the same first one, where the updates become one. Each has `patience` for that; an
/// update that stands still ends by itself.
///
/// # Errors
/// The first one could not; the others were not asked.
pub(crate) async fn update_held(
    shared: &Arc<Shared>,
    key: &Key,
    mut holders: Vec<NodeName>,
    patience: Duration,
) -> Result<Vec<UpdatedReplica>, RouteError> {
    let first = loop {
        if holders.is_empty() {
            return create(shared, key).await;
        }
        let first = holders.remove(0);
        match refresh_at(shared, key, &first, Vec::new(), patience).await {
            None => break first,
            // It has let the key go meanwhile: the next one is the first.
            Some(AttemptError::NotHeld) => {}
            Some(error) => {
                let attempts = vec![Attempt { node: first, error }];
                let retry_after = retry_after(&attempts);
                return Err(RouteError::Failed { key: key.clone(), attempts, retry_after });
            }
        }
    };
    let copies = holders.into_iter().map(|node| {
        let source = vec![first.clone()];
        async move {
            let error = refresh_at(shared, key, &node, source, patience).await.map(|error| match error {
                AttemptError::FetchFailed(reason) => reason,
                other => other.to_string(),
            });
            UpdatedReplica { error, node }
        }
    });
    let mut updated = vec![UpdatedReplica { node: first.clone(), error: None }];
    updated.extend(futures::future::join_all(copies).await);
    Ok(updated)
}

/// Has the leader ask the origin for a key that no node holds, whatever it remembers of it.
async fn create(shared: &Arc<Shared>, key: &Key) -> Result<Vec<UpdatedReplica>, RouteError> {
    let started = Instant::now();
    // A fetch ends by itself if it stands still.
    let deadline = started + FETCH_MAX;
    let failed = |attempts, retry_after| RouteError::Failed { key: key.clone(), attempts, retry_after };
    let wanted = Wanted { deadline, origin: Origin::Afresh, ..Wanted::for_request(key, 0) };
    match ensure(shared, &wanted).await {
        Ok(Ensured::Ready(nodes)) => Ok(nodes.into_iter().map(|node| UpdatedReplica { node, error: None }).collect()),
        Ok(Ensured::NotFound) => Err(RouteError::NotFound { key: key.clone() }),
        Ok(Ensured::Forbidden(reason)) => Err(RouteError::Forbidden { key: key.clone(), reason }),
        Ok(Ensured::Failed { node, reason, retry_after_ms }) => {
            let attempt = Attempt { node, error: AttemptError::FetchFailed(reason) };
            Err(failed(vec![attempt], Duration::from_millis(retry_after_ms.into())))
        }
        Ok(Ensured::Later { node, reason, retry_after_ms }) => {
            let after = Duration::from_millis(retry_after_ms.into());
            Err(failed(vec![Attempt { node, error: AttemptError::Later { reason, after } }], after))
        }
        Ok(Ensured::Pending) => Err(RouteError::Pending { key: key.clone(), waited: started.elapsed() }),
        Err(_) => Err(failed(Vec::new(), Duration::from_secs(1))),
    }
}

/// Refreshes one replica. Returns the error, if there was one.
async fn refresh_at(
    shared: &Arc<Shared>,
    key: &Key,
    node: &NodeName,
    from: Vec<NodeName>,
    patience: Duration,
) -> Option<AttemptError> {
    let failed = |reason: String| Some(AttemptError::FetchFailed(reason));
    let outcome = if *node == shared.context.name {
        refresh(shared, key.clone(), from, patience).await
    } else {
        let patience_ms = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
        let request = calls::Refresh { key: key.clone(), from, patience_ms };
        let asked = async { shared.peers.peer(node).await?.call(request, patience).await };
        match asked.await {
            Ok(ensured) => Ok(ensured),
            Err(CallError::Refused(refusal)) => Err(refusal),
            Err(error) => return failed(error.to_string()),
        }
    };
    match outcome {
        Ok(Ensured::Ready(_)) => None,
        Ok(Ensured::NotFound) => failed("the origin has no such key any more".into()),
        Ok(Ensured::Forbidden(reason) | Ensured::Failed { reason, .. }) => failed(reason),
        Ok(Ensured::Later { reason, retry_after_ms, .. }) => {
            Some(AttemptError::Later { reason, after: Duration::from_millis(retry_after_ms.into()) })
        }
        Ok(Ensured::Pending) => failed("not done in time; it goes on".into()),
        Err(Rejection::NotHeld) => Some(AttemptError::NotHeld),
        Err(refusal) => failed(refusal.to_string()),
    }
}

/// Brings a key that this node holds up to date, and waits for that.
pub(crate) async fn refresh(
    shared: &Arc<Shared>,
    key: Key,
    from: Vec<NodeName>,
    patience: Duration,
) -> Result<Ensured, Rejection> {
    if !matches!(shared.lookup.own_claim(&key), Some(HolderState::Ready | HolderState::Failed)) {
        return Err(Rejection::NotHeld);
    }
    match tokio::time::timeout(patience, shared.ports.updater.refresh(key, from)).await {
        Ok(Ok(ensured)) => Ok(ensured),
        Ok(Err(_)) => Err(Rejection::Stopping),
        Err(_) => Ok(Ensured::Pending),
    }
}
