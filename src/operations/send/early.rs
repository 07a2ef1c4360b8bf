//! The response to a request whose key is still being fetched, where its provider can do better
//! than wait ([`Meanwhile`]).
//!
//! ```text
//!   the request waits --a moment--> Part:  the node that fetches is asked, again and again, until it can answer
//!                                   Begin: the response begins here; its rest is what the request waits for
//! ```
//!
//! The moment is for all that is fetched at once: nothing changes for that, and its errors are errors with a status. What
//! must hold: the request itself goes on as if nothing were tried, and whichever has a response first answers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response};
use tokio::{sync::oneshot, time::timeout};
use tracing::debug;

use super::{
    prebuffer::prebuffer,
    resumable::Resumable,
    run::{AnsweredBy, Waiting, refetch},
};
use crate::{
    key::{Key, NodeName},
    net::wire::{Purpose, REVISION_RELAY, calls::Progress},
    operations::{ensure::fetching, serve::serve_part},
    provider::{self, Awaited, Body, Meanwhile},
    route_error::RouteError,
    runtime::Shared,
};

/// How long a request waits before anything else is tried.
const MOMENT: Duration = Duration::from_millis(500);
/// Pause before the request asks the fetching node again, if that had no answer or cannot be
/// reached. The pause doubles each time, up to the longest.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long a node has to say how far its update is.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(1);

type Routed = Result<Response<Body>, RouteError>;

/// The response of `course`, a request for `key`, or what can be had before. `waits` is told when it waits for a fetch.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    key: &Key,
    mut course: BoxFuture<'static, Routed>,
    waits: oneshot::Receiver<Waiting>,
) -> Routed {
    let Waiting { meanwhile, request } = tokio::select! {
        biased;
        routed = &mut course => return routed,
        Ok(waiting) = waits => waiting,
    };
    tokio::select! {
        biased;
        routed = &mut course => return routed,
        () = tokio::time::sleep(MOMENT) => {}
    }
    match meanwhile {
        Meanwhile::Wait | Meanwhile::WaitOn => course.await,
        Meanwhile::Part { .. } => tokio::select! {
            biased;
            routed = &mut course => routed,
            response = part(shared, key, &request) => Ok(response),
        },
        Meanwhile::Begin => begin(shared, key, &request, course).await,
    }
}

/// The provider's beginning of a response, which goes on with that of `course`.
async fn begin(
    shared: &Arc<Shared>,
    key: &Key,
    request: &Request<Bytes>,
    course: BoxFuture<'static, Routed>,
) -> Routed {
    let Some(provider) = &shared.context.provider else { return course.await };
    let (asker, asked) = (shared.clone(), key.clone());
    let awaited = Awaited::new(course, move || {
        let (shared, key) = (asker.clone(), asked.clone());
        async move { progress_at(&shared, &key, &fetching(&shared, &key)?).await }.boxed()
    });
    match provider.begin(key, request, awaited) {
        Ok(mut response) => {
            debug!(%key, "the response begins before the key is here");
            response.extensions_mut().insert(AnsweredBy { node: shared.context.name.clone(), fetched: true });
            Ok(response)
        }
        Err(mut awaited) => awaited.response().await,
    }
}

/// Asks the node that fetches the key until it answers.
async fn part(shared: &Arc<Shared>, key: &Key, request: &Request<Bytes>) -> Response<Body> {
    let mut pauses = pauses();
    loop {
        if let Some(node) = fetching(shared, key)
            && let Some(response) = part_of(shared, key, &node, request).await
        {
            debug!(%key, %node, "answered from what an update has brought so far");
            let refetch = refetch(shared.clone(), key.clone(), node.clone());
            // No other node has it, so its sender is not watched: a link that is cut ends after its
            // idle timeout.
            let mut response = Resumable::wrap(&parts_of(request), response, refetch, None);
            response.extensions_mut().insert(AnsweredBy { node, fetched: true });
            return response;
        }
        tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
    }
}

fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(PAUSE), |pause| Some((*pause * 2).min(PAUSE_MAX)))
}

async fn part_of(shared: &Arc<Shared>, key: &Key, node: &NodeName, request: &Request<Bytes>) -> Option<Response<Body>> {
    let request = request.clone().map(provider::full);
    if *node == shared.context.name {
        return serve_part(shared, key, request).await.ok();
    }
    let peer = shared.peers.peer(node).await.ok().filter(|peer| peer.revision >= REVISION_RELAY)?;
    match peer.exchange(key, Purpose::Part, request).await {
        Ok(response) => prebuffer(response).await.ok(),
        Err(error) => {
            debug!(%key, %node, %error, "no part of it yet");
            None
        }
    }
}

fn parts_of(request: &Request<Bytes>) -> http::request::Parts {
    request.clone().into_parts().0
}

/// How many bytes the update of `key` on `node` has brought so far, if one runs there and it says so.
pub(crate) async fn progress_at(shared: &Arc<Shared>, key: &Key, node: &NodeName) -> Option<u64> {
    if *node == shared.context.name {
        return shared.routing.underway.bytes(key);
    }
    let asked = async {
        let peer = shared.peers.peer(node).await.ok()?;
        peer.call(Progress { key: key.clone() }, PROGRESS_PATIENCE).await.ok()?
    };
    timeout(PROGRESS_PATIENCE, asked).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_has_no_answer_yet_is_asked_ever_less_often() {
        let seconds: Vec<f64> = pauses().take(6).map(|pause| pause.as_secs_f64()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]);
    }
}
