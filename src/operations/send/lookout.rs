//! Watches a response that stands still: whether its sender can still be reached.
//!
//! A connection that is cut breaks after its idle timeout, which is longer than a request has to
//! wait that another holder can answer. A body that stands still says nothing by itself, for its
//! origin may be slow; so its sender is asked a short question, soon after what was held back of
//! the body, and then now and then. What must hold: one late answer changes nothing, and no sender
//! is given up while no other node has the key.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::{Sleep, timeout};

use super::holders::holders;
use crate::{
    key::{Key, NodeName},
    net::{CallError, wire::calls::Progress},
    runtime::Shared,
};

/// How long nothing has to come before the first look, and before each further one.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LOOKS: Duration = Duration::from_millis(500);
/// How long the sender has to answer, but at least this number of round trips: QUIC sends a lost
/// packet again after three.
const PATIENCE: Duration = Duration::from_millis(400);
const ROUND_TRIPS: u32 = 4;

/// Asks whether the sender answers, or has to be waited for anyway.
type Probe = Box<dyn Fn() -> BoxFuture<'static, bool> + Send>;

/// Watches one response.
pub(super) struct Lookout {
    probe: Probe,
    pause: Duration,
    /// Until when nothing has to come.
    waiting: Option<Pin<Box<Sleep>>>,
    probing: Option<BoxFuture<'static, bool>>,
    /// Whether the last look found no answer.
    missed: bool,
}

impl Lookout {
    /// Watches a response for `key` that `node` sends, unless that is this node.
    pub(super) fn after(shared: &Arc<Shared>, key: &Key, node: &NodeName) -> Option<Self> {
        let (shared, key, node) = (shared.clone(), key.clone(), node.clone());
        (node != shared.context.name).then(|| {
            Self::new(Box::new(move || {
                let (shared, key, node) = (shared.clone(), key.clone(), node.clone());
                async move { !has_another(&shared, &key, &node) || answers(&shared, &key, &node).await }.boxed()
            }))
        })
    }

    fn new(probe: Probe) -> Self {
        Self { probe, pause: FIRST_LOOK, waiting: None, probing: None, missed: false }
    }

    /// Something came.
    pub(super) fn reset(&mut self) {
        (self.waiting, self.probing, self.missed) = (None, None, false);
    }

    /// Ready when nothing has come for a while and the sender does not answer, asked twice.
    pub(super) fn poll_lost(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(probing) = &mut self.probing {
                let answers = ready!(probing.as_mut().poll(context));
                if answers {
                    self.reset();
                } else if self.missed {
                    self.reset();
                    return Poll::Ready(());
                } else {
                    self.missed = true;
                    self.probing = Some((self.probe)());
                    continue;
                }
            }
            let pause = self.pause;
            let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            ready!(waiting.as_mut().poll(context));
            self.pause = LOOKS;
            self.probing = Some((self.probe)());
        }
    }
}

/// Whether `node` answers the shortest question that there is. Older ones do not know it, and are taken to.
async fn answers(shared: &Arc<Shared>, key: &Key, node: &NodeName) -> bool {
    let patience = PATIENCE.max(shared.context.config.profile.initial_rtt * ROUND_TRIPS);
    let asked = async {
        let Ok(peer) = shared.peers.peer(node).await else { return false };
        match peer.call(Progress { key: key.clone() }, patience).await {
            Ok(_) | Err(CallError::Unknown) => true,
            Err(error) => error.was_answered(),
        }
    };
    timeout(patience, asked).await.unwrap_or(false)
}

/// Whether a live node other than `sender` has `key`.
fn has_another(shared: &Shared, key: &Key, sender: &NodeName) -> bool {
    holders(shared, key).iter().any(|holder| holder != sender)
}

#[cfg(test)]
pub(super) mod testing {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    pub(in crate::operations::send) const PAUSES: [Duration; 2] = [FIRST_LOOK, LOOKS];

    /// The sender answers those of its questions, counted from none, that `answers` says.
    pub(in crate::operations::send) fn answering(answers: impl Fn(usize) -> bool + Send + 'static) -> Option<Lookout> {
        let asked = AtomicUsize::new(0);
        Some(Lookout::new(Box::new(move || {
            let answers = answers(asked.fetch_add(1, Ordering::Relaxed));
            async move { answers }.boxed()
        })))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        config::{NodeConfig, Profile},
        net::identity::{ClusterKey, Credentials},
        node::Node,
        provider::UpdateError,
        providers::Memory,
    };

    #[tokio::test]
    async fn a_sender_that_does_not_answer_is_given_up_only_where_another_node_has_the_key() {
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = NodeConfig { listen, replicas: 1, profile: Profile::local(), ..NodeConfig::default() };
        let memory = Memory::new(|_: Key| async { Ok::<_, UpdateError>(Bytes::from_static(b"value")) });
        let builder = Node::builder(NodeName::new("a").unwrap()).config(config).provider(Arc::new(memory));
        let node = builder.credentials(Credentials::ClusterKey(ClusterKey::generate())).start().await.unwrap();
        let (key, sender) = (Key::new("k").unwrap(), NodeName::new("gone").unwrap());
        let stays = || (Lookout::after(node.shared(), &key, &sender).unwrap().probe)();
        assert!(stays().await, "nobody else has it");
        node.client().update(&key).await.unwrap();
        assert!(!stays().await, "this node has it too");
    }
}
