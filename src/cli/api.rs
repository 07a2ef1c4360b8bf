//! A client of the operations of a running node.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, anyhow};
use clap::Args;
use datad_gossip::key::Key;
use percent_encoding::utf8_percent_encode;
use reqwest::{Method, Response, Url, header};
use serde_json::Value;

use super::{hints::IN_PATH, settings::read_secret};

/// The node that is asked if none is named.
pub(super) const AT: &str = "http://127.0.0.1:8400";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Endpoint {
    /// URL of the node to ask
    #[arg(long, env = "DATAD_AT", value_name = "URL", default_value = AT, value_parser = parse_url)]
    at: Url,
}

#[derive(Args)]
pub(crate) struct Admin {
    /// File with the node's admin token, where it wants one
    #[arg(long, env = "DATAD_ADMIN_TOKEN_FILE", value_name = "F")]
    admin_token_file: Option<PathBuf>,
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; it looks like {AT}"))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err(format!("it looks like {AT}"))
    }
}

impl Endpoint {
    /// What the node answers to a GET of `/-/` and `path`.
    pub(super) async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        self.ask(Method::GET, path, query, None, Some(ANSWER_TIMEOUT)).await
    }

    /// What the node answers to a request that changes something at `/-/` and `path`; waits for it as long as it takes.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        admin: &Admin,
    ) -> anyhow::Result<Value> {
        let token = admin.admin_token_file.as_deref().map(read_secret).transpose()?;
        self.ask(method, path, query, token.as_deref(), None).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        token: Option<&str>,
        patience: Option<Duration>,
    ) -> anyhow::Result<Value> {
        // Straight to the node: proxies of the environment are for the outside.
        let builder = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT);
        let client = builder.redirect(reqwest::redirect::Policy::none()).build()?;
        let mut url = self.at.clone();
        url.set_path(&format!("{}/-/{path}", self.at.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = client.request(method, url);
        if let Some(patience) = patience {
            request = request.timeout(patience);
        }
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        response.json().await.with_context(|| format!("{} did not answer as a node does", self.at))
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let at = self.at.as_str().trim_end_matches('/');
        anyhow!("cannot ask {at}: {cause}. Is a node running there? Name another with --at URL")
    }
}

/// What the node says is wrong.
async fn refusal(response: Response) -> anyhow::Error {
    let status = response.status();
    let problem: Value = response.json().await.unwrap_or_default();
    match (problem["title"].as_str(), problem["detail"].as_str()) {
        (Some(title), Some(detail)) => anyhow!("{title}: {detail}"),
        _ => anyhow!("the node answered {status}"),
    }
}

/// A key as part of a path.
pub(super) fn in_path(key: &Key) -> String {
    utf8_percent_encode(key.as_str(), IN_PATH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_an_http_url() {
        assert!(parse_url(AT).is_ok() && parse_url("https://node.example/below").is_ok());
        for wrong in ["127.0.0.1:8400", "ftp://x", "nonsense", ""] {
            assert!(parse_url(wrong).unwrap_err().contains(AT), "{wrong}");
        }
    }
}
