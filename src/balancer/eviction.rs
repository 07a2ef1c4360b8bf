//! Giving up the only copy of a key, because no node of the cluster has room and the origin has the key still.
//!
//! A cluster of caches has less room than its origins. When all nodes are full, new keys can only be taken if cold ones go. The
//! only copy of a key may go if
//!
//! 1. the operator lets it (`last_copies`), nobody pinned it, and no member, dead or alive, has another one;
//! 2. no live node takes new keys, and no better grounds free enough;
//! 3. no request has used it for as long as a request may wait for a key, so that nobody is waiting for it;
//! 4. the origin says now that it has it ([`crate::provider::Provider::is_at_origin`]).
//!
//! Each origin is asked one question at a time. One that cannot answer is left alone for a while, and its keys stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use tracing::{debug, info};

use super::room::Level;
use crate::{config::LastCopies, key::Key, node::Shared, provider::UpdateError};

/// How long after it gave up an only copy a node that is short of room makes no replicas of keys that nobody pinned: they would
/// take the room.
pub(super) const AFTERMATH: Duration = Duration::from_secs(600);
/// How long an origin may take to say whether it has a key.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// How long all questions of a round may take.
const ROUND_PATIENCE: Duration = Duration::from_secs(30);
/// Origins that are asked at once.
const ORIGINS_AT_ONCE: usize = 4;
/// How long an origin is left alone that could not answer, unless it says itself for how long.
const SILENCE: Duration = Duration::from_secs(60);
const SILENCE_MAX: Duration = Duration::from_secs(3600);

/// An origin that cannot say what it has, and for how long it is not asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Silent {
    pub(super) origin: String,
    pub(super) pause: Duration,
}

/// Whether the only copy of a key may go at all: the operator lets it, and no live node takes new keys.
pub(super) fn is_due(shared: &Shared) -> bool {
    shared.config.last_copies == LastCopies::Evict && shared.view.load().accepting().next().is_none()
}

/// Whether somebody may be using the key, or about to: a request that waited for it until it came has not used it yet.
pub(super) fn is_in_use(shared: &Shared, key: &Key) -> bool {
    let last = shared.uses.last(key).map(|second| Duration::from_secs(second.into()));
    last.is_some_and(|last| shared.uptime() < last + shared.config.request_patience)
}

/// Asks the origins of `keys`, except those in `silent`, and hands over each key that its origin has, as soon as it says so.
/// Ends early when this node has room again. Returns the origins that could not answer.
pub(super) async fn confirm(
    shared: &Arc<Shared>,
    keys: Vec<Key>,
    silent: BTreeSet<String>,
    is_there: impl Fn(Key),
) -> Vec<Silent> {
    let Some(provider) = &shared.provider else { return Vec::new() };
    let mut by_origin: BTreeMap<String, Vec<Key>> = BTreeMap::new();
    for key in keys {
        by_origin.entry(provider.origin_of(&key)).or_default().push(key);
    }
    by_origin.retain(|origin, _| !silent.contains(origin));
    let is_there = &is_there;
    let asked = by_origin.into_iter().map(|(origin, keys)| async move {
        for key in keys {
            if shared.room().level() != Level::Full {
                return None;
            }
            match ask(shared, &key).await {
                Ok(Some(true)) => is_there(key),
                Ok(said) => debug!(%key, ?said, "the only copy stays: the origin does not say that it has it"),
                Err(error) => {
                    info!(%origin, %error, "only copies of its keys stay: the origin cannot say what it has");
                    return Some(Silent { origin, pause: pause_after(&error) });
                }
            }
        }
        None
    });
    let asked = futures::stream::iter(asked).buffer_unordered(ORIGINS_AT_ONCE);
    let in_time = asked.take_until(Box::pin(tokio::time::sleep(ROUND_PATIENCE)));
    in_time.filter_map(std::future::ready).collect().await
}

async fn ask(shared: &Shared, key: &Key) -> Result<Option<bool>, UpdateError> {
    let Some(provider) = &shared.provider else { return Ok(None) };
    let asked = AssertUnwindSafe(provider.is_at_origin(key)).catch_unwind();
    match tokio::time::timeout(ANSWER_PATIENCE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(UpdateError::Failed("the provider panicked when it was asked".into())),
        Err(_) => Err(UpdateError::Unavailable(format!("no answer within {ANSWER_PATIENCE:?}"))),
    }
}

fn pause_after(error: &UpdateError) -> Duration {
    match error {
        UpdateError::Later { after, .. } => (*after).clamp(SILENCE, SILENCE_MAX),
        _ => SILENCE,
    }
}
