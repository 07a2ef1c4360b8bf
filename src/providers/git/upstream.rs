//! Fetching from an origin: where it may be, its credentials, and where it has moved.
//!
//! ```text
//!   host from the key? --resolve--> public? --pin its addresses-->  git, which follows no redirect
//!                                                                    |  3xx
//!                                      ask ourselves <---------------+
//!                                      same host? --> git again, at the new URL
//! ```
//!
//! git itself would follow a redirect to any host, and show it what was meant for the first.

use http::{HeaderValue, StatusCode, header};
use reqwest::redirect::Policy;
use url::{Position, Url};

use super::{
    outcome::{is_redirect, may_say_when},
    setup::Git,
    template::{Remote, Scheme},
};
use crate::{
    key::Key,
    provider::{UpdateContext, UpdateError},
    providers::{
        client::client,
        credentials::Secret,
        later::asks_for_patience,
        reach::{REDIRECTS_MAX, REFUSED, is_proxied, is_same_host, is_sign_in, public_addresses},
    },
};

/// What every fetch begins with.
const ADVERTISEMENT: &str = "/info/refs?service=git-upload-pack";

/// The purpose of a request to an origin.
#[derive(Clone, Copy)]
pub(super) enum Errand<'c> {
    /// To make the mirror equal to it.
    Bring(&'c UpdateContext),
    /// To see whether it is there.
    Look,
}

impl Git {
    /// Brings `key` from its origin. Returns whether that changed it.
    pub(super) async fn fetch(&self, key: &Key, remote: Remote, context: &UpdateContext) -> Result<bool, UpdateError> {
        let brought = self.reach(key, remote, Errand::Bring(context)).await;
        if !self.template.host_in_key() {
            return brought;
        }
        // The words of git about a host that a stranger chose are an answer to the question of what is there.
        brought.map_err(|error| match error {
            UpdateError::Unavailable(reason) | UpdateError::Failed(reason) => {
                tracing::info!(%key, reason, "the upstream cannot be fetched from");
                UpdateError::Unavailable("its host did not give it; the log of the node that asked says why".to_owned())
            }
            other => other,
        })
    }

    /// Goes to where `key` is, for `errand`. Whether that changed the mirror, or whether the repository is there.
    pub(super) async fn reach(&self, key: &Key, mut remote: Remote, errand: Errand<'_>) -> Result<bool, UpdateError> {
        if remote.scheme == Scheme::File {
            return self.run(key, &remote, errand).await;
        }
        let url = Url::parse(&remote.url).map_err(|error| UpdateError::Failed(error.to_string()))?;
        if self.template.host_in_key() && !self.private_origins {
            remote.addresses = pin(&url).await?;
        }
        if remote.authorization.is_none() {
            remote.authorization = self.authorization(&url).await?;
        }
        match self.run(key, &remote, errand).await {
            Err(UpdateError::Unavailable(reason)) if is_redirect(&reason) => {}
            Err(UpdateError::Unavailable(reason)) if may_say_when(&reason).is_some() => {
                return Err(refusal(&url, &remote, reason).await);
            }
            brought => return brought,
        }
        let moved = moved(&url, &remote).await?;
        tracing::debug!(%key, to = %moved, "the upstream has moved");
        remote.origin = format!("{}/", &moved[..Position::BeforePath]);
        remote.scheme = if moved.scheme() == "https" { Scheme::Https } else { Scheme::Http };
        remote.url = moved.into();
        self.run(key, &remote, errand).await
    }

    async fn run(&self, key: &Key, remote: &Remote, errand: Errand<'_>) -> Result<bool, UpdateError> {
        match errand {
            Errand::Bring(context) => self.mirrors.bring(key, remote, context).await,
            Errand::Look => self.mirrors.has_head(key, remote).await,
        }
    }

    async fn authorization(&self, url: &Url) -> Result<Option<HeaderValue>, UpdateError> {
        match self.credentials.of(url) {
            None => Ok(None),
            Some(Secret::Header(header)) => Ok(Some(header.clone())),
            Some(Secret::Helper(helper)) => self.mirrors.program.credential(helper, url).await.map(Some),
        }
    }
}

