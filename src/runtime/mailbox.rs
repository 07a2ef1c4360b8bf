//! The address of an actor that may be replaced by its successor.
//!
//! Actors of one process must not find each other by name, for a process holds many nodes. So each node has one
//! mailbox for each of its actors. The supervisor fills it when the actor starts and empties it when the actor fails.
//!
//! A mailbox takes the requests of one port ([`super::ports`]). An actor has further messages of
//! its own, which no other actor can send: its message type has one variant for what comes through
//! the mailbox.

use std::fmt;

use arc_swap::ArcSwapOption;
use ractor::{ActorRef, Message};
use tokio::sync::oneshot;

/// The actor is not there: it failed and is being replaced, or the node stops. A retry may help in the former case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node is stopping or recovering")]
pub(crate) struct Gone;

/// Makes a type the message of an actor: of its variants, these hold what comes through its mailboxes.
macro_rules! receives {
    ($message:ty: $($variant:ident($request:ty)),+) => {
        impl ractor::Message for $message {}

        $(impl From<$crate::runtime::mailbox::Envelope<$request>> for $message {
            fn from(envelope: $crate::runtime::mailbox::Envelope<$request>) -> Self {
                Self::$variant(envelope)
            }
        })+
    };
}
pub(crate) use receives;

/// What comes through a mailbox.
#[derive(Debug)]
pub(crate) enum Envelope<R> {
    /// A request of another actor, or of an operation.
    Request(R),
    /// The actor fails, for tests of the supervisor.
    Panic,
}

impl<R> Envelope<R> {
    /// The request inside.
    ///
    /// # Panics
    /// The actor was told to fail.
    pub(crate) fn open(self) -> R {
        match self {
            Self::Request(request) => request,
            Self::Panic => panic!("the actor was told to fail"),
        }
    }
}

type Deliver<R> = Box<dyn Fn(Envelope<R>) -> Result<(), Gone> + Send + Sync>;

/// Sends requests to the actor that answers them now. The methods that send one are in [`super::ports`].
pub(crate) struct Mailbox<R>(ArcSwapOption<Deliver<R>>);

impl<R> Default for Mailbox<R> {
    fn default() -> Self {
        Self(ArcSwapOption::empty())
    }
}

impl<R> fmt::Debug for Mailbox<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("filled", &self.0.load().is_some()).finish()
    }
}

impl<R: 'static> Mailbox<R> {
    /// A mailbox of this actor alone, which no successor takes over.
    pub(crate) fn of<M: Message + From<Envelope<R>>>(actor: &ActorRef<M>) -> Self {
        let mailbox = Self::default();
        mailbox.fill(actor);
        mailbox
    }

    /// From now on `actor` gets what is sent.
    pub(crate) fn fill<M: Message + From<Envelope<R>>>(&self, actor: &ActorRef<M>) {
        let actor = actor.clone();
        let deliver = move |envelope: Envelope<R>| actor.send_message(envelope.into()).map_err(|_| Gone);
        self.0.store(Some(std::sync::Arc::new(Box::new(deliver))));
    }

    /// From now on what is sent fails.
    pub(crate) fn empty(&self) {
        self.0.store(None);
    }

    /// Makes the actor panic, for tests of the supervisor.
    pub(crate) fn panic(&self) -> Result<(), Gone> {
        self.deliver(Envelope::Panic)
    }

    fn deliver(&self, envelope: Envelope<R>) -> Result<(), Gone> {
        self.0.load().as_ref().ok_or(Gone)?(envelope)
    }

    /// Sends a request without waiting for an answer.
    pub(super) fn send(&self, request: R) -> Result<(), Gone> {
        self.deliver(Envelope::Request(request))
    }

    /// Sends a request with a reply port and waits for the reply. Cancel safe; the actor may still act.
    pub(super) async fn ask<A>(&self, request: impl FnOnce(oneshot::Sender<A>) -> R) -> Result<A, Gone> {
        let (port, reply) = oneshot::channel();
        self.send(request(port))?;
        reply.await.map_err(|_| Gone)
    }
}
