//! Coordination through etcd: the other pair of membership and registry actors, with the same messages and snapshots.
//!
//! ```text
//!   members.rs   lease + watch of nodes/      --> roster --> View         (instead of gossip)
//!   registry.rs  watch of registry/ --> claims --> index                  (instead of ledgers and feeds)
//!                own claims --> claims --> transactions
//!   pins.rs      the catalog's pins --> pins/, for outsiders to read
//! ```
//!
//! Everything above these two is the same code in both modes, and data and calls between nodes go over QUIC as ever.
//! Nothing on the way of a request asks etcd: it is read by watching, and written in batches, so a node serves from its
//! last view while etcd is away. What needs etcd then (to fetch a new key, to give one up) is refused with the reason.
//!
//! Not simulated: etcd is a real server behind a real socket, so this is tested against one.

mod claims;
mod config;
mod connection;
mod layout;
pub(crate) mod members;
mod pins;
pub(crate) mod registry;
mod session;

use std::{collections::BTreeSet, time::Duration};

pub use self::{
    config::{EtcdConfig, EtcdTls},
    connection::EtcdError,
    pins::recorded_pins,
};
use self::{connection::Connection, layout::Layout};
use crate::key::Key;

/// Pause before another connection is tried.
const RETRY: Duration = Duration::from_millis(500);

/// Whether any of the endpoints can be used as it is set. Checked once at the start, when the
/// operator can read the reason.
pub(crate) async fn check(config: &EtcdConfig) -> Result<(), EtcdError> {
    open_any(config).await.map(drop)
}

/// A connection to the first endpoint that can be used; if none can, why the first cannot.
async fn open_any(config: &EtcdConfig) -> Result<(Connection, u64, i64), EtcdError> {
    let first = match Connection::open(config, 0).await {
        Ok(opened) => return Ok(opened),
        Err(error) => error,
    };
    for attempt in 1..config.endpoints.len() {
        if let Ok(opened) = Connection::open(config, attempt).await {
            return Ok(opened);
        }
    }
    Err(first)
}

/// The keys that any node is registered for, in order; also where an ancestor registered them. Reads page by page.
///
/// # Errors
/// See [`EtcdError`]; a retry starts from the beginning.
pub async fn registered_keys(config: &EtcdConfig) -> Result<Vec<Key>, EtcdError> {
    let (mut connection, ..) = open_any(config).await?;
    let layout = Layout::new(&config.prefix);
    let mut keys = BTreeSet::new();
    let take = |entries: Vec<connection::Entry>| {
        keys.extend(entries.iter().filter_map(|entry| match layout.place(&entry.name) {
            Some(layout::Place::Holder { key, .. }) => Some(key),
            _ => None,
        }));
        std::future::ready(())
    };
    list(&mut connection, &layout.data(), 0, take).await?;
    Ok(keys.into_iter().collect())
}

/// All that stands below `prefix`, page by page, as of one revision, which is returned.
async fn list<F: Future<Output = ()>>(
    connection: &mut Connection,
    prefix: &str,
    mut revision: i64,
    mut take: impl FnMut(Vec<connection::Entry>) -> F,
) -> Result<i64, EtcdError> {
    let mut from = Some(prefix.as_bytes().to_vec());
    while let Some(start) = from {
        let page = connection.page(prefix, start, revision).await?;
        (revision, from) = (page.revision, page.next);
        take(page.entries).await;
    }
    Ok(revision)
}
