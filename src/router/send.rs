//! One request, from the first attempt to an answer.
//!
//! Local holder first; then the better of two; where a request may be sent twice, a second holder joins in when the
//! first takes unusually long (Dean and Barroso, "The tail at scale", 2013) or fails. If nobody holds the key, somebody
//! is made to. What must hold: no node is tried twice for one request, except to resume a broken response; no request
//! outlives its deadline; whatever a provider published as an answer is passed on as it is, whatever its status.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::{Request, Response, request::Parts};
use tokio::time::Instant;
use tracing::debug;

use super::{
    body::{Refetch, Replay, Resumable, hold_back},
    ensure::{HOPS, RETRY, ensure},
    pace::Paced,
    serve::{report_trouble, serve_local},
};
use crate::{
    key::{Key, NodeName},
    net::{
        ExchangeError,
        wire::{Ensured, Purpose, Refusal},
    },
    node::Shared,
    provider::{self, Body, BoxError, PeerFetch, UpdateReason},
    registry::HolderState,
};

/// How often one request may make the cluster look for a holder: once for a cold key, once more if that one failed.
const ENSURES_MAX: u8 = 2;

/// What one node answered.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attempt {
    /// The node.
    pub node: NodeName,
    /// Why it gave no response.
    pub error: AttemptError,
}

/// Why a node gave no response.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AttemptError {
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(String),
    /// It has dropped the key since it last said that it had it.
    #[error("it does not hold the key")]
    NotHeld,
    /// It said that it cannot.
    #[error("{0}")]
    Refused(String),
    /// It did not answer by the deadline.
    #[error("no answer in time")]
    Timeout,
    /// The fetch that it was to do failed.
    #[error("fetching failed: {0}")]
    FetchFailed(String),
}

/// Why a request has no response. The cluster is unchanged unless the variant says otherwise.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The origin has no such key. Known for a while without asking again.
    #[error("there is no key {key}")]
    NotFound {
        /// The key.
        key: Key,
    },
    /// The operator does not let this key be fetched. A retry does not help.
    #[error("the key {key} may not be fetched: {reason}")]
    Forbidden {
        /// The key.
        key: Key,
        /// The rule.
        reason: String,
    },
    /// Every node that could answer failed. A retry may help.
    #[error("no node could answer for {key}: {}", list(attempts))]
    Failed {
        /// The key.
        key: Key,
        /// What each of them answered.
        attempts: Vec<Attempt>,
        /// When to ask again.
        retry_after: Duration,
    },
    /// Still being fetched; the fetch goes on. A retry will find it further.
    #[error("{key} is still being fetched after {waited:?}")]
    Pending {
        /// The key.
        key: Key,
        /// How long the request waited.
        waited: Duration,
    },
    /// The request's own body failed, so it was not sent or not sent to its end.
    #[error("the request could not be read: {0}")]
    Request(String),
}

impl From<Refusal> for AttemptError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotHeld => Self::NotHeld,
            other => Self::Refused(other.to_string()),
        }
    }
}

fn list(attempts: &[Attempt]) -> String {
    if attempts.is_empty() {
        return "no live node keeps keys".into();
    }
    let each = attempts.iter().map(|attempt| format!("{}: {}", attempt.node, attempt.error));
    each.collect::<Vec<_>>().join("; ")
}

/// A response and the node that gave it, as an extension of the response.
#[derive(Debug, Clone)]
pub(crate) struct AnsweredBy {
    pub(crate) node: NodeName,
    /// Whether the key had to be fetched for this request.
    pub(crate) fetched: bool,
}

/// Sends `request` for `key` to whoever can answer it.
///
/// Dropping the future cancels what is under way on other nodes, but not the fetch of a cold key.
pub(crate) async fn route(
    shared: &Arc<Shared>,
    key: &Key,
    request: Request<Body>,
) -> Result<Response<Body>, RouteError> {
    send(shared.clone(), key.clone(), request, None).await
}

