//! What a provider may do for a request while a node still fetches the key that it is for.
//!
//! ```text
//!   Wait    no response before a node holds the key; after `request_patience` the client is told to come back
//!   WaitOn  the same, for as long as the fetch gets on
//!   Part    the node that fetches answers from what it has so far (`Provider::serve_part`)
//!   Begin   the response begins now, and goes on when a node holds the key (`Provider::begin`)
//! ```
//!
//! What must hold: a client gets the response that a holder would have given, or learns that it
//! does not. A response that has begun and cannot go on either says so in its own words or breaks
//! off; it never ends as if it were whole.

use std::fmt;

use futures::future::BoxFuture;
use http::Response;

use super::body::Body;
use crate::route_error::RouteError;

/// What a node can do about a request while its key is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Meanwhile {
    /// Wait until a node has the key, for at most [`request_patience`](crate::config::NodeConfig::request_patience).
    Wait,
    /// Wait for as long as the fetch gets on: the client shows patience, and cannot be told anything before.
    WaitOn,
    /// Ask the node that fetches for what it has so far.
    Part {
        /// Whether to wait for that as with [`Meanwhile::WaitOn`]; otherwise as with
        /// [`Meanwhile::Wait`].
        on: bool,
    },
    /// Begin the response, and wait for its rest for as long as the fetch gets on.
    Begin,
}

/// How many bytes an update has brought so far, if some node says that it runs one.
type ProgressOf = Box<dyn Fn() -> BoxFuture<'static, Option<u64>> + Send>;

/// The response of a node that will hold the key. Dropping it gives up the request, but not the
/// fetch.
pub struct Awaited {
    response: BoxFuture<'static, Result<Response<Body>, RouteError>>,
    progress: ProgressOf,
}

impl Awaited {
    /// Nodes make these. The constructor is public for tests of a provider on its own.
    pub fn new<R>(response: R, progress: impl Fn() -> BoxFuture<'static, Option<u64>> + Send + 'static) -> Self
    where
        R: Future<Output = Result<Response<Body>, RouteError>> + Send + 'static,
    {
        Self { response: Box::pin(response), progress: Box::new(progress) }
    }

    /// Waits for the response. Cancel safe. Do not call it again after it has returned.
    ///
    /// # Errors
    /// No node can get the key, or its holders cannot be reached, so there is no response.
    pub async fn response(&mut self) -> Result<Response<Body>, RouteError> {
        (&mut self.response).await
    }

    /// How many bytes the fetch has brought so far. `None` if it has not begun, or no node can say.
    /// Takes about a second at most.
    pub fn progress(&self) -> BoxFuture<'static, Option<u64>> {
        (self.progress)()
    }
}

impl fmt::Debug for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Awaited")
    }
}
