//! One attempt at one node, and the statistics that it yields about the node.

use std::sync::Arc;

use http::{Request, Response};
use tokio::time::Instant;

use super::{failure::Failure, relay::relay};
use crate::{
    core::router::PeerHealth,
    key::{Key, NodeName},
    net::wire::Purpose,
    operations::serve::{report_trouble, serve_local},
    provider::Body,
    route_error::AttemptError,
    runtime::Shared,
};

pub(super) type AttemptResult = Result<Response<Body>, Failure>;

/// One attempt at one node. `may_repeat`: the request may be sent again, so it may go through another member, and is given up
/// as soon as the node is known to be dead.
pub(super) async fn attempt_at(
    shared: &Arc<Shared>,
    node: &NodeName,
    key: &Key,
    request: Request<Body>,
    may_repeat: bool,
) -> AttemptResult {
    if *node == shared.context.name {
        let outcome = serve_local(shared, key, &Purpose::Serve, request).await;
        if let Err(refusal) = &outcome {
            report_trouble(shared, key, refusal).await;
        }
        return outcome.map_err(Failure::from);
    }
    let health = shared.routing.peer_stats.load().health(node).cloned().unwrap_or_default();
    let started = Instant::now();
    let mut guard = Unanswered { shared, health: &health, started, answered: false };
    let in_flight = health.begin();
    let asked = async {
        match shared.peers.peer(node).await {
            Ok(peer) => peer.exchange(key, Purpose::Serve, request).await.map_err(Failure::from),
            Err(error) if may_repeat => relay(shared, node, key, request, &error).await,
            Err(error) => Err(Failure::NotSent(request.into_body(), error.to_string())),
        }
    };
    let outcome = tokio::select! {
        outcome = asked => outcome,
        // The connection would break some time later.
        _ = shared.lookup.view.wait_for(|view| !view.is_alive(node)), if may_repeat => {
            Err(Failure::Node(AttemptError::Unreachable("it died".into())))
        }
    };
    guard.answered = true;
    drop(in_flight);
    match &outcome {
        Ok(_) => health.succeeded(started.elapsed()),
        Err(Failure::Node(AttemptError::Unreachable(_)) | Failure::NotSent(..)) => {
            health.failed(shared.context.uptime())
        }
        Err(_) => {}
    }
    outcome
}

/// An attempt that is dropped, because another holder was quicker or the client went away, counts against a slow holder.
struct Unanswered<'a> {
    shared: &'a Shared,
    health: &'a PeerHealth,
    started: Instant,
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let unusual = self.shared.context.config.profile.hedge_after;
            self.health.given_up(self.shared.context.uptime(), self.started.elapsed(), unusual);
        }
    }
}