/// `broke_off`: who did not send its response to the end, if `request` is for the rest of that.
fn send(
    shared: Arc<Shared>,
    key: Key,
    request: Request<Body>,
    broke_off: Option<NodeName>,
) -> BoxFuture<'static, Result<Response<Body>, RouteError>> {
    async move {
        let (parts, body) = request.into_parts();
        let repeatable = match &shared.provider {
            Some(provider) => provider.is_idempotent(&parts),
            None => parts.method.is_idempotent(),
        };
        let started = Instant::now();
        let deadline = started + shared.config.request_patience;
        let body = match tokio::time::timeout_at(deadline, Replay::new(body, repeatable)).await {
            Ok(body) => body.map_err(|error| RouteError::Request(error.to_string()))?,
            Err(_) => return Err(RouteError::Request(format!("it did not end within {:?}", started.elapsed()))),
        };
        shared.retry_budget.deposit();
        let course = Course {
            shared,
            key,
            parts,
            body,
            repeatable,
            started,
            deadline,
            is_rest: broke_off.is_some(),
            tried: broke_off.into_iter().collect(),
            failed: Vec::new(),
            ensures: 0,
        };
        course.run().await
    }
    .boxed()
}

/// The state of one request on its way.
struct Course {
    shared: Arc<Shared>,
    key: Key,
    parts: Parts,
    body: Replay,
    repeatable: bool,
    /// Whether it asks for the rest of a response.
    is_rest: bool,
    started: Instant,
    deadline: Instant,
    tried: Vec<NodeName>,
    failed: Vec<Attempt>,
    ensures: u8,
}

type Outcome = (NodeName, Result<Response<Body>, AttemptError>);

impl Course {
    async fn run(mut self) -> Result<Response<Body>, RouteError> {
        loop {
            let candidates = self.candidates();
            let candidates = if candidates.is_empty() { self.find_holders().await? } else { candidates };
            if candidates.is_empty() {
                return Err(self.exhausted());
            }
            if let Some((node, response)) = self.attempt(candidates).await? {
                return Ok(self.conclude(node, response));
            }
        }
    }

    /// Holders that were not tried yet, in the order in which to try them: this node first.
    fn candidates(&self) -> Vec<NodeName> {
        if self.spent() >= self.shared.config.attempts {
            return Vec::new();
        }
        let has_it = |state: &HolderState| matches!(state, HolderState::Ready | HolderState::Presumed);
        let holders = self.shared.live_holders(&self.key).into_iter();
        let mut names: Vec<NodeName> =
            holders.filter(|(name, state)| has_it(state) && !self.tried.contains(name)).map(|(name, _)| name).collect();
        if names.contains(&self.shared.name) {
            names.retain(|name| *name != self.shared.name);
            let mut order = vec![self.shared.name.clone()];
            order.extend(self.rank(names));
            return order;
        }
        self.rank(names)
    }

    /// Attempts that count. A holder that has let the key go has said so at once, and more than one may have: a key that
    /// is forgotten while somebody asks for it is fetched anew.
    fn spent(&self) -> usize {
        self.failed.iter().filter(|attempt| !matches!(attempt.error, AttemptError::NotHeld)).count()
    }

    fn rank(&self, names: Vec<NodeName>) -> Vec<NodeName> {
        self.shared.routes.load().ranked(names, self.shared.uptime())
    }

