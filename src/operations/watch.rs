//! Tells observers what this member sees of the others: the serving half of the observer.

use std::{collections::VecDeque, sync::Arc};

use futures::{StreamExt, stream::BoxStream};

use super::followed::Told;
use crate::{net::wire::MemberNews, runtime::Shared};

/// All that `shared` sees of the members, and then what changes, at most once a round of gossip. `None` if too many follow.
pub(crate) fn watch(shared: &Arc<Shared>) -> Option<BoxStream<'static, MemberNews>> {
    let place = shared.gossip.watchers.admit()?;
    let mut changes = shared.gossip.sightings.subscribe();
    changes.mark_changed();
    let start = (shared.clone(), changes, Told::default(), VecDeque::new(), place);
    let news = futures::stream::unfold(start, |(shared, mut changes, mut told, mut parts, place)| async move {
        loop {
            if let Some(part) = parts.pop_front() {
                return Some((part, (shared, changes, told, parts, place)));
            }
            changes.changed().await.ok()?;
            if told != Told::default() {
                // Changes within one round are sent together.
                tokio::time::sleep(shared.context.config.profile.gossip_interval).await;
            }
            parts = told.news(&shared.gossip.sightings.snapshot()).into();
        }
    });
    Some(news.boxed())
}
