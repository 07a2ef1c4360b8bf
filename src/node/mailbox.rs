//! The address of an actor that may be replaced by its successor.
//!
//! Actors of one process must not find each other by name, for a process holds many nodes. So each node has one
//! mailbox for each of its actors; the supervisor fills it when the actor starts and empties it when the actor fails.

use arc_swap::ArcSwapOption;
use ractor::{ActorRef, DerivedActorRef, Message};
use tokio::sync::oneshot;

/// The actor is not there: it failed and is being replaced, or the node stops. A retry may help in the former case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node is stopping or recovering")]
pub(crate) struct Gone;

/// Sends to whoever is the actor now: any actor that understands these messages, among others of its own perhaps.
#[derive(Debug)]
pub(crate) struct Mailbox<M: Message>(ArcSwapOption<DerivedActorRef<M>>);

impl<M: Message> Default for Mailbox<M> {
    fn default() -> Self {
        Self(ArcSwapOption::empty())
    }
}

impl<M: Message> Mailbox<M> {
    pub(crate) fn fill<A: Message + From<M>>(&self, actor: &ActorRef<A>)
    where
        M: TryFrom<A>,
    {
        self.0.store(Some(actor.get_derived().into()));
    }

    pub(crate) fn empty(&self) {
        self.0.store(None);
    }

    /// Sends, if there is anybody.
    pub(crate) fn send(&self, message: M) -> Result<(), Gone> {
        self.0.load().as_ref().ok_or(Gone)?.send_message(message).map_err(|_| Gone)
    }

    /// Sends a message with a reply port and waits for the reply. Cancel safe; the actor may still act.
    pub(crate) async fn ask<R>(&self, message: impl FnOnce(oneshot::Sender<R>) -> M) -> Result<R, Gone> {
        let (port, reply) = oneshot::channel();
        self.send(message(port))?;
        reply.await.map_err(|_| Gone)
    }
}
