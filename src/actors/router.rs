//! The router actor: keeps the table of peers in step with membership.
//!
//! Supervised by the node and restarted alone; requests go on meanwhile with the table they have. *In*: new views.
//! *Out*: the published [`PeerStats`]. Everything a request needs is in that snapshot, so no request ever waits here.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::{
    core::router::PeerStats,
    runtime::{
        Shared,
        mailbox::{Envelope, receives},
        ports::router::Request,
    },
};

pub(crate) enum Message {
    /// A request from another actor.
    Asked(Envelope<Request>),
    /// A new view was published.
    MembersChanged,
}

receives!(Message: Asked(Request));

pub(crate) struct Router;

pub(crate) struct State {
    shared: Arc<Shared>,
}

impl Actor for Router {
    type Msg = Message;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(&self, myself: ActorRef<Message>, shared: Arc<Shared>) -> Result<State, ActorProcessingErr> {
        let mut views = shared.lookup.view.subscribe();
        let seeded = PeerStats::default()
            .renewed(shared.lookup.view.load().alive().map(|member| &member.name), Some(shared.context.world.seed()));
        shared.routing.peer_stats.publish(Arc::new(seeded));
        shared.context.spawn(async move {
            while views.changed().await.is_ok() && myself.send_message(Message::MembersChanged).is_ok() {}
        });
        Ok(State { shared })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::MembersChanged => state.renew(),
            Message::Asked(asked) => match asked.open() {},
        }
        Ok(())
    }
}

impl State {
    fn renew(&self) {
        let view = self.shared.lookup.view.load();
        let alive = view.alive().map(|member| &member.name).filter(|name| **name != self.shared.context.name);
        let renewed: PeerStats = self.shared.routing.peer_stats.load().renewed(alive, None);
        self.shared.routing.peer_stats.publish(Arc::new(renewed));
    }
}
