//! What others ask of the catalog.

use tokio::sync::oneshot;

use crate::{
    core::catalog::{HlcTimestamp, Intent, IntentError, Page, Pin, Record, Stamp},
    key::{Key, NodeName},
    runtime::mailbox::{Gone, Mailbox},
};

pub(crate) enum Request {
    /// An intent is stamped and, unless this node is an observer, written down.
    Write { key: Key, intent: Intent, after: HlcTimestamp, reply: oneshot::Sender<Result<Record, IntentError>> },
    /// Records of others are written down.
    Take { records: Vec<Record>, reply: oneshot::Sender<Result<Option<HlcTimestamp>, String>> },
    /// This node's records of the keys after `after`.
    PageAfter { after: Option<Key>, reply: oneshot::Sender<Page> },
    /// What gossip says of the others' catalogs.
    DigestsSeen(Vec<(NodeName, u64)>),
    /// Is a copy of this key to go, and which?
    PendingOf { key: Key, reply: oneshot::Sender<Option<Stamp>> },
    /// The copy of before `stamp` is gone.
    Executed { key: Key, stamp: Stamp, reply: oneshot::Sender<()> },
    /// The last forget of this key.
    ForgetOf { key: Key, reply: oneshot::Sender<Option<Record>> },
    /// All pins in order.
    Pins(oneshot::Sender<Vec<Pin>>),
}

impl Mailbox<Request> {
    /// Stamps an intent with a time later than `after`, and returns when it is durable here.
    pub(crate) async fn write(
        &self,
        key: Key,
        intent: Intent,
        after: HlcTimestamp,
    ) -> Result<Result<Record, IntentError>, Gone> {
        self.ask(|reply| Request::Write { key, intent, after, reply }).await
    }

    /// Takes in records of others, and returns when they are durable here: with the time of what is known here of the same
    /// keys and is later, if anything is.
    pub(crate) async fn take(&self, records: Vec<Record>) -> Result<Result<Option<HlcTimestamp>, String>, Gone> {
        self.ask(|reply| Request::Take { records, reply }).await
    }

    /// This node's records of the keys after `after`, as many as fit one message.
    pub(crate) async fn page_after(&self, after: Option<Key>) -> Result<Page, Gone> {
        self.ask(|reply| Request::PageAfter { after, reply }).await
    }

    /// Says what gossip tells of the others' catalogs.
    pub(crate) fn digests_seen(&self, digests: Vec<(NodeName, u64)>) {
        let _ = self.send(Request::DigestsSeen(digests));
    }

    /// The forget that this node's copy of `key` has still to go by, if there is one.
    pub(crate) async fn pending_of(&self, key: Key) -> Result<Option<Stamp>, Gone> {
        self.ask(|reply| Request::PendingOf { key, reply }).await
    }

    /// Says that the copy of before `stamp` is gone, and returns when that is written down.
    pub(crate) async fn executed(&self, key: Key, stamp: Stamp) -> Result<(), Gone> {
        self.ask(|reply| Request::Executed { key, stamp, reply }).await
    }

    /// The last forget of `key`, if there is one on file.
    pub(crate) async fn forget_of(&self, key: Key) -> Result<Option<Record>, Gone> {
        self.ask(|reply| Request::ForgetOf { key, reply }).await
    }

    /// All pins in order.
    pub(crate) async fn pins(&self) -> Result<Vec<Pin>, Gone> {
        self.ask(Request::Pins).await
    }
}
