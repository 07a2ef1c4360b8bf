//! Documents that only read: how the node and its cluster are, which keys there are, and where one is.

use std::sync::Arc;

#[cfg(feature = "metrics")]
use axum::response::IntoResponse;
use axum::{extract::State as Shared, response::Response};
use http::{HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::extract::{About, Parameters, document};
use crate::{
    api,
    gateway::{problem::Problem, state::State},
    key::Key,
};

const KEYS_DEFAULT: usize = 1_000;
const KEYS_MAX: usize = 10_000;
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) async fn status(Shared(state): Shared<Arc<State>>) -> Response {
    document(api::Status::from(state.client.status().await))
}

pub(super) async fn members(Shared(state): Shared<Arc<State>>) -> Response {
    document(api::documents::<_, api::Member>(state.client.member_statuses().await))
}

pub(super) async fn pins(Shared(state): Shared<Arc<State>>) -> Response {
    document(api::documents::<_, api::Pin>(state.client.pins().await))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    prefix: String,
    after: Option<Key>,
    limit: Option<usize>,
    #[serde(default)]
    under_replicated: bool,
}

pub(super) async fn keys(
    Shared(state): Shared<Arc<State>>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, Problem> {
    let limit = page.limit.unwrap_or(KEYS_DEFAULT);
    if !(1..=KEYS_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!("`limit` has to be 1 to {KEYS_MAX}")));
    }
    if page.under_replicated {
        if page.after.is_some() {
            return Err(Problem::bad_request("keys that lack replicas come in one page: narrow it down with `prefix`"));
        }
        let _turn = state.admission.explanations.take().await?;
        let shortages = state.client.shortages(&page.prefix, limit).await;
        return Ok(document(api::documents::<_, api::Shortage>(shortages)));
    }
    let _turn = state.admission.listings.take().await?;
    let found = state.client.keys(&page.prefix, page.after, limit).await;
    let next = found.last().filter(|_| found.len() == limit).map(|last| {
        let encoded = |text| utf8_percent_encode(text, IN_QUERY);
        let (prefix, after) = (encoded(&page.prefix), encoded(last.as_str()));
        format!("</-/keys?prefix={prefix}&after={after}&limit={limit}>; rel=\"next\"")
    });
    let mut response = document(found);
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert(header::LINK, next);
    }
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Locating {
    #[serde(default)]
    explain: bool,
}

pub(super) async fn locate(
    Shared(state): Shared<Arc<State>>,
    Parameters(Locating { explain }): Parameters<Locating>,
    About(key): About,
) -> Result<Response, Problem> {
    if explain {
        let _turn = state.admission.explanations.take().await?;
        return Ok(document(api::Explanation::from(state.client.explain(&key).await)));
    }
    Ok(document(api::Location::from(state.client.locate(&key))))
}

#[cfg(feature = "metrics")]
pub(super) async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let text = state.metrics.render(&state.client).await;
    ([(header::CONTENT_TYPE, crate::gateway::metrics::CONTENT_TYPE)], text).into_response()
}

#[cfg(not(feature = "metrics"))]
pub(super) async fn metrics() -> Problem {
    Problem::not_built("metrics")
}