    /// Nobody (else) has it: make somebody have it.
    async fn find_holders(&mut self) -> Result<Vec<NodeName>, RouteError> {
        let no_more = self.ensures >= ENSURES_MAX || self.spent() >= self.shared.config.attempts;
        if no_more || (!self.body.can_repeat() && !self.tried.is_empty()) {
            return Ok(Vec::new());
        }
        self.ensures += 1;
        let key = self.key.clone();
        loop {
            match ensure(&self.shared, &key, self.deadline, HOPS, &self.tried).await {
                Ok(Ensured::Ready(nodes)) => {
                    let silent = self.unreachable();
                    let usable: Vec<NodeName> = nodes.into_iter().filter(|node| !silent.contains(node)).collect();
                    if !usable.is_empty() {
                        // They have just said that they have it, whatever they said before.
                        self.tried.retain(|node| !usable.contains(node));
                        return Ok(usable);
                    }
                }
                Ok(Ensured::NotFound) => return Err(RouteError::NotFound { key }),
                Ok(Ensured::Forbidden(reason)) => return Err(RouteError::Forbidden { key, reason }),
                Ok(Ensured::Failed { node, reason, retry_after_ms }) => {
                    self.failed.push(Attempt { node, error: AttemptError::FetchFailed(reason) });
                    let attempts = std::mem::take(&mut self.failed);
                    let retry_after = Duration::from_millis(retry_after_ms.into());
                    return Err(RouteError::Failed { key, attempts, retry_after });
                }
                Ok(Ensured::Pending) => return Err(RouteError::Pending { key, waited: self.started.elapsed() }),
                Err(_) => {}
            }
            // The only holders are dead, but not everybody knows it yet: in a moment somebody else will lead.
            if Instant::now() + RETRY >= self.deadline {
                return Ok(Vec::new());
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The nodes that did not answer this request at all.
    fn unreachable(&self) -> Vec<NodeName> {
        let silent = |attempt: &&Attempt| matches!(attempt.error, AttemptError::Unreachable(_));
        self.failed.iter().filter(silent).map(|attempt| attempt.node.clone()).collect()
    }

    fn exhausted(self) -> RouteError {
        RouteError::Failed { key: self.key, attempts: self.failed, retry_after: Duration::from_secs(1) }
    }

    /// Tries `candidates` until one gives a response. `None` if all failed and others may be looked for.
    async fn attempt(&mut self, candidates: Vec<NodeName>) -> Result<Option<(NodeName, Response<Body>)>, RouteError> {
        let mut waiting = candidates.into_iter();
        let mut running = FuturesUnordered::new();
        let hedge_after = self.shared.config.profile.hedge_after;
        let deadline = self.deadline;
        self.start_next(&mut waiting, &running);
        loop {
            let may_hedge = self.body.can_repeat() && self.repeatable && !waiting.as_slice().is_empty();
            tokio::select! {
                ended = running.next() => {
                    let Some((node, outcome)) = ended else { return Ok(None) };
                    match outcome {
                        // A remote response is held back at first, so that a holder that dies now costs an attempt,
                        // not the request.
                        Ok(response) if node == self.shared.name || !self.repeatable => {
                            return Ok(Some((node, response)));
                        }
                        Ok(response) => match hold_back(response).await {
                            Ok(response) => return Ok(Some((node, response))),
                            Err(error) => self.note_failure(node, AttemptError::Unreachable(error.to_string())),
                        },
                        Err(error) => self.note_failure(node, error),
                    }
                    self.start_next(&mut waiting, &running);
                }
                () = tokio::time::sleep(hedge_after), if may_hedge => {
                    debug!(key = %self.key, "no answer yet; asking another holder as well");
                    self.start_next(&mut waiting, &running);
                }
                () = tokio::time::sleep_until(deadline) => return Err(self.timed_out()),
            }
        }
    }

    fn timed_out(&mut self) -> RouteError {
        let told: Vec<&NodeName> = self.failed.iter().map(|attempt| &attempt.node).collect();
        let silent = self.tried.iter().filter(|node| !told.contains(node)).cloned();
        let silent: Vec<Attempt> = silent.map(|node| Attempt { node, error: AttemptError::Timeout }).collect();
        self.failed.extend(silent);
        let attempts = std::mem::take(&mut self.failed);
        RouteError::Failed { key: self.key.clone(), attempts, retry_after: Duration::from_secs(1) }
    }

    fn start_next(
        &mut self,
        waiting: &mut std::vec::IntoIter<NodeName>,
        running: &FuturesUnordered<BoxFuture<'static, Outcome>>,
    ) {
        let spent = self.spent() + running.len() >= self.shared.config.attempts;
        // A request that must not be sent twice goes on only if the first attempt never got it.
        let may = self.repeatable || running.is_empty();
        if spent || !may || waiting.as_slice().is_empty() {
            return;
        }
        if !self.tried.is_empty() && !self.shared.retry_budget.withdraw(self.shared.uptime()) {
            debug!(key = %self.key, "no second attempt: too many of them already");
            return;
        }
        let Some(body) = self.body.take() else { return };
        let Some(node) = waiting.next() else { return };
        self.tried.push(node.clone());
        let request = Request::from_parts(self.parts.clone(), body);
        running.push(attempt_at(self.shared.clone(), node, self.key.clone(), request).boxed());
    }

    fn note_failure(&mut self, node: NodeName, error: AttemptError) {
        debug!(key = %self.key, %node, %error, "attempt failed");
        if !self.repeatable && !matches!(error, AttemptError::Refused(_) | AttemptError::NotHeld) {
            // It may have been acted upon: nobody else may get it.
            self.body = Replay::Once(None);
        }
        self.failed.push(Attempt { node, error });
    }

    fn conclude(self, node: NodeName, response: Response<Body>) -> Response<Body> {
        let answered = AnsweredBy { node: node.clone(), fetched: self.ensures > 0 };
        // Whoever asks for a rest takes it up again if need be; if the rest did so too, there would be no end to it.
        let mut response = if self.is_rest {
            response
        } else {
            Resumable::wrap(&self.parts, response, refetch(self.shared, self.key, node))
        };
        response.extensions_mut().insert(answered);
        response
    }
}

/// Asks for the rest of a response of which `node` sent the beginning. Whoever broke off last is asked last.
fn refetch(shared: Arc<Shared>, key: Key, node: NodeName) -> Refetch {
    let last = Arc::new(Mutex::new(node));
    Box::new(move |request| {
        let (shared, key, last) = (shared.clone(), key.clone(), last.clone());
        async move {
            let broke_off = last.lock().expect("no panic under this lock").clone();
            let response = send(shared, key, request, Some(broke_off)).await?;
            if let Some(answered) = response.extensions().get::<AnsweredBy>() {
                *last.lock().expect("no panic under this lock") = answered.node.clone();
            }
            Ok(response)
        }
        .boxed()
    })
}

/// One attempt at one node.
async fn attempt_at(shared: Arc<Shared>, node: NodeName, key: Key, request: Request<Body>) -> Outcome {
    if node == shared.name {
        let outcome = serve_local(&shared, &key, Purpose::Serve, request).await;
        if let Err(refusal) = &outcome {
            report_trouble(&shared, &key, refusal).await;
        }
        return (node, outcome.map_err(AttemptError::from));
    }
    let health = shared.routes.load().health(&node).cloned().unwrap_or_default();
    let started = Instant::now();
    let mut guard = Unanswered { shared: &shared, health: &health, started, answered: false };
    let in_flight = health.begin();
    let outcome = async {
        let peer = shared.peer(&node).await.map_err(|error| AttemptError::Unreachable(error.to_string()))?;
        peer.exchange(&key, Purpose::Serve, request).await.map_err(|error| match error {
            ExchangeError::Refused(refusal) => refusal.into(),
            ExchangeError::Request(_) => AttemptError::Refused(error.to_string()),
            other => AttemptError::Unreachable(other.to_string()),
        })
    }
    .await;
    guard.answered = true;
    drop(in_flight);
    match &outcome {
        Ok(_) => health.succeeded(started.elapsed()),
        Err(AttemptError::Unreachable(_)) => health.failed(shared.uptime()),
        Err(_) => {}
    }
    (node, outcome)
}

/// An attempt that is dropped, because another holder was quicker or the client went away, counts against a slow holder.
struct Unanswered<'a> {
    shared: &'a Shared,
    health: &'a super::health::PeerHealth,
    started: Instant,
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let unusual = self.shared.config.profile.hedge_after;
            self.health.given_up(self.shared.uptime(), self.started.elapsed(), unusual);
        }
    }
}

