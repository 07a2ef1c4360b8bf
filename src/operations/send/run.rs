//! One request on its way: which nodes it asks, what it waits for, and when it ends.
//!
//! Local holder first; then the better of two; where a request may be sent twice, a second holder
//! joins in when the first takes unusually long (Dean and Barroso, "The tail at scale", 2013) or
//! fails. If no node holds the key, one is made to. If none can be reached, the request waits and
//! tries them again (`attempts.rs` decides), also through members that reach them (`relay.rs`).
//! What must hold: a request is at no node twice at once; no request outlives its deadline,
//! whatever its body does; a provider's answer is passed on as it is, whatever its status.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::{Request, Response, request::Parts};
use tokio::{sync::oneshot, time::Instant};
use tracing::debug;

use super::{
    attempt::{AttemptResult, attempt_at},
    failure::Failure,
    holders::{holders, until_reachable},
    lookout::Lookout,
    prebuffer::prebuffer,
    preview::preview,
    replay::Replay,
    resumable::{Refetch, Resumable},
};
use crate::{
    core::{
        router::{Attempts, Step},
        updater::FETCH_MAX,
    },
    key::{Key, NodeName},
    net::wire::Ensured,
    operations::ensure::{RETRY, Wanted, ensure},
    provider::{Body, Meanwhile, SECOND_OPINION},
    route_error::{Attempt, AttemptError, RouteError, retry_after},
    runtime::Shared,
    util::places::Place,
};

/// How long an attempt waits for the retry budget before it asks again.
const COIN_PAUSE: Duration = Duration::from_millis(50);

/// A response and the node that gave it, as an extension of the response.
#[derive(Debug, Clone)]
pub(crate) struct AnsweredBy {
    pub(crate) node: NodeName,
    /// Whether the key had to be fetched for this request.
    pub(crate) fetched: bool,
}

/// The state of one request on its way.
pub(super) struct RequestAttempts {
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
    /// Receives a message, once, when the request begins to wait for a fetch.
    tells: Option<oneshot::Sender<Waiting>>,
    /// Held by a request that waits for as long as a fetch makes progress.
    long_wait: Option<Place<Key>>,
}

/// A request that waits for its key to be fetched, and what can be done about it meanwhile.
pub(super) struct Waiting {
    pub(super) meanwhile: Meanwhile,
    pub(super) request: Request<Bytes>,
}

/// An attempt that has ended.
struct Ended {
    node: NodeName,
    outcome: AttemptResult,
    /// Whether the retry budget paid for it.
    paid: bool,
}

/// The result of trying to start an attempt.
#[derive(PartialEq, Eq)]
enum Start {
    Done,
    /// The retry budget is spent; a coin comes in a moment.
    NoCoin,
}

impl RequestAttempts {
    /// `broke_off`: who did not send its response to the end, if `request` is for the rest of that.
    pub(super) async fn new(
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
    pub(super) fn telling(self, tells: oneshot::Sender<Waiting>) -> Self {
        Self { tells: Some(tells), ..self }
    }

    pub(super) async fn run(mut self) -> Result<Response<Body>, RouteError> {
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
                // No node has a better one, and another copy would not be better either.
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
        let others = self.shared.routing.peer_stats.load().ranked(names, self.shared.context.uptime());
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
                match prebuffer(response).await {
                    Ok(response) => {
                        self.second_best.get_or_insert((node.clone(), response));
                        AttemptError::Refused("another holder may know better".to_owned())
                    }
                    Err(error) => AttemptError::Unreachable(error.to_string()),
                }
            }
            Ok(response) if node == self.shared.context.name || !self.repeatable => return Ok(Some(response)),
            // A remote response is held back at first, so that a holder that dies now costs an attempt, not the request.
            Ok(response) => match prebuffer(response).await {
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
            // The node may have acted on the request, so no other node may get it.
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

/// Asks for the rest of a response of which `node` sent the beginning. The node that broke off last
/// is asked last.
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

/// `broke_off`: who did not send its response to the end, if `request` is for the rest of that.
fn send(
    shared: Arc<Shared>,
    key: Key,
    request: Request<Body>,
    broke_off: Option<NodeName>,
) -> BoxFuture<'static, Result<Response<Body>, RouteError>> {
    async move { RequestAttempts::new(shared, key, request, broke_off).await?.run().await }.boxed()
}
