//! Connections: how many there may be, how slow their clients, and how they end.
//!
//! Every wait for a client has a limit: for the head of a request, for the next part of its body (`data`), for room to
//! write (the kernel's user timeout), and for the end of the last response when the gateway stops.
//!
//! There are so many slots for connections. When all are taken, the connection on which nothing has been asked for the
//! longest time gives way to a new one: a few hundred idle clients must not keep others, or whoever looks after the node,
//! from it. Connections with a request under way keep their slots.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::Gateway;
use crate::router::Guarded;

/// From the start of a connection, or the end of a response, to the end of the next request's head. Also how long an
/// idle connection is kept: as long as other servers do, so that load balancers do not race against it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// From the start of a connection to its first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take nothing in, or acknowledge nothing, before its connection is broken off.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);
/// Between signs of life asked of an HTTP/2 client, and how long it has to give one.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// All fields of a request together.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// Pause after a connection could not be accepted, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long nothing has to be asked on a connection before it gives way: a request that is on its way should arrive. With
/// a dozen slots, 180 idle clients hold up a new one for three seconds.
const QUIET_MIN: Duration = Duration::from_millis(200);
/// How often it is looked for a connection that may give way.
const GIVE_WAY_PAUSE: Duration = Duration::from_millis(20);

/// Accepts and serves until `shutdown`, then drains.
pub(super) async fn serve(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let slots = Arc::new(Semaphore::new(gateway.limits.connections_max));
    let drain = gateway.limits.drain;
    let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
    // Whatever ends this future ends the connections.
    let broken_off = CancellationToken::new();
    let _guard = broken_off.clone().drop_guard();
    let mut shutdown = pin!(shutdown);
    let quiet = Quiet::default();
    debug!(%address, "gateway is open");
    loop {
        let accepted = async {
            let (stream, peer) = listener.accept().await?;
            Ok::<_, io::Error>((stream, peer, slot(&slots, &quiet).await))
        };
        tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => match accepted {
                Ok((stream, peer, slot)) => {
                    let connection = serve_connection(gateway.clone(), stream, peer, stop.clone(), quiet.clone());
                    let broken_off = broken_off.clone();
                    connections.spawn(async move {
                        tokio::select! {
                            () = connection => {}
                            () = broken_off.cancelled() => {}
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    stop.cancel();
    connections.close();
    if tokio::time::timeout(drain, connections.wait()).await.is_err() {
        warn!(connections = connections.len(), "breaking off requests that did not end in time");
        broken_off.cancel();
        connections.wait().await;
    }
    debug!(%address, "gateway is closed");
    Ok(())
}

/// A slot for a new connection, if need be that of one on which nothing is asked.
async fn slot(slots: &Arc<Semaphore>, quiet: &Quiet) -> OwnedSemaphorePermit {
    loop {
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            return slot;
        }
        quiet.one_gives_way();
        if let Ok(slot) = tokio::time::timeout(GIVE_WAY_PAUSE, slots.clone().acquire_owned()).await {
            return slot.expect("never closed");
        }
    }
}

/// The connections on which nothing is asked, by when that began.
#[derive(Debug, Clone, Default)]
struct Quiet(Arc<Mutex<QuietConnections>>);

#[derive(Debug, Default)]
struct QuietConnections {
    entries: u64,
    waiting: BTreeMap<u64, (Instant, CancellationToken)>,
}

impl Quiet {
    /// The connection that has been quiet for the longest time is to end, if that is long enough.
    fn one_gives_way(&self) {
        let mut connections = self.lock();
        if let Some(first) = connections.waiting.first_entry()
            && first.get().0.elapsed() >= QUIET_MIN
        {
            first.remove().1.cancel();
        }
    }

    fn enter(&self, connection: &CancellationToken) -> u64 {
        let mut connections = self.lock();
        connections.entries += 1;
        let place = connections.entries;
        connections.waiting.insert(place, (Instant::now(), connection.clone()));
        place
    }

    fn leave(&self, place: u64) {
        self.lock().waiting.remove(&place);
    }

    fn lock(&self) -> MutexGuard<'_, QuietConnections> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

/// What is asked on one connection; it is among the quiet ones while that is nothing.
struct Presence {
    quiet: Quiet,
    gives_way: CancellationToken,
    state: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    requests: usize,
    place: Option<u64>,
}

impl Presence {
    fn new(quiet: Quiet) -> Arc<Self> {
        let (gives_way, state) = (CancellationToken::new(), Mutex::default());
        let presence = Arc::new(Self { quiet, gives_way, state });
        presence.count(|requests| requests);
        presence
    }

    /// A request is under way, until what is returned is dropped.
    fn ask(self: &Arc<Self>) -> UnderWay {
        self.count(|requests| requests + 1);
        UnderWay(self.clone())
    }

    fn count(&self, change: impl FnOnce(usize) -> usize) {
        let mut asked = self.state.lock().expect("nothing panics while it holds this lock");
        asked.requests = change(asked.requests);
        if let Some(place) = asked.place.take() {
            self.quiet.leave(place);
        }
        asked.place = (asked.requests == 0).then(|| self.quiet.enter(&self.gives_way));
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(place) = self.state.get_mut().ok().and_then(|asked| asked.place.take()) {
            self.quiet.leave(place);
        }
    }
}

/// A request, from its head to the end of the body of its answer.
struct UnderWay(Arc<Presence>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.count(|requests| requests - 1);
    }
}

async fn serve_connection(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    stop: CancellationToken,
    quiet: Quiet,
) {
    tune(&stream);
    let asked = AtomicBool::new(false);
    let presence = Presence::new(quiet);
    let service = service_fn(|request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let (gateway, under_way) = (gateway.clone(), presence.ask());
        async move {
            let response = gateway.answer(peer, request).await;
            Ok::<_, Infallible>(response.map(|body| Body::new(Guarded::new(body, under_way))))
        }
    });
    let server = server();
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let mut first_request = pin!(tokio::time::sleep(FIRST_REQUEST_TIMEOUT));
    let (mut watching, mut stopping) = (true, false);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(%peer, %error, "connection broke off");
                }
                return;
            }
            () = first_request.as_mut(), if watching => {
                if !asked.load(Ordering::Relaxed) {
                    debug!(%peer, "connection without a request");
                    return;
                }
                watching = false;
            }
            () = presence.gives_way.cancelled(), if !stopping => {
                debug!(%peer, "an idle connection gives way to a new one");
                connection.as_mut().graceful_shutdown();
                stopping = true;
            }
            () = stop.cancelled(), if !stopping => {
                connection.as_mut().graceful_shutdown();
                stopping = true;
            }
        }
    }
}

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(false);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX);
    server
}

/// Best effort: a connection without these options still works.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
}
