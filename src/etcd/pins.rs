//! The pins of the catalog, where outsiders can read them: `PREFIX pins/KEY`, a small JSON such as `{"replicas":2}`.
//!
//! It is a mirror. The catalog on the nodes' disks stays the truth: nothing is ever read from here by a node that
//! runs, a pin is acknowledged without it, and what strangers write below `pins/` is put right. It is there to be looked
//! at, and for a cluster that moves elsewhere (`datad-gossip migrate`).
//!
//! One member keeps it: the serving one with the first name, while all live members have the same catalog, so that a
//! member which has just come with an older one takes nothing away. Two that both take themselves for the first write
//! the same, or are corrected at the next look.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::timeout};
use tracing::{debug, warn};

use super::{
    EtcdConfig, EtcdError, Layout,
    connection::{Connection, Entry, Write},
    layout::Place,
    list, open_any,
};
use crate::{config::REPLICAS_MAX, core::catalog::Pin, runtime::Shared};

/// How often the mirror is held against the catalog though that has not changed: strangers write, and an etcd forgets.
const LOOK: Duration = Duration::from_secs(15);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(2);
/// Pins in one transaction; etcd takes 128 operations.
const BATCH: usize = 64;

/// The value of a pin. Unknown fields are skipped, so that later versions may add some.
#[derive(Serialize, Deserialize)]
struct RawPin {
    replicas: usize,
}

/// Keeps the mirror while `duty` names the catalog that this node is to show. Ends with its sender.
pub(super) async fn keep(shared: Arc<Shared>, etcd: EtcdConfig, mut duty: watch::Receiver<Option<u64>>) {
    let mut failing = false;
    loop {
        let on_duty = duty.borrow_and_update().is_some();
        let outcome = if on_duty { Box::pin(equalize(&shared, &etcd)).await } else { Ok(()) };
        if let Err(error) = &outcome
            && !failing
        {
            warn!(%error, "the pins in etcd are behind for now; the catalog is not affected");
        }
        failing = outcome.is_err();
        let pause = if failing { PAUSE } else { LOOK };
        if let Ok(Err(_)) = timeout(pause, duty.changed()).await {
            return;
        }
    }
}

async fn equalize(shared: &Shared, etcd: &EtcdConfig) -> Result<(), EtcdError> {
    let (mut connection, ..) = open_any(etcd).await?;
    let layout = Layout::new(&etcd.prefix);
    let standing = standing(&mut connection, &layout).await?;
    // While the catalog recovers there is nothing to go by.
    let Ok(pins) = shared.ports.catalog.pins().await else { return Ok(()) };
    let writes = difference(&layout, &standing, &pins);
    for batch in writes.chunks(BATCH) {
        connection.write(batch).await?;
    }
    if !writes.is_empty() {
        debug!(changed = writes.len(), pins = pins.len(), "the pins in etcd are those of the catalog");
    }
    Ok(())
}

async fn standing(connection: &mut Connection, layout: &Layout) -> Result<Vec<Entry>, EtcdError> {
    let mut standing = Vec::new();
    let take = |mut entries| {
        standing.append(&mut entries);
        std::future::ready(())
    };
    list(connection, &layout.pins(), 0, take).await?;
    Ok(standing)
}

/// What has to be written so that `pins` stand there and nothing else does.
fn difference(layout: &Layout, standing: &[Entry], pins: &[Pin]) -> Vec<Write> {
    let wanted: BTreeMap<String, String> = pins.iter().map(|pin| (layout.pin(&pin.key), value(pin))).collect();
    let names = standing.iter().filter_map(|entry| Some((std::str::from_utf8(&entry.name).ok()?, entry)));
    let right: BTreeSet<&str> = names
        .clone()
        .filter(|(name, entry)| wanted.get(*name).map(String::as_bytes) == entry.value.as_deref())
        .map(|(name, _)| name)
        .collect();
    let extra = names.filter(|(name, _)| !wanted.contains_key(*name));
    let deletes = extra.map(|(name, _)| Write::Delete { name: name.to_owned() });
    let lacking = wanted.iter().filter(|(name, _)| !right.contains(name.as_str()));
    let puts = lacking.map(|(name, value)| Write::Put { name: name.clone(), value: value.clone() });
    deletes.chain(puts).collect()
}

fn value(pin: &Pin) -> String {
    serde_json::to_string(&RawPin { replicas: pin.replicas }).expect("numbers are always JSON")
}

/// The pins that stand in etcd, in order. What is no pin of a possible key on a possible number of nodes is left out.
///
/// # Errors
/// See [`EtcdError`]; a retry starts from the beginning.
pub async fn recorded_pins(config: &EtcdConfig) -> Result<Vec<Pin>, EtcdError> {
    let (mut connection, ..) = open_any(config).await?;
    let layout = Layout::new(&config.prefix);
    let pin = |entry: &Entry| {
        let Some(Place::Pin(key)) = layout.place(&entry.name) else { return None };
        let RawPin { replicas } = serde_json::from_slice(entry.value.as_deref()?).ok()?;
        (1..=REPLICAS_MAX).contains(&replicas).then_some(Pin { key, replicas })
    };
    Ok(standing(&mut connection, &layout).await?.iter().filter_map(pin).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn pin(text: &str, replicas: usize) -> Pin {
        Pin { key: Key::new(text).unwrap(), replicas }
    }

    fn entry(name: &[u8], value: &str) -> Entry {
        Entry { name: name.to_vec(), value: Some(value.as_bytes().to_vec()) }
    }

    fn shown(writes: &[Write]) -> Vec<String> {
        let text = |write: &Write| match write {
            Write::Put { name, value } => format!("{name} = {value}"),
            Write::Delete { name } => format!("{name} gone"),
        };
        writes.iter().map(text).collect()
    }

    #[test]
    fn only_what_differs_is_written() {
        let layout = Layout::new("/datad/");
        let pins = [pin("new", 1), pin("org/*", 3), pin("right", 2), pin("wrong", 2)];
        let standing = [
            entry(b"/datad/pins/over", r#"{"replicas":2}"#),
            entry(b"/datad/pins/right", r#"{"replicas":2}"#),
            entry(b"/datad/pins/wrong", "whatever an outsider writes"),
            entry(b"/datad/pins/\xff", ""),
        ];
        let expected = [
            "/datad/pins/over gone",
            r#"/datad/pins/new = {"replicas":1}"#,
            r#"/datad/pins/org/* = {"replicas":3}"#,
            r#"/datad/pins/wrong = {"replicas":2}"#,
        ];
        assert_eq!(shown(&difference(&layout, &standing, &pins)), expected);
        let equal: Vec<Entry> = pins.iter().map(|pin| entry(layout.pin(&pin.key).as_bytes(), &value(pin))).collect();
        assert!(difference(&layout, &equal, &pins).is_empty());
    }
}
