//! Requests at nodes, and what their answers are worth.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use datad_gossip::{Client, IntentAck, IntentError, RouteError, key::Key, provider::empty};
use http::Request;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::{
    cluster::{Cluster, Machine},
    invariants::{CALM, s09_answers, s21_answered_soon},
    model::{Answer, Intended, RequestKind, Violation, What},
};

/// A request may end this much after its deadline: the answer has to be read, perhaps through a narrow link that many
/// share.
const DEADLINE_SLACK: Duration = Duration::from_secs(60);
/// A process that began, went on or failed a moment ago may not have its connections yet.
const RECONNECT: Duration = Duration::from_secs(3);
/// Requests under way; further ones are left out.
const UNDER_WAY_MAX: usize = 1_024;

/// A request under way or ended.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The machine that was asked.
    pub machine: usize,
    /// About which key.
    pub key: Key,
    /// When.
    pub began: Duration,
    /// What was asked.
    kind: RequestKind,
    /// When the process that was asked began.
    started: Duration,
    /// Whether the asked node was cut off from another one when it was asked.
    cut_off: bool,
    /// Whether a holder that the asked node would have gone to cannot answer.
    holder_gone: bool,
    /// A machine that could answer, and since when it could.
    answerable: Option<(usize, Duration)>,
    /// Whether the answer has begun: the head is there.
    answer_begun: Arc<AtomicBool>,
}

/// What requests came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Requests that were made.
    pub asked: u64,
    /// Those that got what they wanted.
    pub good: u64,
    /// Those for keys that exist which did not.
    pub failed: u64,
    /// Those that waited for longer than a second.
    pub waited: u64,
}

/// What an answer of a node about a key has to be; told whether its bytes were ever published.
pub type Demand = fn(&str, &Key, &Answer, bool) -> Result<(), Violation>;

/// The requests of a run.
#[derive(Default)]
pub struct Requests {
    under_way: BTreeMap<u64, Asked>,
    ended: Arc<Mutex<Vec<(u64, Duration, Answer)>>>,
    next: u64,
    demand: Option<Demand>,
    /// What was said of what is to become of keys, in order.
    pub intents: Vec<Intended>,
    /// What they came to.
    pub counts: Counts,
    /// How long the good ones took, in milliseconds.
    pub took_ms: Vec<u32>,
}

impl Requests {
    /// Makes a request, if there is a node that takes it.
    pub fn ask(&mut self, cluster: &mut Cluster, machine: usize, key: &Key, kind: RequestKind) {
        let target = &cluster.machines[machine];
        let Some(client) = target.client().filter(|_| target.is_serving()).cloned() else { return };
        if self.under_way.len() >= UNDER_WAY_MAX {
            return;
        }
        let gone = |name| {
            let holder = &cluster.machines[cluster.number(name)];
            !holder.is_well() || !cluster.fabric.is_linked(target.address.ip(), holder.address.ip())
        };
        let holders = client.nodes_for_key(key);
        let others = || cluster.machines.iter().filter(|other| other.is_well());
        let asked = Asked {
            machine,
            key: key.clone(),
            kind,
            began: cluster.clock.now(),
            started: target.started().unwrap_or_default(),
            cut_off: others().any(|other| !cluster.fabric.is_linked(target.address.ip(), other.address.ip())),
            holder_gone: !holders.contains(&target.name) && holders.iter().any(|name| gone(name.as_str())),
            answerable: None,
            answer_begun: Arc::default(),
        };
        let begun = asked.answer_begun.clone();
        let (id, key, ended, clock) = (self.next, key.clone(), self.ended.clone(), cluster.clock.clone());
        let patience = patience(cluster, kind);
        self.next += 1;
        self.counts.asked += 1;
        self.under_way.insert(id, asked);
        if kind == RequestKind::Forget {
            cluster.oracle.truth().forgotten.insert(key.clone());
        }
        if matches!(kind, RequestKind::Unpin | RequestKind::Forget) {
            cluster.oracle.truth().pinned.remove(&key);
        }
        if kind.is_intent() {
            self.intents.push(Intended { id, key: key.clone(), kind, began: cluster.clock.now(), ended: None });
        }
        let Some(process) = cluster.machines[machine].process() else { return };
        process.spawn(async move {
            let deadline = Instant::now() + patience;
            let answer =
                tokio::time::timeout_at(deadline, answer(client, key, kind, &begun)).await.unwrap_or(Answer::Hangs);
            ended.lock().expect("nothing panics while it holds this lock").push((id, clock.now(), answer));
        });
    }

