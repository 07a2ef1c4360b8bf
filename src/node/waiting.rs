//! Waiting until a node serves, and until it is part of its cluster.

use std::time::Duration;

use tokio::time::Instant;

use super::Node;
use crate::{
    core::membership::{Member, MemberState, View},
    net::wire::HelloRefusal,
    wiring::StartError,
};

/// How long a node whose name is in use waits for its namesake to go: longer than nodes take to
/// notice that the namesake died.
const NAME_PATIENCE: Duration = Duration::from_secs(10);

impl Node {
    /// Waits until this node has announced that it serves, unless other nodes say that its name is
    /// taken. Cancel safe.
    ///
    /// # Errors
    /// [`StartError::NameInUse`], [`StartError::ServesOther`], or the node ended; shut it down or drop it.
    pub async fn serving(&self) -> Result<(), StartError> {
        let me = &self.0.shared.context.name;
        let mut refusals = self.0.shared.peers.net.refusals();
        let mut refused_since = None;
        loop {
            let refusal = refusals.borrow_and_update().clone();
            match refusal {
                Some(HelloRefusal::NameInUse { .. }) => {
                    let since = *refused_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= NAME_PATIENCE {
                        let refusal = refusal.map(|refusal| refusal.to_string()).unwrap_or_default();
                        return Err(StartError::NameInUse(refusal));
                    }
                }
                _ => refused_since = None,
            }
            let serving = self
                .0
                .shared
                .lookup
                .view
                .wait_for(|view| view.member(me).is_some_and(|member| member.state == MemberState::Serving));
            tokio::select! {
                _ = serving, if refused_since.is_none() => {
                    // A round of gossip later the other nodes know it too, so that a caller that
                    // waited for this node finds a cluster that agrees about it.
                    tokio::time::sleep(self.0.shared.context.config.profile.gossip_interval).await;
                    return Ok(());
                }
                others = self.others_serve_something_else() => return Err(StartError::ServesOther(others)),
                _ = refusals.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(100)), if refused_since.is_some() => {}
                reason = self.failed() => return Err(StartError::Actor(reason.to_string())),
            }
        }
    }

    /// Pending, unless this node is about to join members that serve another kind of data.
    async fn others_serve_something_else(&self) -> String {
        let me = &self.0.shared.context.name;
        let others = |view: &View| -> Vec<String> {
            let joins = view.member(me).is_none_or(|me| me.state == MemberState::Joining);
            let stranger = |member: &&Member| joins && member.serves_other && member.state != MemberState::Joining;
            view.alive().filter(stranger).map(|member| member.name.to_string()).collect()
        };
        let view = self.0.shared.lookup.view.wait_for(|view| !others(view).is_empty()).await;
        let kind = self.0.shared.context.provider.as_ref().and_then(|provider| provider.kind()).unwrap_or_default();
        format!(
            "this node serves {kind}, and {} something else: all nodes of a cluster have data sources of one kind, with the \
             same key depth; give this node the same, or the key of another cluster",
            others(&view).join(", ")
        )
    }

    /// Waits until this node is part of its cluster: it has met another member if it names seeds,
    /// and as many members as `expect_members` says. A node that reaches no other member serves
    /// what it has and waits here; [`Client::status`](crate::Client::status) says what for. Returns
    /// at once for a first node. Cancel safe.
    ///
    /// # Errors
    /// The node ended; shut it down or drop it.
    pub async fn joined(&self) -> Result<(), StartError> {
        let mut joined = self.0.shared.lifecycle.joined();
        tokio::select! {
            _ = joined.wait_for(|joined| *joined) => Ok(()),
            reason = self.failed() => Err(StartError::Actor(reason.to_string())),
        }
    }
}
