//! The updater actor: admits work, feeds the factory of workers, answers the callers that wait.
//!
//! Supervised by the node and restarted alone: waiting callers see their port close and ask again,
//! and claims of `Fetching` that no worker serves are withdrawn. *In*: `Ensure`, `Refresh`,
//! `Remove` from router, calls and balancer; `Finished` from the workers. *Out*: claims to the
//! registry, answers to callers, finished updates to the refresher. Invariants: those of
//! [`Flights`], [`Upstreams`] and [`Shares`], and at most `updaters` jobs run at once, which the
//! factory sees to. An item in its queue only says that there may be work: a free worker asks which
//! key it takes. A job whose origin is at its limit is passed over. A job that no caller wants any
//! more is cancelled unless it makes progress.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ractor::{
    Actor, ActorProcessingErr, ActorRef, SupervisionEvent,
    factory::{
        Factory, FactoryArguments, FactoryMessage, Job, JobOptions, Worker, WorkerBuilder, WorkerId, queues, routing,
    },
};
use rand::{RngExt, rngs::StdRng};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::job::{self, Outcome, Task, Updated};
use crate::{
    core::{
        registry::{ClaimState, HolderState},
        updater::{Admission, Flights, LATER_MAX, Origin, Shares, Upstreams, Work},
    },
    key::Key,
    net::wire::Ensured,
    provider::{Progress, UpdateError, UpdateReason},
    runtime::{
        Shared,
        mailbox::{Envelope, receives},
        ports::updater::{Request, Trouble},
    },
};

/// How soon a caller should ask again if the queue is full, or if the key's failure is remembered.
const TURNED_AWAY_PAUSE: Duration = Duration::from_secs(1);
/// How often the actor checks which updates make progress, and which callers still wait.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How soon to ask again for a key that the origin does not have or the operator does not allow.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

pub(crate) enum Message {
    /// A request from another actor.
    Asked(Envelope<Request>),
    /// A worker is free: is there something to do?
    NextTask { reply: oneshot::Sender<Option<Task>> },
    /// A worker is done with this key.
    Finished { key: Key, work: Work, reason: UpdateReason, outcome: Outcome },
    /// It is time to check which updates make progress.
    Look,
    /// It is time to check which jobs may ask their origin now.
    CallIn,
}

receives!(Message: Asked(Request));

/// The claim in the ledger for a key that could not be fetched, and when the balancer looks at it
/// again.
enum Claimed {
    Failure { why: String, pause: Duration },
    Nothing { pause: Duration },
}

type Waiter = oneshot::Sender<Ensured>;

/// The priority by which the factory queues; 0 is the most urgent. The key is chosen only when a
/// worker asks.
type JobKey = u8;

fn job_key(reason: UpdateReason) -> JobKey {
    match reason {
        UpdateReason::Request => 0,
        UpdateReason::Repair => 1,
        UpdateReason::Refresh => 2,
        UpdateReason::Rebalance => 3,
    }
}

const PRIORITIES: usize = 4;

#[derive(Default, Clone, Copy)]
struct Priority(usize);

impl From<usize> for Priority {
    fn from(index: usize) -> Self {
        Self(index.min(PRIORITIES - 1))
    }
}

impl queues::Priority for Priority {
    fn get_index(&self) -> usize {
        self.0
    }
}

struct ByReason;

impl queues::PriorityManager<JobKey, Priority> for ByReason {
    fn is_discardable(&self, _ticket: &JobKey) -> bool {
        false
    }

    fn get_priority(&self, job_key: &JobKey) -> Option<Priority> {
        Some(usize::from(*job_key).into())
    }
}

type Queue = queues::PriorityQueue<JobKey, (), Priority, ByReason, PRIORITIES>;
type Routing = routing::QueuerRouting<JobKey, ()>;
type Pool = Factory<JobKey, (), WorkerContext, UpdateWorker, Routing, Queue>;

/// The parts that every worker shares.
#[derive(Clone)]
struct WorkerContext {
    shared: Arc<Shared>,
    updater: ActorRef<Message>,
}

