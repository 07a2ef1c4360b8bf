//! What this node answers to its peers. Every request is answered from this machine alone and never passed on, except
//! that a call to ensure a key may take a bounded number of hops to the node that leads, and that a peer may have a request
//! passed on, once, to a node that it cannot reach.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{Request, Response};

use crate::{
    core::{catalog::HlcTimestamp, updater::Origin},
    key::{Key, NodeName},
    net::{
        Peer, PeerService,
        wire::{
            Call, Delta, Ensured, Hello, HelloRefusal, MemberNews, NodeRequest, Position, Purpose, REVISION_OUTDATED,
            Record, Rejection, Reply, RequestHead, calls,
        },
    },
    operations::watch::watch,
    operations::{
        GuardedBody,
        drain::{Drained, drain},
        ensure::{Wanted, ensure},
        explain::insight,
        pull::feed,
        send::pass_on,
        serve::{report_trouble, serve_local, serve_part},
        update::refresh,
    },
    provider::{self, Body, UpdateReason},
    runtime::Shared,
};

pub(crate) struct PeerServer(pub(crate) Arc<Shared>);

#[async_trait]
impl PeerService for PeerServer {
    /// A name that a live node has at another address is taken, and an older start of a known node is too late. An observer
    /// is known by its connections alone.
    fn admit(&self, hello: &Hello, connected: Option<SocketAddr>) -> Result<(), HelloRefusal> {
        let view = self.0.lookup.view.load();
        let Some(known) = view.member(&hello.name) else {
            let taken = |at| HelloRefusal::NameInUse { name: hello.name.clone(), at };
            return connected.map_or(Ok(()), |at| Err(taken(at)));
        };
        if known.state.is_alive() && known.address != hello.advertise && known.incarnation != hello.incarnation {
            return Err(HelloRefusal::NameInUse { name: hello.name.clone(), at: known.address });
        }
        if hello.incarnation < known.incarnation {
            let (name, incarnation) = (hello.name.clone(), known.incarnation);
            return Err(match hello.revision {
                REVISION_OUTDATED.. => HelloRefusal::Outdated { name, incarnation },
                _ => HelloRefusal::Stale { name },
            });
        }
        Ok(())
    }

    fn gossip(&self, from: SocketAddr, message: Bytes) {
        if let Some(inbox) = &*self.0.gossip.inbox.load() {
            // Full: the next round brings it again.
            let _ = inbox.try_send((from, message));
        }
    }

    async fn call(&self, from: &Peer, call: Call) -> Reply {
        let shared = &self.0;
        match call {
            Call::Ensure(calls::Ensure { key, patience_ms, hops, ring }) => {
                let wanted = Wanted { hops, ..Wanted::for_request(&key, patience_ms) };
                calls::Ensure::respond(ensured(shared, from, &wanted, ring).await)
            }
            Call::Create(calls::Create { key, patience_ms, hops, ring }) => {
                let wanted = Wanted { hops, origin: Origin::Afresh, ..Wanted::for_request(&key, patience_ms) };
                calls::Create::respond(ensured(shared, from, &wanted, ring).await)
            }
            Call::Explain(calls::Explain { key }) => {
                let insight = insight(shared, &key).await.map_err(|_| Rejection::Stopping);
                calls::Explain::respond(insight.map(|insight| Box::new(insight.into())))
            }
            Call::Refresh(calls::Refresh { key, from: sources, patience_ms }) => {
                let patience = Duration::from_millis(patience_ms.into());
                calls::Refresh::respond(refresh(shared, key, sources, patience).await)
            }
            Call::Pull(calls::Pull { node, position }) => {
                let delta = shared.ports.ledgers.delta_since(Some(node), position).await;
                calls::Pull::respond(delta.map(|delta| delta.map(Box::new)).map_err(|_| Rejection::Stopping))
            }
            Call::Intend(calls::Intend { records }) => calls::Intend::respond(intend(shared, records).await),
            Call::PullCatalog(calls::PullCatalog { after }) => {
                let page = shared.ports.catalog.page_after(after).await;
                calls::PullCatalog::respond(page.map(Box::new).map_err(|_| Rejection::Stopping))
            }
            Call::Drain(calls::Drain { force, patience_ms }) => {
                let Drained { left, remaining, keys, .. } =
                    drain(shared, force, Duration::from_millis(patience_ms.into())).await;
                calls::Drain::respond(Ok(calls::Drained { left, remaining, keys }))
            }
            Call::Copy(calls::KeepCopy { key }) => calls::KeepCopy::respond(copy(shared, key).await),
            Call::Progress(calls::Progress { key }) => {
                calls::Progress::respond(Ok(shared.routing.underway.bytes(&key)))
            }
            Call::PullGone(calls::PullGone) => {
                let told = shared.ports.membership.gone_list().await;
                calls::PullGone::respond(told.map_err(|_| Rejection::Stopping))
            }
            Call::Vouch(calls::Vouch { keys, .. }) => {
                tracing::debug!(from = %from.name, keys = keys.len(), "asked to vouch");
                let asked = keys.clone();
                calls::Vouch::respond(match shared.ports.balancer.vouch(keys).await {
                    Ok(vouched) => Ok(without_lost(shared, &asked, vouched).await),
                    Err(_) => Err(Rejection::Stopping),
                })
            }
        }
    }

