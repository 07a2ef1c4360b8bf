//! One job: the work that a worker of the pool does for one key.
//!
//! The order of steps is the promise "`Ready` is published only after the data is durable": claim `Fetching`, update,
//! and only when the provider has returned, claim `Ready`. The provider runs in a task of its own, so that its panic
//! is an error like any other, and that giving up aborts it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{debug, info, warn};

use super::others::{give_way, let_others_finish};
use crate::{
    core::{
        registry::{ClaimState, HolderState},
        updater::{
            FETCH_MAX, Origin, Work,
            fetch_plan::{self, Did, Ended, Others, Seen, Step, Stop, Wish},
        },
    },
    key::{Key, NodeName},
    operations::disk_watch::look,
    operations::{peer_client::PeerClient, spread::push_to},
    provider::{Progress, Provider, UpdateContext, UpdateError, UpdateReason},
    runtime::Shared,
};

/// How long a job that is cancelled may take to end; then it is dropped.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// How often progress is checked within the period in which an update must make some.
const LOOKS: u32 = 8;

/// How a job ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The key is on this machine, and the ledger says so.
    Held(Option<Updated>),
    /// The key is gone from this machine.
    Removed,
    /// It was to be refreshed, but is not held any more.
    GivenUp,
    /// The disk is full, or no peer has it to copy, and it need not be here.
    Declined,
    /// The key could not be had.
    Failed(UpdateError),
    /// It was told to stop.
    Cancelled,
}

/// The task of a job, and the means to watch and stop it.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) key: Key,
    pub(crate) work: Work,
    pub(crate) reason: UpdateReason,
    pub(crate) progress: Progress,
    /// Ends the provider's update; the job is over when that is.
    pub(crate) cancel: CancellationToken,
}

/// An update brought the key up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Updated {
    /// Whether it changed anything, if the provider said.
    pub(crate) changed: Option<bool>,
}

/// Runs the job. A cancelled job ends soon after, once its update is gone, so that the next job for
/// the key can begin.
pub(super) async fn run(shared: &Arc<Shared>, task: &Task) -> Outcome {
    let Some(provider) = shared.context.provider.clone() else {
        return Outcome::Failed(UpdateError::Failed("an observer keeps no keys".into()));
    };
    let work = async {
        match &task.work {
            Work::Ensure { origin } => ensure(shared, &provider, task, *origin).await,
            Work::Refresh { from } => refresh(shared, &provider, task, from.clone()).await,
            Work::Remove => remove(shared, &provider, &task.key).await,
        }
    };
    let given_up = async {
        task.cancel.cancelled().await;
        tokio::time::sleep(CANCEL_PATIENCE).await;
    };
    tokio::select! {
        biased;
        outcome = work => match outcome {
            Outcome::Failed(_) | Outcome::Declined if task.cancel.is_cancelled() => Outcome::Cancelled,
            outcome => outcome,
        },
        () = given_up => Outcome::Cancelled,
    }
}

async fn ensure(shared: &Arc<Shared>, provider: &Arc<dyn Provider>, task: &Task, origin: Origin) -> Outcome {
    let (key, reason) = (&task.key, task.reason);
    if !carry_out_forget(shared, provider, key).await {
        return Outcome::Failed(UpdateError::Failed("a copy that is to be forgotten cannot be removed".into()));
    }
    // On disk although not claimed: the first scan has not reached it yet, or a process outside the
    // node put it there. But if it could not be read, having it is not enough.
    let unreadable = shared.lookup.own_claim(key) == Some(HolderState::Failed);
    if !unreadable && provider.has(key).await.unwrap_or(false) {
        if origin == Origin::Afresh && shared.lookup.own_claim(key) == Some(HolderState::Ready) {
            return refresh(shared, provider, task, Vec::new()).await;
        }
        return publish(shared, key, None).await;
    }
    if reason != UpdateReason::Request {
        // Many copies that the balancer wants wait here, and the disk may have less room than when
        // it planned them.
        look(shared, false).await;
    }
    let wish = Wish { from_origin: origin != Origin::Never, reason };
    let (mut did, mut trouble) = (Did::Nothing, None);
    loop {
        did = match fetch_plan::next(wish, did, &seen(shared, key)) {
            Step::LetOthersFinish => {
                let_others_finish(shared, key, Others::All).await;
                Did::LetOthersFinish
            }
            Step::Claim => {
                if let Err(error) = claim(shared, key, ClaimState::Fetching).await {
                    return Outcome::Failed(error);
                }
                tell_of_forget(shared, key).await;
                Did::Claimed
            }
            Step::GiveWay(which) => {
                if let Some(error) = &trouble {
                    warn!(%key, %error, "no peer could be copied from; the origin is next");
                }
                Did::GaveWay(which, give_way(shared, key).await)
            }
            Step::Copy(which, peers) => {
                trouble = update(shared, provider, task, peers).await.err();
                Did::Copied(which, ended(trouble.as_ref()))
            }
            Step::AskOrigin => {
                trouble = update(shared, provider, task, Vec::new()).await.err();
                Did::AskedOrigin(ended(trouble.as_ref()))
            }
            Step::Publish => {
                if reason == UpdateReason::Request {
                    // The clients that wait for it have not used it yet.
                    shared.traffic.last_access.renew(key, shared.context.uptime());
                }
                // A first fetch says nothing about how often the key changes at its origin.
                return publish(shared, key, Some(Updated { changed: None })).await;
            }
            Step::Stop(stop) => return stopped(shared, key, unreadable, stop, trouble).await,
        };
    }
}

