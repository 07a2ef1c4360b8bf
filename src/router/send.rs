//! One request, from the first attempt to an answer.
//!
//! Local holder first; then the better of two; where a request may be sent twice, a second holder joins in when the
//! first takes unusually long (Dean and Barroso, "The tail at scale", 2013) or fails. If no node holds the key, one is made
//! to. If none can be reached, the request waits and tries them again (`attempts.rs` decides), also through members that
//! reach them (`relay.rs`). What must hold: a request is at no node twice at once; no request outlives its deadline, whatever
//! its body does; what a provider published as an answer is passed on as it is, whatever its status.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::{Request, Response, request::Parts};
use tokio::{sync::oneshot, time::Instant};
use tracing::debug;

use super::{
    attempts::{Attempts, Step},
    body::{Refetch, Replay, Resumable, hold_back},
    early,
    ensure::{RETRY, Wanted, ensure},
    lookout::Lookout,
    pace::Paced,
    preview::preview,
    relay::relay,
    serve::{report_trouble, serve_local},
};
use crate::{
    key::{Key, NodeName},
    net::{
        ExchangeError,
        wire::{Ensured, Purpose, Refusal},
    },
    places::Place,
    provider::{self, Body, BoxError, Meanwhile, PeerFetch, SECOND_OPINION, UpdateReason},
    route_error::{Attempt, AttemptError, RouteError, retry_after},
    runtime::Shared,
    updater::FETCH_MAX,
};

/// How long an attempt waits for the retry budget before it asks again.
const COIN_PAUSE: Duration = Duration::from_millis(50);

impl From<Refusal> for AttemptError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotHeld => Self::NotHeld,
            Refusal::Overloaded => Self::Overloaded,
            Refusal::Busy { retry_after_ms } => {
                let after = Duration::from_millis(retry_after_ms.into());
                Self::Later { reason: refusal.to_string(), after }
            }
            // It is back in a moment, or no holder any more.
            Refusal::Stopping | Refusal::Unreachable(_) => Self::Unreachable(refusal.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// A response and the node that gave it, as an extension of the response.
#[derive(Debug, Clone)]
pub(crate) struct AnsweredBy {
    pub(crate) node: NodeName,
    /// Whether the key had to be fetched for this request.
    pub(crate) fetched: bool,
}

/// Sends `request` for `key` to whoever can answer it. What the provider refuses whatever it holds goes no further.
///
/// Dropping the future cancels what is under way on other nodes, but not the fetch of a cold key.
pub(crate) async fn route(
    shared: &Arc<Shared>,
    key: &Key,
    request: Request<Body>,
) -> Result<Response<Body>, RouteError> {
    let (parts, body) = request.into_parts();
    if let Some(mut refusal) = shared.context.provider.as_ref().and_then(|provider| provider.refuse(key, &parts)) {
        refusal.extensions_mut().insert(AnsweredBy { node: shared.context.name.clone(), fetched: false });
        return Ok(refusal);
    }
    let (tells, waits) = oneshot::channel();
    let course = Course::new(shared.clone(), key.clone(), Request::from_parts(parts, body), None).await?;
    early::answer(shared, key, course.telling(tells).run().boxed(), waits).await
}

/// `broke_off`: who did not send its response to the end, if `request` is for the rest of that.
fn send(
    shared: Arc<Shared>,
    key: Key,
    request: Request<Body>,
    broke_off: Option<NodeName>,
) -> BoxFuture<'static, Result<Response<Body>, RouteError>> {
    async move { Course::new(shared, key, request, broke_off).await?.run().await }.boxed()
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
    attempts: Attempts,
    /// A response that another holder may have a better one than.
    second_best: Option<(NodeName, Response<Body>)>,
    /// Is told, once, that the request waits for a fetch.
    tells: Option<oneshot::Sender<Waiting>>,
    /// Held by a request that waits for as long as a fetch gets on.
    long_wait: Option<Place<Key>>,
}

