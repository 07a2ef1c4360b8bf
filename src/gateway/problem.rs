//! Errors as clients see them: problem details (RFC 9457), with `Retry-After` where asking again may help.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};

use crate::{
    api,
    client::DrainError,
    core::{catalog::IntentError, membership::RemoveError},
    key::{Key, KeyError},
    operations::drain::Drained,
    route_error::{Attempt, AttemptError, RouteError},
    transport::PathError,
};

/// A problem document on its way to a client. Boxed, because it is the rare end of many results.
#[derive(Debug)]
pub(super) struct Problem(Box<Contents>);

#[derive(Debug)]
struct Contents {
    status: StatusCode,
    document: api::Problem,
    retry_after: Option<Duration>,
    field: Option<(header::HeaderName, &'static str)>,
}

impl Problem {
    /// A problem of the kind `name`, which is the end of its type URI.
    pub(super) fn new(status: StatusCode, name: &str, title: &'static str, detail: impl Into<String>) -> Self {
        let document = api::Problem {
            kind: format!("urn:datad-gossip:problem:{name}"),
            title: title.into(),
            status: status.as_u16(),
            detail: detail.into(),
            key: None,
            attempts: None,
        };
        Self(Box::new(Contents { status, document, retry_after: None, field: None }))
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request makes no sense here", detail)
    }

    pub(super) fn unknown_operation(path: &str) -> Self {
        let detail = format!("there is no operation {path}; data does not begin with /-/");
        Self::new(StatusCode::NOT_FOUND, "unknown-operation", "No such operation", detail)
    }

    /// An operation that this build does not have.
    #[cfg(not(feature = "metrics"))]
    pub(super) fn not_built(feature: &str) -> Self {
        let detail = format!("this program was built without the feature `{feature}` of datad-gossip");
        Self::new(StatusCode::NOT_FOUND, "unknown-operation", "No such operation", detail)
    }

    pub(super) fn method(allowed: &'static str) -> Self {
        let detail = format!("this operation takes {allowed}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", "Wrong method", detail).with_field(header::ALLOW, allowed)
    }

    pub(super) fn overloaded(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too much at once", detail)
            .with_retry_after(Duration::from_secs(1))
    }

    pub(super) fn not_ready(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "The node does not serve", detail)
            .with_retry_after(Duration::from_secs(1))
    }

    /// A node does not leave, for it alone has these keys.
    pub(super) fn last_holder(drained: &Drained) -> Self {
        let keys: Vec<&str> = drained.keys.iter().map(Key::as_str).collect();
        let more = drained.remaining.saturating_sub(keys.len() as u64);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let detail = format!(
            "{} goes on draining; no other live node has {}{more}. Ask again, or force it to leave",
            drained.node,
            keys.join(", ")
        );
        Self::new(StatusCode::CONFLICT, "last-holder", "The node is the last holder of some keys", detail)
    }

    pub(super) fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    pub(super) fn with_field(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.0.field = Some((name, value));
        self
    }

    fn about(mut self, key: &Key) -> Self {
        self.0.document.key = Some(key.clone());
        self
    }

    fn after(mut self, attempts: &[Attempt]) -> Self {
        self.0.document.attempts = Some(attempts.iter().map(api::Attempt::from).collect());
        self
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "no-key", "The path names no key", error.to_string())
    }
}

impl From<RouteError> for Problem {
    fn from(error: RouteError) -> Self {
        let detail = error.to_string();
        match &error {
            RouteError::NotFound { key } => {
                Self::new(StatusCode::NOT_FOUND, "not-found", "The origin has no such key", detail).about(key)
            }
            RouteError::Forbidden { key, .. } => {
                Self::new(StatusCode::FORBIDDEN, "forbidden", "The key may not be fetched", detail).about(key)
            }
            RouteError::Failed { key, attempts, retry_after } if are_overloaded(attempts) => {
                Self::overloaded(detail).about(key).after(attempts).with_retry_after(*retry_after)
            }
            RouteError::Failed { key, attempts, retry_after } => {
                Self::new(StatusCode::BAD_GATEWAY, "no-answer", "No node could answer", detail)
                    .about(key)
                    .after(attempts)
                    .with_retry_after(*retry_after)
            }
            RouteError::Pending { key, .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "still-fetching", "The key is still being fetched", detail)
                    .about(key)
                    .with_retry_after(Duration::from_secs(1))
            }
            RouteError::Request(_) => Self::bad_request(detail),
        }
    }
}