/// Requests that an update sends to the nodes it copies from.
pub(crate) struct PeerClient {
    shared: Arc<Shared>,
    reason: UpdateReason,
}

impl PeerClient {
    pub(crate) fn new(shared: &Arc<Shared>, reason: UpdateReason) -> Self {
        Self { shared: shared.clone(), reason }
    }
}

#[async_trait]
impl PeerFetch for PeerClient {
    async fn fetch(&self, peer: &NodeName, key: &Key, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let shared = &self.shared;
        let connected = shared.peer(peer).await?;
        let patience = shared.config.request_patience;
        let answer = tokio::time::timeout(patience, connected.exchange(key, Purpose::Export, request)).await;
        let answer = answer.map_err(|_| Refusal::Failed(format!("no answer within {patience:?}")))??;
        Ok(match self.reason {
            UpdateReason::Repair | UpdateReason::Rebalance => {
                answer.map(|body| provider::body(Paced::new(body, shared.repair_pace.clone(), shared.origin)))
            }
            UpdateReason::Request | UpdateReason::Refresh => answer,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream::{self, BoxStream};
    use headers::{ContentLength, ContentRange, ETag, HeaderMapExt};
    use http::{StatusCode, header};
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::{
        ClusterKey, Credentials, Node,
        config::{NodeConfig, Profile},
        provider::{Provider, ProviderError, ServeError, UpdateContext, UpdateError},
    };

    const PATIENCE: Duration = Duration::from_secs(20);
    /// More than is held back of a response.
    const PART: u64 = 300 << 10;
    const WHOLE: u64 = 10 * PART;

    /// Breaks off each response after a part.
    struct Breaking;

    #[async_trait]
    impl Provider for Breaking {
        async fn has(&self, _key: &Key) -> Result<bool, ProviderError> {
            Ok(true)
        }

        fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
            stream::iter([Ok(Key::new("k").unwrap())]).boxed()
        }

        async fn update(&self, _key: &Key, _context: UpdateContext) -> Result<(), UpdateError> {
            Ok(())
        }

        async fn remove(&self, _key: &Key) -> Result<(), ProviderError> {
            Ok(())
        }

        async fn serve(&self, _key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
            let range = request.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
            let from = range.and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
            let part = stream::once(async { Ok(Frame::data(Bytes::from(vec![7; PART as usize]))) });
            // A reset may overtake what was sent before it.
            let gone = stream::once(async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err(std::io::Error::other("gone"))
            });
            let mut response = Response::new(provider::body(StreamBody::new(Box::pin(part.chain(gone)))));
            response.headers_mut().typed_insert("\"v\"".parse::<ETag>().unwrap());
            response.headers_mut().typed_insert(ContentLength(WHOLE - from.unwrap_or(0)));
            if let Some(from) = from {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                response.headers_mut().typed_insert(ContentRange::bytes(from..WHOLE, WHOLE).unwrap());
            }
            Ok(response)
        }
    }

    #[tokio::test]
    async fn a_response_that_breaks_off_again_and_again_is_not_resumed_for_ever() {
        let secret = Credentials::ClusterKey(ClusterKey::generate());
        let mut config = NodeConfig { replicas: 1, profile: Profile::local(), ..NodeConfig::default() };
        config.listen = "127.0.0.1:0".parse().unwrap();
        let holder =
            Node::builder(NodeName::new("holder").unwrap()).config(config.clone()).provider(Arc::new(Breaking));
        let holder = holder.credentials(secret.clone()).start().await.unwrap();
        config.seeds = vec![holder.address().to_string()];
        let asker = Node::builder(NodeName::new("asker").unwrap()).config(config).credentials(secret);
        let asker = asker.start().await.unwrap();
        let met = |view: &crate::View| view.ring().nodes().len() == 1;
        tokio::time::timeout(PATIENCE, asker.client().view_when(met)).await.unwrap();
        let request = Request::get("/k").body(provider::empty()).unwrap();
        let response = route(asker.shared(), &Key::new("k").unwrap(), request).await.unwrap();
        assert_eq!(response.headers().typed_get(), Some(ContentLength(WHOLE)));
        let (mut body, mut read, mut broken) = (response.into_body(), 0, false);
        let reading = async {
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => read += frame.data_ref().map_or(0, Bytes::len) as u64,
                    Err(_) => broken = true,
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap();
        assert!(broken && read <= 4 * PART, "{read} bytes, so it was taken up more than three times");
    }
}
