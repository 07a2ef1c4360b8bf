//! A session with etcd: what happens there below `registry/`, told to the actor, which sets the pace.
//!
//! ```text
//!   session: connect -> (list registry/, if the history since the last revision is gone) -> watch from there on
//!            any trouble: connect again, elsewhere
//! ```

use std::{convert::Infallible, sync::Arc, time::Duration};

use ractor::{ActorRef, Message};
use tokio::{
    sync::{Notify, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    EtcdConfig, EtcdError, Layout, RETRY,
    connection::{Connection, Entry},
    list,
};
use crate::key::NodeName;

/// How often a quiet connection has to show that most of etcd still stands behind it.
const PROBE: Duration = Duration::from_secs(3);
/// Pause before a connection is tried of which a write was refused.
const PAUSE: Duration = Duration::from_secs(1);

/// A report, and who waits until it was taken in.
pub(crate) struct Told {
    pub(super) news: News,
    pub(super) taken: oneshot::Sender<()>,
}

/// What a session reports.
pub(super) enum News {
    ListingBegins,
    Listed(Vec<Entry>),
    ListingEnds(i64),
    /// From now on changes are watched, and this may be written to.
    Watching(Connection),
    Changed(Vec<Entry>, i64),
    Broken(EtcdError),
}

/// Sees what happens below `registry/`, and tells the actor, which sets the pace.
pub(super) struct Session<M> {
    me: NodeName,
    etcd: EtcdConfig,
    layout: Layout,
    registry: ActorRef<M>,
    /// Asks for another connection.
    renew: Arc<Notify>,
    /// The etcd cluster and the revision up to which everything was told.
    position: Option<(u64, i64)>,
}

impl<M: Message + From<Told>> Session<M> {
    /// Sees what `me` has to know of, and tells `registry`. `renew` asks for another connection.
    pub(super) fn new(
        me: &NodeName,
        etcd: EtcdConfig,
        layout: Layout,
        registry: ActorRef<M>,
        renew: Arc<Notify>,
    ) -> Self {
        Self { me: me.clone(), etcd, layout, registry, renew, position: None }
    }

    /// Until the actor is gone.
    pub(super) async fn run(mut self) {
        for attempt in 0.. {
            let Err(error) = Box::pin(self.once(attempt)).await;
            if matches!(error, EtcdError::Compacted { .. }) {
                self.position = None;
            }
            if self.tell(News::Broken(error)).await.is_err() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn once(&mut self, attempt: usize) -> Result<Infallible, EtcdError> {
        let (mut connection, cluster, now) = Connection::open(&self.etcd, attempt).await?;
        let from = match self.position {
            // Told again from the last revision on, as it may have come in parts.
            Some((known, revision)) if known == cluster && revision <= now + 1 => revision,
            _ => self.list(&mut connection).await? + 1,
        };
        let mut watch = connection.watch(&self.layout.registry(), from).await?;
        let _ = self.tell(News::Watching(connection.clone())).await;
        let mut probes = interval(PROBE);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.position = Some((cluster, from));
        loop {
            tokio::select! {
                events = watch.next() => {
                    let events = events?;
                    self.position = Some((cluster, events.revision));
                    let _ = self.tell(News::Changed(events.entries, events.revision)).await;
                }
                _ = probes.tick() => drop(connection.probe(&self.etcd).await?),
                () = self.renew.notified() => {
                    // Says itself whether it is the connection that is to blame.
                    tokio::time::sleep(PAUSE).await;
                    connection.probe(&self.etcd).await?;
                    let _ = self.tell(News::Watching(connection.clone())).await;
                }
            }
        }
    }

    /// What all nodes hold, and what is assigned to this one, as of one revision.
    async fn list(&self, connection: &mut Connection) -> Result<i64, EtcdError> {
        let _ = self.tell(News::ListingBegins).await;
        let take = |entries| async {
            let _ = self.tell(News::Listed(entries)).await;
        };
        let revision = list(connection, &self.layout.data(), 0, take).await?;
        list(connection, &self.layout.assignments(&self.me), revision, take).await?;
        let _ = self.tell(News::ListingEnds(revision)).await;
        Ok(revision)
    }

    /// Waits until the actor has taken it in; an error if there is none any more.
    async fn tell(&self, news: News) -> Result<(), oneshot::error::RecvError> {
        let (taken, done) = oneshot::channel();
        let _ = self.registry.send_message(Told { news, taken }.into());
        done.await
    }
}