/// A request that waits for its key to be fetched, and what can be done about it meanwhile.
pub(super) struct Waiting {
    pub(super) meanwhile: Meanwhile,
    pub(super) request: Request<Bytes>,
}

/// Why one attempt has no response.
pub(super) enum Failure {
    /// The request never left this node; here is its body again.
    NotSent(Body, String),
    /// The node gave no response.
    Node(AttemptError),
    /// The request's own body broke off, so no node can answer it.
    Request(String),
}

type Outcome = Result<Response<Body>, Failure>;

/// An attempt that has ended.
struct Ended {
    node: NodeName,
    outcome: Outcome,
    /// Whether the retry budget paid for it.
    paid: bool,
}

/// What came of an attempt to start an attempt.
#[derive(PartialEq, Eq)]
enum Start {
    Done,
    /// The retry budget is spent; a coin comes in a moment.
    NoCoin,
}

impl Course {
    /// `broke_off`: who did not send its response to the end, if `request` is for the rest of that.
    async fn new(
        shared: Arc<Shared>,
        key: Key,
        request: Request<Body>,
        broke_off: Option<NodeName>,
    ) -> Result<Self, RouteError> {
        let (parts, body) = request.into_parts();
        let repeatable = match &shared.context.provider {
            Some(provider) => provider.is_idempotent(&parts),
            None => parts.method.is_idempotent(),
        };
        let started = Instant::now();
        let deadline = started + shared.context.config.request_patience;
        let body = match tokio::time::timeout_at(deadline, Replay::new(body, repeatable)).await {
            Ok(body) => body.map_err(|error| RouteError::Request(error.to_string()))?,
            Err(_) => return Err(RouteError::Request(format!("it did not end within {:?}", started.elapsed()))),
        };
        shared.routing.retry_budget.deposit();
        let is_rest = broke_off.is_some();
        let attempts = Attempts::new(shared.context.config.attempts, broke_off);
        let (second_best, tells, long_wait) = (None, None, None);
        Ok(Self {
            shared,
            key,
            parts,
            body,
            repeatable,
            is_rest,
            started,
            deadline,
            attempts,
            second_best,
            tells,
            long_wait,
        })
    }

    /// The same, which says so when it begins to wait for a fetch about which something can be done.
    fn telling(self, tells: oneshot::Sender<Waiting>) -> Self {
        Self { tells: Some(tells), ..self }
    }

    async fn run(mut self) -> Result<Response<Body>, RouteError> {
        let found = match self.find_response().await {
            Err(error) => self.second_best.take().ok_or(error)?,
            Ok(found) => found,
        };
        Ok(self.conclude(found.0, found.1))
    }

    /// Each turn of this loop asks a node, makes one fetch, lets time pass, or ends the request.
    async fn find_response(&mut self) -> Result<(NodeName, Response<Body>), RouteError> {
        loop {
            let holders = holders(&self.shared, &self.key);
            match self.attempts.next(holders, self.body.is_there()) {
                Step::Try(candidates) => {
                    let ranked = self.rank(candidates);
                    if let Some(found) = self.ask_each(ranked).await? {
                        return Ok(found);
                    }
                }
                // Nobody has a better one, and another copy would not be better either.
                _ if self.second_best.is_some() => return Err(self.ended(false)),
                Step::Ensure => {
                    if let Some(response) = preview(&self.shared, &self.key, &self.parts, self.deadline).await {
                        return Ok((self.shared.context.name.clone(), response));
                    }
                    let found = self.find_holders().await?;
                    if !found.is_empty()
                        && let Some(found) = self.ask_each(found).await?
                    {
                        return Ok(found);
                    }
                }
                Step::Wait(pause) => self.pause(pause).await?,
                Step::End => return Err(self.ended(false)),
            }
        }
    }

