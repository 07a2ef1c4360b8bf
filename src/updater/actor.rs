//! The updater actor: admits work, feeds the factory of workers, answers who waits.
//!
//! Supervised by the node and restarted alone: those who wait see their port close and ask again, and claims of
//! `Fetching` that nobody works on are withdrawn. *In*: `Ensure`, `Refresh`, `Remove` from router, calls and balancer;
//! `Finished` from the workers. *Out*: claims to the registry, answers, what was brought up to date to the refresher.
//! Invariants: those of [`Flights`] and of [`Upstreams`], and at most `updaters` jobs run at once, which the factory sees
//! to. A job whose origin has no room is sent away by the worker that takes it, and queued again when there is some.

use std::{sync::Arc, time::Duration};

use ractor::{
    Actor, ActorProcessingErr, ActorRef, SupervisionEvent,
    factory::{
        Factory, FactoryArguments, FactoryMessage, Job, JobOptions, Worker, WorkerBuilder, WorkerId, queues, routing,
    },
};
use rand::{RngExt, rngs::StdRng};
use tokio::sync::oneshot;
use tracing::debug;

use super::{
    flights::{Admission, Flights, Work},
    job::{self, Outcome, Updated},
    upstreams::Upstreams,
};
use crate::{
    balancer::actor as balancer,
    key::{Key, NodeName},
    net::wire::Ensured,
    node::Shared,
    provider::{UpdateError, UpdateReason},
    refresh::actor as refresh,
    registry::{ClaimState, HolderState, actor as registry},
};

/// When to come back to a full queue, or to a key whose failure is remembered.
const TURNED_AWAY_PAUSE: Duration = Duration::from_secs(1);
/// When to come back to a key that the origin does not have or the operator does not allow.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

pub(crate) enum Message {
    /// Hold the key, and say when.
    Ensure { key: Key, origin: bool, reason: UpdateReason, reply: Option<oneshot::Sender<Ensured>> },
    /// Bring a held key up to date, and say when.
    Refresh { key: Key, from: Vec<NodeName>, reply: Option<oneshot::Sender<Ensured>> },
    /// Delete a key whose claim is withdrawn.
    Remove { key: Key },
    /// A worker is free for this key: is there still something to do?
    TakeOff { key: Key, reply: oneshot::Sender<Option<(Work, UpdateReason)>> },
    /// A worker is done with this key.
    Finished { key: Key, work: Work, reason: UpdateReason, outcome: Outcome },
    /// It is time to look who may ask an origin now.
    CallIn,
    /// Fail, for tests of the supervisor.
    Panic,
}

type Waiter = oneshot::Sender<Ensured>;

/// What the factory queues by: the key and its priority at the time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ticket {
    key: Key,
    reason: UpdateReason,
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

impl queues::PriorityManager<Ticket, Priority> for ByReason {
    fn is_discardable(&self, _ticket: &Ticket) -> bool {
        false
    }

    fn get_priority(&self, ticket: &Ticket) -> Option<Priority> {
        Some(Priority(match ticket.reason {
            UpdateReason::Request => 0,
            UpdateReason::Repair => 1,
            UpdateReason::Refresh => 2,
            UpdateReason::Rebalance => 3,
        }))
    }
}

type Queue = queues::PriorityQueue<Ticket, (), Priority, ByReason, PRIORITIES>;
type Routing = routing::QueuerRouting<Ticket, ()>;
type Pool = Factory<Ticket, (), Crew, UpdateWorker, Routing, Queue>;

/// What a worker needs to know.
#[derive(Clone)]
struct Crew {
    shared: Arc<Shared>,
    updater: ActorRef<Message>,
}

impl WorkerBuilder<UpdateWorker, Crew> for Crew {
    fn build(&mut self, _worker: WorkerId) -> (UpdateWorker, Crew) {
        (UpdateWorker, self.clone())
    }
}

struct UpdateWorker;

impl Worker for UpdateWorker {
    type Key = Ticket;
    type Message = ();
    type Arguments = Crew;
    type State = Crew;

    async fn pre_start(
        &self,
        _worker: WorkerId,
        _factory: &ActorRef<FactoryMessage<Ticket, ()>>,
        crew: Crew,
    ) -> Result<Crew, ActorProcessingErr> {
        Ok(crew)
    }

