//! What operations read from a request. Each part is an extractor of its own, and refuses what is wrong with a [`Problem`]; they
//! run in the order of a handler's parameters, so who may not change anything learns nothing else.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequestParts, Path, Query},
    response::{IntoResponse, Response},
};
use http::{Uri, header, request::Parts};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    core::catalog::is_pattern,
    gateway::{access::Peer, problem::Problem, state::State},
    key::{Key, KeyError, NodeName},
};

/// The operator, who may change something, and where the request comes from.
pub(super) struct Operator(pub(super) Peer);

impl FromRequestParts<Arc<State>> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Problem> {
        let peer = *parts.extensions.get::<Peer>().expect("the service says where each request comes from");
        state.access.may_change(peer, &parts.headers)?;
        Ok(Self(peer))
    }
}

/// The query.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(error) => Err(Problem::bad_request(error.body_text())),
        }
    }
}

/// The member that the path names.
pub(super) struct Named(pub(super) NodeName);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
        NodeName::new(name).map(Self).map_err(|error| Problem::bad_request(error.to_string()))
    }
}

/// The key that the path names, as the provider reads it in a request for data: `org/repo.git` and `org/repo` are one repository.
pub(super) struct About(pub(super) Key);

impl FromRequestParts<Arc<State>> for About {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Problem> {
        provided(state, &parts.uri).map(Self)
    }
}

/// What the path says is to be pinned: a key as [`About`] reads it, or a pattern as it stands.
pub(super) struct ToPin(pub(super) Key);

impl FromRequestParts<Arc<State>> for ToPin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Problem> {
        to_pin(state, &parts.uri).map(Self)
    }
}

/// What the path says is to be unpinned: what stands in the list of pins, or else what [`ToPin`] makes of it.
pub(super) struct ToUnpin(pub(super) Key);

impl FromRequestParts<Arc<State>> for ToUnpin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Problem> {
        match written(&parts.uri) {
            Ok(written) if state.client.has_pin(&written) => Ok(Self(written)),
            _ => to_pin(state, &parts.uri).map(Self),
        }
    }
}

fn to_pin(state: &State, uri: &Uri) -> Result<Key, Problem> {
    match written(uri) {
        Ok(pattern) if is_pattern(&pattern) => Ok(pattern),
        _ => provided(state, uri),
    }
}

fn provided(state: &State, uri: &Uri) -> Result<Key, Problem> {
    Ok(state.transport.key_of(&format!("/{}", after_operation(uri)))?)
}

/// The key in a path, letter for letter.
fn written(uri: &Uri) -> Result<Key, KeyError> {
    Key::from_path(after_operation(uri))
}

/// What follows `/-/OPERATION/`. It is the raw path, because the slashes in it are the key's own.
fn after_operation(uri: &Uri) -> &str {
    uri.path().splitn(4, '/').nth(3).unwrap_or_default()
}

/// A document of this moment.
pub(super) fn document(content: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(content)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_follows_the_operation_with_all_its_slashes() {
        for (path, key) in [("/-/pins/a/b", "a/b"), ("/-/pins/a//b", "a//b"), ("/-/pins/%2A", "%2A"), ("/-/pins", "")] {
            assert_eq!(after_operation(&Uri::from_static(path)), key);
        }
    }
}
