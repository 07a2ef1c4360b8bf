//! What forges tell of pushes: one URL for all repositories.
//!
//! ```text
//!   forge -- POST /-/webhook, signed --> is it signed? --> which repository? --> is it held? --> update it
//! ```
//!
//! The gateway trusts a body only once its `signature` is verified. A push to a repository that no
//! node holds changes nothing: the first client that asks for it gets its state at that time.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Request, State as Shared},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use tracing::info;

use super::{problem::Problem, state::State};
use crate::{api::Started, key::Key};

/// Longest body. A push of many commits takes some hundred kilobytes.
pub(super) const BODY_BYTES_MAX: usize = 4 << 20;
/// Time for a body to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// Fields that name the event, and the events after which a repository may have something new.
const EVENTS: [&str; 5] = ["x-github-event", "x-gitea-event", "x-forgejo-event", "x-gogs-event", "x-gitlab-event"];
const NEWS: [&str; 6] = ["push", "create", "delete", "push hook", "tag push hook", "system hook"];

/// Answers a forge.
pub(super) async fn receive(Shared(state): Shared<Arc<State>>, request: Request) -> Result<Response, Problem> {
    let Some(secret) = &state.webhook_secret else {
        let detail = "this node has no secret for webhooks; start it with --webhook-secret-file";
        return Err(Problem::new(StatusCode::FORBIDDEN, "not-allowed", "Webhooks are not taken", detail));
    };
    let _turn = state.admission.webhooks.take().await?;
    let (parts, body) = request.into_parts();
    let body = read(body).await?;
    if !secret.has_signed(&parts.headers, &body) {
        let detail = "set the secret of --webhook-secret-file in the forge's webhook: it signs what it sends with that, or \
                      sends it as X-Gitlab-Token";
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "no-signature", "The webhook's secret is needed", detail);
        return Err(problem.with_field(header::WWW_AUTHENTICATE, "Signature"));
    }
    let event = event_of(&parts.headers);
    if event.as_deref().is_some_and(|event| !NEWS.contains(&event)) {
        return Ok(Json(Started::nothing(None, "nothing is pushed by an event of this kind")).into_response());
    }
    let payload = payload_of(&parts.headers, &body)?;
    let key = state.client.key_of_repository(&urls_in(&payload), path_in(&payload));
    let key =
        key.ok_or_else(|| Problem::bad_request("it names no repository that this node's data source could have"))?;
    update(&state, &key)
}

fn update(state: &State, key: &Key) -> Result<Response, Problem> {
    let is_held = !state.client.nodes_for_key(key).is_empty();
    info!(%key, is_held, "a forge tells of a push");
    if !is_held {
        return Ok(Json(Started::nothing(Some(key.clone()), "no node holds it")).into_response());
    }
    let started = state.background.update(&state.client, key);
    started.then_some(()).ok_or_else(|| Problem::overloaded("too many updates are under way; send it again"))?;
    Ok((StatusCode::ACCEPTED, Json(Started::of(key.clone()))).into_response())
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    match tokio::time::timeout(BODY_PATIENCE, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the body of a webhook may take {BODY_BYTES_MAX} bytes");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", detail))
        }
        Ok(Err(error)) => Err(Problem::bad_request(error.to_string())),
        Err(_) => Err(Problem::bad_request(format!("the body did not arrive within {BODY_PATIENCE:?}"))),
    }
}

fn event_of(fields: &HeaderMap) -> Option<String> {
    let said = EVENTS.iter().find_map(|name| fields.get(*name))?;
    Some(said.to_str().ok()?.trim().to_ascii_lowercase())
}

/// The document in a body: JSON, or a form with JSON in the field `payload`, as GitHub sends unless told otherwise.
fn payload_of(fields: &HeaderMap, body: &[u8]) -> Result<Value, Problem> {
    let is_form = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded");
    let read = if fields.get(header::CONTENT_TYPE).is_some_and(is_form) {
        let field = url::form_urlencoded::parse(body).find(|(name, _)| name == "payload").map(|(_, value)| value);
        serde_json::from_str(&field.unwrap_or_default())
    } else {
        serde_json::from_slice(body)
    };
    read.map_err(|error| Problem::bad_request(format!("the body is not the JSON of a webhook: {error}")))
}

/// The URLs under which a payload says that the repository can be cloned.
fn urls_in(payload: &Value) -> Vec<&str> {
    let places = [
        "/repository/clone_url",
        "/project/git_http_url",
        "/repository/git_http_url",
        "/repository/html_url",
        "/project/web_url",
    ];
    places.iter().filter_map(|place| payload.pointer(place)?.as_str()).collect()
}

/// The path of the repository on its forge.
fn path_in(payload: &Value) -> Option<&str> {
    let places = ["/repository/full_name", "/project/path_with_namespace"];
    places.iter().find_map(|place| payload.pointer(place)?.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn each_forge_says_in_its_own_way_which_repository_it_is() {
        let github = json!({ "repository": { "clone_url": "https://h/o/r.git", "full_name": "o/r" } });
        assert_eq!((urls_in(&github), path_in(&github)), (vec!["https://h/o/r.git"], Some("o/r")));
        let gitlab = json!({ "project": { "git_http_url": "https://h/o/r.git", "path_with_namespace": "o/r" } });
        assert_eq!((urls_in(&gitlab), path_in(&gitlab)), (vec!["https://h/o/r.git"], Some("o/r")));
        let odd = json!({ "repository": { "clone_url": 7, "full_name": ["x"] } });
        assert_eq!((urls_in(&odd), path_in(&odd)), (vec![], None));
    }

    #[test]
    fn a_form_carries_the_same_document() {
        let form = fields(&[("content-type", "application/x-www-form-urlencoded")]);
        assert_eq!(payload_of(&form, b"payload=%7B%22a%22%3A1%7D").unwrap(), json!({ "a": 1 }));
        assert_eq!(payload_of(&fields(&[]), b"{\"a\":1}").unwrap(), json!({ "a": 1 }));
        assert!(payload_of(&form, b"{\"a\":1}").is_err() && payload_of(&fields(&[]), b"payload=1").is_err());
    }
}
