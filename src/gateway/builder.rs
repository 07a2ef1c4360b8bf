//! The settings of a gateway, and the gateway that they make.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};

#[cfg(feature = "metrics")]
use super::metrics::Metrics;
use super::{
    access::{self, Access, AdminToken},
    admission::Admission,
    background::Background,
    listen::{self, Limits},
    progress::Responses,
    service::Service,
    signature::WebhookSecret,
    state::State,
};
use crate::{client::Client, util::places::Places};

/// Changes that go on after their request was answered; more are refused.
const BACKGROUND_CHANGES_MAX: usize = 256;
/// How long a client may send or take in less than 16 KiB.
const CLIENT_PATIENCE: Duration = Duration::from_secs(60);

/// Settings of a gateway.
///
/// ```no_run
/// use datad_gossip::{Node, gateway::Gateway};
///
/// async fn serve(node: &Node) -> std::io::Result<()> {
///     let listener = tokio::net::TcpListener::bind("127.0.0.1:8400").await?;
///     let until_told = std::future::pending();
///     Gateway::builder(node.client()).admin_token("secret").serve(listener, until_told).await
/// }
/// ```
#[derive(Debug)]
pub struct GatewayBuilder {
    client: Client,
    access: Access,
    webhook_secret: Option<WebhookSecret>,
    requests_max: usize,
    client_patience: Duration,
    limits: Limits,
    stuck_threads: Option<Arc<AtomicU64>>,
}

/// The front door of one node, ready to serve. Clones are the same door, for a further listener.
#[derive(Debug, Clone)]
pub struct Gateway {
    service: Service,
    limits: Limits,
}

impl Gateway {
    /// A gateway to the node that `client` belongs to.
    #[must_use]
    pub fn builder(client: Client) -> GatewayBuilder {
        GatewayBuilder {
            client,
            access: Access::default(),
            webhook_secret: None,
            requests_max: 4096,
            client_patience: CLIENT_PATIENCE,
            limits: Limits { connections_max: 16_384, drain: Duration::from_secs(10) },
            stuck_threads: None,
        }
    }

    /// Serves HTTP/1.1 and HTTP/2 (with prior knowledge) on `listener` until `shutdown`; then takes no more connections,
    /// finishes the requests under way within the drain limit, and returns.
    ///
    /// Dropping the future breaks off what is under way.
    ///
    /// # Errors
    /// The listener has no address. A connection that cannot be accepted is not an error: the
    /// gateway logs it and waits for the next one.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        listen::serve(self.service, self.limits, listener, shutdown).await
    }

    /// As [`Gateway::serve`], for programs of the user that may open the socket: changes need no admin token here.
    ///
    /// Make the socket in a folder that only the node's user can enter, or narrow its permissions before clients know it.
    ///
    /// # Errors
    /// The listener has no address.
    pub async fn serve_unix(self, listener: UnixListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        listen::serve(self.service, self.limits, listener, shutdown).await
    }
}

impl GatewayBuilder {
    /// Token that changing requests have to carry, as `Authorization: Bearer` or as the password of Basic authentication.
    /// Without one, changes are refused over TCP, also from this machine, and accepted by [`Gateway::serve_unix`] only.
    #[must_use]
    pub fn admin_token(mut self, token: impl AsRef<str>) -> Self {
        self.access.token = Some(AdminToken::new(token.as_ref()));
        self
    }

    /// Secret that forges share with this node: `POST /-/webhook` accepts requests that they sign
    /// with it. Without a secret it accepts none.
    #[must_use]
    pub fn webhook_secret(mut self, secret: impl AsRef<str>) -> Self {
        self.webhook_secret = Some(WebhookSecret::new(secret.as_ref()));
        self
    }

    /// A host name or address, without a port, under which this node is asked; call it for each. `localhost`, loopback
    /// addresses and the address that a client connected to are known. Changes under another name are refused, and on a
    /// listener of the loopback interface everything is: a page in a browser may have made that name lead here.
    #[must_use]
    pub fn host_name(mut self, name: impl AsRef<str>) -> Self {
        self.access.names.insert(access::plain_name(name.as_ref()));
        self
    }

    /// Requests for data that are answered at once, at least 1; more get 503. The last quarter is
    /// kept for addresses that have few of them. Default 4,096. Operations have separate bounds, so
    /// that an overloaded node still answers status requests.
    #[must_use]
    pub fn requests_max(mut self, requests: usize) -> Self {
        self.requests_max = requests.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Open connections, at least 1. Further ones take the place of those on which nothing has been
    /// asked for the longest time; while requests are under way on all of them, new connections
    /// wait. Default 16,384.
    #[must_use]
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.limits.connections_max = connections.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How long requests under way may take to end once the gateway is to stop. Default 10 s.
    #[must_use]
    pub fn drain(mut self, drain: Duration) -> Self {
        self.limits.drain = drain;
        self
    }

    /// A count of runtime threads that do not yield, kept by a watchdog of the program; shown among the metrics,
    /// if the build has them.
    #[must_use]
    pub fn stuck_threads(mut self, count: Arc<AtomicU64>) -> Self {
        self.stuck_threads = Some(count);
        self
    }

    /// How long a client may stand still: within this time it has to send 16 KiB of a request's body, or take in as much of
    /// a response, or the one breaks off. Default 60 s.
    #[must_use]
    pub fn client_patience(mut self, patience: Duration) -> Self {
        self.client_patience = patience;
        self
    }

    /// The gateway.
    #[must_use]
    pub fn build(self) -> Gateway {
        let state = State {
            transport: self.client.transport(),
            client: self.client,
            access: self.access,
            webhook_secret: self.webhook_secret,
            requests: Places::new(self.requests_max),
            responses: Responses::default(),
            client_patience: self.client_patience,
            admission: Arc::new(Admission::default()),
            background: Background::new(BACKGROUND_CHANGES_MAX),
            #[cfg(feature = "metrics")]
            metrics: Metrics::new(self.stuck_threads),
            joined: AtomicBool::new(false),
        };
        Gateway { service: Service::new(Arc::new(state)), limits: self.limits }
    }

    /// Builds the gateway and serves; see [`Gateway::serve`].
    ///
    /// # Errors
    /// As [`Gateway::serve`].
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        self.build().serve(listener, shutdown).await
    }
}
