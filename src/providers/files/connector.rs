//! The HTTP client of plain HTTP sources.
//!
//! Web servers redirect a directory to its name with a slash and answer that with a page they make up. Such a page is
//! no object, so this redirect is not followed but told as 404.

use async_trait::async_trait;
use http::{HeaderValue, StatusCode, header};
use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService},
};
use reqwest::redirect::{Attempt, Policy};

use super::source::client;

const REDIRECTS_MAX: usize = 5;

/// Makes clients that show `authorization` to the source, and to no host that it redirects to.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) authorization: Option<HeaderValue>,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = client().redirect(Policy::custom(follow)).build();
        let client = client.map_err(|error| object_store::Error::Generic { store: "HTTP", source: error.into() })?;
        Ok(HttpClient::new(Objects { client, authorization: self.authorization.clone() }))
    }
}

fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let from = attempt.previous().last().map_or("", |url| url.path());
    if attempt.url().path().strip_suffix('/') == Some(from) {
        attempt.stop()
    } else if attempt.previous().len() > REDIRECTS_MAX {
        attempt.error("too many redirects")
    } else {
        attempt.follow()
    }
}

#[derive(Debug)]
struct Objects {
    client: reqwest::Client,
    authorization: Option<HeaderValue>,
}

#[async_trait]
impl HttpService for Objects {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        let mut response = self.client.call(request).await?;
        if response.status().is_redirection() && response.headers().contains_key(header::LOCATION) {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        Ok(response)
    }
}