    fn feed(&self, _from: &NodeName, position: Position) -> BoxStream<'static, Delta> {
        feed(self.0.clone(), position)
    }

    fn watch(&self, _from: &NodeName) -> Option<BoxStream<'static, MemberNews>> {
        watch(&self.0)
    }

    async fn exchange(
        &self,
        from: &NodeName,
        head: RequestHead,
        request: Request<Body>,
    ) -> Result<Response<Body>, Rejection> {
        let room = match head.purpose {
            Purpose::Serve | Purpose::Relay { .. } => &self.0.admission.requests,
            Purpose::Part => &self.0.admission.parts,
            Purpose::Export => &self.0.admission.exports,
        };
        let Some(place) = room.admit(from) else { return Err(Rejection::Overloaded) };
        let answer = match &head.purpose {
            Purpose::Relay { to } if *to != self.0.context.name => pass_on(&self.0, to, &head.key, request).await,
            Purpose::Part => serve_part(&self.0, &head.key, request).await,
            purpose => self.serve(&head.key, purpose, request).await,
        };
        Ok(answer?.map(|body| provider::body(GuardedBody::new(body, place))))
    }
}

impl PeerServer {
    /// The local provider's answer. Corrects this node's own claim if there is none.
    async fn serve(&self, key: &Key, purpose: &Purpose, request: Request<Body>) -> Result<Response<Body>, Rejection> {
        let patience = self.0.context.config.request_patience;
        let answer = tokio::time::timeout(patience, serve_local(&self.0, key, purpose, request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Rejection::Failed(format!("no answer within {patience:?}"))));
        if let Err(refusal) = &answer {
            report_trouble(&self.0, key, refusal).await;
        }
        answer
    }
}

/// Sees to what `peer` wants of a key, which it asked for with `ring` in mind.
async fn ensured(shared: &Arc<Shared>, peer: &Peer, wanted: &Wanted<'_>, ring: u64) -> Result<Ensured, Rejection> {
    let ensured = ensure(shared, wanted).await;
    if let Err(Rejection::Elsewhere { ring: known }) = &ensured {
        let key = wanted.key;
        tracing::debug!(from = %peer.name, %key, theirs = ring, ours = known, "asked for what is neither here nor ours");
    }
    ensured
}

/// Copies a key from its only holder, which is about to be away. It is surplus when that one is back.
async fn copy(shared: &Arc<Shared>, key: Key) -> Result<Ensured, Rejection> {
    if shared.lifecycle.is_on_its_way_out() || !shared.disk.accepts() {
        return Err(Rejection::Overloaded);
    }
    shared.ports.updater.ensure(key, Origin::Never, UpdateReason::Repair).await.map_err(|_| Rejection::Stopping)
}

/// Writes intents of a peer down. Returns the time of a later intent for the same key, if this node
/// knows one.
async fn intend(shared: &Shared, records: Vec<Record>) -> Result<Option<HlcTimestamp>, Rejection> {
    let _permit = shared.admission.intents.try_acquire().map_err(|_| Rejection::Overloaded)?;
    shared.ports.catalog.take(records).await.map_err(|_| Rejection::Stopping)?.map_err(Rejection::Failed)
}

/// Takes back the word for keys whose data is gone from this machine, although the ledger says
/// otherwise: a peer is about to drop a replica because of it.
async fn without_lost(shared: &Arc<Shared>, keys: &[Key], mut vouched: Vec<bool>) -> Vec<bool> {
    let Some(provider) = &shared.context.provider else { return vec![false; vouched.len()] };
    for (key, word) in keys.iter().zip(&mut vouched).filter(|(_, word)| **word) {
        // A node whose provider cannot say does not vouch either.
        match provider.has(key).await {
            Ok(true) => {}
            Ok(false) => {
                *word = false;
                report_trouble(shared, key, &Rejection::NotHeld).await;
            }
            Err(_) => *word = false,
        }
    }
    vouched
}
