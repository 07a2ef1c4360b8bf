//! Two endpoints on loopback: who is let in, and what a misbehaving peer costs.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{Request, Response};
use http_body_util::BodyExt;
use quinn::ConnectionError;

use super::{
    errors::code,
    identity::{ClusterKey, Credentials, Identity},
    peer::PART_STREAMS_MAX,
    slot::ConnectionState,
    transport::{DIAL_TIMEOUT, HANDSHAKES_MAX, STREAM_WINDOW_BYTES},
    wire::{
        Call, Delta, Hello, HelloRefusal, MemberNews, NodeRequest, Position, Purpose, Rejection, Reply, RequestHead,
        calls::Vouch,
    },
    *,
};
use crate::{
    config::Profile,
    core::registry::{Change, ClaimState, Incarnation, Version},
    key::{Key, NodeName},
    provider::{self, Body, body, full},
    util::codec,
    world::Machine,
};

const PATIENCE: Duration = Duration::from_secs(20);
const CHUNK: &[u8] = &[0; 64 << 10];

/// Answers every call with what it says, and every request with its own body.
#[derive(Default)]
struct Echo {
    calls: AtomicUsize,
    /// Bytes of endless bodies that were taken from them.
    pulled: Arc<AtomicUsize>,
    refuse: Option<HelloRefusal>,
    /// Whether no call is answered, as on a connection whose other end is gone.
    is_mute: AtomicBool,
}

#[async_trait]
impl PeerService for Echo {
    fn admit(&self, _hello: &Hello, _connected: Option<SocketAddr>) -> Result<(), HelloRefusal> {
        self.refuse.clone().map_or(Ok(()), Err)
    }

    fn gossip(&self, _from: SocketAddr, _message: Bytes) {}

    async fn call(&self, _from: &Peer, call: Call) -> Reply {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match call {
            Call::Vouch(vouch) if !self.is_mute.load(Ordering::Relaxed) => {
                Vouch::respond(Ok(vec![true; vouch.keys.len()]))
            }
            _ => std::future::pending().await,
        }
    }

    fn feed(&self, _from: &NodeName, position: Position) -> BoxStream<'static, Delta> {
        let delta = |version| Delta {
            incarnation: Incarnation(1),
            from: Version(version - 1),
            to: Version(version),
            reach: Version(version),
            head: Version(3),
            floor: Version(0),
            scanned: None,
            changes: vec![Change { version: Version(version), key: key("k"), state: Some(ClaimState::Ready) }],
        };
        stream::iter((position.version.0 + 1..=3).map(delta)).boxed()
    }

    fn watch(&self, _from: &NodeName) -> Option<BoxStream<'static, MemberNews>> {
        None
    }

    async fn exchange(
        &self,
        _from: &NodeName,
        head: RequestHead,
        request: Request<Body>,
    ) -> Result<Response<Body>, Rejection> {
        match head.key.as_str() {
            "refused" => Err(Rejection::NotHeld),
            "broken" => {
                let parts = [Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))];
                let frames = stream::iter(parts.into_iter().map(|part| part.map(http_body::Frame::data)));
                Ok(Response::new(body(http_body_util::StreamBody::new(frames))))
            }
            "never" => std::future::pending().await,
            "early" => Ok(Response::new(full("no need to read that"))),
            "endless" => {
                let pulled = self.pulled.clone();
                let frames = stream::repeat_with(move || {
                    pulled.fetch_add(CHUNK.len(), Ordering::Relaxed);
                    Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(CHUNK)))
                });
                Ok(Response::new(body(http_body_util::StreamBody::new(frames))))
            }
            _ => Ok(Response::new(request.into_body())),
        }
    }
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

struct TestNode {
    net: Arc<Net>,
    inbound: Arc<Echo>,
    _serving: Arc<dyn PeerService>,
}

fn node(text: &str, secret: &ClusterKey, inbound: Echo) -> TestNode {
    let identity = Identity::new(&name(text), &Credentials::ClusterKey(secret.clone())).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let net = Net::bind(&Machine::default(), name(text), identity, listen, None, &Profile::local()).unwrap();
    let inbound = Arc::new(inbound);
    let serving: Arc<dyn PeerService> = inbound.clone();
    net.serve(&serving);
    TestNode { net, inbound, _serving: serving }
}

/// A client without a certificate.
fn nobody() -> quinn::Endpoint {
    let mut crypto = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(identity::tests::Credulous))
        .with_no_client_auth();
    crypto.alpn_protocols = vec![wire::ALPN.to_vec()];
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(crypto).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    endpoint
}