    /// Judges what has ended, and whatever should have.
    ///
    /// # Errors
    /// An answer is wrong, or there is none.
    pub fn judge(&mut self, cluster: &Cluster) -> Result<(), Violation> {
        let ended = std::mem::take(&mut *self.ended.lock().expect("nothing panics while it holds this lock"));
        for (id, at, answer) in ended {
            let Some(asked) = self.under_way.remove(&id) else { continue };
            if let Some(intended) = self.intents.iter_mut().rfind(|intended| intended.id == id) {
                let confirmed = if let Answer::Recorded(confirmed) = &answer { confirmed.clone() } else { Vec::new() };
                intended.ended = Some((at, confirmed));
            }
            if asked.kind == RequestKind::Pin && answer.is_good() {
                cluster.oracle.truth().pinned.insert(asked.key.clone());
            }
            self.judge_one(cluster, &asked, at, &answer)?;
        }
        Ok(())
    }

    /// Judges what is under way: a request that a machine could answer for a while should have ended. `smooth`: links are
    /// either as good as usual or cut, and disks work.
    ///
    /// # Errors
    /// One has not.
    pub fn judge_waiting(&mut self, cluster: &Cluster, smooth: bool) -> Result<(), Violation> {
        let now = cluster.clock.now();
        let bytes = self.under_way.len() as u64 * cluster.value_bytes_max;
        let waits = |asked: &&mut Asked| asked.kind == RequestKind::Get && !asked.answer_begun.load(Ordering::Relaxed);
        for asked in self.under_way.values_mut().filter(waits) {
            let could = |number: &usize| smooth && could_answer(cluster, asked.machine, *number, &asked.key);
            let still = asked.answerable.filter(|(number, _)| could(number));
            let first = || (0..cluster.machines.len()).find(could).map(|number| (number, now));
            asked.answerable = still.or_else(first);
            if let Some((number, since)) = asked.answerable {
                let (asker, holder) = (&cluster.machines[asked.machine].name, &cluster.machines[number].name);
                s21_answered_soon::check(now, asker, &asked.key, holder, since, bytes)?;
            }
        }
        Ok(())
    }

    /// Forgets the requests at machines that lost their process since they were made: who asked has gone with it.
    pub fn forget_gone(&mut self, cluster: &Cluster) {
        self.under_way.retain(|_, asked| cluster.machines[asked.machine].started() == Some(asked.started));
    }

    /// Forgets requests at machines that do not count any more.
    pub fn retain(&mut self, counts: impl Fn(usize) -> bool) {
        self.under_way.retain(|_, asked| counts(asked.machine));
    }

    /// From now on, every answer has to satisfy `demand` as well.
    pub fn expect_all(&mut self, demand: Demand) {
        self.demand = Some(demand);
    }

    /// Requests that have not ended.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    fn judge_one(&mut self, cluster: &Cluster, asked: &Asked, at: Duration, answer: &Answer) -> Result<(), Violation> {
        let Asked { machine, key, began, .. } = asked;
        let (name, took) = (cluster.machines[*machine].name.to_string(), at - *began);
        let lacking = matches!(answer, Answer::Error(RouteError::NotFound { .. }))
            && cluster.data.may_lack(key, not_found_memory(cluster));
        let good = answer.is_good() || lacking;
        cluster.trace.tell(What::Request {
            machine: name.clone(),
            key: key.to_string(),
            began: *began,
            good,
            answer: answer.to_string(),
        });
        self.count(cluster, asked, took, answer);
        let was_published = matches!(answer, Answer::Body(_, bytes) if cluster.data.was_published(key, bytes));
        if let Some(demand) = self.demand {
            demand(&name, key, answer, was_published)?;
        }
        // Whoever was stopped or slow meanwhile may have missed its own deadline.
        let disturbed = cluster.machines[*machine].unwell >= *began || !cluster.machines[*machine].is_well();
        if disturbed && matches!(answer, Answer::Hangs) {
            return Ok(());
        }
        let truth = cluster.oracle.truth();
        let is_calm =
            !disturbed && !truth.all_are_full() && truth.calm_since.is_some_and(|since| *began >= since + CALM);
        drop(truth);
        let may_lack = cluster.data.may_lack(key, not_found_memory(cluster));
        s09_answers::check(key, answer, s09_answers::Truth { was_published, may_lack, is_calm })
            .map_err(|violation| Violation { detail: format!("asked at {name}: {}", violation.detail), ..violation })
    }

    fn count(&mut self, cluster: &Cluster, asked: &Asked, took: Duration, answer: &Answer) {
        let exists = !cluster.data.may_lack(&asked.key, Duration::ZERO);
        self.counts.good += u64::from(answer.is_good());
        self.counts.failed += u64::from(!answer.is_good() && exists && !asked.kind.is_intent());
        self.counts.waited += u64::from(took > Duration::from_secs(1));
        let mut truth = cluster.oracle.truth();
        truth.probes.hit(match answer {
            Answer::Body(..) | Answer::Updated(..) => "answered",
            Answer::Recorded(_) => "intent recorded",
            Answer::NotRecorded(_) => "intent refused",
            Answer::BrokenOff(_) => "broken off",
            Answer::Error(RouteError::NotFound { .. }) => "not found",
            Answer::Error(_) | Answer::Hangs => "refused",
        });
        if answer.is_good() {
            self.took_ms.push(u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
            if asked.holder_gone {
                truth.probes.hit("failover");
            }
            if asked.cut_off {
                truth.probes.hit("cut off and serving");
            }
        }
    }
}

