//! Operations: what stands under `/-/`.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /-/status`, `/-/members`, `/-/locate/KEY` | [`Status`](crate::Status), a list of [`MemberStatus`](crate::MemberStatus), [`Location`](crate::Location), with `?explain=true` an [`Explanation`](crate::Explanation) |
//! | `GET /-/keys?prefix=&after=&limit=` | a list of keys in order, after `after`, at most `limit` (1 to 10,000; 1,000 if not said); if there may be more, `Link` names the next page |
//! | `GET /-/keys?under_replicated=true&prefix=&limit=` | a list of [`Shortage`](crate::Shortage) |
//! | `POST /-/update/KEY` | 202: it goes on, one at a time and one to follow however many ask; with `?wait=true` 200 and what each node said |
//! | `POST /-/webhook` | what GitHub, GitLab, Gitea, Forgejo and Gogs send after a push, signed with the webhook secret: 202, an update of the repository goes on; 200 if there is nothing to do |
//! | `GET /-/pins` | a list of [`Pin`](crate::Pin) |
//! | `PUT /-/pins/KEY?replicas=`, `DELETE /-/pins/KEY`, `DELETE /-/keys/KEY` | pins, unpins, forgets; 200 and [`Recorded`](crate::Recorded) |
//! | `POST /-/members/NAME/drain?force=&timeout=` | 200 and [`Drained`](crate::Drained) when it has left; 409 if it is the last live holder of a key |
//! | `DELETE /-/members/NAME` | 200 and [`RemovedMember`](crate::RemovedMember): a member that is gone is taken off the list; 409 if it is alive |
//! | `GET /-/plan?without=N,N&with=N=WEIGHT,..` | [`Forecast`](crate::placement::Forecast): what would move if these members went or came; 64 names at most, weights up to 1,000 and 20,000 together |
//! | `GET /-/` | a page for people |
//! | `GET /-/healthz` | 200 while the process lives |
//! | `GET /-/readyz` | 200 while the node has joined, serves and has caught up, else 503 and why |
//! | `GET /-/metrics` | OpenMetrics text |
//!
//! KEY is written as in a request for data, so the provider says which key it is: with git, `org/repo.git` is `org/repo`.
//! A pattern of pins stays as it is written.
//!
//! Each has bounds (see `admission`): beyond them it is refused with 400, 413, or 503 and `Retry-After`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Extension, Path, Query, State as Shared, rejection::QueryRejection},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;
use tracing::info;

use super::{access, admission::admit, metrics, page, problem::Problem, state::State, webhook};
use crate::{
    Client, MemberState,
    catalog::is_pattern,
    key::{Key, KeyError, NodeName},
    placement::Change,
};

const KEYS_DEFAULT: usize = 1_000;
const KEYS_MAX: usize = 10_000;
/// Names in a plan: what somebody changes at a time.
const PLAN_NAMES_MAX: usize = 64;
/// The largest weight of a member, and that of all in a plan together: virtual nodes follow from weights, 100 being usual, and
/// so does how long it takes to build their ring, some tens of milliseconds.
const WEIGHT_MAX: u32 = 1_000;
const PLAN_WEIGHT_MAX: u64 = 20_000;
/// How long a plan may take: less than the program's own commands wait.
const PLAN_PATIENCE: Duration = Duration::from_secs(25);
/// How long `readyz` lets a node catch up with what was published a moment ago before it calls it behind.
const CATCH_UP: Duration = Duration::from_secs(1);
const CATCH_UP_STEP: Duration = Duration::from_millis(50);
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn routes(state: Arc<State>) -> Router {
    Router::new()
        .route("/-/", reading(get(page::front)))
        .route("/-/status", reading(get(status)))
        .route("/-/members", reading(get(members)))
        .route("/-/keys", reading(get(keys)))
        .route("/-/keys/{*key}", delete(forget).fallback(|| async { Problem::method("DELETE") }))
        .route("/-/locate/{*key}", reading(get(locate)))
        .route("/-/pins", reading(get(pins)))
        .route("/-/plan", reading(get(plan)))
        .route("/-/pins/{*key}", put(pin).delete(unpin).fallback(|| async { Problem::method("PUT, DELETE") }))
        .route("/-/members/{name}", delete(remove_member).fallback(|| async { Problem::method("DELETE") }))
        .route("/-/members/{name}/drain", post(drain).fallback(|| async { Problem::method("POST") }))
        .route("/-/update/{*key}", post(update).fallback(|| async { Problem::method("POST") }))
        .route("/-/webhook", post(webhook::receive).fallback(|| async { Problem::method("POST") }))
        .route("/-/healthz", reading(get(|| async { "ok\n" })))
        .route("/-/readyz", reading(get(readyz)))
        .route("/-/metrics", reading(get(render_metrics)))
        .fallback(|method: Method, uri: Uri| async move {
            page::elsewhere(&method, &uri).unwrap_or_else(|| Problem::unknown_operation(uri.path()).into_response())
        })
        .layer(middleware::from_fn_with_state(state.admission.clone(), admit))
        .with_state(state)
}