/// The present state to decide by.
fn seen(shared: &Arc<Shared>, key: &Key) -> Seen {
    let settled = shared.context.uptime() >= shared.lookup.settled_at();
    Seen {
        accepts: shared.disk.accepts(),
        room: shared.disk.watermarks().pressure(),
        ready: ready_peers(shared, key),
        in_doubt: !settled || shared.lookup.policy.standing(key).forgotten,
    }
}

/// Returns how an update ended that failed with `error`, if it failed.
fn ended(error: Option<&UpdateError>) -> Ended {
    match error {
        None => Ended::Well,
        Some(UpdateError::NoRoom(_)) => Ended::NoRoom,
        Some(UpdateError::Unavailable(_)) => Ended::Unavailable,
        Some(_) => Ended::Failed,
    }
}

/// Returns how a job ends that stops here. `error`: of its last update, if that failed.
async fn stopped(shared: &Arc<Shared>, key: &Key, unreadable: bool, stop: Stop, error: Option<UpdateError>) -> Outcome {
    match stop {
        Stop::Declined => Outcome::Declined,
        Stop::NoRoom => Outcome::Failed(UpdateError::NoRoom("the disk of this node is full".into())),
        Stop::NowhereReady => nobody_has_it(shared, key, unreadable).await,
        Stop::Failed => Outcome::Failed(error.unwrap_or_else(|| UpdateError::Failed("no update was made".into()))),
    }
}

/// No copy is left to take, which is not a failure of this node: if all owners claimed a failure
/// after a forget, each would soon take itself for the first that has not failed. It is a failure
/// if this node has a copy that cannot be read.
async fn nobody_has_it(shared: &Arc<Shared>, key: &Key, unreadable: bool) -> Outcome {
    if unreadable {
        return Outcome::Failed(UpdateError::Unavailable("no peer holds it any more".into()));
    }
    let _ = shared.ports.registry.release(key.clone()).await;
    Outcome::Declined
}

async fn refresh(shared: &Arc<Shared>, provider: &Arc<dyn Provider>, task: &Task, from: Vec<NodeName>) -> Outcome {
    let key = &task.key;
    // The job may have waited for long: a key that was trimmed or forgotten meanwhile does not come
    // back through it.
    if shared.lookup.own_claim(key).is_none() || shared.lookup.policy.standing(key).pending {
        return Outcome::GivenUp;
    }
    match update(shared, provider, task, from).await {
        Ok(updated) => publish(shared, key, Some(updated)).await,
        Err(error) => Outcome::Failed(error),
    }
}

async fn remove(shared: &Arc<Shared>, provider: &Arc<dyn Provider>, key: &Key) -> Outcome {
    if shared.lookup.policy.standing(key).pending {
        return if carry_out_forget(shared, provider, key).await { Outcome::Removed } else { Outcome::Held(None) };
    }
    // The key was claimed again since the removal was planned: a caller wants it after all.
    if shared.lookup.own_claim(key).is_some() {
        return Outcome::Held(None);
    }
    match provider.remove(key).await {
        Ok(()) => {
            info!(%key, "replica removed");
            Outcome::Removed
        }
        Err(error) => {
            warn!(%key, %error, "cannot remove a replica");
            if provider.has(key).await.unwrap_or(false) { publish(shared, key, None).await } else { Outcome::Removed }
        }
    }
}

/// Drops the copy from before a forget, if there is one. Returns whether no copy is left. The claim
/// goes before the data, and only when the data is gone is the forget done with, also if the node
/// dies in between.
async fn carry_out_forget(shared: &Arc<Shared>, provider: &Arc<dyn Provider>, key: &Key) -> bool {
    if !shared.lookup.policy.standing(key).pending {
        return true;
    }
    let Ok(Some(stamp)) = shared.ports.catalog.pending_of(key.clone()).await else { return true };
    if shared.ports.registry.release(key.clone()).await.is_err() {
        return false;
    }
    if let Err(error) = provider.remove(key).await {
        warn!(%key, %error, "cannot remove a copy that is to be forgotten");
        return false;
    }
    info!(%key, "forgotten");
    shared.ports.catalog.executed(key.clone(), stamp).await.is_ok()
}

/// Makes sure that no peer from which a forgotten key may be copied still has the copy that had to
/// go: a peer that was cut off until now hears of the forget first. A copy that is still ready
/// afterwards is newer than the forget.
async fn tell_of_forget(shared: &Arc<Shared>, key: &Key) {
    if !shared.lookup.policy.standing(key).forgotten {
        return;
    }
    let Ok(Some(record)) = shared.ports.catalog.forget_of(key.clone()).await else { return };
    for peer in ready_peers(shared, key) {
        if let Err(error) = push_to(shared, &peer, &record).await {
            debug!(%key, %peer, %error, "cannot tell it of a forget");
        }
    }
}

