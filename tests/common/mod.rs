//! A cluster of real nodes in one process, on real sockets, with data in memory. In the test program `etcd` it is
//! coordinated by a private etcd; whatever is tested has to hold all the same.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part")]

pub mod cut;
#[cfg(feature = "etcd")]
pub mod etcd;

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use datad_gossip::{
    Client, ClusterKey, Credentials, HoldingState, Node, NodeBuilder,
    config::{NodeConfig, Profile},
    key::{Key, NodeName},
    provider::{Body, UpdateError, empty},
    providers::Memory,
};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

/// How long anything may take before a test gives up on it.
pub const DEADLINE: Duration = Duration::from_secs(40);

pub fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

pub fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// The origin that all nodes share: what it has, how long it takes, and whether it is up.
#[derive(Clone, Default)]
pub struct Upstream {
    state: Arc<Mutex<UpstreamState>>,
}

#[derive(Default)]
struct UpstreamState {
    values: BTreeMap<Key, Bytes>,
    delay: Duration,
    down: bool,
    /// It answers that nobody may have anything.
    refusing: bool,
    asks: usize,
    /// Keys that begin so never arrive.
    hanging: Option<String>,
    /// Asks that hang now.
    stuck: usize,
}

/// Counts an ask that hangs, until it is given up.
struct Stuck(Arc<Mutex<UpstreamState>>);

impl Stuck {
    fn new(state: &Arc<Mutex<UpstreamState>>) -> Self {
        state.lock().unwrap().stuck += 1;
        Self(state.clone())
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.0.lock().unwrap().stuck -= 1;
    }
}

impl Upstream {
    pub fn put(&self, text: &str, value: &str) {
        self.state.lock().unwrap().values.insert(key(text), Bytes::from(value.to_owned()));
    }

    /// The origin has it no more.
    pub fn lose(&self, text: &str) {
        self.state.lock().unwrap().values.remove(&key(text));
    }

    pub fn set_delay(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    pub fn set_down(&self, down: bool) {
        self.state.lock().unwrap().down = down;
    }

    pub fn set_refusing(&self, refusing: bool) {
        self.state.lock().unwrap().refusing = refusing;
    }

    /// Keys that begin with `prefix` never arrive; `None`: all do.
    pub fn hang(&self, prefix: Option<&str>) {
        self.state.lock().unwrap().hanging = prefix.map(str::to_owned);
    }

    /// How many asks hang.
    pub fn stuck(&self) -> usize {
        self.state.lock().unwrap().stuck
    }

    pub fn asks(&self) -> usize {
        self.state.lock().unwrap().asks
    }

    pub fn memory(&self) -> Memory {
        let state = self.state.clone();
        Memory::new(move |wanted: Key| {
            let state = state.clone();
            async move {
                let (delay, hangs) = {
                    let mut state = state.lock().unwrap();
                    state.asks += 1;
                    let hangs =
                        state.hanging.as_ref().is_some_and(|prefix| wanted.as_str().starts_with(prefix.as_str()));
                    (state.delay, hangs)
                };
                if hangs {
                    let _stuck = Stuck::new(&state);
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(delay).await;
                let state = state.lock().unwrap();
                if state.down {
                    return Err(UpdateError::Unavailable("the origin is down".into()));
                }
                if state.refusing {
                    return Err(UpdateError::Forbidden("the origin says 403".into()));
                }
                state.values.get(&wanted).cloned().ok_or(UpdateError::NotFound)
            }
        })
    }
}

/// Settings with which a test need not wait long.
pub fn quick() -> NodeConfig {
    let mut config = NodeConfig::default();
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.profile = Profile::local();
    config.repair_delay = Duration::from_millis(1_500);
    config.trim_delay = Duration::from_millis(500);
    config.request_patience = Duration::from_secs(20);
    config
}

pub struct Member {
    pub node: Node,
    pub memory: Memory,
    pub clock: cut::WallClock,
}

pub struct Cluster {
    pub secret: ClusterKey,
    pub upstream: Upstream,
    pub members: BTreeMap<String, Member>,
    pub config: NodeConfig,
    pub cuts: cut::Cuts,
    #[cfg(feature = "etcd")]
    pub etcd: Option<etcd::Etcd>,
}

/// Whether this is the test program whose clusters are coordinated by etcd.
#[cfg(feature = "etcd")]
pub const BY_ETCD: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"etcd");

impl Cluster {
    pub async fn start(count: usize) -> Self {
        Self::with_config(count, quick()).await
    }

