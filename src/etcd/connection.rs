//! One connection to one member of an etcd cluster, with every wait bounded and every error in words for its reader.
//!
//! A connection is given up at its first error; a caller that needs another asks for one, and gets
//! it to the next endpoint. This is the whole failover: no connection outlives the member it leads
//! to, or one that has lost its leader (which etcd is asked to report).

use std::{error::Error, time::Duration};

use etcd_client::{
    Certificate, Client, ConnectOptions, EventType, GetOptions, Identity, LeaseGrantOptions, PutOptions, TlsOptions,
    Txn, TxnOp, TxnOpResponse, WatchOptions, WatchStream,
};
use tokio::time::timeout;

use super::{EtcdConfig, layout::Layout};

/// The longest wait for an answer. Longer than an election of etcd takes, and short enough for a
/// caller that waits.
const ANSWER: Duration = Duration::from_secs(3);
/// Entries in one answer to a listing: at most some two megabytes, below the four that gRPC takes.
const PAGE_ENTRIES: i64 = 2_000;
/// Etcd splits what watchers are told at 1.5 MiB.
const WATCHED_BYTES_MAX: usize = 16 << 20;

/// What kept etcd from doing what it was asked for. Nothing was changed, except that a write whose answer did not come
/// may have been carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// There is no answer from there. Retried with the next endpoint.
    #[error("cannot reach etcd at {endpoint}: {why}; is it running, and is its address right?")]
    Unreachable {
        /// Its URL.
        endpoint: String,
        /// What happened.
        why: String,
    },
    /// Too few members of the etcd cluster work together. Passes once they do.
    #[error("etcd at {endpoint} has no leader: most of its members have to be up and connected")]
    NoLeader {
        /// Its URL.
        endpoint: String,
    },
    /// Wrong name or password, or none where one is needed. A retry does not help.
    #[error("etcd at {endpoint} does not let this node in: {why}; check the user and the password")]
    Credentials {
        /// Its URL.
        endpoint: String,
        /// What etcd said.
        why: String,
    },
    /// The user may not do this. A retry does not help.
    #[error("etcd at {endpoint} does not permit it; give the user read and write permission below the prefix")]
    Permission {
        /// Its URL.
        endpoint: String,
    },
    /// Etcd's quota is used up. It refuses changes until an operator frees space.
    #[error("etcd at {endpoint} is full; compact and defragment it, then disarm its alarm (etcdctl alarm disarm)")]
    Full {
        /// Its URL.
        endpoint: String,
    },
    /// The history that was asked for is gone; what there is now has to be listed.
    #[error("etcd at {endpoint} has compacted the history that this node needs")]
    Compacted {
        /// Its URL.
        endpoint: String,
    },
    /// The lease lapsed while this node could not renew it.
    #[error("the lease of this node in etcd has lapsed")]
    LeaseLost,
    /// A live node registered under this name first.
    #[error("another live node, at {at}, is registered in etcd under this node's name; stop one of them")]
    NameInUse {
        /// Its address.
        at: std::net::SocketAddr,
    },
    /// A file for TLS cannot be used.
    #[error("cannot read {path}: {why}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        why: String,
    },
    /// Anything else.
    #[error("etcd at {endpoint} answered: {why}")]
    Other {
        /// Its URL.
        endpoint: String,
        /// What etcd said.
        why: String,
    },
}

/// One name and what stands there; `None` if it was removed.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

/// A part of a listing.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// As of which revision.
    pub(crate) revision: i64,
    /// Where the next one begins.
    pub(crate) next: Option<Vec<u8>>,
}

/// Changes up to a revision.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) entries: Vec<Entry>,
    pub(crate) revision: i64,
}

/// What one write does.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Put { name: String, value: String },
    Delete { name: String },
}

/// A connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Large, and often moved.
    client: Box<Client>,
    endpoint: String,
}

/// What happens below one prefix from a revision on.
pub(crate) struct Watch {
    stream: WatchStream,
    endpoint: String,
}

impl Connection {
    /// Connects to the `attempt`-th endpoint, counted round and round, and returns the connection with the etcd cluster's
    /// identity and revision.
    pub(crate) async fn open(config: &EtcdConfig, attempt: usize) -> Result<(Self, u64, i64), EtcdError> {
        let endpoint = config.endpoints[attempt % config.endpoints.len()].clone();
        let options = options(config, &endpoint).await?;
        let client = answer(&endpoint, Client::connect([&endpoint], Some(options))).await?;
        let mut connection = Self { client: Box::new(client), endpoint };
        let (cluster, revision) = connection.probe(config).await?;
        Ok((connection, cluster, revision))
    }