impl ractor::Message for WorkerContext {}

impl WorkerBuilder<UpdateWorker, WorkerContext> for WorkerContext {
    fn build(&mut self, _worker: WorkerId) -> (UpdateWorker, WorkerContext) {
        (UpdateWorker, self.clone())
    }
}

struct UpdateWorker;

impl Worker for UpdateWorker {
    type Key = JobKey;
    type Message = ();
    type Arguments = WorkerContext;
    type State = WorkerContext;

    async fn pre_start(
        &self,
        _worker: WorkerId,
        _factory: &ActorRef<FactoryMessage<JobKey, ()>>,
        crew: WorkerContext,
    ) -> Result<WorkerContext, ActorProcessingErr> {
        Ok(crew)
    }

    async fn handle(
        &self,
        _worker: WorkerId,
        _factory: &ActorRef<FactoryMessage<JobKey, ()>>,
        job: Job<JobKey, ()>,
        crew: &mut WorkerContext,
    ) -> Result<JobKey, ActorProcessingErr> {
        let (port, taken) = oneshot::channel();
        crew.updater.send_message(Message::NextTask { reply: port })?;
        if let Ok(Some(task)) = taken.await {
            let run = job::run(&crew.shared, &task);
            // Jobs are given up before the actors are stopped, in the order in which they began.
            if let Some(outcome) = crew.shared.context.stop.run_until_cancelled(run).await {
                let Task { key, work, reason, .. } = task;
                crew.updater.send_message(Message::Finished { key, work, reason, outcome })?;
            }
        }
        Ok(job.key)
    }
}

/// A job that a worker has.
struct Running {
    progress: Progress,
    /// The progress at the last check.
    seen: u64,
    cancel: CancellationToken,
    /// Whether the job begins again after it has ended.
    gives_way: bool,
}

pub(crate) struct Updater;

pub(crate) struct State {
    shared: Arc<Shared>,
    pool: ActorRef<FactoryMessage<JobKey, ()>>,
    flights: Flights<Waiter>,
    upstreams: Upstreams,
    shares: Shares,
    running: BTreeMap<Key, Running>,
    /// When the next `CallIn` comes.
    call_at: Option<Duration>,
    myself: ActorRef<Message>,
    rng: StdRng,
}

impl Actor for Updater {
    type Msg = Message;
    type State = State;
    type Arguments = Arc<Shared>;

    async fn pre_start(&self, myself: ActorRef<Message>, shared: Arc<Shared>) -> Result<State, ActorProcessingErr> {
        let crew = WorkerContext { shared: shared.clone(), updater: myself.clone() };
        let arguments = FactoryArguments::builder()
            .worker_builder(Box::new(crew) as Box<dyn WorkerBuilder<UpdateWorker, WorkerContext>>)
            .num_initial_workers(shared.context.config.updaters)
            .router(Routing::default())
            .queue(Queue::new(ByReason))
            .build();
        let (pool, _) = Actor::spawn_linked(None, Pool::default(), arguments, myself.get_cell()).await?;
        shared.ports.registry.withdraw_fetching();
        let flights = Flights::new(shared.context.config.update_queue);
        let rng = shared.context.rng();
        let upstreams = Upstreams::new(&shared.context.config.upstreams);
        let shares = Shares::new(shared.context.config.updaters, shared.context.config.stalled_fetch_patience);
        myself.send_interval(LOOK_INTERVAL, || Message::Look);
        let running = BTreeMap::new();
        shared.routing.underway.clear();
        Ok(State { shared, pool, flights, upstreams, shares, running, call_at: None, myself, rng })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Asked(asked) => state.asked(asked.open()),
            Message::NextTask { reply } => drop(reply.send(state.start_next())),
            Message::Finished { key, work, reason, outcome } => state.finish(&key, &work, reason, outcome),
            Message::Look => state.look(),
            Message::CallIn => {
                state.call_at = None;
                state.call_in();
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Message>,
        event: SupervisionEvent,
        _state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, error) => Err(error),
            SupervisionEvent::ActorTerminated(..) => Err("the pool of workers ended".into()),
            _ => Ok(()),
        }
    }
}

