//! The settings that only this program has: where it listens, what it serves, and what it proves its membership with.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use datad_gossip::{ClusterKey, Credentials, key::NodeName};
use serde::{Deserialize, Serialize};

use crate::cli::{
    failure::Failure,
    provider::{Origin, ProviderOptions, has_user},
    secret,
};

/// Most requests for data that may be answered at once.
const REQUESTS_MAX: usize = 1_000_000;

#[derive(Args, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct OwnOptions {
    /// Name of the node: lower-case letters, digits, `-`, `.`, `_`; no other node of the cluster may have it. The name
    /// of the machine, if not given
    #[arg(long, env = "DATAD_NAME", value_name = "N")]
    pub(crate) name: Option<String>,
    /// TCP address for clients. 127.0.0.1:8400, if not given: this machine only
    #[arg(long, env = "DATAD_HTTP", value_name = "TCP")]
    pub(crate) http: Option<SocketAddr>,
    /// Folder for everything the node keeps; made if needed, used by one process at a time
    #[arg(long, env = "DATAD_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// URL under which people reach the node's HTTP side, shown in the list of members
    #[arg(long, env = "DATAD_ADVERTISE_HTTP", value_name = "URL")]
    pub(crate) advertise_http: Option<String>,

    /// File with the cluster key, the secret that makes a machine a member (see keygen)
    #[arg(
        long,
        env = "DATAD_CLUSTER_KEY_FILE",
        value_name = "F",
        help_heading = "Membership (a key, or all of --tls-*)"
    )]
    pub(crate) cluster_key_file: Option<PathBuf>,
    /// The cluster key itself; meant for the variable, as everybody on the machine can read flags
    #[arg(long, env = "DATAD_CLUSTER_KEY", value_name = "KEY", hide = true, hide_env_values = true)]
    pub(crate) cluster_key: Option<String>,
    /// The node's certificate, PEM, valid for its name as server and as client
    #[arg(long, env = "DATAD_TLS_CERT", value_name = "C", help_heading = "Membership (a key, or all of --tls-*)")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "DATAD_TLS_KEY", value_name = "K", help_heading = "Membership (a key, or all of --tls-*)")]
    pub(crate) tls_key: Option<PathBuf>,
    /// The authorities whose certificates are members, PEM
    #[arg(long, env = "DATAD_TLS_CA", value_name = "A", help_heading = "Membership (a key, or all of --tls-*)")]
    pub(crate) tls_ca: Option<PathBuf>,

    #[cfg(feature = "etcd")]
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) etcd: crate::cli::etcd::EtcdOptions,

    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) provider: ProviderOptions,

    /// Requests for data that are answered at once, 1 to 1000000; more get 503. 4096, if not given
    #[arg(long, env = "DATAD_REQUESTS_MAX", value_name = "N", help_heading = "Tuning")]
    pub(crate) requests_max: Option<usize>,
    /// File with the token that changes need (`Authorization: Bearer`, or as a password). The file admin.token in the data
    /// folder, made at the first start, if not given. Changes over the Unix socket admin.sock in the data folder need none
    #[arg(long, env = "DATAD_ADMIN_TOKEN_FILE", value_name = "F", help_heading = "Access")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// File with the secret that forges share with this node: what GitHub, GitLab, Gitea and others send to /-/webhook after a
    /// push is taken if it proves that they know it. None, if not given: nothing is taken there
    #[arg(long, env = "DATAD_WEBHOOK_SECRET_FILE", value_name = "F", help_heading = "Access")]
    pub(crate) webhook_secret_file: Option<PathBuf>,
    /// A host name under which clients ask this node, such as that of a proxy before it; give it several times, or with
    /// commas. Known are localhost, its addresses, and the host of --advertise-http. Changes under other names are refused,
    /// and everything is where only this machine is listened to
    #[arg(long = "host-name", env = "DATAD_HOST_NAME", value_name = "H", value_delimiter = ',')]
    #[arg(help_heading = "Access")]
    pub(crate) host_names: Option<Vec<String>>,
}