    /// Lets `pause` pass, unless the deadline comes first.
    async fn pause(&mut self, pause: Duration) -> Result<(), RouteError> {
        tokio::time::sleep_until(self.deadline.min(Instant::now() + pause)).await;
        if Instant::now() >= self.deadline { Err(self.ended(true)) } else { Ok(()) }
    }

    /// In the order in which to ask them: this node first.
    fn rank(&self, mut names: Vec<NodeName>) -> Vec<NodeName> {
        let here = names.iter().position(|name| *name == self.shared.context.name).map(|at| names.remove(at));
        let others = self.shared.routing.routes.load().ranked(names, self.shared.context.uptime());
        here.into_iter().chain(others).collect()
    }

    /// Finds out what can be done about the request while the key is fetched, and says so. It waits for as long as a fetch may
    /// take, if that helps and not too many do.
    fn begin_to_wait(&mut self) {
        let (Some(tells), Some(provider), Some(body)) =
            (self.tells.take(), &self.shared.context.provider, self.body.kept())
        else {
            return;
        };
        let mut meanwhile = provider.meanwhile(&self.key, &self.parts, body);
        if matches!(meanwhile, Meanwhile::Begin | Meanwhile::WaitOn | Meanwhile::Part { on: true }) {
            match self.shared.routing.long_waits.admit(&self.key) {
                Some(place) => {
                    self.long_wait = Some(place);
                    self.deadline = self.started + FETCH_MAX;
                }
                None if matches!(meanwhile, Meanwhile::Part { .. }) => {}
                None => meanwhile = Meanwhile::Wait,
            }
        }
        if meanwhile != Meanwhile::Wait {
            let request = Request::from_parts(self.parts.clone(), body.clone());
            let _ = tells.send(Waiting { meanwhile, request });
        }
    }

    /// No node (other than those that were asked) has the key: makes one have it. Empty if that one cannot be reached
    /// for now, or if one that was asked can be reached again before.
    async fn find_holders(&mut self) -> Result<Vec<NodeName>, RouteError> {
        self.begin_to_wait();
        let found = self.make_a_holder().await;
        if self.long_wait.take().is_some() {
            self.deadline = Instant::now() + self.shared.context.config.request_patience;
        }
        found
    }

    async fn make_a_holder(&mut self) -> Result<Vec<NodeName>, RouteError> {
        let key = self.key.clone();
        loop {
            let (deadline, apart_from) = (self.deadline, self.attempts.tried());
            let wanted = Wanted { deadline, apart_from, ..Wanted::for_request(&key, 0) };
            let ensured = tokio::select! {
                ensured = ensure(&self.shared, &wanted) => ensured,
                holders = until_reachable(&self.shared, &key, self.attempts.unanswered()) => {
                    self.attempts.reachable_again(&holders);
                    return Ok(Vec::new());
                }
            };
            match ensured {
                Ok(Ensured::Ready(nodes)) => return Ok(self.attempts.ensured(nodes)),
                Ok(Ensured::NotFound) => return Err(RouteError::NotFound { key }),
                Ok(Ensured::Forbidden(reason)) => return Err(RouteError::Forbidden { key, reason }),
                Ok(Ensured::Failed { node, reason, retry_after_ms }) => {
                    debug!(%key, %node, %reason, "it could not be fetched");
                    self.attempts.failed(node, AttemptError::FetchFailed(reason));
                    let retry_after = Duration::from_millis(retry_after_ms.into());
                    return Err(RouteError::Failed { key, attempts: self.failures(false), retry_after });
                }
                Ok(Ensured::Later { node, reason, retry_after_ms }) => {
                    let retry_after = Duration::from_millis(retry_after_ms.into());
                    self.attempts.failed(node, AttemptError::Later { reason, after: retry_after });
                    return Err(RouteError::Failed { key, attempts: self.failures(false), retry_after });
                }
                Ok(Ensured::Pending) => return Err(RouteError::Pending { key, waited: self.started.elapsed() }),
                // Nodes disagree about who leads; in a moment they agree.
                Err(_) => self.pause(RETRY).await?,
            }
        }
    }

