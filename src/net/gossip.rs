//! Gossip messages on their way out: each is a stream of its own, and may be lost.

use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;

use super::endpoint::Net;
use crate::util::codec;

/// A gossip message that is not through by then is worth nothing.
const GOSSIP_TIMEOUT: Duration = Duration::from_secs(1);

impl Net {
    /// Sends a gossip message to `address`, or drops it. Never blocks.
    pub(crate) fn gossip(self: &Arc<Self>, address: SocketAddr, message: Bytes) {
        let Ok(permit) = self.gossip_in_flight.clone().try_acquire_owned() else {
            return;
        };
        self.gossip_messages.fetch_add(1, Ordering::Relaxed);
        self.gossip_bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
        self.gossip_largest.fetch_max(message.len() as u64, Ordering::Relaxed);
        let net = self.clone();
        self.tasks.spawn(async move {
            let _permit = permit;
            let sent = async {
                let peer = net.peer(address, None).await.ok()?;
                let mut stream = peer.connection.open_uni().await.ok()?;
                codec::write(&mut stream, message).await.ok()?;
                stream.finish().ok()
            };
            tokio::select! {
                _ = tokio::time::timeout(GOSSIP_TIMEOUT, sent) => {}
                () = net.stop.cancelled() => {}
            }
        });
    }
}