/// Whether nothing is wrong, except that there is too much to do.
fn are_overloaded(attempts: &[Attempt]) -> bool {
    let overloaded = |attempt: &Attempt| matches!(attempt.error, AttemptError::Overloaded | AttemptError::Later { .. });
    !attempts.is_empty() && attempts.iter().all(overloaded)
}

impl From<IntentError> for Problem {
    fn from(error: IntentError) -> Self {
        let detail = error.to_string();
        match error {
            IntentError::Refused { key, .. } => {
                Self::new(StatusCode::FORBIDDEN, "forbidden", "The key may not be fetched", detail).about(&key)
            }
            IntentError::Replicas(_) | IntentError::Pattern(_) => Self::bad_request(detail),
            IntentError::Full { .. } | IntentError::Disk(_) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "not-recorded", "It could not be recorded", detail)
            }
            IntentError::NobodyReached | IntentError::Stopping => Self::not_ready(detail),
        }
    }
}

impl From<DrainError> for Problem {
    fn from(error: DrainError) -> Self {
        let detail = error.to_string();
        match error {
            DrainError::NotAlive(_) => Self::new(StatusCode::NOT_FOUND, "no-member", "No such live member", detail),
            DrainError::Unreachable { .. } => {
                Self::new(StatusCode::BAD_GATEWAY, "no-answer", "The node does not answer", detail)
                    .with_retry_after(Duration::from_secs(1))
            }
        }
    }
}

impl From<RemoveError> for Problem {
    fn from(error: RemoveError) -> Self {
        let detail = error.to_string();
        match error {
            RemoveError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, "no-member", "No such member", detail),
            RemoveError::Alive(_) => Self::new(StatusCode::CONFLICT, "alive", "The member is alive", detail),
            RemoveError::InEtcd(_) | RemoveError::Observer(_) => {
                Self::new(StatusCode::CONFLICT, "not-here", "The member cannot be removed here", detail)
            }
            RemoveError::Stopping => Self::not_ready(detail),
        }
    }
}

impl From<PathError> for Problem {
    fn from(error: PathError) -> Self {
        match error {
            PathError::Key(error) => error.into(),
            PathError::Route(error) => error.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Contents { status, document, retry_after, field } = *self.0;
        let body = serde_json::to_vec(&document).expect("a problem is plain data");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        // Errors pass; a cache on the way must not keep them.
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = retry_after {
            fields.insert(header::RETRY_AFTER, whole_seconds(after).into());
        }
        if let Some((name, value)) = field {
            fields.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Rounded up, and never "at once".
fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::key::NodeName;

    fn key() -> Key {
        Key::new("a/b").unwrap()
    }

    async fn document(response: Response) -> serde_json::Value {
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[test]
    fn every_error_has_the_status_that_tells_the_client_what_to_do() {
        let failed = RouteError::Failed { key: key(), attempts: Vec::new(), retry_after: Duration::from_millis(1_500) };
        let (node, error) = (
            NodeName::new("n1").unwrap(),
            AttemptError::Later { reason: "the origin says so".into(), after: Duration::ZERO },
        );
        let later = RouteError::Failed {
            key: key(),
            attempts: vec![Attempt { node, error }],
            retry_after: Duration::from_secs(30),
        };
        let cases: [(PathError, u16, Option<&str>); 7] = [
            (later.into(), 503, Some("30")),
            (KeyError::Empty.into(), 400, None),
            (RouteError::NotFound { key: key() }.into(), 404, None),
            (RouteError::Forbidden { key: key(), reason: "rule".into() }.into(), 403, None),
            (failed.into(), 502, Some("2")),
            (RouteError::Pending { key: key(), waited: Duration::from_secs(3) }.into(), 504, Some("1")),
            (RouteError::Request("broke off".into()).into(), 400, None),
        ];
        for (error, status, retry_after) in cases {
            let text = error.to_string();
            let response = Problem::from(error).into_response();
            assert_eq!(response.status(), status, "{text}");
            let said = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(said, retry_after, "{text}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        }
    }

    #[tokio::test]
    async fn a_failed_request_names_the_key_and_what_each_node_said() {
        let attempt = Attempt { node: NodeName::new("n1").unwrap(), error: AttemptError::Timeout };
        let error = RouteError::Failed { key: key(), attempts: vec![attempt], retry_after: Duration::ZERO };
        let document = document(Problem::from(error).into_response()).await;
        assert_eq!(document["type"], "urn:datad-gossip:problem:no-answer");
        assert_eq!((&document["status"], &document["key"]), (&502.into(), &"a/b".into()));
        assert_eq!(document["attempts"], serde_json::json!([{ "node": "n1", "error": "no answer in time" }]));
        assert!(document["detail"].as_str().unwrap().contains("n1"));
    }
}
