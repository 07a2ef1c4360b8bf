//! Heads of keys that no node holds: what the origin says of them, without a fetch.
//!
//! The node that is asked asks the origin itself, for a few keys at a time. If the origin denies or
//! refuses a key, or asks for patience, the node does not ask about it again for a while: the
//! request goes on to the node that leads, which remembers the reason.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use http::{Method, Response, request::Parts};
use tokio::time::Instant;
use tracing::debug;

use crate::{key::Key, provider::Body, runtime::Shared};

/// How long the origin has to say them; the key is fetched if it takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The answer to a HEAD for a key that no node has, if the origin says enough of it and few are asked for. It is asked from
/// here: a head is no fetch.
pub(super) async fn preview(shared: &Shared, key: &Key, parts: &Parts, deadline: Instant) -> Option<Response<Body>> {
    let provider = shared.context.provider.as_ref().filter(|_| parts.method == Method::HEAD)?;
    if shared.routing.previews.is_refused(shared.context.uptime(), key) {
        return None;
    }
    let _place = shared.routing.previews.places.try_acquire().ok()?;
    let asked = AssertUnwindSafe(provider.preview(key, parts)).catch_unwind();
    match tokio::time::timeout_at(deadline.min(Instant::now() + PATIENCE), asked).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(error))) => {
            debug!(%key, %error, "the origin does not say what it is");
            shared.routing.previews.note(shared.context.uptime(), key, &error, shared.context.config.not_found_ttl);
            None
        }
        Ok(Err(_)) => {
            tracing::error!(%key, "the provider panicked when it was asked what the origin says");
            None
        }
        Err(_) => None,
    }
}
