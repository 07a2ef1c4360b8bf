//! What others ask of membership.

use tokio::sync::oneshot;

use crate::{
    core::membership::{AdvertisedState, GoneMembers, RemoveError},
    key::NodeName,
    runtime::mailbox::{Gone, Mailbox},
};

pub(crate) enum Request {
    /// This node changes what it says of itself.
    Announce(AdvertisedState),
    /// Whether this node takes new keys, or which keys are hot here, may have changed.
    LoadChanged,
    /// What does this node remember of the members that are gone?
    TellGone(oneshot::Sender<GoneMembers>),
    /// A member that is gone comes off the list, here and everywhere.
    Remove { name: NodeName, reply: oneshot::Sender<Result<(), RemoveError>> },
    /// This node announces its end, for good or until soon. The reply comes when others had a chance to hear it.
    Leave { goodbye: AdvertisedState, reply: oneshot::Sender<()> },
}

impl Mailbox<Request> {
    /// Announces a state, unless a later one was announced before.
    ///
    /// # Errors
    /// Membership is not there (yet); the state is not announced.
    pub(crate) fn announce(&self, state: AdvertisedState) -> Result<(), Gone> {
        self.send(Request::Announce(state))
    }

    /// Says that whether this node takes new keys, or which keys are hot here, may have changed.
    pub(crate) fn load_changed(&self) {
        let _ = self.send(Request::LoadChanged);
    }

    /// What this node remembers of the members that are gone.
    pub(crate) async fn gone_list(&self) -> Result<GoneMembers, Gone> {
        self.ask(Request::TellGone).await
    }

    /// Takes a member that is gone off the list, here and, through gossip, everywhere.
    pub(crate) async fn remove(&self, name: NodeName) -> Result<Result<(), RemoveError>, Gone> {
        self.ask(|reply| Request::Remove { name, reply }).await
    }

    /// Announces the end of this node, and returns when others had a chance to hear it.
    pub(crate) async fn leave(&self, goodbye: AdvertisedState) -> Result<(), Gone> {
        self.ask(|reply| Request::Leave { goodbye, reply }).await
    }
}
