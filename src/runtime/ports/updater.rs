//! What others ask of the updater pool.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::{
    core::updater::Origin,
    key::{Key, NodeName},
    net::wire::Ensured,
    provider::UpdateReason,
    runtime::mailbox::{Gone, Mailbox},
};

pub(crate) enum Request {
    /// The node is to hold the key. The reply says when it does, or why not.
    Ensure { key: Key, origin: Origin, reason: UpdateReason, reply: Option<oneshot::Sender<Ensured>> },
    /// A held key is brought up to date. The reply says when it is, or why not.
    Refresh { key: Key, from: Vec<NodeName>, reply: oneshot::Sender<Ensured> },
    /// A key whose claim is withdrawn is deleted.
    Remove { key: Key },
    /// What went wrong with these keys last?
    Troubles { keys: Vec<Key>, reply: oneshot::Sender<Vec<Option<Trouble>>> },
}

/// Why a key is not here, as the last attempt found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) reason: String,
    /// When the first attempt of those in a row that failed did, by the node's uptime.
    pub(crate) since: Duration,
}

impl Mailbox<Request> {
    /// Has this node hold `key`, and returns when it does. The fetch goes on for a while without its caller.
    pub(crate) async fn ensure(&self, key: Key, origin: Origin, reason: UpdateReason) -> Result<Ensured, Gone> {
        self.ask(|reply| Request::Ensure { key, origin, reason, reply: Some(reply) }).await
    }

    /// As [`ensure`](Self::ensure), and returns at once. The caller waits for the key until it drops what is returned.
    pub(crate) fn join(&self, key: Key, origin: Origin, reason: UpdateReason) -> oneshot::Receiver<Ensured> {
        let (reply, waiter) = oneshot::channel();
        let _ = self.send(Request::Ensure { key, origin, reason, reply: Some(reply) });
        waiter
    }

    /// Has this node hold `key` when there is room for the work; the caller does not wait.
    pub(crate) fn note_ensure(&self, key: Key, origin: Origin, reason: UpdateReason) {
        let _ = self.send(Request::Ensure { key, origin, reason, reply: None });
    }

    /// Brings a held key up to date, from the first of these nodes that has it, or from the origin if there are none.
    pub(crate) async fn refresh(&self, key: Key, from: Vec<NodeName>) -> Result<Ensured, Gone> {
        self.ask(|reply| Request::Refresh { key, from, reply }).await
    }

    /// As [`refresh`](Self::refresh), and returns at once. The caller waits until it drops what is returned.
    #[cfg(feature = "etcd")]
    pub(crate) fn join_refresh(&self, key: Key, from: Vec<NodeName>) -> oneshot::Receiver<Ensured> {
        let (reply, waiter) = oneshot::channel();
        let _ = self.send(Request::Refresh { key, from, reply });
        waiter
    }

    /// Deletes a key whose claim is withdrawn.
    pub(crate) fn remove(&self, key: Key) {
        let _ = self.send(Request::Remove { key });
    }

    /// What went wrong with these keys last, in their order.
    pub(crate) async fn troubles(&self, keys: Vec<Key>) -> Result<Vec<Option<Trouble>>, Gone> {
        self.ask(|reply| Request::Troubles { keys, reply }).await
    }
}
