//! Reaching a holder through another member, where this node cannot reach it itself.
//!
//! ```text
//!   X --x-- H      the link is cut; gossip goes round it, so X knows that H lives and has the key
//!    \     /
//!     - M -        X asks M to pass the request on; M streams the answer back
//! ```
//!
//! A relay passes a request on once and only to the holder that it names, so no request goes in circles. Only requests that
//! may be repeated take this way: X cannot tell whether a relay that breaks off has passed them on.

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use tracing::debug;

use super::failure::Failure;
use crate::{
    key::{Key, NodeName},
    net::{
        DialError, ExchangeError,
        wire::{Purpose, REVISION_RELAY, Rejection},
    },
    provider::{self, Body},
    runtime::Shared,
};

/// Members that are asked to pass one attempt on, one after the other.
const RELAYS_MAX: usize = 2;

/// Has a member pass `request` on to `holder`, which this node could not reach because of `why`. Its body is short.
pub(super) async fn relay(
    shared: &Arc<Shared>,
    holder: &NodeName,
    key: &Key,
    request: Request<Body>,
    why: &DialError,
) -> Result<Response<Body>, Failure> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|error| Failure::Request(error.to_string()))?.to_bytes();
    for name in connected(shared, holder).into_iter().take(RELAYS_MAX) {
        let Ok(peer) = shared.peers.peer(&name).await else { continue };
        if peer.revision < REVISION_RELAY {
            continue;
        }
        let request = Request::from_parts(parts.clone(), provider::full(body.clone()));
        match peer.exchange(key, Purpose::Relay { to: holder.clone() }, request).await {
            Ok(response) => {
                debug!(%key, %holder, relay = %name, "answered through another member");
                return Ok(response);
            }
            Err(
                ExchangeError::Refused(Rejection::Unreachable(_) | Rejection::Overloaded | Rejection::Busy { .. })
                | ExchangeError::Call(_),
            ) => {}
            Err(refused) => return Err(refused.into()),
        }
    }
    Err(Failure::NotSent(provider::full(body), why.to_string()))
}

/// Live members that this node has a connection to, in the order in which to ask them; `holder` is not among them.
pub(crate) fn connected(shared: &Shared, holder: &NodeName) -> Vec<NodeName> {
    let view = shared.lookup.view.load();
    let others =
        view.alive().filter(|member| member.name != shared.context.name && member.name != *holder && !member.observer);
    let names = others.filter(|member| shared.peers.net.is_connected(member.address)).map(|member| member.name.clone());
    shared.routing.peer_stats.load().ranked(names.collect(), shared.context.uptime())
}

/// Passes `request`, which a peer could not send to `holder` itself, on to it.
///
/// # Errors
/// What the holder says, or [`Rejection::Unreachable`].
pub(crate) async fn pass_on(
    shared: &Arc<Shared>,
    holder: &NodeName,
    key: &Key,
    request: Request<Body>,
) -> Result<Response<Body>, Rejection> {
    let unreachable = |reason: String| Rejection::Unreachable(reason);
    let peer = shared.peers.peer(holder).await.map_err(|error| unreachable(error.to_string()))?;
    peer.exchange(key, Purpose::Serve, request).await.map_err(|error| match error {
        ExchangeError::Refused(refusal) => refusal,
        other => unreachable(other.to_string()),
    })
}