impl State {
    fn asked(&mut self, request: Request) {
        match request {
            Request::Ensure { key, origin, reason, reply } => self.admit(key, Work::Ensure { origin }, reason, reply),
            Request::Refresh { key, from, reply } => {
                self.admit(key, Work::Refresh { from }, UpdateReason::Refresh, Some(reply))
            }
            Request::Remove { key } => self.admit(key, Work::Remove, UpdateReason::Rebalance, None),
            Request::Troubles { keys, reply } => {
                let _ = reply.send(keys.iter().map(|key| self.trouble(key)).collect());
            }
        }
    }

    fn admit(&mut self, key: Key, work: Work, reason: UpdateReason, reply: Option<Waiter>) {
        let now = self.shared.context.uptime();
        let (admission, waiter) = self.flights.admit(now, &key, work, reason, reply);
        let answer = |answer: Ensured| {
            if let Some(waiter) = waiter {
                let _ = waiter.send(answer);
            }
        };
        match admission {
            Admission::Start | Admission::Reprioritize => self.line_up(&key),
            // The work for this key may have changed, and with it the origin that it asks.
            Admission::Joined => self.stand_in_line(&key),
            Admission::Known(known) => {
                answer(known);
                self.turn_away(key);
            }
            Admission::Full => {
                debug!(%key, "the update queue is full");
                answer(self.later("its update queue is full".to_owned(), TURNED_AWAY_PAUSE));
                self.turn_away(key);
            }
        }
    }

    /// Calls a worker, as soon as one is free.
    fn dispatch(&self, reason: UpdateReason) {
        let job = Job::with_options(job_key(reason), (), JobOptions::default());
        let _ = self.pool.send_message(FactoryMessage::Dispatch(job));
    }

    /// Makes `key` wait for an updater, unless it has one or its origin is at its limit.
    fn stand_in_line(&mut self, key: &Key) {
        let Some((work, reason)) = self.flights.waiting(key) else { return };
        let provider = self.shared.context.provider.as_ref().filter(|_| work.may_ask_origin());
        let origin = provider.map(|provider| provider.origin_of(key));
        self.shares.queue(key, origin, reason);
    }

    /// The same, and calls a worker for it.
    fn line_up(&mut self, key: &Key) {
        self.stand_in_line(key);
        if let Some((_, reason)) = self.flights.waiting(key) {
            self.dispatch(reason);
        }
    }

    /// Returns the job for a free worker: `None` if no job is left, or all wait for their origins.
    fn start_next(&mut self) -> Option<Task> {
        let now = self.shared.context.uptime();
        loop {
            let key = self.shares.next(now)?.clone();
            let asks = self.flights.waiting(&key).map(|(work, reason)| (work.may_ask_origin(), reason));
            let may = asks.is_some_and(|(asks, reason)| !asks || self.upstreams.enter(now, &key, reason));
            let taken = if may { self.flights.start_next(&key) } else { None };
            let Some((work, reason)) = taken else {
                self.shares.leave(&key);
                self.call_later();
                continue;
            };
            self.shares.start(now, &key);
            let (progress, cancel) = (Progress::default(), CancellationToken::new());
            let running = Running { progress: progress.clone(), seen: 0, cancel: cancel.clone(), gives_way: false };
            self.running.insert(key.clone(), running);
            self.shared.routing.underway.begin(&key, progress.clone());
            return Some(Task { key, work, reason, progress, cancel });
        }
    }

    /// Queues the jobs whose origin has room now, and calls workers for those that may start.
    fn call_in(&mut self) {
        for (key, _) in self.upstreams.call(self.shared.context.uptime()) {
            self.stand_in_line(&key);
        }
        for _ in 0..self.shares.vacancies() {
            if self.shares.next(self.shared.context.uptime()).is_some() {
                self.dispatch(UpdateReason::Request);
            }
        }
        self.call_later();
    }

