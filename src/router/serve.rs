//! Answering from the local provider, with its errors and panics contained, and correcting this node's own claims when
//! the provider turns out not to have what the ledger says.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use tracing::{debug, error, warn};

use super::body::all_of;
use crate::{
    balancer::actor as balancer,
    key::Key,
    net::wire::{Purpose, Refusal},
    node::Shared,
    provider::{self, Body, ServeError},
    registry::{ClaimState, HolderState, actor as registry},
};

/// How long a key whose data could not be read stays failed before it is repaired.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// How often an answer that goes on is noted as a use.
const USE_INTERVAL: Duration = Duration::from_secs(1);

/// The provider's answer, or why there is none.
pub(crate) async fn serve_local(
    shared: &Arc<Shared>,
    key: &Key,
    purpose: &Purpose,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let Some(provider) = &shared.provider else { return Err(Refusal::NotHeld) };
    // To be forgotten, as soon as what runs for the key lets it: clients may have it for that long, for otherwise they would
    // get errors; but nobody makes another copy of it.
    if matches!(purpose, Purpose::Export) && shared.intents.standing(key).pending {
        return Err(Refusal::NotHeld);
    }
    if !matches!(purpose, Purpose::Export) {
        shared.note_use(key);
    }
    let (request, reading) = watched(request);
    let answer = async {
        match purpose {
            Purpose::Serve | Purpose::Relay { .. } | Purpose::Part => provider.serve(key, request).await,
            Purpose::Export => provider.export(key, request).await,
        }
    };
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(Ok(response)) if matches!(purpose, Purpose::Export) => Ok(response),
        Ok(Ok(response)) => Ok(in_use(shared, key, response)),
        Ok(Err(ServeError::NotHeld)) => Err(Refusal::NotHeld),
        Ok(Err(ServeError::Overloaded { reason, retry_after })) => {
            debug!(%key, %reason, ?retry_after, "turned away");
            Err(Refusal::Busy { retry_after_ms: u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX) })
        }
        // Nothing can be answered to half a request, whatever the provider makes of it.
        Ok(Err(failed)) if reading.has_broken() => Err(Refusal::Malformed(failed.to_string())),
        Ok(Err(failed)) => Err(Refusal::Failed(failed.to_string())),
        Err(_) => {
            error!(%key, "the provider panicked while answering");
            Err(Refusal::Failed("the provider panicked".into()))
        }
    }
}

/// What the provider can answer from what its update of the key has brought so far. Waits until that is enough.
pub(crate) async fn serve_part(
    shared: &Arc<Shared>,
    key: &Key,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let provider = shared.provider.as_ref().filter(|_| shared.underway.bytes(key).is_some()).ok_or(Refusal::NotHeld)?;
    let (parts, body) = request.into_parts();
    let body = all_of(body).await.map_err(|error| Refusal::Malformed(error.to_string()))?;
    let asked = AssertUnwindSafe(provider.serve_part(key, Request::from_parts(parts, body))).catch_unwind();
    match asked.await {
        Ok(Ok(Some(response))) => Ok(response),
        Ok(Ok(None)) => Err(Refusal::NotHeld),
        Ok(Err(error)) => Err(Refusal::Failed(error.to_string())),
        Err(_) => {
            error!(%key, "the provider panicked while answering from a part");
            Err(Refusal::Failed("the provider panicked".into()))
        }
    }
}

/// `response` with a body that counts as a use of `key` for as long as it flows.
fn in_use(shared: &Arc<Shared>, key: &Key, response: Response<Body>) -> Response<Body> {
    let (shared, key, mut noted) = (shared.clone(), key.clone(), shared.uptime());
    response.map(|body| {
        provider::body(body.map_frame(move |frame| {
            let now = shared.uptime();
            if now >= noted + USE_INTERVAL {
                noted = now;
                shared.uses.renew(&key, now);
            }
            frame
        }))
    })
}

/// The request with a body that is watched, so that trouble of its sender is not taken for the provider's.
fn watched(request: Request<Body>) -> (Request<Body>, Reading) {
    let reading = Reading(Arc::new(AtomicBool::new(false)));
    let noted = reading.0.clone();
    let watched = request.map(|body| {
        provider::body(body.map_err(move |error| {
            noted.store(true, Ordering::Release);
            error
        }))
    });
    (watched, reading)
}

/// How the reading of a request's body goes.
struct Reading(Arc<AtomicBool>);

impl Reading {
    fn has_broken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The provider refused although this node claims the key: make the ledger true again.
pub(crate) async fn report_trouble(shared: &Arc<Shared>, key: &Key, refusal: &Refusal) {
    if !matches!(shared.own_claim(key), Some(HolderState::Ready)) {
        return;
    }
    let Some(provider) = &shared.provider else { return };
    let message = match refusal {
        Refusal::NotHeld if provider.has(key).await.unwrap_or(false) => return,
        Refusal::NotHeld => {
            warn!(%key, "claimed but not held; the claim is withdrawn");
            registry::Message::Release { key: key.clone(), reply: None }
        }
        Refusal::Failed(why) => {
            warn!(%key, %why, "held but unreadable; others answer until it is repaired");
            let pause = u64::try_from(TROUBLE_PAUSE.as_millis()).unwrap_or(u64::MAX);
            let state = ClaimState::failed(why, shared.world.unix_ms().saturating_add(pause));
            let _ = shared.balancer.send(balancer::Message::RetryAfter(key.clone(), TROUBLE_PAUSE));
            registry::Message::Claim { key: key.clone(), state, reply: None }
        }
        _ => return,
    };
    let _ = shared.registry.send(message);
}
