//! A way for git to fetch from another node of the cluster.
//!
//! git speaks HTTP, nodes speak their own transport. A bridge is a small HTTP server on the loopback interface that
//! lives as long as one update does and hands each request to [`UpdateContext::fetch`]:
//!
//! ```text
//!  git fetch --http--> bridge --UpdateContext::fetch--> peer's export --> git http-backend there
//! ```
//!
//! Other programs on this machine can reach the port but do not know the token that git has to show, which travels in
//! git's environment: arguments are for everyone to read. The bridge runs inside
//! the future of the update and spawns nothing, so it ends with it.

use std::{convert::Infallible, io, net::Ipv4Addr};

use futures::{StreamExt, stream::FuturesUnordered};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};

use super::template::{Remote, Scheme, in_url};
use crate::{
    hop,
    key::{Key, NodeName},
    provider::{Body, BoxError, UpdateContext, body, full},
};

/// Connections at a time; git uses one or two.
const CONNECTIONS_MAX: usize = 8;

/// Fields that mean something between git and the bridge alone: git asks a loopback address, and a body is handed on without what
/// may follow it.
const OF_THE_BRIDGE: [HeaderName; 2] = [header::HOST, header::TRAILER];

/// The server for one peer and one key.
pub(crate) struct Bridge<'a> {
    listener: TcpListener,
    token: HeaderValue,
    context: &'a UpdateContext,
    peer: &'a NodeName,
    key: &'a Key,
}

impl<'a> Bridge<'a> {
    /// Opens a port.
    #[expect(clippy::disallowed_methods, reason = "a secret comes from the operating system and nowhere else")]
    pub(crate) async fn open(context: &'a UpdateContext, peer: &'a NodeName, key: &'a Key) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut token = HeaderValue::try_from(format!("Bearer {}", hex::encode(rand::random::<[u8; 16]>())))
            .expect("hexadecimal digits are a value");
        token.set_sensitive(true);
        Ok(Self { listener, token, context, peer, key })
    }

    /// Where git finds the key.
    pub(crate) fn remote(&self) -> io::Result<Remote> {
        let origin = format!("http://{}/", self.listener.local_addr()?);
        let (url, authorization) = (format!("{origin}{}.git", in_url(self.key)), Some(self.token.clone()));
        Ok(Remote { url, origin, authorization, scheme: Scheme::Http, addresses: Vec::new(), proxied: false })
    }

    /// Serves until it is dropped.
    pub(crate) async fn run(&self) -> Infallible {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => connections.push(self.connection(stream)),
                    Err(error) => tracing::debug!(%error, "a connection was lost before it began"),
                },
                Some(()) = connections.next() => {}
            }
        }
    }

    async fn connection(&self, stream: TcpStream) {
        let service = service_fn(|request| self.answer(request));
        if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(peer = %self.peer, key = %self.key, %error, "git broke off");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let Some(request) = self.inward(request) else {
            return Ok(plain(StatusCode::NOT_FOUND, "nothing here\n"));
        };
        Ok(self.context.fetch(self.peer, self.key, request).await.map_or_else(
            |error: BoxError| {
                tracing::debug!(peer = %self.peer, key = %self.key, %error, "the peer did not answer");
                plain(StatusCode::BAD_GATEWAY, "the peer did not answer\n")
            },
            |mut response| {
                strip(response.headers_mut());
                response
            },
        ))
    }

    /// The request as the peer gets it, without the token; `None` if it does not carry ours.
    fn inward(&self, request: Request<Incoming>) -> Option<Request<Body>> {
        let (mut parts, incoming) = request.into_parts();
        let shown = parts.headers.remove(header::AUTHORIZATION)?;
        if !bool::from(shown.as_bytes().ct_eq(self.token.as_bytes())) {
            return None;
        }
        parts.uri = parts.uri.path_and_query()?.as_str().parse::<Uri>().ok()?;
        strip(&mut parts.headers);
        Some(Request::from_parts(parts, body(incoming)))
    }
}

fn strip(fields: &mut HeaderMap) {
    hop::strip(fields);
    OF_THE_BRIDGE.iter().for_each(|name| drop(fields.remove(name)));
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}
