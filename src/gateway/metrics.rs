//! What Prometheus reads. Each gateway has a registry of its own: a process may hold many nodes.
//!
//! Requests are counted as they pass; the state of the node is read at each scrape.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::body::Body;
use http::Response;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tokio::time::Instant;

use crate::{
    api::state_name,
    client::{Client, Status},
    core::membership::Member,
    operations::GuardedBody,
};

/// Of the text that [`Metrics::render`] makes.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something below the root.
    Data,
    /// Something below `/-/`.
    Operations,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Operations => "operations",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    kind: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

/// The metrics of one gateway.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    seconds: Family<OfKind, Histogram>,
    in_flight: Family<OfKind, Gauge>,
    keys: Gauge,
    under_replicated: Gauge,
    hot: Gauge,
    fetching: Gauge,
    repairs: Family<InState, Gauge>,
    repairs_paused: Gauge,
    converged: Gauge,
    connections: Gauge,
    scanning: Gauge,
    gossip_messages: Counter,
    gossip_bytes: Counter,
    full: Gauge,
    disk_used: Gauge,
    disk_total: Gauge,
    members: Family<InState, Gauge>,
    seeds: Family<InState, Gauge>,
    clocks_apart: Gauge,
    observers: Gauge,
    waiting_for: Gauge,
    stuck_threads: Gauge,
    /// Where a watchdog counts them, if there is one.
    watched: Option<Arc<AtomicU64>>,
}

impl Metrics {
    pub(super) fn new(watched: Option<Arc<AtomicU64>>) -> Self {
        let mut registry = Registry::with_prefix("datad");
        let seconds: Family<OfKind, Histogram> = Family::new_with_constructor(latencies);
        let metrics = Self {
            requests: Family::default(),
            in_flight: Family::default(),
            keys: Gauge::default(),
            under_replicated: Gauge::default(),
            hot: Gauge::default(),
            fetching: Gauge::default(),
            repairs: Family::default(),
            repairs_paused: Gauge::default(),
            converged: Gauge::default(),
            connections: Gauge::default(),
            scanning: Gauge::default(),
            gossip_messages: Counter::default(),
            gossip_bytes: Counter::default(),
            full: Gauge::default(),
            disk_used: Gauge::default(),
            disk_total: Gauge::default(),
            members: Family::default(),
            seeds: Family::default(),
            clocks_apart: Gauge::default(),
            observers: Gauge::default(),
            waiting_for: Gauge::default(),
            stuck_threads: Gauge::default(),
            watched,
            seconds: seconds.clone(),
            registry: Registry::default(),
        };
        registry.register("http_requests", "Answered HTTP requests by class of status", metrics.requests.clone());
        let help = "Time to the head of the response";
        registry.register_with_unit("http_response", help, Unit::Seconds, seconds);
        let help = "HTTP requests whose response has not ended";
        registry.register("http_in_flight", help, metrics.in_flight.clone());
        registry.register("keys", "Keys that this node knows of", metrics.keys.clone());
        let help = "Known keys with fewer live replicas than was asked for";
        registry.register("under_replicated", help, metrics.under_replicated.clone());
        let help = "Known keys that are asked for so often that more nodes than usual should keep them";
        registry.register("hot_keys", help, metrics.hot.clone());
        registry.register("fetching", "Fetches under way in the cluster", metrics.fetching.clone());
        registry.register("repairs", "Replicas that this node restores or moves here", metrics.repairs.clone());
        let help = "1 while repairs hold back because too many members were lost at once";
        registry.register("repairs_paused", help, metrics.repairs_paused.clone());
        let help = "1 if this node knows all there is to know and has nothing to do";
        registry.register("converged", help, metrics.converged.clone());
        registry.register("members", "Known members by state", metrics.members.clone());
        registry.register("seeds", "Configured seeds by whether they answer", metrics.seeds.clone());
        let help = "Members whose wall clock is more than a minute from this node's";
        registry.register("clocks_apart", help, metrics.clocks_apart.clone());
        registry.register("observers", "Observers that follow this node's view", metrics.observers.clone());
        let help = "Things that the node waits for and only an operator can bring; status names them";
        registry.register("waiting_for", help, metrics.waiting_for.clone());
        let help = "1 while the node still reads what is on its disk";
        registry.register("scanning", help, metrics.scanning.clone());
        registry.register("gossip_messages", "Gossip messages sent", metrics.gossip_messages.clone());
        let help = "Bytes of gossip messages sent";
        registry.register_with_unit("gossip_sent", help, Unit::Bytes, metrics.gossip_bytes.clone());
        registry.register("peer_connections", "Connections to other members", metrics.connections.clone());
        let help = "1 if this node takes no new keys because its disk is full";
        registry.register("full", help, metrics.full.clone());
        let help = "Room on the disk that is taken; 0 if the data source does not tell";
        registry.register_with_unit("disk_used", help, Unit::Bytes, metrics.disk_used.clone());
        let help = "Room on the disk, taken or not";
        registry.register_with_unit("disk_total", help, Unit::Bytes, metrics.disk_total.clone());
        let help = "Runtime threads that do not yield; the process ends when one goes on";
        registry.register("stuck_threads", help, metrics.stuck_threads.clone());
        Self { registry, ..metrics }
    }

