//! Connections: how many there may be, how slow their clients, and how they end.
//!
//! Every wait for a client has a limit: for the head of a request, for the next part of its body (`data`), for room to
//! write (the kernel's user timeout), and for the end of the last response when the gateway stops.

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{
    access::Peer,
    quiet::{Presence, Quiet, slot},
    service::Service,
};

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
/// What an HTTP/2 stream may hold here of an answer that its client does not take in, in bytes.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// How far the body of one HTTP/2 request may be ahead of its reader, and all of one connection together, in bytes.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Pause after a connection could not be accepted, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Open connections.
    pub(super) connections_max: usize,
    /// How long requests under way may take to end once the listener is to stop.
    pub(super) drain: Duration,
}

/// What connections come from.
pub(super) trait Listen: Send {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Where it listens, for the log.
    fn address(&self) -> io::Result<String>;

    /// The next connection. Cancel safe.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    fn address(&self) -> io::Result<String> {
        Ok(self.local_addr()?.to_string())
    }

    async fn next(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, from) = self.accept().await?;
        tune(&stream);
        let to = stream.local_addr().ok().map(|address| address.ip());
        let is_local = self.local_addr()?.ip().to_canonical().is_loopback();
        Ok((stream, Peer::Tcp { from, to, is_local }))
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    fn address(&self) -> io::Result<String> {
        Ok(format!("{:?}", self.local_addr()?))
    }

    async fn next(&self) -> io::Result<(UnixStream, Peer)> {
        Ok((self.accept().await?.0, Peer::Unix))
    }
}

/// Accepts and serves until `shutdown`, then drains.
pub(super) async fn serve(
    service: Service,
    limits: Limits,
    listener: impl Listen,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.address()?;
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
    // Whatever ends this future ends the connections.
    let broken_off = CancellationToken::new();
    let _guard = broken_off.clone().drop_guard();
    let mut shutdown = pin!(shutdown);
    let quiet = Quiet::default();
    let mut sweep = pin!(service.state.responses.clone().sweep(service.state.client_patience));
    debug!(%address, "gateway is open");
    loop {
        let accepted = async {
            let (stream, peer) = listener.next().await?;
            Ok::<_, io::Error>((stream, peer, slot(&slots, &quiet).await))
        };
        tokio::select! {
            () = &mut shutdown => break,
            () = &mut sweep => {}
            accepted = accepted => match accepted {
                Ok((stream, peer, slot)) => {
                    let connection = serve_connection(service.clone(), stream, peer, stop.clone(), quiet.clone());
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
    if tokio::time::timeout(limits.drain, connections.wait()).await.is_err() {
        warn!(connections = connections.len(), "breaking off requests that did not end in time");
        broken_off.cancel();
        connections.wait().await;
    }
    debug!(%address, "gateway is closed");
    Ok(())
}

async fn serve_connection(
    service: Service,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    stop: CancellationToken,
    quiet: Quiet,
) {
    let asked = AtomicBool::new(false);
    let presence = Presence::new(quiet);
    let answer = service_fn(|request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let (service, under_way) = (service.clone(), presence.ask());
        async move { Ok::<_, Infallible>(service.answer(peer, request, under_way).await) }
    });
    let server = server();
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), answer));
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
            () = presence.stalled.cancelled() => {
                debug!(%peer, "the client takes nothing in; its connection is broken off");
                return;
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
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX);
    server
}

/// Best effort: a connection without these options still works.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
}
