//! Tells observers what this member sees of the others: the serving half of [`super::observer`].

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{StreamExt, stream::BoxStream};

use super::followed::Told;
use crate::{net::wire::MemberNews, node::Shared};

/// Observers that may follow one member: ten thousand, and those of a neighbour that has just died.
const WATCHERS_MAX: usize = 20_000;

/// How many observers follow this node.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Arc<AtomicUsize>);

impl Watchers {
    /// How many there are now.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn admit(&self) -> Option<Place> {
        let admitted = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < WATCHERS_MAX).then_some(count + 1));
        admitted.ok().map(|_| Place(self.0.clone()))
    }
}

/// One observer's place, for as long as it follows.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All that `shared` sees of the members, and then what changes, at most once a round of gossip. `None` if too many follow.
pub(crate) fn watch(shared: &Arc<Shared>) -> Option<BoxStream<'static, MemberNews>> {
    let place = shared.watchers.admit()?;
    let mut changes = shared.sightings.subscribe();
    changes.mark_changed();
    let start = (shared.clone(), changes, Told::default(), VecDeque::new(), place);
    let news = futures::stream::unfold(start, |(shared, mut changes, mut told, mut parts, place)| async move {
        loop {
            if let Some(part) = parts.pop_front() {
                return Some((part, (shared, changes, told, parts, place)));
            }
            changes.changed().await.ok()?;
            if told != Told::default() {
                // What changes within a round is told together.
                tokio::time::sleep(shared.config.profile.gossip_interval).await;
            }
            parts = told.news(&shared.sightings.snapshot()).into();
        }
    });
    Some(news.boxed())
}