    fn failures(&mut self, timed_out: bool) -> Vec<Attempt> {
        std::mem::replace(&mut self.attempts, Attempts::new(0, None)).into_failures(timed_out)
    }

    /// The request has no response. `timed_out`: its deadline has come.
    fn ended(&mut self, timed_out: bool) -> RouteError {
        let attempts = self.failures(timed_out);
        let retry_after = retry_after(&attempts);
        RouteError::Failed { key: self.key.clone(), attempts, retry_after }
    }

    /// Asks `candidates`, the next one when one fails or is slow, until one gives a response. `None` if none did.
    async fn ask_each(&mut self, candidates: Vec<NodeName>) -> Result<Option<(NodeName, Response<Body>)>, RouteError> {
        let mut waiting = VecDeque::from(candidates);
        let mut running = FuturesUnordered::new();
        let hedge_after = self.shared.context.config.profile.hedge_after;
        let deadline = self.deadline;
        let mut start = self.start_next(&mut waiting, &running);
        while !running.is_empty() || start == Start::NoCoin {
            if running.is_empty() && self.second_best.is_some() {
                return Ok(self.second_best.take());
            }
            let may_hedge = self.body.can_repeat() && self.repeatable;
            tokio::select! {
                Some(ended) = running.next() => {
                    let node = ended.node.clone();
                    if let Some(response) = self.take_in(ended).await? {
                        return Ok(Some((node, response)));
                    }
                    start = self.start_next(&mut waiting, &running);
                }
                () = tokio::time::sleep(hedge_after), if may_hedge && !running.is_empty() => {
                    if waiting.is_empty() {
                        // Another node may have got it meanwhile.
                        waiting.extend(self.rank(self.attempts.untried(holders(&self.shared, &self.key))));
                    }
                    start = self.start_next(&mut waiting, &running);
                }
                () = tokio::time::sleep(COIN_PAUSE), if running.is_empty() => {
                    start = self.start_next(&mut waiting, &running);
                }
                () = tokio::time::sleep_until(deadline) => return Err(self.ended(true)),
            }
        }
        Ok(None)
    }

    /// The response of an attempt, if it has one.
    async fn take_in(&mut self, ended: Ended) -> Result<Option<Response<Body>>, RouteError> {
        let Ended { node, outcome, paid } = ended;
        let failed = match outcome {
            Ok(response) if self.repeatable && response.headers().contains_key(SECOND_OPINION) => {
                match hold_back(response).await {
                    Ok(response) => {
                        self.second_best.get_or_insert((node.clone(), response));
                        AttemptError::Refused("another holder may know better".to_owned())
                    }
                    Err(error) => AttemptError::Unreachable(error.to_string()),
                }
            }
            Ok(response) if node == self.shared.context.name || !self.repeatable => return Ok(Some(response)),
            // A remote response is held back at first, so that a holder that dies now costs an attempt, not the request.
            Ok(response) => match hold_back(response).await {
                Ok(response) => return Ok(Some(response)),
                Err(error) => AttemptError::Unreachable(error.to_string()),
            },
            Err(Failure::Node(error)) => error,
            Err(Failure::Request(reason)) => return Err(RouteError::Request(reason)),
            Err(Failure::NotSent(body, reason)) => {
                debug!(key = %self.key, %node, %reason, "not reached");
                if paid {
                    self.shared.routing.retry_budget.give_back();
                }
                self.body.put_back(body);
                self.attempts.not_sent(node, reason);
                return Ok(None);
            }
        };
        debug!(key = %self.key, %node, error = %failed, "attempt failed");
        if !self.repeatable
            && !matches!(
                failed,
                AttemptError::Refused(_)
                    | AttemptError::NotHeld
                    | AttemptError::Overloaded
                    | AttemptError::Later { .. }
            )
        {
            // The node may have acted on it: no other may get it.
            self.body = Replay::Once(None);
        }
        self.attempts.failed(node, failed);
        Ok(None)
    }

