//! One request: whether it may be asked here, and whether it is one for data or an operation.

use std::sync::Arc;

use axum::{body::Body, response::IntoResponse};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use tower::ServiceExt;

#[cfg(feature = "metrics")]
use super::metrics::Kind;
use super::{access::Peer, access_log::Asked, data, operations, quiet::UnderWay, state::State};

/// Answers the requests of all connections of one gateway.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) state: Arc<State>,
    operations: axum::Router,
}

impl Service {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { operations: operations::routes(state.clone()), state }
    }

    /// Answers one request. Its response counts as under way until its body ends, and is watched until then.
    pub(super) async fn answer(&self, peer: Peer, request: Request<Incoming>, under_way: UnderWay) -> Response<Body> {
        let is_operation = is_operation(request.uri().path());
        #[cfg(feature = "metrics")]
        let measured = self.state.metrics.begin(if is_operation { Kind::Operations } else { Kind::Data });
        let asked = Asked::of(&request);
        let response = self.respond(peer, is_operation, request).await;
        if let Some(asked) = asked {
            asked.answered(peer, &response);
        }
        #[cfg(feature = "metrics")]
        let response = measured.answered(response);
        response.map(|body| Body::new(self.state.responses.watch(body, under_way)))
    }

    async fn respond(&self, peer: Peer, is_operation: bool, mut request: Request<Incoming>) -> Response<Body> {
        let is_change = is_operation && !matches!(*request.method(), Method::GET | Method::HEAD);
        if is_change || matches!(peer, Peer::Tcp { is_local: true, .. }) {
            let (parts, body) = request.into_parts();
            if let Err(problem) = self.state.access.check_name(peer, &parts) {
                return problem.into_response();
            }
            request = Request::from_parts(parts, body);
        }
        if !is_operation {
            return data::answer(&self.state, peer, request).await;
        }
        request.extensions_mut().insert(peer);
        let answered = self.operations.clone().oneshot(request).await;
        answered.unwrap_or_else(|never| match never {})
    }
}

fn is_operation(path: &str) -> bool {
    path.strip_prefix("/-").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
