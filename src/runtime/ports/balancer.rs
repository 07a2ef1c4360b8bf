//! What others ask of the balancer.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::{
    core::balancer::{PlannedAction, Short},
    key::Key,
    runtime::mailbox::{Gone, Mailbox},
};

pub(crate) enum Request {
    /// These keys are to be looked at.
    KeysChanged(Vec<Key>),
    /// All keys are to be looked at.
    Sweep,
    /// The updater is done with this key.
    UpdateFinished(Key),
    /// The updater failed; the key is looked at again after this time.
    RetryAfter(Key, Duration),
    /// Is this node a ready owner of these, and will it stay so?
    Vouch { keys: Vec<Key>, reply: oneshot::Sender<Vec<bool>> },
    /// What is to be done with this key, and what does that wait for?
    Explain { key: Key, reply: oneshot::Sender<PlannedAction> },
    /// Which known keys have too few replicas? The first that begin so, in order.
    Shortages { prefix: String, limit: usize, reply: oneshot::Sender<Vec<(Key, Short)>> },
    /// How many known keys have too few replicas, and whether anything is waiting to be done.
    Summarize(oneshot::Sender<Summary>),
}

/// What `status` tells.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Summary {
    pub(crate) under_replicated: usize,
    /// How many nodes should keep the one of these keys that should be on most; 0 if there is none.
    pub(crate) most_asked: usize,
    pub(crate) idle: bool,
    pub(crate) waiting: usize,
    pub(crate) running: usize,
}

impl Mailbox<Request> {
    /// Has these keys looked at.
    pub(crate) fn keys_changed(&self, keys: Vec<Key>) {
        let _ = self.send(Request::KeysChanged(keys));
    }

    /// Has all keys looked at.
    pub(crate) fn sweep(&self) {
        let _ = self.send(Request::Sweep);
    }

    /// Says that the updater is done with `key`.
    pub(crate) fn update_finished(&self, key: Key) {
        let _ = self.send(Request::UpdateFinished(key));
    }

    /// Has `key` looked at again after `pause`.
    pub(crate) fn retry_after(&self, key: Key, pause: Duration) {
        let _ = self.send(Request::RetryAfter(key, pause));
    }

    /// Whether this node is a ready owner of each of these keys. Those it is one of, it keeps for a while.
    pub(crate) async fn vouch(&self, keys: Vec<Key>) -> Result<Vec<bool>, Gone> {
        self.ask(|reply| Request::Vouch { keys, reply }).await
    }

    /// What this node is about to do with `key`, and what that waits for.
    pub(crate) async fn explain(&self, key: Key) -> Result<PlannedAction, Gone> {
        self.ask(|reply| Request::Explain { key, reply }).await
    }

    /// The first `limit` known keys with too few replicas that begin with `prefix`, in order.
    pub(crate) async fn shortages(&self, prefix: String, limit: usize) -> Result<Vec<(Key, Short)>, Gone> {
        self.ask(|reply| Request::Shortages { prefix, limit, reply }).await
    }

    /// Counts for `status`.
    pub(crate) async fn summarize(&self) -> Result<Summary, Gone> {
        self.ask(Request::Summarize).await
    }
}