    async fn handle(
        &self,
        _worker: WorkerId,
        _factory: &ActorRef<FactoryMessage<Ticket, ()>>,
        job: Job<Ticket, ()>,
        crew: &mut Crew,
    ) -> Result<Ticket, ActorProcessingErr> {
        let key = job.key.key.clone();
        let (port, taken) = oneshot::channel();
        crew.updater.send_message(Message::TakeOff { key: key.clone(), reply: port })?;
        if let Ok(Some((work, reason))) = taken.await {
            let job = job::run(&crew.shared, &key, &work, reason);
            // Jobs are given up before the actors are stopped, in the order in which they began.
            if let Some(outcome) = crew.shared.stop.run_until_cancelled(job).await {
                crew.updater.send_message(Message::Finished { key, work, reason, outcome })?;
            }
        }
        Ok(job.key)
    }
}

pub(crate) struct Updater;

pub(crate) struct State {
    shared: Arc<Shared>,
    pool: ActorRef<FactoryMessage<Ticket, ()>>,
    flights: Flights<Waiter>,
    upstreams: Upstreams,
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
        let crew = Crew { shared: shared.clone(), updater: myself.clone() };
        let arguments = FactoryArguments::builder()
            .worker_builder(Box::new(crew) as Box<dyn WorkerBuilder<UpdateWorker, Crew>>)
            .num_initial_workers(shared.config.updaters)
            .router(Routing::default())
            .queue(Queue::new(ByReason))
            .build();
        let (pool, _) = Actor::spawn_linked(None, Pool::default(), arguments, myself.get_cell()).await?;
        let _ = shared.registry.send(registry::Message::WithdrawFetching);
        let flights = Flights::new(shared.config.update_queue);
        let rng = crate::world::rng(&*shared.world);
        let upstreams = Upstreams::new(&shared.config.upstreams);
        Ok(State { shared, pool, flights, upstreams, call_at: None, myself, rng })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Ensure { key, origin, reason, reply } => state.admit(key, Work::Ensure { origin }, reason, reply),
            Message::Refresh { key, from, reply } => {
                state.admit(key, Work::Refresh { from }, UpdateReason::Refresh, reply)
            }
            Message::Remove { key } => state.admit(key, Work::Remove, UpdateReason::Rebalance, None),
            Message::TakeOff { key, reply } => drop(reply.send(state.take_off(&key))),
            Message::Finished { key, work, reason, outcome } => state.finish(&key, &work, reason, outcome),
            Message::CallIn => {
                state.call_at = None;
                state.call_in();
            }
            Message::Panic => panic!("the updater was told to fail"),
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
    fn admit(&mut self, key: Key, work: Work, reason: UpdateReason, reply: Option<Waiter>) {
        let now = self.shared.uptime();
        let (admission, waiter) = self.flights.admit(now, &key, work, reason, reply);
        let answer = |answer: Ensured| {
            if let Some(waiter) = waiter {
                let _ = waiter.send(answer);
            }
        };
        match admission {
            Admission::Start | Admission::Hurry => self.dispatch(key, reason),
            Admission::Joined => {}
            Admission::Known(known) => {
                answer(known);
                self.turn_away(key);
            }
            Admission::Full => {
                debug!(%key, "the update queue is full");
                answer(self.failed("its update queue is full", TURNED_AWAY_PAUSE));
                self.turn_away(key);
            }
        }
    }

    fn dispatch(&self, key: Key, reason: UpdateReason) {
        let job = Job::with_options(Ticket { key, reason }, (), JobOptions::default());
        let _ = self.pool.send_message(FactoryMessage::Dispatch(job));
    }

    /// What a free worker does with `key`: nothing, if that is done already or its origin has no room.
    fn take_off(&mut self, key: &Key) -> Option<(Work, UpdateReason)> {
        let (work, reason) = self.flights.waiting(key)?;
        if work.may_ask_origin() && !self.upstreams.enter(self.shared.uptime(), key, reason) {
            self.call_later();
            return None;
        }
        self.flights.take_off(key)
    }

    /// Queues the jobs whose origin has room now.
    fn call_in(&mut self) {
        for (key, reason) in self.upstreams.call(self.shared.uptime()) {
            self.dispatch(key, reason);
        }
        self.call_later();
    }

    fn call_later(&mut self) {
        let Some(at) = self.upstreams.next_call() else { return };
        if self.call_at.is_none_or(|planned| at < planned) {
            self.call_at = Some(at);
            self.myself.send_after(at.saturating_sub(self.shared.uptime()), || Message::CallIn);
        }
    }