fn reading(method: MethodRouter<Arc<State>>) -> MethodRouter<Arc<State>> {
    method.fallback(|| async { Problem::method("GET, HEAD") })
}

async fn status(Shared(state): Shared<Arc<State>>) -> Response {
    document(Json(state.client.status().await))
}

async fn members(Shared(state): Shared<Arc<State>>) -> Response {
    document(Json(state.client.member_statuses().await))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    prefix: String,
    after: Option<Key>,
    limit: Option<usize>,
    #[serde(default)]
    under_replicated: bool,
}

async fn keys(
    Shared(state): Shared<Arc<State>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(page) = page.map_err(|error| Problem::bad_request(error.body_text()))?;
    let limit = page.limit.unwrap_or(KEYS_DEFAULT);
    if !(1..=KEYS_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!("`limit` has to be 1 to {KEYS_MAX}")));
    }
    if page.under_replicated {
        if page.after.is_some() {
            return Err(Problem::bad_request("keys that lack replicas come in one page: narrow it down with `prefix`"));
        }
        let _turn = state.admission.explanations.take().await?;
        return Ok(document(Json(state.client.shortages(&page.prefix, limit).await)));
    }
    let _turn = state.admission.listings.take().await?;
    let found = state.client.keys(&page.prefix, page.after, limit).await;
    let next = found.last().filter(|_| found.len() == limit).map(|last| {
        let encoded = |text| utf8_percent_encode(text, IN_QUERY);
        format!(
            "</-/keys?prefix={}&after={}&limit={limit}>; rel=\"next\"",
            encoded(&page.prefix),
            encoded(last.as_str())
        )
    });
    let mut response = document(Json(found));
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert(header::LINK, next);
    }
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Locating {
    #[serde(default)]
    explain: bool,
}