    /// Asks for the cluster's identity and revision, which most of its members have to agree on.
    pub(crate) async fn probe(&mut self, config: &EtcdConfig) -> Result<(u64, i64), EtcdError> {
        let options = GetOptions::new().with_prefix().with_count_only().with_limit(1);
        let name = Layout::new(&config.prefix).members();
        let answer = answer(&self.endpoint, self.client.get(name, Some(options))).await?;
        let header = answer.header();
        Ok((header.map_or(0, |header| header.cluster_id()), header.map_or(0, |header| header.revision())))
    }

    /// What stands below `prefix`, from `from` on, as of `revision` (0: now).
    pub(crate) async fn page(&mut self, prefix: &str, from: Vec<u8>, revision: i64) -> Result<Page, EtcdError> {
        let options = GetOptions::new().with_range(prefix_end(prefix)).with_limit(PAGE_ENTRIES).with_revision(revision);
        let mut answer = answer(&self.endpoint, self.client.get(from, Some(options))).await?;
        let more = answer.more();
        let revision = if revision > 0 { revision } else { answer.header().map_or(0, |header| header.revision()) };
        let entries: Vec<Entry> = answer
            .take_kvs()
            .into_iter()
            .map(|kv| {
                let (name, value) = kv.into_key_value();
                Entry { name, value: Some(value) }
            })
            .collect();
        let next = entries.last().filter(|_| more).map(|last| [&last.name[..], &[0]].concat());
        Ok(Page { entries, revision, next })
    }

    /// Carries out all writes or none. Returns the revision in which they are seen, unless they changed nothing.
    pub(crate) async fn write(&mut self, writes: &[Write]) -> Result<Option<i64>, EtcdError> {
        let operations: Vec<TxnOp> = writes
            .iter()
            .map(|write| match write {
                Write::Put { name, value } => TxnOp::put(name.as_str(), value.as_str(), None),
                Write::Delete { name } => TxnOp::delete(name.as_str(), None),
            })
            .collect();
        let answer = answer(&self.endpoint, self.client.txn(Txn::new().and_then(operations))).await?;
        let changed = answer.op_responses().iter().any(|response| match response {
            TxnOpResponse::Delete(deleted) => deleted.deleted() > 0,
            _ => true,
        });
        Ok(answer.header().map(|header| header.revision()).filter(|_| changed))
    }

    /// Watches everything below `prefix` from `revision` on. What the history lacks is told by the first events.
    pub(crate) async fn watch(&self, prefix: &str, revision: i64) -> Result<Watch, EtcdError> {
        let options = WatchOptions::new().with_prefix().with_start_revision(revision).with_fragment();
        let mut client = self.client.watch_client().max_decoding_message_size(WATCHED_BYTES_MAX);
        let stream = answer(&self.endpoint, client.watch(prefix, Some(options))).await?;
        Ok(Watch { stream, endpoint: self.endpoint.clone() })
    }

    pub(crate) async fn grant_lease(&mut self, ttl: Duration) -> Result<i64, EtcdError> {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        Ok(answer(&self.endpoint, self.client.lease_grant(ttl, None::<LeaseGrantOptions>)).await?.id())
    }

    /// A sign of life.
    pub(crate) async fn renew_lease(&mut self, lease: i64) -> Result<(), EtcdError> {
        answer(&self.endpoint, self.client.lease_keep_alive(lease)).await.map(drop)
    }

    pub(crate) async fn revoke_lease(&mut self, lease: i64) -> Result<(), EtcdError> {
        answer(&self.endpoint, self.client.lease_revoke(lease)).await.map(drop)
    }

    pub(crate) async fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, EtcdError> {
        let answer = answer(&self.endpoint, self.client.get(name, None)).await?;
        Ok(answer.kvs().first().map(|kv| kv.value().to_vec()))
    }

    /// Writes what goes when the lease does.
    pub(crate) async fn put_leased(&mut self, name: &str, value: String, lease: i64) -> Result<(), EtcdError> {
        let options = PutOptions::new().with_lease(lease);
        answer(&self.endpoint, self.client.put(name, value, Some(options))).await.map(drop)
    }
}

