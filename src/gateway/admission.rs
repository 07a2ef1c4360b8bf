//! The cost limits of operations: any client that reaches a node may ask, so the requests of one
//! client must not slow down those of others.
//!
//! | bound | what for |
//! | --- | --- |
//! | [`QUERY_BYTES_MAX`], [`BODY_BYTES_MAX`] | what a request brings along |
//! | [`READINGS_MAX`], [`CHANGES_MAX`] | operations at once, apart from requests for data and from each other |
//! | [`Turns`] | those that walk over all keys, build rings or have other nodes run programs: a few at once, the others wait a moment |
//!
//! Whether the node lives and is ready is answered outside all of these.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State as Shared},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode};
use http_body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Bytes of a query: a plan with all the names that it may have fits.
const QUERY_BYTES_MAX: usize = 8 << 10;
/// Bytes of a body. No operation but the webhook reads one, so this only spares clients the sending.
const BODY_BYTES_MAX: u64 = 64 << 10;
/// Documents that are made at once.
const READINGS_MAX: usize = 256;
/// Changes that are waited for at once. They wait for origins and other nodes, and must not take the place of documents.
const CHANGES_MAX: usize = 512;
/// Plans at once: each builds a ring and looks every known key up on it.
const PLANS_MAX: usize = 1;
/// Explanations at once: each has several nodes look at their disks, where git may run for it.
const EXPLANATIONS_MAX: usize = 4;
/// Lists of keys at once: each is sorted by the actor that also takes in what other nodes say.
const LISTINGS_MAX: usize = 4;
/// Webhooks at once: the body of each is kept until its signature is verified.
const WEBHOOKS_MAX: usize = 16;
/// How long one waits for its turn: longer than most of those before it take.
const TURN_PATIENCE: Duration = Duration::from_secs(1);

/// The bounds of one gateway.
#[derive(Debug)]
pub(super) struct Admission {
    readings: Semaphore,
    changes: Semaphore,
    pub(super) plans: Turns,
    pub(super) explanations: Turns,
    pub(super) listings: Turns,
    pub(super) webhooks: Turns,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            readings: Semaphore::new(READINGS_MAX),
            changes: Semaphore::new(CHANGES_MAX),
            plans: Turns::new(PLANS_MAX, "plans"),
            explanations: Turns::new(EXPLANATIONS_MAX, "explanations"),
            listings: Turns::new(LISTINGS_MAX, "lists of keys"),
            webhooks: Turns::new(WEBHOOKS_MAX, "webhooks"),
        }
    }
}

/// A kind of dear operation.
#[derive(Debug)]
pub(super) struct Turns {
    permits: Arc<Semaphore>,
    what: &'static str,
}

impl Turns {
    fn new(at_once: usize, what: &'static str) -> Self {
        Self { permits: Arc::new(Semaphore::new(at_once)), what }
    }

    /// Waits a moment for a turn, which lasts until what is returned is dropped.
    pub(super) async fn take(&self) -> Result<OwnedSemaphorePermit, Problem> {
        match tokio::time::timeout(TURN_PATIENCE, self.permits.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Problem::overloaded(format!("too many {} are asked for at once; ask again", self.what))),
        }
    }
}

/// Answers an operation if it is within the bounds.
pub(super) async fn admit(Shared(bounds): Shared<Arc<Admission>>, request: Request, next: Next) -> Response {
    if matches!(request.uri().path(), "/-/healthz" | "/-/readyz") {
        return next.run(request).await;
    }
    if let Err(problem) = check_size(&request) {
        return problem.into_response();
    }
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let places = if is_reading { &bounds.readings } else { &bounds.changes };
    let Ok(_place) = places.try_acquire() else {
        return Problem::overloaded("too many operations are under way; ask again").into_response();
    };
    next.run(request).await
}

fn check_size(request: &Request) -> Result<(), Problem> {
    let query = request.uri().query().map_or(0, str::len);
    if query > QUERY_BYTES_MAX {
        let detail = format!("the query takes {query} bytes, and may take {QUERY_BYTES_MAX}");
        return Err(Problem::bad_request(detail));
    }
    let body = request.body().size_hint().lower();
    if body > BODY_BYTES_MAX && request.uri().path() != "/-/webhook" {
        let detail = format!("the body takes {body} bytes, and may take {BODY_BYTES_MAX}; no operation reads one");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", detail));
    }
    Ok(())
}