    /// Cancels the jobs that no caller wants any more and that make no progress, and the jobs that
    /// have to give way to other origins.
    fn look(&mut self) {
        let now = self.shared.context.uptime();
        for (key, running) in &mut self.running {
            let bytes = running.progress.bytes();
            if std::mem::replace(&mut running.seen, bytes) != bytes {
                self.shares.moved(now, key);
            }
        }
        for (key, runs) in self.flights.abandoned(|waiter| !waiter.is_closed()) {
            if !runs {
                debug!(%key, "no request waits for it any more; it is not fetched");
                self.flights.finish_flight(&key);
                self.upstreams.leave(&key);
                self.shares.leave(&key);
            } else if self.shares.still_for(now, &key) >= self.shared.context.config.stalled_fetch_patience {
                self.cancel(&key, false);
            }
        }
        if !self.running.values().any(|running| running.gives_way)
            && let Some(key) = self.shares.to_give_way(now).cloned()
        {
            self.cancel(&key, true);
        }
        self.call_in();
    }

    fn cancel(&mut self, key: &Key, gives_way: bool) {
        let Some(running) = self.running.get_mut(key).filter(|running| !running.cancel.is_cancelled()) else { return };
        info!(%key, gives_way, "an update that makes no progress is cancelled");
        running.gives_way = gives_way;
        running.cancel.cancel();
    }

    /// A job ended because it was told to.
    fn cancelled(&mut self, key: &Key, gives_way: bool) {
        if self.shared.lookup.own_claim(key) == Some(HolderState::Fetching) {
            self.shared.ports.registry.note_release(key.clone());
        }
        if gives_way {
            self.flights.put_back(key);
            self.line_up(key);
            return self.call_in();
        }
        let (waiters, follows) = self.flights.finish_flight(key);
        if follows.is_some() {
            self.line_up(key);
        }
        self.call_in();
        // A caller asked for the key at the last moment.
        self.fetch_for(key, waiters);
    }

    fn call_later(&mut self) {
        let Some(at) = self.upstreams.next_call() else { return };
        if self.call_at.is_none_or(|planned| at < planned) {
            self.call_at = Some(at);
            self.myself.send_after(at.saturating_sub(self.shared.context.uptime()), || Message::CallIn);
        }
    }

    /// Tells the balancer, in case it was its request, that nothing will come of it for now.
    fn turn_away(&self, key: Key) {
        self.shared.ports.balancer.retry_after(key.clone(), TURNED_AWAY_PAUSE);
        self.shared.ports.balancer.update_finished(key);
    }

    fn failed(&self, reason: &str, retry_after: Duration) -> Ensured {
        let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
        Ensured::Failed { node: self.shared.context.name.clone(), reason: reason.to_owned(), retry_after_ms }
    }

    fn later(&self, reason: String, retry_after: Duration) -> Ensured {
        let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
        Ensured::Later { node: self.shared.context.name.clone(), reason, retry_after_ms }
    }

    fn finish(&mut self, key: &Key, work: &Work, reason: UpdateReason, outcome: Outcome) {
        self.upstreams.leave(key);
        self.shares.leave(key);
        self.shared.routing.underway.end(key);
        let gives_way = self.running.remove(key).is_some_and(|running| running.gives_way);
        if matches!(outcome, Outcome::Cancelled) {
            return self.cancelled(key, gives_way);
        }
        let (waiters, follows) = self.flights.finish_flight(key);
        if follows.is_some() {
            self.line_up(key);
        }
        self.call_in();
        let answer = match outcome {
            Outcome::Held(updated) => {
                self.flights.forget(key);
                if let Some(Updated { changed }) = updated {
                    self.shared.ports.refresher.refreshed(key.clone(), changed);
                }
                Ensured::Ready(vec![self.shared.context.name.clone()])
            }
            // A caller asked for the key, or for a refresh of it, and still has to get it.
            Outcome::GivenUp if !waiters.is_empty() => return self.fetch_for(key, waiters),
            Outcome::GivenUp => {
                // Its removal may have been asked for while the refresh stood in the way of it.
                self.admit(key.clone(), Work::Remove, UpdateReason::Rebalance, None);
                self.failed("it gave the key up", Duration::ZERO)
            }
            // A caller asked for the key meanwhile, or none did.
            Outcome::Removed | Outcome::Declined | Outcome::Cancelled => return self.fetch_for(key, waiters),
            Outcome::Failed(error) => {
                let answer = self.record(key, work, reason, error);
                // A caller asked while the job asked only peers.
                if *work == (Work::Ensure { origin: Origin::Never }) && !waiters.is_empty() {
                    return self.fetch_for(key, waiters);
                }
                answer
            }
        };
        for waiter in waiters {
            let _ = waiter.send(answer.clone());
        }
        self.shared.ports.balancer.update_finished(key.clone());
    }