async fn update(
    shared: &Arc<Shared>,
    provider: &Arc<dyn Provider>,
    task: &Task,
    peers: Vec<NodeName>,
) -> Result<Updated, UpdateError> {
    let Task { key, reason, progress, cancel, .. } = task;
    if cancel.is_cancelled() {
        return Err(UpdateError::Unavailable("cancelled".into()));
    }
    debug!(%key, ?reason, ?peers, "update starts");
    let context = UpdateContext::new(*reason, peers, Arc::new(PeerClient::new(shared, *reason)));
    let context = context.with_progress(progress.clone());
    let (provider, updated_key, told) = (provider.clone(), key.clone(), context.clone());
    let mut running = AbortOnDropHandle::new(tokio::spawn(async move { provider.update(&updated_key, told).await }));
    let limit = shared.context.config.update_timeout;
    let ended = tokio::select! {
        ended = &mut running => Ok(ended),
        () = standstill(progress, limit) => Err(format!("no progress within {limit:?}")),
        () = cancel.cancelled() => Err("cancelled".to_owned()),
    };
    let outcome = match ended {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(failed)) if failed.is_panic() => {
            tracing::error!(%key, "the provider panicked in an update");
            Err(UpdateError::Failed("the provider panicked".into()))
        }
        Ok(Err(_)) => Err(UpdateError::Unavailable("this node is stopping".into())),
        Err(why) => {
            // The next update of the key may begin at once, and two must not run.
            running.abort();
            let _ = tokio::time::timeout(CANCEL_PATIENCE, &mut running).await;
            Err(UpdateError::Unavailable(why))
        }
    };
    match &outcome {
        Ok(()) => info!(%key, ?reason, changed = ?context.changed(), "updated"),
        Err(error) => info!(%key, ?reason, %error, "update failed"),
    }
    if matches!(outcome, Err(UpdateError::NoRoom(_))) {
        // This happens before the callers hear of the failure, so that they try again at a node
        // that has room.
        look(shared, true).await;
    }
    outcome.map(|()| Updated { changed: context.changed() })
}

/// Returns when no progress was noted for `limit` (and an eighth of it), or when the update has run
/// for a day although it makes progress now and then.
async fn standstill(progress: &Progress, limit: Duration) {
    let begun = Instant::now();
    let (mut seen, mut since) = (progress.bytes(), begun);
    while since.elapsed() < limit && begun.elapsed() < limit.max(FETCH_MAX) {
        tokio::time::sleep(limit / LOOKS).await;
        let bytes = progress.bytes();
        if bytes != seen {
            (seen, since) = (bytes, Instant::now());
        }
    }
}

fn ready_peers(shared: &Arc<Shared>, key: &Key) -> Vec<NodeName> {
    let holders = shared.lookup.live_holders(key).into_iter();
    let names = holders
        .filter(|(name, state)| *state == HolderState::Ready && *name != shared.context.name)
        .map(|(name, _)| name);
    shared.routing.peer_stats.load().ranked(names.collect(), shared.context.uptime())
}

async fn publish(shared: &Arc<Shared>, key: &Key, updated: Option<Updated>) -> Outcome {
    match claim(shared, key, ClaimState::Ready).await {
        Ok(()) => Outcome::Held(updated),
        Err(error) => Outcome::Failed(error),
    }
}

async fn claim(shared: &Arc<Shared>, key: &Key, state: ClaimState) -> Result<(), UpdateError> {
    let recorded = shared.ports.registry.claim(key.clone(), state).await;
    let recorded = recorded.map_err(|gone| UpdateError::Unavailable(gone.to_string()))?;
    recorded.map_err(|not_recorded| UpdateError::Unavailable(not_recorded.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_update_that_gets_on_may_take_long_and_one_that_stands_still_may_not() {
        let (progress, limit) = (Progress::default(), Duration::from_secs(600));
        let moves = async {
            for _ in 0..20 {
                tokio::time::sleep(limit / 2).await;
                progress.note(1);
            }
            Instant::now()
        };
        let (moved, ()) = tokio::join!(moves, standstill(&progress, limit));
        assert!(moved.elapsed() >= limit && moved.elapsed() <= limit + limit / 4, "{:?}", moved.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_update_that_crawls_has_an_end() {
        let (progress, begun) = (Progress::default(), Instant::now());
        let crawls = async {
            loop {
                tokio::time::sleep(Duration::from_secs(60)).await;
                progress.note(1);
            }
        };
        tokio::select! {
            () = standstill(&progress, Duration::from_secs(600)) => {}
            () = crawls => {}
        }
        assert!(begun.elapsed() >= FETCH_MAX && begun.elapsed() < FETCH_MAX + Duration::from_secs(600));
    }
}
