//! Operations: what stands under `/-/`.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /-/status`, `/-/members`, `/-/locate/KEY` | [`Status`](crate::api::Status), a list of [`Member`](crate::api::Member), [`Location`](crate::api::Location), with `?explain=true` an [`Explanation`](crate::api::Explanation) |
//! | `GET /-/keys?prefix=&after=&limit=` | a list of keys in order, after `after`, at most `limit` (1 to 10,000; 1,000 if not said); if there may be more, `Link` names the next page |
//! | `GET /-/keys?under_replicated=true&prefix=&limit=` | a list of [`Shortage`](crate::api::Shortage) |
//! | `POST /-/update/KEY` | 202: it goes on, one at a time and one to follow however many ask; with `?wait=true` 200 and what each node said |
//! | `POST /-/webhook` | what GitHub, GitLab, Gitea, Forgejo and Gogs send after a push, signed with the webhook secret: 202, an update of the repository goes on; 200 if there is nothing to do |
//! | `GET /-/pins` | a list of [`Pin`](crate::api::Pin) |
//! | `PUT /-/pins/KEY?replicas=`, `DELETE /-/pins/KEY`, `DELETE /-/keys/KEY` | pins, unpins, forgets; 200 and [`IntentAck`](crate::api::IntentAck) |
//! | `POST /-/members/NAME/drain?force=&timeout=` | 200 and [`Drained`](crate::api::Drained) when it has left; 409 if it is the last live holder of a key |
//! | `DELETE /-/members/NAME` | 200 and [`RemovedMember`](crate::api::RemovedMember): a member that is gone is taken off the list; 409 if it is alive |
//! | `GET /-/plan?without=N,N&with=N=WEIGHT,..` | [`Plan`](crate::api::Plan): what would move if these members went or came; 64 names at most, weights up to 1,000 and 20,000 together |
//! | `GET /-/` | a page for people |
//! | `GET /-/healthz` | 200 while the process lives |
//! | `GET /-/readyz` | 200 while the node has joined, serves and has caught up, else 503 and why |
//! | `GET /-/metrics` | OpenMetrics text |
//!
//! KEY is written as in a request for data, so the provider says which key it is: with git, `org/repo.git` is `org/repo`.
//! A pattern of pins stays as it is written.
//!
//! | file | concern |
//! | --- | --- |
//! | `extract` | what every operation reads from a request: who asks, parameters, keys |
//! | `documents`, `plan`, `ready` | what only reads |
//! | `changes` | what changes something: only the operator may |
//!
//! Each has bounds (see `admission`): beyond them it is refused with 400, 413, or 503 and `Retry-After`.

mod changes;
mod documents;
mod extract;
mod plan;
mod ready;

use std::sync::Arc;

use axum::{
    Router, middleware,
    response::IntoResponse,
    routing::{MethodRouter, delete, get, post, put},
};
use http::{Method, Uri};

use crate::gateway::{admission::admit, page, problem::Problem, state::State, webhook};

pub(super) fn routes(state: Arc<State>) -> Router {
    Router::new()
        .route("/-/", reading(get(page::front)))
        .route("/-/status", reading(get(documents::status)))
        .route("/-/members", reading(get(documents::members)))
        .route("/-/keys", reading(get(documents::keys)))
        .route("/-/keys/{*key}", delete(changes::forget).fallback(|| async { Problem::method("DELETE") }))
        .route("/-/locate/{*key}", reading(get(documents::locate)))
        .route("/-/pins", reading(get(documents::pins)))
        .route("/-/plan", reading(get(plan::plan)))
        .route(
            "/-/pins/{*key}",
            put(changes::pin).delete(changes::unpin).fallback(|| async { Problem::method("PUT, DELETE") }),
        )
        .route("/-/members/{name}", delete(changes::remove_member).fallback(|| async { Problem::method("DELETE") }))
        .route("/-/members/{name}/drain", post(changes::drain).fallback(|| async { Problem::method("POST") }))
        .route("/-/update/{*key}", post(changes::update).fallback(|| async { Problem::method("POST") }))
        .route("/-/webhook", post(webhook::receive).fallback(|| async { Problem::method("POST") }))
        .route("/-/healthz", reading(get(|| async { "ok\n" })))
        .route("/-/readyz", reading(get(ready::readyz)))
        .route("/-/metrics", reading(get(documents::metrics)))
        .fallback(|method: Method, uri: Uri| async move {
            page::elsewhere(&method, &uri).unwrap_or_else(|| Problem::unknown_operation(uri.path()).into_response())
        })
        .layer(middleware::from_fn_with_state(state.admission.clone(), admit))
        .with_state(state)
}

fn reading(method: MethodRouter<Arc<State>>) -> MethodRouter<Arc<State>> {
    method.fallback(|| async { Problem::method("GET, HEAD") })
}
