//! The number that grows with every start of a node of one name.
//!
//! It is at least the wall clock in milliseconds, so that a node that lost its disk still comes after its former self,
//! and at least one more than the last one on disk, so that a clock that was set back does no harm. If both happened,
//! others refuse the node and say what they know, and it begins anew after that.

use std::{io::ErrorKind, sync::atomic::Ordering};

use bytes::Bytes;
use tracing::warn;

use crate::{runtime::Shared, world::World};

const RECORD: &str = "incarnation";

/// The incarnation of this start, written down before it is used.
pub(crate) async fn next(world: &dyn World) -> std::io::Result<u64> {
    next_after(world, 0).await
}

async fn next_after(world: &dyn World, last: u64) -> std::io::Result<u64> {
    let Some(disk) = world.disk() else { return Ok(world.unix_ms().max(last + 1)) };
    let written = disk.read(RECORD).await?.and_then(|bytes| parse(&bytes)).unwrap_or(0);
    let (now, after) = (world.unix_ms(), written.max(last) + 1);
    let next = now.max(after);
    match disk.replace(RECORD, Bytes::from(next.to_string())).await {
        // A node has to be able to start on a full disk, and the clock keeps the order while it is ahead of the record.
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) && now > after => {
            warn!(%error, "cannot write the incarnation down; the clock alone keeps the order");
        }
        outcome => outcome?,
    }
    Ok(next)
}

/// The incarnation after `current`, for a node that begins anew in the same process. A disk that fails here is no
/// reason to stay down: the clock alone keeps the order unless it is set back before the next start.
pub(crate) async fn after(shared: &Shared, current: u64) -> u64 {
    let last = current.max(shared.lifecycle.known_incarnation.load(Ordering::Acquire));
    match next_after(&*shared.context.world, last).await {
        Ok(next) => next,
        Err(error) => {
            warn!(%error, "cannot write the incarnation down");
            shared.context.world.unix_ms().max(last + 1)
        }
    }
}

fn parse(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{durable::testing::SmallDisk, world::Machine};

    #[tokio::test]
    async fn every_start_comes_after_the_last_even_if_the_clock_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let world = Machine::with_folder(folder.path());
        let first = next(&world).await.unwrap();
        assert!(next(&world).await.unwrap() > first);
        let far = (u64::MAX / 2).to_string();
        world.disk().unwrap().replace(RECORD, far.clone().into()).await.unwrap();
        assert_eq!(next(&world).await.unwrap(), far.parse::<u64>().unwrap() + 1);
    }

    #[tokio::test]
    async fn a_node_starts_on_a_full_disk_unless_its_clock_is_behind_its_record() {
        let Some(disk) = SmallDisk::mount(64) else { return };
        let world = Machine::with_folder(disk.path());
        let first = next(&world).await.unwrap();
        let far = (u64::MAX / 2).to_string();
        disk.fill_up_to(0);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        assert!(next(&world).await.unwrap() > first);
        disk.make_room();
        world.disk().unwrap().replace(RECORD, far.into()).await.unwrap();
        disk.fill_up_to(0);
        assert_eq!(next(&world).await.unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