async fn locate(
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
    locating: Result<Query<Locating>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Locating { explain }) = locating.map_err(|error| Problem::bad_request(error.body_text()))?;
    let key = key_after(&state, "/-/locate/", &uri)?;
    if explain {
        let _turn = state.admission.explanations.take().await?;
        return Ok(document(Json(state.client.explain(&key).await)));
    }
    Ok(document(Json(state.client.locate(&key))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiting {
    #[serde(default)]
    wait: bool,
}

async fn update(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<access::Peer>,
    fields: HeaderMap,
    method: Method,
    uri: Uri,
    waiting: Result<Query<Waiting>, QueryRejection>,
) -> Result<Response, Problem> {
    state.access.may_change(peer, &fields)?;
    let Query(Waiting { wait }) = waiting.map_err(|error| Problem::bad_request(error.body_text()))?;
    let key = key_after(&state, "/-/update/", &uri)?;
    let overloaded = || Problem::overloaded("too many updates are under way; ask again");
    info!(%key, %peer, %method, wait, "update asked for");
    if wait {
        let _permit = state.background.permit().ok_or_else(overloaded)?;
        let replicas = state.client.update(&key).await?;
        return Ok(document(Json(json!({ "key": key, "replicas": replicas }))));
    }
    state.background.update(&state.client, &key).then_some(()).ok_or_else(overloaded)?;
    Ok((StatusCode::ACCEPTED, document(Json(json!({ "key": key, "started": true })))).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Planning {
    #[serde(default)]
    without: String,
    #[serde(default)]
    with: String,
}

async fn plan(
    Shared(state): Shared<Arc<State>>,
    planning: Result<Query<Planning>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Planning { without, with }) = planning.map_err(|error| Problem::bad_request(error.body_text()))?;
    let change = change_of(&without, &with)?;
    let turn = state.admission.plans.take().await?;
    let (client, runtime) = (state.client.clone(), Handle::current());
    // Away from the threads that answer peers: a ring is built in one go, and all keys are looked up on it.
    let planned = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        runtime.block_on(tokio::time::timeout(PLAN_PATIENCE, client.forecast(&change)))
    });
    match planned.await {
        Ok(Ok(forecast)) => Ok(document(Json(forecast.map_err(|error| Problem::bad_request(error.to_string()))?))),
        Ok(Err(_)) => Err(Problem::overloaded(format!("the plan was not made within {PLAN_PATIENCE:?}"))),
        Err(error) => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "The plan failed", error.to_string()))
        }
    }
}

/// Reads lists of members that go and come.
fn change_of(without: &str, with: &str) -> Result<Change, Problem> {
    let parts =
        |list: &str| -> Vec<String> { list.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect() };
    let names = parts(without).len() + parts(with).len();
    if names > PLAN_NAMES_MAX {
        return Err(Problem::bad_request(format!("a plan may have {PLAN_NAMES_MAX} names; this one has {names}")));
    }
    let name = |text: &str| NodeName::new(text).map_err(|error| Problem::bad_request(format!("{text}: {error}")));
    let without = parts(without).iter().map(|text| name(text)).collect::<Result<_, _>>()?;
    let weighted = |text: &String| {
        let pair = text.split_once('=').and_then(|(node, weight)| Some((node, weight.parse().ok()?)));
        let (node, weight) = pair.ok_or_else(|| Problem::bad_request(format!("{text}: it looks like node-4=100")))?;
        if weight > WEIGHT_MAX {
            return Err(Problem::bad_request(format!("{text}: a weight is 0 to {WEIGHT_MAX}")));
        }
        Ok((name(node)?, weight))
    };
    let with: Vec<(NodeName, u32)> = parts(with).iter().map(weighted).collect::<Result<_, _>>()?;
    let weight: u64 = with.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if weight > PLAN_WEIGHT_MAX {
        let detail = format!("the weights in a plan may come to {PLAN_WEIGHT_MAX}; these come to {weight}");
        return Err(Problem::bad_request(detail));
    }
    Ok(Change { without, with })
}

