//! Measures the free space on this node's disk.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use tracing::{info, warn};

use crate::{core::balancer::DiskPressure, runtime::Shared};

/// How long a provider may take to report the free space.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the provider for the free space, and tells the members if that changes whether this node
/// takes new keys. `turned_away`: an update has just found the disk full. Returns once the node
/// uses the result. Cancel safe.
pub(crate) async fn look(shared: &Arc<Shared>, turned_away: bool) {
    let Some(provider) = &shared.context.provider else { return };
    let asked = AssertUnwindSafe(provider.capacity()).catch_unwind();
    let seen = match tokio::time::timeout(LOOK_TIMEOUT, asked).await {
        Ok(Ok(Ok(seen))) => seen,
        Ok(Ok(Err(error))) => return warn!(%error, "the data source cannot say how much room there is"),
        Ok(Err(_)) => return warn!("the provider panicked when it was asked how much room there is"),
        Err(_) => return warn!("the data source takes long to say how much room there is"),
    };
    let (before, after) = shared.disk.observe(seen, turned_away);
    let (used, total) = seen.map_or((0, 0), |seen| (seen.used, seen.total));
    match (before, after) {
        (DiskPressure::Full, DiskPressure::Full) => return,
        (_, DiskPressure::Full) => warn!(used, total, "the disk is full: no new keys, and what others have too may go"),
        (DiskPressure::Full, _) => info!(used, total, "there is room for new keys again"),
        _ => return,
    }
    shared.ports.membership.load_changed();
}
