//! `migrate`: lets a gossip cluster take over what an etcd knows, after its nodes have been moved one by one.
//!
//! Each node registers what is on its disk by itself, and takes its catalog along. What is left are pins of a cluster
//! whose nodes did not bring their disks, which are set first, and keys that no moved node has on disk; they are fetched
//! here, a few at a time, through one node of the cluster.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use datad_gossip::{
    Pin, api,
    etcd::{recorded_pins, registered_keys},
    key::Key,
};
use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};

use super::{
    ask::typed,
    endpoint::{Admin, Endpoint, in_path},
    etcd::EtcdOptions,
    failure::Failure,
    keys::each_page,
    output,
};

/// Keys that are fetched at once.
const AT_ONCE: usize = 8;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Migrate {
    /// URLs of the etcd members whose layout is read; nothing in there is changed
    #[arg(long, env = "DATAD_FROM_ETCD", value_name = "URL", value_delimiter = ',', required = true)]
    from_etcd: Vec<String>,
    /// Where in etcd the cluster is kept. /datad/, if not given
    #[arg(long, env = "DATAD_ETCD_PREFIX", value_name = "PREFIX")]
    etcd_prefix: Option<String>,
    /// The user to etcd
    #[arg(long, env = "DATAD_ETCD_USER", value_name = "NAME")]
    etcd_user: Option<String>,
    /// File with that user's password
    #[arg(long, env = "DATAD_ETCD_PASSWORD_FILE", value_name = "F")]
    etcd_password_file: Option<PathBuf>,
    /// The authorities that etcd's certificate comes from, PEM. The system's, if not given
    #[arg(long, env = "DATAD_ETCD_CA", value_name = "A")]
    etcd_ca: Option<PathBuf>,
    /// The certificate to show to etcd, PEM
    #[arg(long, env = "DATAD_ETCD_CERT", value_name = "C")]
    etcd_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "DATAD_ETCD_KEY", value_name = "K")]
    etcd_key: Option<PathBuf>,
    #[command(flatten)]
    endpoint: Endpoint,
    #[command(flatten)]
    admin: Admin,
    /// Print one JSON document
    #[arg(long, env = "DATAD_JSON")]
    json: bool,
}

const EXAMPLES: &str = "\
From a cluster on etcd to one without, one node after the other; requests go to those that are up:
  1. stop the node (SIGTERM), and start it again with the same --data, without --etcd, and with --seed for the
     nodes that were moved before; it is ready once it knows what they hold
  2. once all are moved, pin what is pinned there and not here, and fetch the keys that no disk had; run it
     again until it says that none is left:
     datad-gossip migrate --from-etcd http://10.0.0.1:2379 --at http://any-node:8400
A pin that the cluster has stays as it is. Ancestors' registries are read too. Nothing in etcd is changed.";

impl Migrate {
    fn etcd(&self) -> EtcdOptions {
        EtcdOptions {
            etcd: Some(self.from_etcd.clone()),
            etcd_prefix: self.etcd_prefix.clone(),
            etcd_ttl: None,
            etcd_user: self.etcd_user.clone(),
            etcd_password_file: self.etcd_password_file.clone(),
            etcd_ca: self.etcd_ca.clone(),
            etcd_cert: self.etcd_cert.clone(),
            etcd_key: self.etcd_key.clone(),
        }
    }
}

/// Reads etcd, and has the cluster pin and fetch what it does not know. Fails if some keys could not be had, or a pin
/// not be set.
pub(super) async fn run(migrate: &Migrate) -> Result<(), Failure> {
    let etcd = migrate.etcd().config()?.expect("it has a URL");
    let pins = recorded_pins(&etcd).await.map_err(anyhow::Error::from)?;
    let pinned = set_lacking(migrate, &pins).await?;
    let mut registered = registered_keys(&etcd).await.map_err(anyhow::Error::from)?;
    let total = registered.len();
    let mut known: BTreeSet<Key> = BTreeSet::new();
    each_page(&migrate.endpoint, "", |page| {
        known.extend(page);
        Ok(())
    })
    .await?;
    registered.retain(|key| !known.contains(key));
    let missing = registered.len();
    let failed = futures::stream::iter(&registered)
        .map(|key| async move { fetch(migrate, key).await.err().map(|error| (key, error)) })
        .buffer_unordered(AT_ONCE)
        .filter_map(|failed| async {
            let (key, error) = failed?;
            output::complain(&format!("{key}: {error:#}"));
            Some(key)
        });
    let failed = failed.count().await;
    if migrate.json {
        let document = json!({
            "registered": total, "fetched": missing - failed, "failed": failed,
            "pins": pins.len(), "pinned": pinned,
        });
        output::line(&document.to_string())?;
    } else {
        output::line(&format!("{} pins in etcd; {pinned} set now", pins.len()))?;
        output::line(&format!("{total} keys in etcd; {} fetched now, {failed} could not be", missing - failed))?;
    }
    match failed {
        0 => Ok(()),
        _ => Err(anyhow!("{failed} keys could not be fetched; run it again once their origin answers").into()),
    }
}

/// Sets those of `pins` that the cluster has not got; how many.
async fn set_lacking(migrate: &Migrate, pins: &[Pin]) -> anyhow::Result<usize> {
    let known: Vec<api::Pin> = typed(migrate.endpoint.get("pins", &[]).await?)?;
    let known: BTreeSet<&Key> = known.iter().map(|pin| &pin.key).collect();
    let mut set = 0;
    for Pin { key, replicas, .. } in pins.iter().filter(|pin| !known.contains(&pin.key)) {
        let query = [("replicas", &*replicas.to_string())];
        let path = format!("pins/{}", in_path(key));
        let put = migrate.endpoint.change(Method::PUT, &path, &query, &migrate.admin);
        let _: Value = put.await.with_context(|| format!("cannot pin {key}"))?;
        set += 1;
    }
    Ok(set)
}

async fn fetch(migrate: &Migrate, key: &Key) -> anyhow::Result<()> {
    let path = format!("update/{}", in_path(key));
    let _: Value = migrate.endpoint.change(Method::POST, &path, &[("wait", "true")], &migrate.admin).await?;
    Ok(())
}
