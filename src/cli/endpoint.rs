//! A client of the operations of a running node.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, anyhow};
use clap::Args;
use datad_gossip::{api::Problem, key::Key};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::Value;

use super::{
    admin::ShortPath,
    provider::without_user,
    running::{self, Running},
    secret,
};

/// The node that is asked if none is named.
pub(super) const AT: &str = "http://127.0.0.1:8400";
/// Leaves a path readable, and safe to paste into a shell.
pub(super) const IN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a node is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Url(Url),
    /// Its Unix socket.
    Unix(PathBuf),
}

#[derive(Args)]
pub(crate) struct Endpoint {
    /// URL of the node to ask, or `unix:PATH` with its socket, the file admin.sock in its data folder.
    /// http://127.0.0.1:8400, if not given; if nothing answers there, the `dev` that runs
    #[arg(long, env = "DATAD_AT", value_name = "URL", hide_env_values = true, value_parser = parse_at)]
    at: Option<At>,
}

#[derive(Args)]
pub(crate) struct Admin {
    /// File with the node's admin token: admin.token in its data folder, unless it was told another. Not needed for a `dev`
    /// of this user, nor with --at unix:PATH
    #[arg(long, env = "DATAD_ADMIN_TOKEN_FILE", value_name = "F")]
    admin_token_file: Option<PathBuf>,
}

fn parse_at(text: &str) -> Result<At, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() {
            Err("it looks like unix:/var/lib/datad/admin.sock".into())
        } else {
            Ok(At::Unix(path.into()))
        };
    }
    let url = Url::parse(text).map_err(|error| format!("{error}; it looks like {AT}"))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(At::Url(url))
    } else {
        Err(format!("it looks like {AT}, or unix:PATH"))
    }
}

impl At {
    fn text(&self) -> String {
        match self {
            Self::Url(url) => without_user(url.as_str()).trim_end_matches('/').to_owned(),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// The address of a URL that names one, or this machine.
    fn address(&self) -> Option<SocketAddr> {
        let Self::Url(url) = self else { return None };
        let ip = match url.host()? {
            url::Host::Ipv4(ip) => IpAddr::V4(ip),
            url::Host::Ipv6(ip) => IpAddr::V6(ip),
            url::Host::Domain("localhost") => Ipv4Addr::LOCALHOST.into(),
            url::Host::Domain(_) => return None,
        };
        Some(SocketAddr::new(ip, url.port_or_known_default()?))
    }
}

impl Endpoint {
    /// What the node answers to a GET of `/-/` and `path`.
    pub(super) async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let at = self.at(&running::all()).await;
        let response = ask(&at, Method::GET, path, query, None, Some(ANSWER_TIMEOUT)).await?;
        document(&at, response).await
    }

    /// What the node answers to a request that changes something at `/-/` and `path`; waits for it as long as it takes.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        admin: &Admin,
    ) -> anyhow::Result<Value> {
        let running = running::all();
        let at = self.at(&running).await;
        let token_file = admin.admin_token_file.as_ref().or_else(|| {
            let address = at.address()?;
            running.iter().find(|dev| dev.listens_at(address)).map(|dev| &dev.token_file)
        });
        let token = match &at {
            At::Unix(_) => None,
            At::Url(_) => token_file.map(|file| secret::read(file)).transpose()?,
        };
        let response = ask(&at, method, path, query, token.as_deref(), None).await?;
        let refused = response.status() == StatusCode::UNAUTHORIZED;
        document(&at, response).await.map_err(|error| if !refused {
            error
        } else if token.is_none() {
            anyhow!("{} wants its admin token: give --admin-token-file F (the file admin.token in its data folder, unless it \
                     was told another), or ask there with --at unix:DATA/admin.sock", at.text())
        } else {
            anyhow!("{} has another admin token", at.text())
        })
    }

    /// The node that was named, or the usual one, or, if nothing listens there, that of the only `dev` that runs.
    async fn at(&self, running: &[Running]) -> At {
        if let Some(at) = &self.at {
            return at.clone();
        }
        let usual = At::Url(AT.parse().expect("this is a URL"));
        let address = usual.address().expect("it names an address");
        if let [dev] = running
            && let Some(first) = dev.first()
            && !dev.listens_at(address)
            && tokio::net::TcpStream::connect(address).await.is_err()
            && let Ok(url) = format!("http://{first}").parse()
        {
            return At::Url(url);
        }
        usual
    }
}

async fn ask(
    at: &At,
    method: Method,
    path: &str,
    query: &[(&str, &str)],
    token: Option<&str>,
    patience: Option<Duration>,
) -> anyhow::Result<Response> {
    // Straight to the node: proxies of the environment are for the outside.
    let mut builder = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT);
    builder = builder.redirect(reqwest::redirect::Policy::none());
    let _socket;
    let mut url = match at {
        At::Url(url) => url.clone(),
        At::Unix(path) => {
            let short = ShortPath::of(path).with_context(|| format!("cannot use the socket {}", path.display()))?;
            builder = builder.unix_socket(short.path.clone());
            _socket = short;
            Url::parse("http://localhost").expect("this is a URL")
        }
    };
    url.set_path(&format!("{}/-/{path}", url.path().trim_end_matches('/')));
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    let mut request = builder.build()?.request(method, url);
    if let Some(patience) = patience {
        request = request.timeout(patience);
    }
    if let Some(token) = token {
        request = request.bearer_auth(token.trim());
    }
    request.send().await.map_err(|error| unreachable(at, &error))
}

async fn document(at: &At, response: Response) -> anyhow::Result<Value> {
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    response.json().await.with_context(|| format!("{} did not answer as a node does", at.text()))
}

fn unreachable(at: &At, error: &reqwest::Error) -> anyhow::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    anyhow!("cannot ask {}: {cause}. Is a node running there? Name another with --at URL", at.text())
}

/// What the node says is wrong.
async fn refusal(response: Response) -> anyhow::Error {
    let status = response.status();
    let text = response.text().await.unwrap_or_default();
    if let Ok(problem) = serde_json::from_str::<Problem>(&text) {
        return anyhow!("{}: {}", problem.title, problem.detail);
    }
    // A proxy's, or another version's: what people can read of it is the same.
    let document: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    match (document["title"].as_str(), document["detail"].as_str()) {
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
    fn a_node_is_named_by_an_http_url_or_a_socket() {
        assert!(parse_at(AT).is_ok() && parse_at("https://node.example/below").is_ok());
        for good in ["unix:/d/admin.sock", "unix:///d/admin.sock"] {
            assert_eq!(parse_at(good), Ok(At::Unix("/d/admin.sock".into())));
        }
        for wrong in ["127.0.0.1:8400", "ftp://x", "nonsense", ""] {
            assert!(parse_at(wrong).unwrap_err().contains(AT), "{wrong}");
        }
        assert!(parse_at("unix:").is_err());
    }
}