async fn pins(Shared(state): Shared<Arc<State>>) -> Response {
    document(Json(state.client.pins().await))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pinning {
    replicas: Option<usize>,
}

async fn pin(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<access::Peer>,
    fields: HeaderMap,
    uri: Uri,
    pinning: Result<Query<Pinning>, QueryRejection>,
) -> Result<Response, Problem> {
    state.access.may_change(peer, &fields)?;
    let Query(Pinning { replicas }) = pinning.map_err(|error| Problem::bad_request(error.body_text()))?;
    let key = pin_after(&state, &uri)?;
    info!(%key, ?replicas, %peer, "pin asked for");
    Ok(document(Json(state.client.pin(&key, replicas).await?)))
}

async fn unpin(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<access::Peer>,
    fields: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    state.access.may_change(peer, &fields)?;
    let key = pinned_after(&state, &uri)?;
    info!(%key, %peer, "unpin asked for");
    Ok(document(Json(state.client.unpin(&key).await?)))
}

async fn forget(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<access::Peer>,
    fields: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    state.access.may_change(peer, &fields)?;
    let key = key_after(&state, "/-/keys/", &uri)?;
    info!(%key, %peer, "forget asked for");
    Ok(document(Json(state.client.forget(&key).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Draining {
    #[serde(default)]
    force: bool,
    #[serde(default, with = "humantime_serde::option")]
    timeout: Option<Duration>,
}

async fn drain(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<access::Peer>,
    fields: HeaderMap,
    Path(name): Path<String>,
    draining: Result<Query<Draining>, QueryRejection>,
) -> Result<Response, Problem> {
    state.access.may_change(peer, &fields)?;
    let Query(Draining { force, timeout }) = draining.map_err(|error| Problem::bad_request(error.body_text()))?;
    let name = NodeName::new(name).map_err(|error| Problem::bad_request(error.to_string()))?;
    info!(%name, force, %peer, "drain asked for");
    let drained = state.client.drain(&name, force, timeout).await?;
    if drained.left { Ok(document(Json(drained))) } else { Err(Problem::last_holder(&drained)) }
}

async fn remove_member(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<access::Peer>,
    fields: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    state.access.may_change(peer, &fields)?;
    let name = NodeName::new(name).map_err(|error| Problem::bad_request(error.to_string()))?;
    info!(%name, %peer, "removal of a member asked for");
    // It walks over all known keys.
    let _turn = state.admission.listings.take().await?;
    Ok(document(Json(state.client.remove_member(&name).await?)))
}

async fn readyz(Shared(state): Shared<Arc<State>>) -> Result<&'static str, Problem> {
    let view = state.client.view();
    match view.member(view.me()).map(|me| me.state) {
        Some(MemberState::Leaving | MemberState::Away) => return Err(Problem::not_ready("the node is about to stop")),
        Some(MemberState::Draining) => return Err(Problem::not_ready("the node is draining")),
        Some(MemberState::Left) => return Err(Problem::not_ready("the node has left the cluster")),
        state_now => {
            if let Some(what) = state.client.waits_to_join() {
                return Err(Problem::not_ready(format!("the node is joining the cluster: it waits for {what}")));
            }
            if state_now != Some(MemberState::Serving) {
                return Err(Problem::not_ready("the node is joining the cluster"));
            }
        }
    }
    if state.requests.is_exhausted() {
        return Err(Problem::overloaded("the node answers as many requests as it can"));
    }
    if !catches_up(&state.client).await {
        return Err(Problem::not_ready("the node is behind on what the others have published"));
    }
    Ok("ready\n")
}

async fn catches_up(client: &Client) -> bool {
    let caught_up = async {
        while !client.is_caught_up().await {
            tokio::time::sleep(CATCH_UP_STEP).await;
        }
    };
    tokio::time::timeout(CATCH_UP, caught_up).await.is_ok()
}

async fn render_metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let text = state.metrics.render(&state.client).await;
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// A document of this moment.
fn document(content: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], content).into_response()
}

/// The key after `prefix`, as the provider reads it in a request for data: `org/repo.git` and `org/repo` are one repository.
/// It reads the raw path, because the slashes in it are the key's own.
fn key_after(state: &State, prefix: &str, uri: &Uri) -> Result<Key, Problem> {
    let rest = uri.path().strip_prefix(prefix).unwrap_or_default();
    Ok(state.transport.key_of(&format!("/{rest}"))?)
}

/// What is to be pinned: a key, or a pattern as it stands.
fn pin_after(state: &State, uri: &Uri) -> Result<Key, Problem> {
    match written_after("/-/pins/", uri) {
        Ok(pattern) if is_pattern(&pattern) => Ok(pattern),
        _ => key_after(state, "/-/pins/", uri),
    }
}

/// What is to be unpinned: what stands in the list of pins, or else what [`pin_after`] makes of it.
fn pinned_after(state: &State, uri: &Uri) -> Result<Key, Problem> {
    match written_after("/-/pins/", uri) {
        Ok(written) if state.client.has_pin(&written) => Ok(written),
        _ => pin_after(state, uri),
    }
}

/// The key after `prefix`, letter for letter.
fn written_after(prefix: &str, uri: &Uri) -> Result<Key, KeyError> {
    Key::from_path(uri.path().strip_prefix(prefix).unwrap_or_default())
}
