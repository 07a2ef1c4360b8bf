//! A 4 KiB answer from another node: through the key transport, beside a bare hyper client and beside raw quinn.
//!
//! All three run on one runtime over loopback, 32 requests at a time, so the numbers are only good as ratios. The bare
//! client speaks plain HTTP/1.1 over kept-alive TCP connections: no TLS, no routing, no failover.

#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "benchmarks measure real time; criterion's macros have no docs"
)]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datad_gossip::{
    Client, ClusterKey, Credentials, Node,
    config::{NodeConfig, Profile},
    key::{Key, NodeName},
    provider::empty,
    providers::Memory,
};
use futures::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

const CONCURRENCY: u64 = 32;
const BYTES: usize = 4096;

fn node_config() -> NodeConfig {
    let mut config = NodeConfig::default();
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.profile = Profile::local();
    config.replicas = 1;
    config
}

/// A holder and an observer, so that every request crosses the network.
async fn cluster(key: &Key) -> (Node, Client) {
    let credentials = Credentials::ClusterKey(ClusterKey::generate());
    let memory = Memory::default();
    memory.insert(key.clone(), vec![7; BYTES]);
    let builder = Node::builder(NodeName::new("holder").unwrap()).config(node_config());
    let holder = builder.credentials(credentials.clone()).provider(Arc::new(memory)).start().await.unwrap();
    let mut config = node_config();
    config.seeds = vec![holder.address().to_string()];
    let client = Client::join(NodeName::new("asker").unwrap(), credentials, config).await.unwrap();
    while client.nodes_for_key(key).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (holder, client)
}

async fn through_transport(client: Client, key: Key, count: u64) {
    let transport = client.transport_for_key(key);
    for _ in 0..count {
        let request = Request::get("/k").body(empty()).unwrap();
        let response = transport.clone().oneshot(request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), BYTES);
    }
}

/// A server that answers every request with the same bytes, and its address.
async fn bare_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let data = Bytes::from(vec![7; BYTES]);
                let service = hyper::service::service_fn(move |_| {
                    let data = data.clone();
                    async move { Ok::<_, std::convert::Infallible>(Response::new(Full::new(data))) }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

type Sender = hyper::client::conn::http1::SendRequest<Empty<Bytes>>;

async fn bare_connection(address: SocketAddr) -> Sender {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn through_bare(sender: &mut Sender, count: u64) {
    for _ in 0..count {
        sender.ready().await.unwrap();
        let request = Request::get("/k").header("host", "bench").body(Empty::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), BYTES);
    }
}

/// A QUIC connection to a server that answers every stream with the same bytes.
async fn raw_quinn() -> quinn::Connection {
    let made = rcgen::generate_simple_self_signed(vec!["bench".into()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = quinn::ServerConfig::with_single_cert(vec![made.cert.der().clone()], key.into()).unwrap();
    let listening = quinn::Endpoint::server(server, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listening.local_addr().unwrap();
    tokio::spawn(async move {
        let connection = listening.accept().await.unwrap().await.unwrap();
        let data = Bytes::from(vec![7; BYTES]);
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            let data = data.clone();
            tokio::spawn(async move {
                recv.read_to_end(1024).await.unwrap();
                send.write_chunk(data).await.unwrap();
                let _ = send.finish();
            });
        }
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap());
    endpoint.connect(address, "bench").unwrap().await.unwrap()
}

async fn through_quinn(connection: quinn::Connection, count: u64) {
    for _ in 0..count {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(b"GET /k with a head of about this length, as a request has").await.unwrap();
        send.finish().unwrap();
        assert_eq!(recv.read_to_end(BYTES).await.unwrap().len(), BYTES);
    }
}

fn shares(iterations: u64) -> impl Iterator<Item = u64> {
    (0..CONCURRENCY).map(move |number| iterations / CONCURRENCY + u64::from(number < iterations % CONCURRENCY))
}

fn timed<F>(runtime: &tokio::runtime::Runtime, work: impl Iterator<Item = F>) -> Duration
where
    F: Future<Output = ()> + Send + 'static,
{
    let started = Instant::now();
    runtime.block_on(async {
        for ended in join_all(work.map(tokio::spawn)).await {
            ended.unwrap();
        }
    });
    started.elapsed()
}

fn transport(criterion: &mut Criterion) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let key = Key::new("k").unwrap();
    let (_holder, client) = runtime.block_on(cluster(&key));
    let mut bare: Vec<Sender> = runtime.block_on(async {
        let address = bare_server().await;
        join_all((0..CONCURRENCY).map(|_| bare_connection(address))).await
    });
    let quic = runtime.block_on(raw_quinn());

    let mut group = criterion.benchmark_group("request of 4 KiB");
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(8));
    group.bench_function("bare hyper client", |bencher| {
        bencher.iter_custom(|iterations| {
            let senders = std::mem::take(&mut bare);
            let started = Instant::now();
            bare = runtime.block_on(async {
                let work = senders.into_iter().zip(shares(iterations)).map(|(mut sender, count)| {
                    tokio::spawn(async move {
                        through_bare(&mut sender, count).await;
                        sender
                    })
                });
                join_all(work).await.into_iter().map(Result::unwrap).collect()
            });
            started.elapsed()
        });
    });
    group.bench_function("raw quinn", |bencher| {
        bencher.iter_custom(|iterations| {
            timed(&runtime, shares(iterations).map(|count| through_quinn(quic.clone(), count)))
        });
    });
    group.bench_function("key transport", |bencher| {
        bencher.iter_custom(|iterations| {
            timed(&runtime, shares(iterations).map(|count| through_transport(client.clone(), key.clone(), count)))
        });
    });
    group.finish();
}

criterion_group!(benches, transport);
criterion_main!(benches);
