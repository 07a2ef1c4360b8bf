//! One request at one node, and what its answer is worth.

use std::time::Duration;

use bytes::Bytes;
use datad_gossip::{Client, RouteError, key::Key, provider::empty};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

/// How a request ended.
#[derive(Debug, Clone)]
pub enum Answer {
    /// With a response, to its end.
    Body(StatusCode, Bytes),
    /// With a response that broke off, and said so.
    BrokenOff(String),
    /// With an error.
    Error(RouteError),
    /// Not at all within the given time.
    Hangs,
}

/// Asks for `key` and reads the answer to its end, at most until `patience` is over.
pub async fn ask(client: Client, key: Key, patience: Duration) -> Answer {
    let request = Request::get(format!("/{key}")).body(empty()).expect("a valid request");
    let asked = async {
        match client.transport_for_key(key).oneshot(request).await {
            Err(error) => Answer::Error(error),
            Ok(response) => {
                let status = response.status();
                match response.into_body().collect().await {
                    Ok(body) => Answer::Body(status, body.to_bytes()),
                    Err(error) => Answer::BrokenOff(error.to_string()),
                }
            }
        }
    };
    tokio::time::timeout(patience, asked).await.unwrap_or(Answer::Hangs)
}