    fn fetch_for(&mut self, key: &Key, waiters: Vec<Waiter>) {
        for waiter in waiters {
            self.admit(key.clone(), Work::Ensure { origin: Origin::Heeding }, UpdateReason::Request, Some(waiter));
        }
        self.shared.ports.balancer.update_finished(key.clone());
    }

    /// Remembers a failure and writes it to the ledger, unless the key is held and was only to be
    /// refreshed.
    fn record(&mut self, key: &Key, work: &Work, reason: UpdateReason, error: UpdateError) -> Ensured {
        let now = self.shared.context.uptime();
        let (answer, claim) = match error {
            UpdateError::NotFound => {
                if matches!(work, Work::Ensure { .. }) {
                    self.flights.remember_absence(now, key, self.shared.context.config.not_found_ttl);
                }
                (Ensured::NotFound, Claimed::Nothing { pause: REFUSED_PAUSE })
            }
            UpdateError::Forbidden(why) => {
                let (answer, ttl) = (Ensured::Forbidden(why.clone()), self.shared.context.config.not_found_ttl);
                self.flights.remember_refusal(now, key, answer, ttl);
                (Ensured::Forbidden(why), Claimed::Nothing { pause: REFUSED_PAUSE })
            }
            UpdateError::Later { reason: why, after } => {
                let pause = after.clamp(TURNED_AWAY_PAUSE, LATER_MAX);
                let answer = self.later(why, pause);
                self.flights.remember_later(now, key, answer.clone(), pause);
                // With a claim of failure, the next owner would ask the origin in its turn.
                (answer, Claimed::Nothing { pause })
            }
            UpdateError::Unavailable(why) | UpdateError::NoRoom(why) | UpdateError::Failed(why) => {
                let jitter = self.rng.random::<f64>();
                let provisional = self.failed(&why, Duration::ZERO);
                let pause = self.flights.remember_failure(now, key, work, provisional, jitter);
                (self.failed(&why, pause), Claimed::Failure { why, pause })
            }
        };
        let held = self.shared.lookup.own_claim(key).is_some_and(HolderState::has_it);
        if !held {
            self.amend_claim(key, reason, claim);
        }
        answer
    }

    fn trouble(&self, key: &Key) -> Option<Trouble> {
        let (answer, since) = self.flights.trouble(key)?;
        let reason = match answer {
            Ensured::NotFound => "the origin has no such key".to_owned(),
            Ensured::Forbidden(why) => format!("it may not be fetched: {why}"),
            Ensured::Failed { reason, .. } | Ensured::Later { reason, .. } => reason.clone(),
            Ensured::Ready(_) | Ensured::Pending => return None,
        };
        Some(Trouble { reason, since })
    }

    fn amend_claim(&self, key: &Key, reason: UpdateReason, claim: Claimed) {
        let (Claimed::Failure { pause, .. } | Claimed::Nothing { pause }) = claim;
        self.shared.ports.balancer.retry_after(key.clone(), pause);
        match claim {
            Claimed::Failure { why, pause } => {
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                let state = ClaimState::failed(&why, self.shared.context.world.unix_ms().saturating_add(pause_ms));
                debug!(%key, ?reason, ?pause, "will be tried again");
                self.shared.ports.registry.note_claim(key.clone(), state);
            }
            Claimed::Nothing { .. } => self.shared.ports.registry.note_release(key.clone()),
        }
    }
}
