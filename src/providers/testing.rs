//! What the tests of several providers share.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{Request, Response};

use crate::{
    key::{Key, NodeName},
    provider::{Body, BoxError, PeerFetch, Provider, UpdateContext, UpdateReason},
};

/// A cluster without a network: peers are other providers in the same process.
pub(crate) struct Peers(BTreeMap<NodeName, Arc<dyn Provider>>);

impl Peers {
    pub(crate) fn new(peers: impl IntoIterator<Item = (&'static str, Arc<dyn Provider>)>) -> Arc<Self> {
        Arc::new(Self(peers.into_iter().map(|(name, peer)| (NodeName::new(name).unwrap(), peer)).collect()))
    }
}

#[async_trait]
impl PeerFetch for Peers {
    async fn fetch(&self, peer: &NodeName, key: &Key, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let provider = self.0.get(peer).ok_or("no such peer")?;
        Ok(provider.export(key, request).await?)
    }
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub(crate) fn alone() -> UpdateContext {
    with_peers(&[], &Peers::new([]))
}

pub(crate) fn with_peers(names: &[&str], peers: &Arc<Peers>) -> UpdateContext {
    let names = names.iter().map(|name| NodeName::new(name).unwrap()).collect();
    UpdateContext::new(UpdateReason::Request, names, Arc::clone(peers) as Arc<dyn PeerFetch>)
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), holds).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}