impl Watch {
    /// The next changes. Cancel safe. Never ends by itself: an end is an error.
    pub(crate) async fn next(&mut self) -> Result<Events, EtcdError> {
        loop {
            let message = self.stream.message().await.map_err(|error| explain(&self.endpoint, &error))?;
            let Some(response) = message else {
                return Err(EtcdError::Unreachable { endpoint: self.endpoint.clone(), why: "it hung up".into() });
            };
            if response.canceled() {
                let endpoint = self.endpoint.clone();
                return Err(match response.compact_revision() {
                    0 => EtcdError::Other { endpoint, why: format!("the watch ended: {}", response.cancel_reason()) },
                    _ => EtcdError::Compacted { endpoint },
                });
            }
            let Some(last) = response.events().last() else { continue };
            let revision = last.kv().map_or(0, etcd_client::KeyValue::mod_revision);
            let entry = |event: &etcd_client::Event| {
                let kv = event.kv()?;
                let value = (event.event_type() == EventType::Put).then(|| kv.value().to_vec());
                Some(Entry { name: kv.key().to_vec(), value })
            };
            return Ok(Events { entries: response.events().iter().filter_map(entry).collect(), revision });
        }
    }
}

async fn options(config: &EtcdConfig, endpoint: &str) -> Result<ConnectOptions, EtcdError> {
    let mut options =
        ConnectOptions::new().with_connect_timeout(ANSWER).with_require_leader(true).with_auto_token_refresh(true);
    if let Some((user, password)) = &config.user {
        options = options.with_user(user, password);
    }
    if endpoint.starts_with("https://") {
        let mut tls = TlsOptions::new();
        match &config.tls.authority {
            Some(path) => tls = tls.ca_certificate(Certificate::from_pem(read_file(path).await?)),
            None => tls = tls.with_native_roots(),
        }
        if let Some((certificate, key)) = &config.tls.identity {
            tls = tls.identity(Identity::from_pem(read_file(certificate).await?, read_file(key).await?));
        }
        options = options.with_tls(tls);
    }
    Ok(options)
}

async fn read_file(path: &std::path::Path) -> Result<Vec<u8>, EtcdError> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| EtcdError::File { path: path.to_owned(), why: error.to_string() })
}

/// The answer of a member, if there is one in time.
async fn answer<T>(endpoint: &str, asked: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, EtcdError> {
    match timeout(ANSWER, asked).await {
        Ok(answer) => answer.map_err(|error| explain(endpoint, &error)),
        Err(_) => {
            Err(EtcdError::Unreachable { endpoint: endpoint.to_owned(), why: format!("no answer within {ANSWER:?}") })
        }
    }
}

/// What etcd or the way to it says, in words for people.
fn explain(endpoint: &str, error: &etcd_client::Error) -> EtcdError {
    let endpoint = endpoint.to_owned();
    let status = match error {
        etcd_client::Error::GRpcStatus(status) => status,
        etcd_client::Error::TransportError(error) => return EtcdError::Unreachable { endpoint, why: innermost(error) },
        etcd_client::Error::LeaseKeepAliveError(_) => return EtcdError::LeaseLost,
        error => return EtcdError::Other { endpoint, why: error.to_string() },
    };
    let said = status.message();
    let why = said.strip_prefix("etcdserver: ").unwrap_or(said).to_owned();
    match said {
        _ if said.contains("required revision has been compacted") => EtcdError::Compacted { endpoint },
        _ if said.contains("lease not found") => EtcdError::LeaseLost,
        _ if said.contains("permission denied") => EtcdError::Permission { endpoint },
        _ if said.contains("database space exceeded") => EtcdError::Full { endpoint },
        _ if said.contains("no leader") || said.contains("leader changed") || said.contains("request timed out") => {
            EtcdError::NoLeader { endpoint }
        }
        _ if said.contains("user name is empty")
            || said.contains("invalid user")
            || said.contains("authentication failed")
            || said.contains("authentication is not enabled")
            || said.contains("invalid auth token") =>
        {
            EtcdError::Credentials { endpoint, why }
        }
        _ if said.starts_with("etcdserver: ") => EtcdError::Other { endpoint, why },
        _ => EtcdError::Unreachable { endpoint, why: innermost(status) },
    }
}

/// The cause at the end of the chain, which is the one that people can do something about.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// The first name after all that begin with `prefix`.
pub(crate) fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // A prefix here ends in a slash, so there is always a next byte.
    *end.last_mut().expect("a prefix is not empty") += 1;
    end
}