/// The addresses of a host that a key names, for git to connect to; none if a proxy does that.
async fn pin(url: &Url) -> Result<Vec<std::net::SocketAddr>, UpdateError> {
    if is_proxied(url) {
        return Ok(Vec::new());
    }
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    public_addresses(host, port).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => UpdateError::Forbidden(REFUSED.to_owned()),
        _ => UpdateError::Unavailable(format!("{host} cannot be resolved")),
    })
}

/// What an origin means that gave git a status which may come with a time: git does not pass the
/// time on, so it is asked once more. Hosts answer a bare 403 for repositories that are not public.
async fn refusal(url: &Url, remote: &Remote, reason: String) -> UpdateError {
    let was_forbidden = may_say_when(&reason) == Some(403);
    let asked = async {
        let client = bare_client(url, remote)?;
        let at = advertisement(url).map_err(|error| UpdateError::Failed(error.to_string()))?;
        let answer = ask(&client, at, remote).await;
        answer.map_err(|error| UpdateError::Unavailable(error.without_url().to_string()))
    };
    match asked.await.map(|answer| asks_for_patience(answer.status(), answer.headers())) {
        Ok(Some(later)) => later,
        _ if was_forbidden => UpdateError::NotFound,
        _ => UpdateError::Unavailable(reason),
    }
}

/// A client that follows nothing, and connects to the addresses that were found to be public.
fn bare_client(url: &Url, remote: &Remote) -> Result<reqwest::Client, UpdateError> {
    let mut client = client().redirect(Policy::none()).user_agent("git/2 (datad-gossip)");
    if !remote.addresses.is_empty() {
        client = client.resolve_to_addrs(url.host_str().unwrap_or_default(), &remote.addresses);
    }
    client.build().map_err(|error| UpdateError::Failed(error.without_url().to_string()))
}

/// Asks only within the host of the remote, so it is still the one that its secret is for; but not from HTTPS over HTTP.
async fn ask(client: &reqwest::Client, at: Url, remote: &Remote) -> reqwest::Result<reqwest::Response> {
    let mut request = client.get(at);
    if let Some(authorization) = &remote.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    request.send().await
}

/// Where a repository is that the host of `url` redirects.
///
/// # Errors
/// Somewhere else than on that host.
async fn moved(url: &Url, remote: &Remote) -> Result<Url, UpdateError> {
    let trouble = |reason: String| UpdateError::Unavailable(format!("the origin redirects: {reason}"));
    let client = bare_client(url, remote)?;
    let mut at = advertisement(url).map_err(|error| UpdateError::Failed(error.to_string()))?;
    for _ in 0..REDIRECTS_MAX {
        let response =
            ask(&client, at.clone(), remote).await.map_err(|error| trouble(error.without_url().to_string()))?;
        if !is_moved(response.status()) {
            break;
        }
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let next = location.and_then(|location| at.join(location).ok());
        let next = next.ok_or_else(|| trouble("it does not say where to".to_owned()))?;
        if is_sign_in(&next) && !is_sign_in(&at) {
            return Err(UpdateError::Forbidden("the origin redirects to a sign-in page".to_owned()));
        }
        if !is_same_host(&at, &next) || !next.username().is_empty() || next.password().is_some() {
            return Err(trouble("to another host or port, where this node does not go".to_owned()));
        }
        at = next;
    }
    let moved = at.as_str().strip_suffix(ADVERTISEMENT).filter(|moved| *moved != url.as_str());
    let moved = moved.ok_or_else(|| trouble("to something that is no repository".to_owned()))?;
    Url::parse(moved).map_err(|error| UpdateError::Failed(error.to_string()))
}

fn advertisement(url: &Url) -> Result<Url, url::ParseError> {
    Url::parse(&format!("{}{ADVERTISEMENT}", url.as_str().trim_end_matches('/')))
}

fn is_moved(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}
