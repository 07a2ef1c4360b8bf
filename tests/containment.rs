//! Providers and peers that misbehave: panics, hangs, callers who give up, certificates of one's own.

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use common::{Cluster, eventually, fetch, get, key, name, quick};
use datad_gossip::{
    Client, ClusterKey, Credentials, Node,
    key::Key,
    provider::{Body, Provider, ProviderError, ServeError, UpdateContext, UpdateError, full},
    providers::Memory,
};
use futures::stream::BoxStream;
use http::{Request, Response, StatusCode};
use tower::ServiceExt;

/// Holds every key, and misbehaves as told.
#[derive(Default)]
struct Moody {
    memory: Memory,
    panics: AtomicBool,
    hangs: AtomicBool,
    serving: Arc<AtomicUsize>,
}

/// Counts one request while it lives.
struct Serving(Arc<AtomicUsize>);

impl Serving {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Provider for Moody {
    async fn has(&self, key: &Key) -> Result<bool, ProviderError> {
        self.memory.has(key).await
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        self.memory.keys()
    }

    async fn update(&self, key: &Key, context: UpdateContext) -> Result<(), UpdateError> {
        assert!(!self.panics.load(Ordering::SeqCst), "in a mood");
        self.memory.insert(key.clone(), "moody");
        drop(context);
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), ProviderError> {
        self.memory.remove(key).await
    }

    async fn serve(&self, _key: &Key, _request: Request<Body>) -> Result<Response<Body>, ServeError> {
        let _serving = Serving::begin(&self.serving);
        assert!(!self.panics.load(Ordering::SeqCst), "in a mood");
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(full("moody")))
    }
}

/// A moody node that holds `k`, and an observer that asks.
async fn moody_cluster() -> (Cluster, Arc<Moody>, Node, Client) {
    let cluster = Cluster::with_config(0, quick()).await;
    let moody = Arc::new(Moody::default());
    moody.memory.insert(key("k"), "moody");
    let builder = Node::builder(name("moody")).credentials(cluster.credentials()).config(quick());
    let node = builder.provider(moody.clone()).start().await.unwrap();
    let mut config = quick();
    config.seeds = vec![node.address().to_string()];
    let asker = Client::join(name("asker"), cluster.credentials(), config).await.unwrap();
    eventually("the holder is known", || async { asker.nodes_for_key(&key("k")).len() == 1 }).await;
    (cluster, moody, node, asker)
}

/// Adds a well-behaved node that holds `k` too.
async fn add_sane(cluster: &Cluster, moody: &Node, asker: &Client) -> Node {
    let sane = Memory::default();
    sane.insert(key("k"), "sane");
    let mut config = quick();
    config.seeds = vec![moody.address().to_string()];
    let builder = Node::builder(name("sane")).credentials(cluster.credentials()).config(config);
    let node = builder.provider(Arc::new(sane)).start().await.unwrap();
    eventually("both holders are known", || async { asker.nodes_for_key(&key("k")).len() == 2 }).await;
    node
}

#[tokio::test]
async fn a_provider_that_panics_while_answering_costs_an_attempt_and_not_the_request() {
    let (cluster, moody, node, asker) = moody_cluster().await;
    let _sane = add_sane(&cluster, &node, &asker).await;
    moody.panics.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(fetch(&asker, "k").await.unwrap(), (StatusCode::OK, "sane".to_owned()));
    }
}

#[tokio::test]
async fn a_holder_that_hangs_is_overtaken_by_another() {
    let (cluster, moody, node, asker) = moody_cluster().await;
    let _sane = add_sane(&cluster, &node, &asker).await;
    moody.hangs.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(fetch(&asker, "k").await.unwrap(), (StatusCode::OK, "sane".to_owned()));
    }
}

#[tokio::test]
async fn a_provider_that_panics_while_updating_is_an_error_with_a_reason() {
    let moody = Arc::new(Moody::default());
    moody.panics.store(true, Ordering::SeqCst);
    let credentials = Credentials::ClusterKey(ClusterKey::generate());
    let builder = Node::builder(name("alone")).credentials(credentials).config(quick());
    let node = builder.provider(moody.clone()).start().await.unwrap();
    let error = fetch(&node.client(), "k").await.unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    moody.panics.store(false, Ordering::SeqCst);
    eventually("it recovers", || async { fetch(&node.client(), "k").await.is_ok() }).await;
}

#[tokio::test]
async fn a_request_that_is_dropped_is_cancelled_at_the_holder() {
    let (_cluster, moody, _node, asker) = moody_cluster().await;
    moody.hangs.store(true, Ordering::SeqCst);
    let request = tokio::spawn(asker.transport_for_key(key("k")).oneshot(get("/k")));
    eventually("the holder works on it", || async { moody.serving.load(Ordering::SeqCst) == 1 }).await;
    request.abort();
    eventually("the holder has stopped", || async { moody.serving.load(Ordering::SeqCst) == 0 }).await;
}

/// An authority of the operator's own, and certificates it signs.
struct Authority {
    folder: tempfile::TempDir,
    params: rcgen::CertificateParams,
    key: rcgen::KeyPair,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, params, key }
    }

    fn sign(&self, text: &str) -> Credentials {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![text.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &rcgen::Issuer::from_params(&self.params, &self.key)).unwrap();
        let path = |what: &str| self.folder.path().join(format!("{text}.{what}.pem"));
        std::fs::write(path("cert"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        let authority = self.folder.path().join("ca.pem");
        Credentials::Pem { certificate: path("cert"), key: path("key"), authority }
    }
}

#[tokio::test]
async fn certificates_of_ones_own_authority_make_members_and_others_do_not() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let start = |text: &'static str, credentials: Credentials, seeds: Vec<String>| async move {
        let mut config = quick();
        config.seeds = seeds;
        let builder = Node::builder(name(text)).credentials(credentials).config(config);
        builder.provider(Arc::new(Memory::default())).start().await.unwrap()
    };
    let one = start("one", ours.sign("one"), vec![]).await;
    let seeds = vec![one.address().to_string()];
    let two = start("two", ours.sign("two"), seeds.clone()).await;
    let stranger = start("stranger", theirs.sign("stranger"), seeds).await;
    tokio::time::timeout(common::DEADLINE, one.client().view_when(|view| view.is_alive(&name("two")))).await.unwrap();
    assert_eq!(stranger.client().view().alive().count(), 1, "it serves alone");
    assert!(one.client().view().member(&name("stranger")).is_none());
    two.shutdown().await;
}
