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
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use super::{guarded::GuardedBody, send::all_of};
use crate::{
    core::{
        registry::{ClaimState, HolderState},
        updater::Origin,
    },
    key::Key,
    net::wire::{Ensured, Purpose, Rejection},
    provider::{self, Body, ServeError, UpdateReason},
    runtime::Shared,
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
) -> Result<Response<Body>, Rejection> {
    let Some(provider) = &shared.context.provider else { return Err(Rejection::NotHeld) };
    // To be forgotten, as soon as what runs for the key lets it: clients may have it for that long,
    // for otherwise they would get errors; but no node makes another copy of it.
    if matches!(purpose, Purpose::Export) && shared.lookup.policy.standing(key).pending {
        return Err(Rejection::NotHeld);
    }
    if !matches!(purpose, Purpose::Export) {
        shared.traffic.note_use(key);
    }
    let (request, reading) = watched(request);
    let answer = async {
        match purpose {
            Purpose::Part => Err(ServeError::NotHeld),
            Purpose::Serve | Purpose::Relay { .. } => provider.serve(key, request).await,
            Purpose::Export => provider.export(key, request).await,
        }
    };
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(Ok(response)) if matches!(purpose, Purpose::Export) => Ok(response),
        Ok(Ok(response)) => Ok(in_use(shared, key, response)),
        Ok(Err(ServeError::NotHeld)) => Err(Rejection::NotHeld),
        Ok(Err(ServeError::Overloaded { reason, retry_after })) => {
            debug!(%key, %reason, ?retry_after, "turned away");
            Err(Rejection::Busy { retry_after_ms: u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX) })
        }
        // Half a request gets no answer, whatever the provider makes of it.
        Ok(Err(failed)) if reading.has_broken() => Err(Rejection::Malformed(failed.to_string())),
        Ok(Err(failed)) => Err(Rejection::Failed(failed.to_string())),
        Err(_) => {
            error!(%key, "the provider panicked while answering");
            Err(Rejection::Failed("the provider panicked".into()))
        }
    }
}

/// What the provider can answer from what its update of the key has brought so far. Waits until
/// that is enough, or the update has ended. A client that reads the answer counts as waiting for
/// the update, so the update is not cancelled.
pub(crate) async fn serve_part(
    shared: &Arc<Shared>,
    key: &Key,
    request: Request<Body>,
) -> Result<Response<Body>, Rejection> {
    let (Some(provider), Some(ended)) = (&shared.context.provider, shared.routing.underway.ended(key)) else {
        return Err(Rejection::NotHeld);
    };
    let (parts, body) = request.into_parts();
    let body = all_of(body).await.map_err(|error| Rejection::Malformed(error.to_string()))?;
    let asked = AssertUnwindSafe(provider.serve_part(key, Request::from_parts(parts, body))).catch_unwind();
    let asked = tokio::select! {
        biased;
        asked = asked => asked,
        () = ended.cancelled() => return Err(Rejection::NotHeld),
    };
    match asked {
        Ok(Ok(Some(response))) => {
            let waiter = (!ended.is_cancelled()).then(|| wait_for(shared, key));
            Ok(response.map(|body| provider::body(GuardedBody::new(body, waiter))))
        }
        Ok(Ok(None)) => Err(Rejection::NotHeld),
        Ok(Err(error)) => Err(Rejection::Failed(error.to_string())),
        Err(_) => {
            error!(%key, "the provider panicked while answering from a part");
            Err(Rejection::Failed("the provider panicked".into()))
        }
    }
}

/// Joins the callers that wait for the update of `key`, until the returned guard is dropped.
fn wait_for(shared: &Shared, key: &Key) -> oneshot::Receiver<Ensured> {
    shared.ports.updater.join(key.clone(), Origin::Heeding, UpdateReason::Request)
}

