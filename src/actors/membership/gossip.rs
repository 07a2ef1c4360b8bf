//! chitchat's messages on our QUIC streams.
//!
//! chitchat believes it has a datagram socket: sending never waits and may lose, receiving never
//! fails. An error from `recv` would end its loop for good, so bad messages are dropped here. Their
//! size was limited when they were read, and [`super::identities`] keeps chitchat's answers below
//! chitchat's limit.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::{
    ChitchatMessage, Deserializable, Serializable,
    transport::{Socket, Transport},
};
use tokio::{
    sync::{Mutex, mpsc},
    time::Instant,
};
use tracing::{debug, error};

use super::identities::Identities;
use crate::net::{Net, wire::GOSSIP_BYTES_MAX};

/// Messages that wait to be read; the oldest information is replaced by the next round anyway.
const INBOX_MAX: usize = 256;

/// A message and the address of its sender.
pub(crate) type Gossip = (SocketAddr, Bytes);

/// The queue from which chitchat takes received gossip.
pub(crate) fn gossip_channel() -> (mpsc::Sender<Gossip>, mpsc::Receiver<Gossip>) {
    mpsc::channel(INBOX_MAX)
}

/// Opens the one socket that chitchat asks for.
pub(super) struct QuicTransport {
    net: Arc<Net>,
    parts: Mutex<Option<(mpsc::Receiver<Gossip>, Identities)>>,
}

impl QuicTransport {
    pub(super) fn new(net: Arc<Net>, inbox: mpsc::Receiver<Gossip>, identities: Identities) -> Self {
        Self { net, parts: Mutex::new(Some((inbox, identities))) }
    }
}

#[async_trait]
impl Transport for QuicTransport {
    async fn open(&self, _listen_addr: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let parts = self.parts.lock().await.take();
        let (inbox, identities) = parts.ok_or_else(|| anyhow::anyhow!("the transport opens once"))?;
        Ok(Box::new(QuicSocket { net: self.net.clone(), inbox, identities, origin: Instant::now() }))
    }
}

struct QuicSocket {
    net: Arc<Net>,
    inbox: mpsc::Receiver<Gossip>,
    identities: Identities,
    origin: Instant,
}

#[async_trait]
impl Socket for QuicSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let mut bytes = Vec::with_capacity(message.serialized_len());
        message.serialize(&mut bytes);
        if bytes.len() > GOSSIP_BYTES_MAX {
            error!(bytes = bytes.len(), "a gossip message is over its limit and not sent");
            return Ok(());
        }
        self.net.gossip(to, bytes.into());
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            // The other end closes only when the node stops; there is nothing to report then.
            let Some((from, bytes)) = self.inbox.recv().await else { return std::future::pending().await };
            let Some(sifted) = self.identities.sift(self.origin.elapsed(), from, &bytes) else {
                debug!(%from, "malformed gossip dropped");
                continue;
            };
            match ChitchatMessage::deserialize(&mut sifted.as_slice()) {
                Ok(message) => return Ok((from, message)),
                Err(error) => debug!(%from, %error, "malformed gossip dropped"),
            }
        }
    }
}