    fn start_next(
        &mut self,
        waiting: &mut VecDeque<NodeName>,
        running: &FuturesUnordered<BoxFuture<'static, Ended>>,
    ) -> Start {
        // A request that must not be sent twice goes on only if the first attempt never got it.
        let may = self.repeatable || running.is_empty();
        if !may || !self.attempts.may_start() || waiting.is_empty() || !self.body.is_there() {
            return Start::Done;
        }
        let paid = self.attempts.is_second(running.len());
        if paid && !self.shared.routing.retry_budget.withdraw(self.shared.context.uptime()) {
            debug!(key = %self.key, "no second attempt yet: too many of them already");
            return Start::NoCoin;
        }
        if let (Some(body), Some(node)) = (self.body.take(), waiting.pop_front()) {
            self.attempts.started(node.clone());
            let request = Request::from_parts(self.parts.clone(), body);
            let may_repeat = self.repeatable && self.body.can_repeat();
            let (shared, key) = (self.shared.clone(), self.key.clone());
            let attempt = async move {
                let outcome = attempt_at(&shared, &node, &key, request, may_repeat).await;
                Ended { node, outcome, paid }
            };
            running.push(attempt.boxed());
        }
        Start::Done
    }

    fn conclude(self, node: NodeName, mut response: Response<Body>) -> Response<Body> {
        response.headers_mut().remove(SECOND_OPINION);
        let answered = AnsweredBy { node: node.clone(), fetched: self.attempts.has_ensured() };
        // A caller that asks for a rest takes it up again if need be; if the rest did so too, there would be no end to it.
        let mut response = if self.is_rest {
            response
        } else {
            let lookout = Lookout::after(&self.shared, &self.key, &node);
            Resumable::wrap(&self.parts, response, refetch(self.shared, self.key, node), lookout)
        };
        response.extensions_mut().insert(answered);
        response
    }
}

/// Live nodes that have `key`, or are presumed to.
pub(super) fn holders(shared: &Shared, key: &Key) -> Vec<NodeName> {
    shared.lookup.live_holders(key).into_iter().filter(|(_, state)| state.has_it()).map(|(name, _)| name).collect()
}

/// Waits until this node has a connection to a holder of `key` that is among `unanswered`: a fetch may take much longer than
/// a link stays cut.
async fn until_reachable(shared: &Shared, key: &Key, unanswered: &[NodeName]) -> Vec<NodeName> {
    loop {
        tokio::time::sleep(RETRY).await;
        let view = shared.lookup.view.load();
        let is_connected = |name: &NodeName| {
            view.member(name).is_some_and(|member| shared.peers.net.is_connected(member.address))
                || *name == shared.context.name
        };
        let mut found = holders(shared, key);
        found.retain(|name| unanswered.contains(name) && is_connected(name));
        if !found.is_empty() {
            return found;
        }
    }
}

/// Asks for the rest of a response of which `node` sent the beginning. Whoever broke off last is asked last.
pub(super) fn refetch(shared: Arc<Shared>, key: Key, node: NodeName) -> Refetch {
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

/// One attempt at one node. `may_repeat`: the request may be sent again, so it may go through another member, and is given up
/// as soon as the node is known to be dead.
async fn attempt_at(
    shared: &Arc<Shared>,
    node: &NodeName,
    key: &Key,
    request: Request<Body>,
    may_repeat: bool,
) -> Outcome {
    if *node == shared.context.name {
        let outcome = serve_local(shared, key, &Purpose::Serve, request).await;
        if let Err(refusal) = &outcome {
            report_trouble(shared, key, refusal).await;
        }
        return outcome.map_err(Failure::from);
    }
    let health = shared.routing.routes.load().health(node).cloned().unwrap_or_default();
    let started = Instant::now();
    let mut guard = Unanswered { shared, health: &health, started, answered: false };
    let in_flight = health.begin();
    let asked = async {
        match shared.peers.peer(node).await {
            Ok(peer) => peer.exchange(key, Purpose::Serve, request).await.map_err(Failure::from),
            Err(error) if may_repeat => relay(shared, node, key, request, &error).await,
            Err(error) => Err(Failure::NotSent(request.into_body(), error.to_string())),
        }
    };
    let outcome = tokio::select! {
        outcome = asked => outcome,
        // The connection would break some time later.
        _ = shared.lookup.view.wait_for(|view| !view.is_alive(node)), if may_repeat => {
            Err(Failure::Node(AttemptError::Unreachable("it died".into())))
        }
    };
    guard.answered = true;
    drop(in_flight);
    match &outcome {
        Ok(_) => health.succeeded(started.elapsed()),
        Err(Failure::Node(AttemptError::Unreachable(_)) | Failure::NotSent(..)) => {
            health.failed(shared.context.uptime())
        }
        Err(_) => {}
    }
    outcome
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(reason) => Self::Request(reason),
            other => Self::Node(other.into()),
        }
    }
}