/// `response` with a body that counts as a use of `key` for as long as it flows.
fn in_use(shared: &Arc<Shared>, key: &Key, response: Response<Body>) -> Response<Body> {
    let (shared, key, mut noted) = (shared.clone(), key.clone(), shared.context.uptime());
    response.map(|body| {
        provider::body(body.map_frame(move |frame| {
            let now = shared.context.uptime();
            if now >= noted + USE_INTERVAL {
                noted = now;
                shared.traffic.last_access.renew(&key, now);
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

/// The state of reading a request's body.
struct Reading(Arc<AtomicBool>);

impl Reading {
    fn has_broken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The provider refused although this node claims the key: make the ledger true again.
pub(crate) async fn report_trouble(shared: &Arc<Shared>, key: &Key, refusal: &Rejection) {
    if !matches!(shared.lookup.own_claim(key), Some(HolderState::Ready)) {
        return;
    }
    let Some(provider) = &shared.context.provider else { return };
    match refusal {
        Rejection::NotHeld if provider.has(key).await.unwrap_or(false) => {}
        Rejection::NotHeld => {
            warn!(%key, "claimed but not held; the claim is withdrawn");
            shared.ports.registry.note_release(key.clone());
        }
        Rejection::Failed(why) => {
            warn!(%key, %why, "held but unreadable; others answer until it is repaired");
            let pause = u64::try_from(TROUBLE_PAUSE.as_millis()).unwrap_or(u64::MAX);
            let state = ClaimState::failed(why, shared.context.world.unix_ms().saturating_add(pause));
            shared.ports.balancer.retry_after(key.clone(), TROUBLE_PAUSE);
            shared.ports.registry.note_claim(key.clone(), state);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;
    use futures::{StreamExt, stream, stream::BoxStream};
    use http_body_util::channel::Channel;
    use tokio::sync::watch;
    use tokio_util::sync::{CancellationToken, DropGuard};

    use super::*;
    use crate::{
        config::{NodeConfig, Profile},
        key::NodeName,
        net::identity::{ClusterKey, Credentials},
        node::Node,
        provider::{BoxError, ProviderError, UpdateContext, UpdateError},
    };

    const PATIENCE: Duration = Duration::from_secs(20);
    /// Longer than an update that no caller waits for may stand still, and than the pause between
    /// two checks of it.
    const LONG: Duration = Duration::from_millis(1_500);

    /// An update brings nothing until it is told to end, and what is asked for of it begins at once or never.
    struct Stalled {
        ends: watch::Receiver<bool>,
        dropped: CancellationToken,
    }

    struct Gone(#[expect(dead_code, reason = "cancels as it is dropped")] DropGuard);

    #[async_trait]
    impl provider::Provider for Stalled {
        async fn has(&self, _key: &Key) -> Result<bool, ProviderError> {
            Ok(false)
        }

        fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
            stream::empty().boxed()
        }

        async fn update(&self, _key: &Key, _context: UpdateContext) -> Result<(), UpdateError> {
            let _gone = Gone(self.dropped.clone().drop_guard());
            let _ = self.ends.clone().wait_for(|ends| *ends).await;
            Err(UpdateError::Unavailable("it ended".to_owned()))
        }

        async fn remove(&self, _key: &Key) -> Result<(), ProviderError> {
            Ok(())
        }

        async fn serve(&self, _key: &Key, _request: Request<Body>) -> Result<Response<Body>, ServeError> {
            Err(ServeError::NotHeld)
        }

        async fn serve_part(&self, _key: &Key, request: Request<Bytes>) -> Result<Option<Response<Body>>, ServeError> {
            if request.uri().path() == "/never" {
                std::future::pending::<()>().await;
            }
            let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
            tokio::spawn(async move {
                let _ = sender.send_data(Bytes::from_static(b"begun")).await;
                std::future::pending::<()>().await;
            });
            Ok(Some(Response::new(provider::body(body))))
        }
    }

    async fn fetching(key: &Key) -> (Node, watch::Sender<bool>, CancellationToken) {
        let (end, ends) = watch::channel(false);
        let dropped = CancellationToken::new();
        let mut config = NodeConfig { replicas: 1, profile: Profile::local(), ..NodeConfig::default() };
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.stalled_fetch_patience = Duration::from_millis(100);
        let provider = Arc::new(Stalled { ends, dropped: dropped.clone() });
        let builder = Node::builder(NodeName::new("a").unwrap()).config(config).provider(provider);
        let node = builder.credentials(Credentials::ClusterKey(ClusterKey::generate())).start().await.unwrap();
        let first = wait_for(node.shared(), key);
        let runs = async {
            while node.shared().routing.underway.bytes(key).is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, runs).await.unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(first);
        });
        (node, end, dropped)
    }

    fn get(path: &str) -> Request<Body> {
        Request::get(path).body(provider::empty()).unwrap()
    }

    #[tokio::test]
    async fn whoever_reads_from_a_part_keeps_its_update_from_being_given_up() {
        let key = Key::new("k").unwrap();
        let (node, _end, dropped) = fetching(&key).await;
        let response = serve_part(node.shared(), &key, get("/k")).await.unwrap();
        assert!(tokio::time::timeout(LONG, dropped.cancelled()).await.is_err(), "its origin only paused");
        drop(response);
        tokio::time::timeout(PATIENCE, dropped.cancelled()).await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_a_part_does_not_outlast_the_update() {
        let key = Key::new("k").unwrap();
        let (node, end, _dropped) = fetching(&key).await;
        let asked = tokio::spawn({
            let (shared, key) = (node.shared().clone(), key.clone());
            async move { serve_part(&shared, &key, get("/never")).await.map(drop) }
        });
        end.send_replace(true);
        assert_eq!(tokio::time::timeout(PATIENCE, asked).await.unwrap().unwrap(), Err(Rejection::NotHeld));
        let unasked = serve_local(node.shared(), &key, &Purpose::Part, get("/k")).await.map(drop);
        assert_eq!(unasked, Err(Rejection::NotHeld));
    }
}
