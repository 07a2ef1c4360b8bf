//! Which etcd a node uses, and as whom.

use std::{fmt, path::PathBuf, time::Duration};

use crate::config::ConfigError;

/// How a node uses etcd for its coordination.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EtcdConfig {
    /// URLs of the members of the etcd cluster: `http://host:2379`, or `https://` for TLS. One is enough; with all of
    /// them, a node does without any of them.
    pub endpoints: Vec<String>,
    /// Everything is kept below this. Default `/datad/`. All nodes of a cluster use the same, and clusters that share an
    /// etcd different ones.
    pub prefix: String,
    /// How long after its last sign of life the others take a node for dead. Default 10 s; 2 to 600
    /// s. A node sends three signs of life within this time.
    pub lease_ttl: Duration,
    /// User and password, if etcd asks for them. The user needs read and write permission below the prefix.
    pub user: Option<(String, String)>,
    /// What `https://` endpoints are trusted and approached with.
    pub tls: EtcdTls,
}

impl fmt::Debug for EtcdConfig {
    /// Leaves out the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("lease_ttl", &self.lease_ttl)
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .field("tls", &self.tls)
            .finish()
    }
}

/// Files for TLS with etcd, PEM. With none of them, the system's authorities are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EtcdTls {
    /// The authorities that etcd's certificate has to come from.
    pub authority: Option<PathBuf>,
    /// The certificate with which the node shows who it is, and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl EtcdConfig {
    /// The defaults, with these endpoints.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: "/datad/".into(),
            lease_ttl: Duration::from_secs(10),
            user: None,
            tls: EtcdTls::default(),
        }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field, value: &str, range| Err(ConfigError { field, value: value.to_owned(), range });
        if self.endpoints.is_empty() {
            return wrong("etcd", "empty", "one or more URLs");
        }
        for endpoint in &self.endpoints {
            let is_url = url::Url::parse(endpoint)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some());
            // The URL is named in logs and in `status`.
            if endpoint.contains('@') {
                return wrong("etcd", "a URL with a user", "one without; give user and password by themselves");
            }
            if !is_url {
                return wrong("etcd", endpoint, "a URL such as http://10.0.0.1:2379");
            }
        }
        if !self.prefix.starts_with('/') || self.prefix.contains("$$") {
            return wrong("etcd_prefix", &self.prefix, "a path that begins with a slash, without `$$`");
        }
        if !(2..=600).contains(&self.lease_ttl.as_secs()) {
            return wrong("etcd_ttl", &format!("{:?}", self.lease_ttl), "2 s to 10 min");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_etcd_is_told_before_anything_is_tried() {
        EtcdConfig::new(["http://127.0.0.1:2379", "https://etcd.example:2379"]).check().unwrap();
        let error = EtcdConfig::new(["127.0.0.1:2379"]).check().unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:2379") && error.contains("http://10.0.0.1:2379"), "{error}");
        assert!(EtcdConfig::new(Vec::<String>::new()).check().is_err());
        let config =
            EtcdConfig { user: Some(("me".into(), "canary".into())), ..EtcdConfig::new(["http://me:canary@h:1"]) };
        assert!(!config.check().unwrap_err().to_string().contains("canary"));
        assert!(!format!("{:?}", EtcdConfig { endpoints: Vec::new(), ..config }).contains("canary"));
        assert!(EtcdConfig { prefix: "datad".into(), ..EtcdConfig::new(["http://h:1"]) }.check().is_err());
        assert!(EtcdConfig { lease_ttl: Duration::ZERO, ..EtcdConfig::new(["http://h:1"]) }.check().is_err());
    }
}
