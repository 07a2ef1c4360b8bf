//! Gives up the only copy of a key, because no node of the cluster has room and the origin still
//! has the key.
//!
//! A cluster of caches has less space than its origins. When all nodes are full, they can take new
//! keys only if they give up cold ones. The only copy of a key may go if
//!
//! 1. the operator allows it (`last_copies`), the key is not pinned, and no member, dead or alive,
//!    has another copy;
//! 2. no node on the ring takes new keys, as far as it has said, and no better reason to evict
//!    frees enough;
//! 3. no request has used it for as long as a request may wait for a key, so that no client is
//!    waiting for it;
//! 4. the origin confirms now that it has the key ([`crate::provider::Provider::is_at_origin`]).
//!
//! The balancer asks each origin one question at a time. It leaves an origin that cannot answer
//! alone for a while, and keeps its keys. A key that its origin does not vouch for leaves its place
//! to others for an hour (see [`Doubts`](crate::core::balancer::Doubts)).

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use tracing::{debug, info};

use crate::{config::LastCopies, core::balancer::DiskPressure, key::Key, provider::UpdateError, runtime::Shared};

/// How long after it gave up an only copy a node whose free space is low makes no replicas of keys
/// that are not pinned: they would take the space.
pub(super) const AFTERMATH: Duration = Duration::from_secs(600);
/// How long an origin may take to say whether it has a key.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// How long all questions of a round may take.
const ROUND_PATIENCE: Duration = Duration::from_secs(30);
/// Origins that are asked at once.
const ORIGINS_AT_ONCE: usize = 4;

/// Whether the only copy of a key may go at all: the operator allows it, and no node takes new
/// keys, not even one that is away for a moment and keeps its place on the ring.
pub(super) fn is_due(shared: &Shared) -> bool {
    shared.context.config.last_copies == LastCopies::Evict && shared.lookup.view.load().are_all_full()
}

/// Whether a client may be using the key, or about to: a request that waited for its fetch has not
/// used it yet.
pub(super) fn is_in_use(shared: &Shared, key: &Key) -> bool {
    let last = shared.traffic.last_access.last(key).map(|second| Duration::from_secs(second.into()));
    last.is_some_and(|last| shared.context.uptime() < last + shared.context.config.request_patience)
}

/// The origin of the key. `None` if the provider panics instead of naming it.
fn origin_of(shared: &Shared, key: &Key) -> Option<String> {
    let provider = shared.context.provider.as_ref()?;
    std::panic::catch_unwind(AssertUnwindSafe(|| provider.origin_of(key))).ok()
}

/// Whether the origin may be asked about the only copy of this key now.
pub(super) fn may_ask(shared: &Shared, key: &Key) -> bool {
    let now = shared.context.uptime();
    if shared.disk.doubts().covers(now, key) {
        return false;
    }
    origin_of(shared, key).is_some_and(|origin| !shared.disk.doubts().is_silent(now, &origin))
}

/// Asks the origins of `keys`, and hands over each key that its origin has, as soon as it says so.
/// Ends early when this node has room again. Keys that their origins do not confirm are remembered.
pub(super) async fn confirm(shared: &Arc<Shared>, keys: Vec<Key>, is_there: impl Fn(Key)) {
    let mut by_origin: BTreeMap<String, Vec<Key>> = BTreeMap::new();
    for key in keys {
        if let Some(origin) = origin_of(shared, &key) {
            by_origin.entry(origin).or_default().push(key);
        }
    }
    let is_there = &is_there;
    let asked = by_origin.into_iter().map(|(origin, keys)| async move {
        for key in keys {
            if shared.disk.watermarks().pressure() != DiskPressure::Full
                || shared.disk.doubts().is_silent(shared.context.uptime(), &origin)
            {
                return;
            }
            let answer = ask(shared, &key).await;
            shared.disk.doubts().answered(shared.context.uptime(), &origin, &key, &answer);
            match answer {
                Ok(Some(true)) => is_there(key),
                Ok(said) => debug!(%key, ?said, "the only copy stays: the origin does not say that it has it"),
                Err(error) => {
                    info!(%key, %origin, %error, "the only copy stays: the origin cannot say whether it has it")
                }
            }
        }
    });
    let asked = futures::stream::iter(asked).buffer_unordered(ORIGINS_AT_ONCE);
    asked.take_until(Box::pin(tokio::time::sleep(ROUND_PATIENCE))).collect().await
}

async fn ask(shared: &Shared, key: &Key) -> Result<Option<bool>, UpdateError> {
    let Some(provider) = &shared.context.provider else { return Ok(None) };
    let asked = AssertUnwindSafe(async { provider.is_at_origin(key).await }).catch_unwind();
    match tokio::time::timeout(ANSWER_PATIENCE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(UpdateError::Failed("the provider panicked when it was asked".into())),
        Err(_) => Err(UpdateError::Unavailable(format!("no answer within {ANSWER_PATIENCE:?}"))),
    }
}