    /// Tells the balancer, in case it was its request, that nothing will come of it for now.
    fn turn_away(&self, key: Key) {
        let _ = self.shared.balancer.send(balancer::Message::RetryAfter(key.clone(), TURNED_AWAY_PAUSE));
        let _ = self.shared.balancer.send(balancer::Message::UpdateFinished(key));
    }

    fn failed(&self, reason: &str, retry_after: Duration) -> Ensured {
        let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
        Ensured::Failed { node: self.shared.name.clone(), reason: reason.to_owned(), retry_after_ms }
    }

    fn finish(&mut self, key: &Key, work: &Work, reason: UpdateReason, outcome: Outcome) {
        let (waiters, follows) = self.flights.land(key);
        if let Some(reason) = follows {
            self.dispatch(key.clone(), reason);
        }
        self.upstreams.leave(key);
        self.call_in();
        let answer = match outcome {
            Outcome::Held(updated) => {
                self.flights.forget(key);
                if let Some(Updated { changed }) = updated {
                    let _ = self.shared.refresher.send(refresh::Message::Refreshed { key: key.clone(), changed });
                }
                Ensured::Ready(vec![self.shared.name.clone()])
            }
            // Somebody asked for the key, or for news of it, and has still to get it.
            Outcome::GivenUp if !waiters.is_empty() => return self.fetch_for(key, waiters),
            Outcome::GivenUp => {
                // Its removal may have been asked for while the refresh stood in the way of it.
                self.admit(key.clone(), Work::Remove, UpdateReason::Rebalance, None);
                self.failed("it gave the key up", Duration::ZERO)
            }
            // Somebody came to want it meanwhile, or nobody did.
            Outcome::Removed | Outcome::Declined => return self.fetch_for(key, waiters),
            Outcome::Failed(error) => {
                let answer = self.record(key, work, reason, error);
                // Somebody came while only peers were asked.
                if *work == (Work::Ensure { origin: false }) && !waiters.is_empty() {
                    return self.fetch_for(key, waiters);
                }
                answer
            }
        };
        for waiter in waiters {
            let _ = waiter.send(answer.clone());
        }
        let _ = self.shared.balancer.send(balancer::Message::UpdateFinished(key.clone()));
    }

    fn fetch_for(&mut self, key: &Key, waiters: Vec<Waiter>) {
        for waiter in waiters {
            self.admit(key.clone(), Work::Ensure { origin: true }, UpdateReason::Request, Some(waiter));
        }
        let _ = self.shared.balancer.send(balancer::Message::UpdateFinished(key.clone()));
    }

    /// Remembers a failure and makes the ledger tell of it, unless the key is held and was only to be refreshed.
    fn record(&mut self, key: &Key, work: &Work, reason: UpdateReason, error: UpdateError) -> Ensured {
        let now = self.shared.uptime();
        let (answer, retry) = match error {
            UpdateError::NotFound => {
                if matches!(work, Work::Ensure { .. }) {
                    self.flights.remember_absence(now, key, self.shared.config.not_found_ttl);
                }
                (Ensured::NotFound, None)
            }
            UpdateError::Forbidden(why) => (Ensured::Forbidden(why), None),
            UpdateError::Unavailable(why) | UpdateError::NoRoom(why) | UpdateError::Failed(why) => {
                let jitter = self.rng.random::<f64>();
                let provisional = self.failed(&why, Duration::ZERO);
                let pause = self.flights.remember_failure(now, key, work, provisional, jitter);
                (self.failed(&why, pause), Some((why, pause)))
            }
        };
        let held = matches!(self.shared.own_claim(key), Some(HolderState::Ready | HolderState::Presumed));
        if !held {
            self.amend_claim(key, reason, retry);
        }
        answer
    }

    fn amend_claim(&self, key: &Key, reason: UpdateReason, retry: Option<(String, Duration)>) {
        let message = match retry {
            Some((why, pause)) => {
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                let state = ClaimState::failed(&why, self.shared.world.unix_ms().saturating_add(pause_ms));
                debug!(%key, ?reason, ?pause, "will be tried again");
                let _ = self.shared.balancer.send(balancer::Message::RetryAfter(key.clone(), pause));
                registry::Message::Claim { key: key.clone(), state, reply: None }
            }
            None => {
                let _ = self.shared.balancer.send(balancer::Message::RetryAfter(key.clone(), REFUSED_PAUSE));
                registry::Message::Release { key: key.clone(), reply: None }
            }
        };
        let _ = self.shared.registry.send(message);
    }
}
