//! Looking after a response of which nothing comes: whether its sender can still be reached.
//!
//! A connection that is cut breaks after its idle timeout, which is longer than a request has to wait that another holder can
//! answer. A body that stands still says nothing by itself, for its origin may be slow; so its sender is asked a short question,
//! soon after what was held back of the body, and then now and then.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::{Sleep, timeout};

use crate::{
    key::{Key, NodeName},
    net::wire::{Call, REVISION_RELAY},
    node::Shared,
};

/// How long nothing has to come before the first look, and before each further one.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LOOKS: Duration = Duration::from_millis(500);
/// How long the sender has to answer. With what is held back of a response, and the first look, that makes a second.
const PATIENCE: Duration = Duration::from_millis(400);

/// Asks whether the sender answers.
type Probe = Box<dyn Fn() -> BoxFuture<'static, bool> + Send>;

/// Looks after one response.
pub(super) struct Lookout {
    probe: Probe,
    pause: Duration,
    /// Until when nothing has to come.
    waiting: Option<Pin<Box<Sleep>>>,
    probing: Option<BoxFuture<'static, bool>>,
}

impl Lookout {
    /// Looks after a response for `key` that `node` sends; not if that is this node.
    pub(super) fn after(shared: &Arc<Shared>, key: &Key, node: &NodeName) -> Option<Self> {
        let (shared, key, node) = (shared.clone(), key.clone(), node.clone());
        (node != shared.name).then(|| {
            Self::new(Box::new(move || {
                let (shared, key, node) = (shared.clone(), key.clone(), node.clone());
                async move { timeout(PATIENCE, answers(&shared, &key, &node)).await.unwrap_or(false) }.boxed()
            }))
        })
    }

    fn new(probe: Probe) -> Self {
        Self { probe, pause: FIRST_LOOK, waiting: None, probing: None }
    }

    /// Something came.
    pub(super) fn reset(&mut self) {
        (self.waiting, self.probing) = (None, None);
    }

    /// Ready when nothing has come for a while and the sender does not answer.
    pub(super) fn poll_lost(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(probing) = &mut self.probing {
                let answers = ready!(probing.as_mut().poll(context));
                self.reset();
                if !answers {
                    return Poll::Ready(());
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
    let Ok(peer) = shared.peer(node).await else { return false };
    peer.revision < REVISION_RELAY || peer.call(Call::Progress { key: key.clone() }, PATIENCE).await.is_ok()
}

#[cfg(test)]
pub(super) mod testing {
    use std::sync::Mutex;

    use super::*;

    pub(in crate::router) const PAUSES: [Duration; 2] = [FIRST_LOOK, LOOKS];

    /// The sender answers so often, and then not.
    pub(in crate::router) fn answering(times: usize) -> Option<Lookout> {
        let left = Mutex::new(times);
        Some(Lookout::new(Box::new(move || {
            let mut left = left.lock().unwrap();
            let answers = *left > 0;
            *left = left.saturating_sub(1);
            async move { answers }.boxed()
        })))
    }
}
