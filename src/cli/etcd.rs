//! Which etcd coordinates the cluster, if one does: the `--etcd` options.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use datad_gossip::etcd::EtcdConfig;
use serde::{Deserialize, Serialize};

use super::{failure::Failure, secret};

#[derive(Args, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Coordination through etcd instead of gossip")]
pub(crate) struct EtcdOptions {
    /// URLs of the etcd members, `http://` or `https://`, several with commas; the same etcd for all nodes
    #[arg(long, env = "DATAD_ETCD", value_name = "URL", value_delimiter = ',')]
    pub(crate) etcd: Option<Vec<String>>,
    /// Where in etcd the cluster is kept. /datad/, if not given
    #[arg(long, env = "DATAD_ETCD_PREFIX", value_name = "PREFIX")]
    pub(crate) etcd_prefix: Option<String>,
    /// How long after its last sign of life a node is taken for dead, 2s to 10m. 10s, if not given
    #[arg(long, env = "DATAD_ETCD_TTL", value_name = "TIME", value_parser = humantime::parse_duration)]
    #[serde(with = "humantime_serde::option")]
    pub(crate) etcd_ttl: Option<Duration>,
    /// The user to etcd
    #[arg(long, env = "DATAD_ETCD_USER", value_name = "NAME")]
    pub(crate) etcd_user: Option<String>,
    /// File with that user's password
    #[arg(long, env = "DATAD_ETCD_PASSWORD_FILE", value_name = "F")]
    pub(crate) etcd_password_file: Option<PathBuf>,
    /// The authorities that etcd's certificate comes from, PEM. The system's, if not given
    #[arg(long, env = "DATAD_ETCD_CA", value_name = "A")]
    pub(crate) etcd_ca: Option<PathBuf>,
    /// The certificate to show to etcd, PEM
    #[arg(long, env = "DATAD_ETCD_CERT", value_name = "C")]
    pub(crate) etcd_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "DATAD_ETCD_KEY", value_name = "K")]
    pub(crate) etcd_key: Option<PathBuf>,
}

impl EtcdOptions {
    /// The etcd to use; `None` if it is gossip.
    pub(crate) fn config(&self) -> Result<Option<EtcdConfig>, Failure> {
        let wrong = |what: &str| Err(Failure::Usage(what.to_owned()));
        let others = [&self.etcd_user, &self.etcd_prefix].into_iter().any(Option::is_some)
            || self.etcd_ttl.is_some()
            || self.secrets().next().is_some()
            || [&self.etcd_ca, &self.etcd_cert].into_iter().any(Option::is_some);
        let Some(endpoints) = &self.etcd else {
            return if others { wrong("the other --etcd options need --etcd with a URL") } else { Ok(None) };
        };
        let mut config = EtcdConfig::new(endpoints);
        if let Some(prefix) = &self.etcd_prefix {
            config.prefix.clone_from(prefix);
        }
        config.lease_ttl = self.etcd_ttl.unwrap_or(config.lease_ttl);
        config.user = match (&self.etcd_user, &self.etcd_password_file) {
            (Some(user), Some(file)) => Some((user.clone(), secret::read(file)?)),
            (None, None) => None,
            _ => return wrong("--etcd-user and --etcd-password-file belong together"),
        };
        config.tls.authority.clone_from(&self.etcd_ca);
        config.tls.identity = match (&self.etcd_cert, &self.etcd_key) {
            (Some(certificate), Some(key)) => {
                secret::check(key)?;
                Some((certificate.clone(), key.clone()))
            }
            (None, None) => None,
            _ => return wrong("--etcd-cert and --etcd-key belong together"),
        };
        config.check().map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Some(config))
    }

    /// Files that must never be served, should they lie among the data.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.etcd_password_file, &self.etcd_key].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_together_is_asked_for_together() {
        assert!(EtcdOptions::default().config().unwrap().is_none());
        let etcd = Some(vec!["http://a:1".to_owned(), "http://b:1".to_owned()]);
        let config = EtcdOptions { etcd: etcd.clone(), ..EtcdOptions::default() }.config().unwrap().unwrap();
        assert_eq!((config.endpoints.len(), config.prefix.as_str()), (2, "/datad/"));
        for wrong in [
            EtcdOptions { etcd_prefix: Some("/x/".into()), ..EtcdOptions::default() },
            EtcdOptions { etcd_cert: Some("c".into()), ..EtcdOptions::default() },
            EtcdOptions { etcd: etcd.clone(), etcd_user: Some("u".into()), ..EtcdOptions::default() },
            EtcdOptions { etcd: etcd.clone(), etcd_cert: Some("c".into()), ..EtcdOptions::default() },
            EtcdOptions { etcd, etcd_ttl: Some(Duration::from_millis(1)), ..EtcdOptions::default() },
            EtcdOptions { etcd: Some(vec!["a:1".into()]), ..EtcdOptions::default() },
        ] {
            assert!(matches!(wrong.config(), Err(Failure::Usage(_))));
        }
    }
}