impl OwnOptions {
    /// Checks what has a range, wherever it was said.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let within = |ok: bool, name: &str, value: Option<String>, range: &str| {
            let value = value.unwrap_or_default();
            if ok { Ok(()) } else { Err(Failure::Usage(format!("`{name}` is {value}, but has to be {range}"))) }
        };
        let text = |number: Option<usize>| number.map(|number| number.to_string());
        let requests = self.requests_max;
        let possible = requests.is_none_or(|requests| (1..=REQUESTS_MAX).contains(&requests));
        within(possible, "requests_max", text(requests), "1 to 1000000")?;
        let depth = self.provider.key_depth;
        within(depth != Some(0), "key_depth", text(depth.map(usize::from)), "1 to 65535")?;
        // All members are told, and everyone who asks for them.
        let shown = self.advertise_http.as_deref().is_none_or(|url| !has_user(url));
        within(shown, "advertise_http", Some("a URL with a user".into()), "one without")
    }

    /// Whether a secret stands in these options themselves, and not in a file that they name.
    pub(super) fn hold_secret(&self) -> bool {
        self.cluster_key.is_some() || self.provider.hold_secret()
    }

    /// The name, or the machine's.
    pub(crate) fn node_name(&self) -> Result<NodeName, Failure> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => rustix::system::uname().nodename().to_string_lossy().to_lowercase(),
        };
        NodeName::new(&name).map_err(|error| Failure::Usage(format!("{error}; choose one with --name")))
    }

    /// What the node proves its membership with.
    pub(crate) fn credentials(&self) -> Result<Credentials, Failure> {
        let wrong = |what: &str| Err(Failure::Usage(what.to_owned()));
        let key = (self.cluster_key.as_ref(), self.cluster_key_file.as_ref());
        match (key, (&self.tls_cert, &self.tls_key, &self.tls_ca)) {
            ((None, None), (Some(certificate), Some(key), Some(authority))) => {
                secret::check(key)?;
                Ok(Credentials::Pem {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    authority: authority.clone(),
                })
            }
            ((None, None), (None, None, None)) => wrong(
                "a node has to prove that it belongs to the cluster: give --cluster-key-file (make one with \
                 `datad-gossip keygen`), DATAD_CLUSTER_KEY, or --tls-cert, --tls-key and --tls-ca",
            ),
            ((None, None), _) => wrong("--tls-cert, --tls-key and --tls-ca belong together"),
            ((Some(_), Some(_)), _) => wrong("give a cluster key or a file with one, not both"),
            (_, (None, None, None)) => self.cluster_key(),
            _ => wrong("give a cluster key or --tls-cert, --tls-key and --tls-ca, not both"),
        }
    }

    fn cluster_key(&self) -> Result<Credentials, Failure> {
        let text = match &self.cluster_key_file {
            Some(path) => secret::read(path)?,
            None => self.cluster_key.clone().unwrap_or_default(),
        };
        Ok(Credentials::ClusterKey(ClusterKey::parse(&text).map_err(anyhow::Error::from)?))
    }

    pub(crate) fn origin(&self) -> Result<Origin, Failure> {
        self.provider.origin()
    }

    /// These options without what only the node may know.
    pub(super) fn without_secrets(&self) -> Self {
        Self { cluster_key: None, provider: self.provider.without_secrets(), ..self.clone() }
    }

    /// Files that must never be served, should they lie among the data.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Path> {
        let secrets = [&self.cluster_key_file, &self.tls_key, &self.admin_token_file, &self.webhook_secret_file];
        let secrets = secrets.into_iter().flatten();
        #[cfg(feature = "etcd")]
        let secrets = secrets.chain(self.etcd.secrets());
        secrets.map(PathBuf::as_path).chain(self.provider.credentials_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_belongs_together_is_wrong_usage() {
        let none = OwnOptions::default();
        assert!(matches!(none.credentials(), Err(Failure::Usage(_))));
        let half = OwnOptions { tls_cert: Some("c".into()), ..none.clone() };
        assert!(matches!(half.credentials(), Err(Failure::Usage(_))));
        let named = OwnOptions { name: Some("Not A Name".into()), ..none.clone() };
        assert!(matches!(named.node_name(), Err(Failure::Usage(_))));
        let shown = OwnOptions { advertise_http: Some("http://me:canary@h".into()), ..none.clone() };
        let Err(Failure::Usage(complaint)) = shown.check() else { panic!("a password for all members was taken") };
        assert!(complaint.contains("advertise_http") && !complaint.contains("canary"), "{complaint}");
        let short = OwnOptions { cluster_key: Some("abc".into()), ..none };
        assert!(matches!(short.credentials(), Err(Failure::Failed(_))));
    }
}