    pub async fn with_config(count: usize, config: NodeConfig) -> Self {
        // RUST_LOG shows what the nodes do.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let mut cluster = Self {
            secret: ClusterKey::generate(),
            upstream: Upstream::default(),
            members: BTreeMap::new(),
            config,
            cuts: cut::Cuts::default(),
            #[cfg(feature = "etcd")]
            etcd: if BY_ETCD { Some(etcd::Etcd::start(1).await) } else { None },
        };
        for number in 1..=count {
            let memory = cluster.upstream.memory();
            cluster.add(&format!("n{number}"), memory).await;
        }
        cluster.until_whole().await;
        cluster
    }

    pub fn credentials(&self) -> Credentials {
        Credentials::ClusterKey(self.secret.clone())
    }

    pub fn seeds(&self) -> Vec<String> {
        self.members.values().map(|member| member.node.address().to_string()).collect()
    }

    /// A node of this cluster, not started and without a provider yet.
    pub fn builder(&self, text: &str) -> NodeBuilder {
        self.builder_with_clock(text, &cut::WallClock::default())
    }

    fn builder_with_clock(&self, text: &str, clock: &cut::WallClock) -> NodeBuilder {
        let mut config = self.config.clone();
        config.seeds = self.seeds();
        let builder = Node::builder(name(text)).credentials(self.credentials()).config(config);
        #[cfg(feature = "etcd")]
        let builder = match &self.etcd {
            Some(etcd) => builder.etcd(etcd_config(etcd)),
            None => builder,
        };
        builder.world(Arc::new(cut::CutWorld::new(&self.cuts, clock)))
    }

    pub async fn add(&mut self, text: &str, memory: Memory) {
        self.add_with_clock(text, memory, 0).await;
    }

    /// Adds a node whose wall clock is wrong by so many milliseconds.
    pub async fn add_with_clock(&mut self, text: &str, memory: Memory, off_by: i64) {
        let clock = cut::WallClock::default();
        clock.set_off_by(off_by);
        let builder = self.builder_with_clock(text, &clock);
        let node = builder.provider(Arc::new(memory.clone())).start().await.unwrap();
        self.members.insert(text.to_owned(), Member { node, memory, clock });
    }

    /// The private etcd, in the test program that has one.
    #[cfg(feature = "etcd")]
    pub fn etcd(&mut self) -> &mut etcd::Etcd {
        self.etcd.as_mut().expect("this test program has one")
    }

    /// Drops a node without a goodbye: to the others it is dead.
    pub fn kill(&mut self, text: &str) -> Memory {
        self.members.remove(text).unwrap().memory
    }

    pub fn client(&self, text: &str) -> Client {
        self.members[text].node.client()
    }

    pub fn address(&self, text: &str) -> SocketAddr {
        self.members[text].node.address()
    }

    pub fn any(&self) -> Client {
        self.members.values().next().unwrap().node.client()
    }

    /// Waits until every node sees all nodes of the cluster on the ring, and no others.
    pub async fn until_whole(&self) {
        let names: Vec<NodeName> = self.members.keys().map(|text| name(text)).collect();
        for member in self.members.values() {
            let client = member.node.client();
            eventually("all members are on the ring", || async { client.view().ring().nodes() == names }).await;
        }
    }

    /// Waits until every node sees `count` ready replicas of `text`, on owners only.
    pub async fn until_replicated(&self, text: &str, count: usize) {
        for member in self.members.values() {
            let client = member.node.client();
            eventually("the key has its replicas", || async {
                let location = client.locate(&key(text));
                let ready = location.holders.iter().filter(|holder| holder.state == HoldingState::Ready);
                ready.clone().count() == count && ready.clone().all(|holder| location.owners.contains(&holder.node))
            })
            .await;
        }
    }
}

/// Death is noticed as soon as etcd allows.
#[cfg(feature = "etcd")]
pub fn etcd_config(etcd: &etcd::Etcd) -> datad_gossip::etcd::EtcdConfig {
    let mut config = datad_gossip::etcd::EtcdConfig::new(etcd.urls());
    config.lease_ttl = Duration::from_secs(2);
    config
}

/// Waits until `condition` holds.
pub async fn eventually<F, T>(what: &str, mut condition: F)
where
    F: FnMut() -> T,
    T: Future<Output = bool>,
{
    let waited = tokio::time::timeout(DEADLINE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {DEADLINE:?}: {what}");
}

pub fn get(path: &str) -> Request<Body> {
    Request::get(path).body(empty()).unwrap()
}

/// Status and body of a GET of a key through a client.
pub async fn fetch(client: &Client, text: &str) -> Result<(StatusCode, String), datad_gossip::RouteError> {
    let response = client.transport_for_key(key(text)).oneshot(get(&format!("/{text}"))).await?;
    Ok(read(response).await)
}

pub async fn read(response: Response<Body>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}