impl From<ExchangeError> for Failure {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Refused(refusal) => refusal.into(),
            ExchangeError::Request(reason) => Self::Request(reason),
            other => Self::Node(AttemptError::Unreachable(other.to_string())),
        }
    }
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
            let unusual = self.shared.context.config.profile.hedge_after;
            self.health.given_up(self.shared.context.uptime(), self.started.elapsed(), unusual);
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
        let connected = shared.peers.peer(peer).await?;
        let patience = shared.context.config.request_patience;
        let answer = tokio::time::timeout(patience, connected.exchange(key, Purpose::Export, request)).await;
        let answer = answer.map_err(|_| Refusal::Failed(format!("no answer within {patience:?}")))??;
        Ok(match self.reason {
            UpdateReason::Repair | UpdateReason::Rebalance => answer.map(|body| {
                provider::body(Paced::new(body, shared.routing.repair_pace.clone(), shared.context.began()))
            }),
            UpdateReason::Request | UpdateReason::Refresh => answer,
        })
    }
}

#[cfg(test)]
mod tests {
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

    /// Answers that it lacks what is asked for, or that it has it.
    struct Version(bool);

    #[async_trait]
    impl Provider for Version {
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

        async fn serve(&self, _key: &Key, _request: Request<Body>) -> Result<Response<Body>, ServeError> {
            if self.0 {
                return Ok(Response::new(provider::full("new")));
            }
            Ok(Response::builder().header(SECOND_OPINION, "?1").body(provider::full("lacking")).unwrap())
        }
    }

    #[tokio::test]
    async fn what_one_holder_lacks_is_asked_of_the_others_before_that_is_said() {
        for (others, expected) in [([false, false], "lacking"), ([false, true], "new")] {
            let secret = Credentials::ClusterKey(ClusterKey::generate());
            let mut config = NodeConfig { replicas: 3, profile: Profile::local(), ..NodeConfig::default() };
            config.listen = "127.0.0.1:0".parse().unwrap();
            let mut nodes: Vec<Node> = Vec::new();
            for (number, is_new) in [false].into_iter().chain(others).enumerate() {
                config.seeds = nodes.iter().map(|node| node.address().to_string()).collect();
                let node = Node::builder(NodeName::new(format!("n{number}")).unwrap()).config(config.clone());
                let node = node.provider(Arc::new(Version(is_new))).credentials(secret.clone());
                nodes.push(node.start().await.unwrap());
            }
            let (client, key) = (nodes[0].client(), Key::new("k").unwrap());
            let all_hold_it = async {
                while client.nodes_for_key(&key).len() < 3 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(PATIENCE, all_hold_it).await.unwrap();
            let request = Request::get("/k").body(provider::empty()).unwrap();
            let response = route(nodes[0].shared(), &key, request).await.unwrap();
            assert!(!response.headers().contains_key(SECOND_OPINION));
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), expected);
        }
    }
}
