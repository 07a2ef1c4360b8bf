//! What others ask of the registry, whether it keeps ledgers or follows etcd.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::oneshot;

use crate::{
    core::registry::ClaimState,
    key::{Key, NodeName},
    runtime::mailbox::{Gone, Mailbox},
};

pub(crate) enum Request {
    /// This node says this of a key. The reply says whether `Fetching`, which is an intent, may go ahead.
    Claim { key: Key, state: ClaimState, reply: Option<oneshot::Sender<Result<(), NotRecorded>>> },
    /// This node says that a key is not here. The reply is dropped if that cannot be said now.
    Release { key: Key, reply: Option<oneshot::Sender<()>> },
    /// No update runs: claims that say so are withdrawn.
    WithdrawFetching,
    /// The scan of the local data found these.
    Found { keys: Vec<Key>, reply: oneshot::Sender<()> },
    /// The scan is over.
    ScanEnded,
    /// A new view was published.
    MembersChanged,
    /// Known keys in order.
    Keys { after: Option<Key>, prefix: String, limit: usize, reply: oneshot::Sender<Vec<Key>> },
    /// Counts for `status` and `members`.
    Summarize(oneshot::Sender<Summary>),
}

/// What a node is about to do cannot be made known to the others, so it is not done. A later retry may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotRecorded(pub(crate) String);

/// Counts over all ledgers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    /// Ready keys by node.
    pub(crate) ready: BTreeMap<NodeName, usize>,
    /// Claims of `Fetching` of all live nodes.
    pub(crate) fetching: usize,
    /// Whether every ledger of a live member is known up to its gossiped mark.
    pub(crate) caught_up: bool,
    /// Whether all that this node says is where the others look for it.
    pub(crate) published: bool,
    /// Members whose ledger was read to its end as another member knows it, and when that began last, on this node's clock.
    pub(crate) pulled: BTreeMap<NodeName, Duration>,
}

impl Mailbox<Request> {
    /// Claims `key`, and returns when the claim counts. The inner result says whether `Fetching`, which is an intent, may
    /// go ahead; other claims always do.
    pub(crate) async fn claim(&self, key: Key, state: ClaimState) -> Result<Result<(), NotRecorded>, Gone> {
        self.ask(|reply| Request::Claim { key, state, reply: Some(reply) }).await
    }

    /// Claims `key`, which needs no confirmation.
    pub(crate) fn note_claim(&self, key: Key, state: ClaimState) {
        let _ = self.send(Request::Claim { key, state, reply: None });
    }

    /// Withdraws the claim of `key`, and returns when that counts.
    ///
    /// # Errors
    /// It cannot be said now; the claim stands.
    pub(crate) async fn release(&self, key: Key) -> Result<(), Gone> {
        self.ask(|reply| Request::Release { key, reply: Some(reply) }).await
    }

    /// Withdraws the claim of `key`, which needs no confirmation.
    pub(crate) fn note_release(&self, key: Key) {
        let _ = self.send(Request::Release { key, reply: None });
    }

    /// Says that no update runs, so that no claim should say so.
    pub(crate) fn withdraw_fetching(&self) {
        let _ = self.send(Request::WithdrawFetching);
    }

    /// Says that the scan of the local data found these keys, and returns when they are claimed.
    pub(crate) async fn found(&self, keys: Vec<Key>) -> Result<(), Gone> {
        self.ask(|reply| Request::Found { keys, reply }).await
    }

    /// Says that the scan of the local data is over.
    pub(crate) fn scan_ended(&self) {
        let _ = self.send(Request::ScanEnded);
    }

    /// Says that a new view was published.
    pub(crate) fn members_changed(&self) {
        let _ = self.send(Request::MembersChanged);
    }

    /// The first `limit` known keys after `after` that begin with `prefix`, in order.
    pub(crate) async fn keys(&self, after: Option<Key>, prefix: &str, limit: usize) -> Result<Vec<Key>, Gone> {
        self.ask(|reply| Request::Keys { after, prefix: prefix.to_owned(), limit, reply }).await
    }

    /// Counts over all that is known.
    pub(crate) async fn summarize(&self) -> Result<Summary, Gone> {
        self.ask(Request::Summarize).await
    }
}
