//! A line of the log for each request, at the level `debug` of `datad_gossip::access`.

use http::{Method, Request, Response, Uri};
use tokio::time::Instant;

use super::access::Peer;

/// Where the lines say that they come from.
const TARGET: &str = "datad_gossip::access";

/// What was asked, and when.
pub(super) struct Asked {
    method: Method,
    uri: Uri,
    started: Instant,
}

impl Asked {
    /// `None` if the log takes no such lines.
    pub(super) fn of<B>(request: &Request<B>) -> Option<Self> {
        tracing::enabled!(target: TARGET, tracing::Level::DEBUG).then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            started: Instant::now(),
        })
    }

    /// Writes the line.
    pub(super) fn answered<B>(self, peer: Peer, response: &Response<B>) {
        let Self { method, uri, started } = self;
        let (status, took) = (response.status().as_u16(), started.elapsed());
        let node = response.headers().get("x-datad-node").and_then(|node| node.to_str().ok());
        tracing::debug!(target: TARGET, %peer, %method, path = uri.path(), status, node, ?took, "answered");
    }
}