    /// A request has come.
    pub(super) fn begin(&self, kind: Kind) -> Observed<'_> {
        let in_flight = self.in_flight.get_or_create_owned(&OfKind { kind: kind.name() });
        in_flight.inc();
        Observed { metrics: self, kind, started: Instant::now(), in_flight: InFlight(in_flight) }
    }

    /// The text, with what `client`'s node says of itself now.
    pub(super) async fn render(&self, client: &Client) -> String {
        if let Some(watched) = &self.watched {
            self.stuck_threads.set(watched.load(Ordering::Relaxed) as i64);
        }
        self.describe(&client.status().await, &client.members());
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }

    fn describe(&self, status: &Status, members: &[Member]) {
        let set = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.keys, status.keys);
        set(&self.under_replicated, status.under_replicated);
        set(&self.hot, status.hot);
        set(&self.fetching, status.fetching);
        for (state, count) in [("waiting", status.repairs_waiting), ("running", status.repairs_running)] {
            set(&self.repairs.get_or_create_owned(&InState { state }), count);
        }
        set(&self.repairs_paused, usize::from(status.repairs_paused.is_some()));
        set(&self.converged, usize::from(status.converged));
        set(&self.connections, status.connections);
        set(&self.scanning, usize::from(status.scanning.is_some()));
        // Two scrapes at once must not both add what is new.
        self.gossip_messages.inner().fetch_max(status.gossip_messages, Ordering::Relaxed);
        self.gossip_bytes.inner().fetch_max(status.gossip_bytes, Ordering::Relaxed);
        set(&self.full, usize::from(status.full));
        let bytes = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        set(&self.disk_used, status.disk.map_or(0, |disk| bytes(disk.used)));
        set(&self.disk_total, status.disk.map_or(0, |disk| bytes(disk.total)));
        set(&self.clocks_apart, status.clocks_apart.len());
        set(&self.observers, status.observers);
        set(&self.waiting_for, status.waiting_for.len());
        let answering = status.seeds.iter().filter(|seed| seed.answers).count();
        for (state, count) in [("answering", answering), ("silent", status.seeds.len() - answering)] {
            set(&self.seeds.get_or_create_owned(&InState { state }), count);
        }
        for state in ["joining", "serving", "leaving", "draining", "left", "dead"] {
            let count = members.iter().filter(|member| state_name(member.state) == state).count();
            set(&self.members.get_or_create_owned(&InState { state }), count);
        }
    }
}

/// From half a millisecond to a minute and a half.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 3.0, 12))
}

/// A request that is being answered.
pub(super) struct Observed<'a> {
    metrics: &'a Metrics,
    kind: Kind,
    started: Instant,
    in_flight: InFlight,
}

impl Observed<'_> {
    /// Counts the response, and the request as in flight until the response's body ends.
    pub(super) fn answered(self, response: Response<Body>) -> Response<Body> {
        let Self { metrics, kind, started, in_flight } = self;
        metrics.seconds.get_or_create(&OfKind { kind: kind.name() }).observe(started.elapsed().as_secs_f64());
        let status = match response.status().as_u16() / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        metrics.requests.get_or_create(&Outcome { kind: kind.name(), status }).inc();
        response.map(|body| Body::new(GuardedBody::new(body, in_flight)))
    }
}

struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