async fn udp() -> tokio::net::UdpSocket {
    tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

fn pair() -> (TestNode, TestNode) {
    let secret = ClusterKey::generate();
    (node("a", &secret, Echo::default()), node("b", &secret, Echo::default()))
}

#[tokio::test]
async fn members_of_one_cluster_call_follow_and_exchange() {
    let (a, b) = pair();
    let peer = a.net.peer(b.net.advertise(), Some(&name("b"))).await.unwrap();
    let reply = peer.call(Vouch { keys: vec![key("x")], ring: 0 }, Duration::from_secs(5)).await.unwrap();
    assert_eq!(reply, vec![true]);

    let position = Position { incarnation: Incarnation(1), version: Version(1), base: Version(0) };
    let deltas: Vec<_> = peer.follow(position).await.unwrap().map(|delta| delta.unwrap().to.0).collect().await;
    assert_eq!(deltas, [2, 3]);

    let sent = Bytes::from(vec![7; 5_000_000]);
    let request = Request::post("/x").body(full(sent.clone())).unwrap();
    let response = peer.exchange(&key("x"), Purpose::Serve, request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), sent);
}

#[tokio::test]
async fn one_connection_serves_both_directions() {
    let (a, b) = pair();
    a.net.peer(b.net.advertise(), None).await.unwrap();
    let back = b.net.peer(a.net.advertise(), Some(&name("a"))).await.unwrap();
    back.call(Vouch { keys: vec![], ring: 0 }, Duration::from_secs(5)).await.unwrap();
    assert_eq!((a.net.connections(), b.net.connections()), (1, 1));
    assert_eq!(a.inbound.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn after_a_pause_longer_than_connections_live_they_are_made_anew() {
    let (a, b) = pair();
    let peer = a.net.peer(b.net.advertise(), None).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Profile::local().idle_timeout * 2).await;
    tokio::time::resume();
    let reason = peer.connection.closed().await;
    assert!(matches!(reason, ConnectionError::LocallyClosed | ConnectionError::ApplicationClosed(_)), "{reason}");
    let again = a.net.peer(b.net.advertise(), None).await.unwrap();
    again.call(Vouch { keys: vec![], ring: 0 }, PATIENCE).await.unwrap();
}

/// Makes the clock jump, by less than what counts as a pause of the process.
async fn advance(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_peer_that_dials_again_has_lost_its_end_of_an_older_connection() {
    for (age, is_replaced) in [(Duration::ZERO, false), (DIAL_TIMEOUT + Duration::from_millis(100), true)] {
        let (a, b) = pair();
        let old = a.net.peer(b.net.advertise(), None).await.unwrap();
        // The other end forgets it without a word, as a connection does that was idle for too long.
        advance(age).await;
        b.net.slots.lock().unwrap().clear();
        b.inbound.is_mute.store(true, Ordering::Relaxed);
        b.net.peer(a.net.advertise(), None).await.unwrap();
        if is_replaced {
            let reason = tokio::time::timeout(PATIENCE, old.connection.closed()).await.unwrap();
            assert!(matches!(reason, ConnectionError::LocallyClosed), "{reason}");
        }
        b.inbound.is_mute.store(false, Ordering::Relaxed);
        let now = a.net.peer(b.net.advertise(), None).await.unwrap();
        assert_eq!(!Arc::ptr_eq(&old, &now), is_replaced);
        now.call(Vouch { keys: vec![], ring: 0 }, PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_dials_another_address_of_a_node_breaks_nothing_that_is_under_way() {
    let (a, b) = pair();
    let old = a.net.peer(b.net.advertise(), None).await.unwrap();
    let endless = old.exchange(&key("endless"), Purpose::Serve, Request::new(provider::empty())).await.unwrap();
    advance(DIAL_TIMEOUT + Duration::from_millis(100)).await;
    // It knows that connection by another address.
    let kept = std::mem::take(&mut *b.net.slots.lock().unwrap());
    b.net.peer(a.net.advertise(), None).await.unwrap();
    let is_asked = async {
        while b.inbound.calls.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_asked).await.unwrap();
    let now = a.net.peer(b.net.advertise(), None).await.unwrap();
    assert!(!Arc::ptr_eq(&old, &now));
    now.call(Vouch { keys: vec![], ring: 0 }, PATIENCE).await.unwrap();
    let mut body = endless.into_body();
    for _ in 0..100 {
        tokio::time::timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
    }
    assert!(old.is_open());
    drop(kept);
}

#[tokio::test]
async fn a_node_with_another_cluster_key_is_refused() {
    let a = node("a", &ClusterKey::generate(), Echo::default());
    let b = node("b", &ClusterKey::generate(), Echo::default());
    let error = a.net.peer(b.net.advertise(), None).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
    assert_eq!(b.net.connections(), 0);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let b = node("b", &ClusterKey::generate(), Echo::default());
    let endpoint = nobody();
    // The client believes to be connected before the server has seen that it has no certificate.
    if let Ok(connection) = endpoint.connect(b.net.advertise(), "datad").unwrap().await {
        let reason = connection.closed().await;
        assert!(reason.to_string().contains("certificate"), "{reason}");
    }
    assert_eq!(b.net.connections(), 0);
}

#[tokio::test]
async fn addresses_that_never_answer_do_not_keep_a_peer_from_being_heard() {
    let (a, b) = pair();
    let (endpoint, sink, mute) = (nobody(), udp().await, udp().await);
    let mut datagram = vec![0; 2_000];
    let mut given_up = Vec::new();
    // Handshakes end after a while, so a slow machine cannot begin as many as half of them at once. Few are enough.
    const FEW: usize = 8;
    let slots = u32::try_from(HANDSHAKES_MAX / 2 - FEW).unwrap();
    let _others = b.net.handshakes.acquire_many(slots).await.unwrap();
    for _ in 0..2 * FEW {
        given_up.push(endpoint.connect(sink.local_addr().unwrap(), "datad").unwrap());
        let bytes = sink.recv(&mut datagram).await.unwrap();
        mute.send_to(&datagram[..bytes], b.net.advertise()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let half = async {
        while b.net.handshakes.available_permits() > HANDSHAKES_MAX / 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, half).await.expect("the datagrams begin handshakes");
    a.net.peer(b.net.advertise(), None).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_is_not_who_was_expected_is_not_used() {
    let (a, b) = pair();
    let error = a.net.peer(b.net.advertise(), Some(&name("c"))).await.unwrap_err();
    assert!(matches!(error, DialError::WrongName { .. }), "{error}");
}

#[tokio::test]
async fn a_name_that_the_certificate_does_not_carry_is_refused() {
    let secret = ClusterKey::generate();
    let identity = Identity::new(&name("honest"), &Credentials::ClusterKey(secret.clone())).unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let liar = Net::bind(&Machine::default(), name("b"), identity, listen, None, &Profile::local()).unwrap();
    let a = node("a", &secret, Echo::default());
    let error = liar.peer(a.net.advertise(), None).await.unwrap_err();
    assert!(matches!(&error, DialError::Refused { refusal: HelloRefusal::WrongName { .. }, .. }), "{error}");
}

#[tokio::test]
async fn a_second_node_of_a_name_is_refused_by_the_first_and_by_others() {
    let secret = ClusterKey::generate();
    let a = node("a", &secret, Echo::default());
    let second = node("a", &secret, Echo::default());
    let error = second.net.peer(a.net.advertise(), None).await.unwrap_err();
    assert!(matches!(&error, DialError::Refused { refusal: HelloRefusal::NameInUse { .. }, .. }), "{error}");

    let refusal = HelloRefusal::NameInUse { name: name("a"), at: a.net.advertise() };
    let other = node("b", &secret, Echo { refuse: Some(refusal.clone()), ..Echo::default() });
    second.net.peer(other.net.advertise(), None).await.unwrap_err();
    assert_eq!(*second.net.refusals().borrow(), Some(refusal));
}

#[tokio::test]
async fn a_refused_request_says_why_and_a_broken_body_is_never_a_short_success() {
    let (a, b) = pair();
    let peer = a.net.peer(b.net.advertise(), None).await.unwrap();
    let get = || Request::get("/x").body(provider::empty()).unwrap();
    let refused = peer.exchange(&key("refused"), Purpose::Serve, get()).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::Refused(Rejection::NotHeld)), "{refused}");
    // The reset may overtake the head; either way there is an error.
    if let Ok(response) = peer.exchange(&key("broken"), Purpose::Serve, get()).await {
        assert!(response.into_body().collect().await.is_err());
    }
}

#[tokio::test]
async fn who_answers_before_it_has_read_the_request_is_heard() {
    let (a, b) = pair();
    let peer = a.net.peer(b.net.advertise(), None).await.unwrap();
    for _ in 0..20 {
        let long = full(vec![7; 2 * STREAM_WINDOW_BYTES as usize]);
        let request = Request::post("/x").body(long).unwrap();
        let response = peer.exchange(&key("early"), Purpose::Serve, request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no need to read that");
    }
}

#[tokio::test]
async fn a_request_whose_head_is_too_long_is_the_fault_of_nobody_but_its_sender() {
    let (a, b) = pair();
    let peer = a.net.peer(b.net.advertise(), None).await.unwrap();
    let request = Request::get("/x").header("x", "y".repeat(codec::OPENING_BYTES_MAX)).body(provider::empty()).unwrap();
    let error = peer.exchange(&key("x"), Purpose::Serve, request).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Refused(Rejection::Malformed(_))), "{error}");
}

#[tokio::test]
async fn a_request_whose_body_breaks_off_is_not_the_fault_of_the_peer() {
    let (a, b) = pair();
    let peer = a.net.peer(b.net.advertise(), None).await.unwrap();
    let frames =
        stream::iter([Ok(http_body::Frame::data(Bytes::from_static(CHUNK))), Err(std::io::Error::other("gone"))]);
    let request = Request::post("/x").body(body(http_body_util::StreamBody::new(frames))).unwrap();
    let error = peer.exchange(&key("never"), Purpose::Serve, request).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Request(_)), "{error}");
}

#[tokio::test]
async fn readers_that_stand_still_do_not_keep_a_peer_from_being_heard() {
    let (a, b) = pair();
    let peer = a.net.peer(b.net.advertise(), None).await.unwrap();
    let (mut standing, enough) = (Vec::new(), 8 * STREAM_WINDOW_BYTES as usize);
    let stand = async {
        for _ in 0..12 {
            let request = Request::get("/x").body(provider::empty()).unwrap();
            standing.push(peer.exchange(&key("endless"), Purpose::Serve, request).await.unwrap());
        }
        while b.inbound.pulled.load(Ordering::Relaxed) < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stand).await.expect("each of them is sent what fits its window");
    peer.call(Vouch { keys: vec![], ring: 0 }, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_has_ended_is_not_kept() {
    let (a, b) = pair();
    a.net.peer(b.net.advertise(), None).await.unwrap();
    b.net.close(PATIENCE).await;
    let forgotten = async {
        while a.net.slots.lock().unwrap().values().any(|slot| matches!(slot, ConnectionState::Up(_))) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.expect("the connection is dropped");
}

#[tokio::test]
async fn an_oversized_or_malformed_frame_costs_only_its_stream() {
    let (a, b) = pair();
    let peer = a.net.peer(b.net.advertise(), None).await.unwrap();
    for prefix in [u32::MAX, 3] {
        let (mut send, mut recv) = peer.connection.open_bi().await.unwrap();
        send.write_all(&prefix.to_le_bytes()).await.unwrap();
        send.write_all(&[0xff; 3]).await.unwrap();
        let reply = codec::read_frame::<Reply>(&mut recv, codec::FRAME_BYTES_MAX).await.unwrap();
        assert!(matches!(reply, Some(Reply::Refused(Rejection::Malformed(_)))), "{reply:?}");
    }
    peer.call(Vouch { keys: vec![], ring: 0 }, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_says_nothing_is_shed() {
    let (a, b) = pair();
    let peer = a.net.peer(b.net.advertise(), None).await.unwrap();
    let (mut send, mut recv) = peer.connection.open_bi().await.unwrap();
    send.write_all(&[1]).await.unwrap();
    let end = recv.read_to_end(1).await.unwrap_err();
    let reset = quinn::ReadToEndError::Read(quinn::ReadError::Reset(code::OVERLOADED));
    assert_eq!(format!("{end:?}"), format!("{reset:?}"));
}

#[tokio::test]
async fn what_is_answered_from_parts_leaves_room_for_other_requests() {
    let (a, b) = pair();
    let peer = a.net.peer(b.net.advertise(), None).await.unwrap();
    let ask = async |purpose| peer.exchange(&key("x"), purpose, Request::new(full("x"))).await;
    let mut held = Vec::new();
    while let Ok(response) = ask(Purpose::Part).await {
        held.push(response);
    }
    assert_eq!(held.len(), PART_STREAMS_MAX);
    ask(Purpose::Serve).await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_not_answered_ends_by_its_deadline() {
    let (a, b) = pair();
    let peer = a.net.peer(b.net.advertise(), None).await.unwrap();
    let call = wire::calls::Refresh { key: key("x"), from: vec![], patience_ms: 1 };
    let error = peer.call(call, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, CallError::Timeout(_)), "{error}");
}

#[tokio::test]
async fn closing_ends_every_task() {
    let (a, b) = pair();
    a.net.peer(b.net.advertise(), None).await.unwrap();
    a.net.close(Duration::from_secs(5)).await;
    assert!(a.net.tasks.is_empty());
    assert!(matches!(a.net.peer(b.net.advertise(), None).await, Err(DialError::Stopping)));
}