/// Whether the node of machine `holder` has `key`, and that of `asked` knows it and reaches it.
fn could_answer(cluster: &Cluster, asked: usize, holder: usize, key: &Key) -> bool {
    let (asker, other) = (&cluster.machines[asked], &cluster.machines[holder]);
    let settled = |machine: &Machine| {
        let quiet_since = machine.unwell.max(machine.begun);
        machine.is_well() && machine.is_serving() && quiet_since + RECONNECT <= cluster.clock.now()
    };
    let knows = || asker.client().is_some_and(|client| client.nodes_for_key(key).contains(&other.name));
    settled(asker)
        && settled(other)
        && (asked == holder || cluster.fabric.is_linked(asker.address.ip(), other.address.ip()))
        && cluster.oracle.truth().can_serve(holder, key)
        && knows()
}

/// How long any request may take.
#[must_use]
pub fn longest(cluster: &Cluster) -> Duration {
    patience(cluster, RequestKind::Update) + Duration::from_secs(1)
}

/// How long a request may take. An update may first wait for the one node that asks the upstream, then for the others.
fn patience(cluster: &Cluster, kind: RequestKind) -> Duration {
    let updates = if kind == RequestKind::Update { 2 * cluster.config.update_timeout } else { Duration::ZERO };
    cluster.config.request_patience + updates + DEADLINE_SLACK
}

/// For how long an answer may rest on what the upstream said earlier.
fn not_found_memory(cluster: &Cluster) -> Duration {
    cluster.config.not_found_ttl + patience(cluster, RequestKind::Update)
}

async fn answer(client: Client, key: Key, kind: RequestKind, begun: &AtomicBool) -> Answer {
    match kind {
        RequestKind::Get => get(client, key, begun).await,
        RequestKind::Update => match client.update(&key).await {
            Ok(replicas) => {
                let bad = replicas.iter().filter(|replica| replica.error.is_some()).count();
                Answer::Updated(replicas.len() - bad, bad)
            }
            Err(error) => Answer::Error(error),
        },
        RequestKind::Pin => recorded(client.pin(&key, None).await),
        RequestKind::Unpin => recorded(client.unpin(&key).await),
        RequestKind::Forget => recorded(client.forget(&key).await),
    }
}

fn recorded(answer: Result<IntentAck, IntentError>) -> Answer {
    match answer {
        Ok(recorded) => Answer::Recorded(recorded.confirmed),
        Err(error) => Answer::NotRecorded(error.to_string()),
    }
}

async fn get(client: Client, key: Key, begun: &AtomicBool) -> Answer {
    let request = Request::get(format!("/{key}")).body(empty()).expect("a valid request");
    match client.transport_for_key(key).oneshot(request).await {
        Err(error) => Answer::Error(error),
        Ok(response) => {
            begun.store(true, Ordering::Relaxed);
            let status = response.status();
            match response.into_body().collect().await {
                Ok(body) => Answer::Body(status, body.to_bytes()),
                Err(error) => Answer::BrokenOff(error.to_string()),
            }
        }
    }
}
