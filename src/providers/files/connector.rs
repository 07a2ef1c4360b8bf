//! The HTTP client of plain HTTP sources.
//!
//! Web servers redirect a directory to its name with a slash and answer that with a page they make up. Such a page is
//! no object, so this redirect is not followed but told as 404. Others are followed here and not by the client, which
//! would not show the source's credentials to the same host over HTTPS.

use std::{error::Error, io, sync::Arc};

use async_trait::async_trait;
use http::{HeaderValue, StatusCode, header, request::Parts};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpService,
    },
};
use reqwest::redirect::Policy;
use url::Url;

use crate::{
    provider::UpdateError,
    providers::{
        client::client,
        later::asks_for_patience,
        reach::{GuardedBody, REDIRECTS_MAX, is_private_host, is_same_host, is_sign_in},
    },
};

/// Why a request was not followed to its end. It is the source of the error of the client.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("it redirects to a sign-in page")]
    SignIn,
    #[error(transparent)]
    Later(UpdateError),
}

/// What the connector meant with an error that has come through a store or a client.
pub(crate) fn refusal_in(error: &(dyn Error + 'static)) -> Option<UpdateError> {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<Refused>() {
            Some(Refused::SignIn) => {
                return Some(UpdateError::Forbidden(format!("the origin refuses it: {}", Refused::SignIn)));
            }
            Some(Refused::Later(UpdateError::Later { reason, after })) => {
                return Some(UpdateError::Later { reason: reason.clone(), after: *after });
            }
            _ => next = error.source(),
        }
    }
    None
}

/// Makes clients that show `authorization` to the source, and to no host that it redirects to. Such a host may not be in
/// a private network, unless that is allowed: it is the source's choice and not the operator's.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(crate) origin: Url,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) private_origins: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let mut client = client().redirect(Policy::none());
        if !self.private_origins {
            client = client.dns_resolver(Arc::new(GuardedBody::new(self.origin.host_str().unwrap_or_default())));
        }
        let client =
            client.build().map_err(|error| object_store::Error::Generic { store: "HTTP", source: error.into() })?;
        Ok(HttpClient::new(Objects { client, connector: self.clone() }))
    }
}

/// Why a redirect is not followed, if it is not.
fn refusal(from: &Url, to: &Url, origin: &Url, private: bool) -> Option<&'static str> {
    let is_origins = |url: &Url| url == origin || is_same_host(origin, url);
    if from.scheme() == "https" && to.scheme() != "https" {
        return Some("it redirects from HTTPS to something else");
    }
    if private || is_origins(to) {
        return None;
    }
    // Its name resolves to whatever it is, so its other ports would be open, too.
    if to.host() == origin.host() {
        return Some("it redirects to another port of its host");
    }
    // Names are judged when they are resolved.
    to.host().is_none_or(|host| is_private_host(&host)).then_some("it redirects to a private network")
}

#[derive(Debug)]
struct Objects {
    /// Follows nothing by itself.
    client: reqwest::Client,
    connector: Connector,
}

impl Objects {
    /// One request, without what it leads to.
    async fn ask(&self, parts: &Parts, body: &HttpRequestBody, at: &Url) -> Result<HttpResponse, HttpError> {
        let mut request = HttpRequest::from_parts(parts.clone(), body.clone());
        *request.uri_mut() = at.as_str().parse().map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let Connector { origin, authorization, .. } = &self.connector;
        if let Some(authorization) = authorization.as_ref().filter(|_| is_same_host(origin, at)) {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        self.client.call(request).await
    }
}

#[async_trait]
impl HttpService for Objects {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let refused = |reason: &str| HttpError::new(HttpErrorKind::Unknown, io::Error::other(reason.to_owned()));
        let (parts, body) = request.into_parts();
        let mut at =
            Url::parse(&parts.uri.to_string()).map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        for _ in 0..=REDIRECTS_MAX {
            let mut response = self.ask(&parts, &body, &at).await?;
            if let Some(later) = asks_for_patience(response.status(), response.headers()) {
                return Err(HttpError::new(HttpErrorKind::Unknown, Refused::Later(later)));
            }
            let Some(next) = target(&response, &at) else { return Ok(response) };
            if is_sign_in(&next) && !is_sign_in(&at) {
                return Err(HttpError::new(HttpErrorKind::Unknown, Refused::SignIn));
            }
            if next.path().strip_suffix('/') == Some(at.path()) && next.host() == at.host() {
                *response.status_mut() = StatusCode::NOT_FOUND;
                return Ok(response);
            }
            if let Some(reason) = refusal(&at, &next, &self.connector.origin, self.connector.private_origins) {
                return Err(refused(reason));
            }
            at = next;
        }
        Err(refused("it redirects too often"))
    }
}

/// Where an answer from `at` leads, if it does.
fn target(response: &HttpResponse, at: &Url) -> Option<Url> {
    let moved = response.status().is_redirection().then(|| response.headers().get(header::LOCATION))??;
    at.join(moved.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_goes_to_the_origin_or_to_a_public_host_and_never_back_from_https() {
        let refused = |origin: &str, to: &str, private| {
            let (origin, to) = (Url::parse(origin).unwrap(), Url::parse(to).unwrap());
            refusal(&origin, &to, &origin, private).is_some()
        };
        for (origin, to) in [
            ("https://h.example/a", "http://h.example/a"),
            ("https://h.example/a", "http://cdn.example/a"),
            ("http://h.example/a", "http://127.0.0.1/a"),
            ("http://h.example/a", "http://169.254.169.254/latest"),
            ("http://h.example/a", "http://[::1]/a"),
            ("http://h.example/a", "http://localhost/a"),
            ("http://127.0.0.1:81/a", "http://127.0.0.1:82/a"),
            ("http://10.0.0.1/a", "http://10.0.0.2/a"),
        ] {
            assert!(refused(origin, to, false), "{origin} {to}");
        }
        for (origin, to) in [
            ("http://10.0.0.1:81/a", "http://10.0.0.1:81/b"),
            ("http://h.example/a", "https://h.example/a"),
            ("https://h.example/a", "https://cdn.example/a"),
        ] {
            assert!(!refused(origin, to, false), "{origin} {to}");
        }
        assert!(!refused("http://10.0.0.1/a", "http://10.0.0.2/a", true));
        assert!(refused("https://10.0.0.1/a", "http://10.0.0.1/a", true));
    }
}
