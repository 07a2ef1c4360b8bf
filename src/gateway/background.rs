//! Updates that no client waits for, as webhooks ask for them. At most one update runs for each
//! key, and at most one more follows, however many requests come: a request during an update may be
//! about a change that the update has missed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use crate::{client::Client, key::Key};

/// What runs, and whether once more.
type Running = Arc<Mutex<BTreeMap<Key, bool>>>;

#[derive(Debug)]
pub(super) struct Background {
    permits: Arc<Semaphore>,
    running: Running,
}

impl Background {
    /// Limits how many run at once.
    pub(super) fn new(at_once: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(at_once)), running: Running::default() }
    }

    /// Room for an update, if there is any.
    pub(super) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_owned().ok()
    }

    /// Updates `key` in a task of its own; false if there is no room.
    pub(super) fn update(&self, client: &Client, key: &Key) -> bool {
        let mut running = self.running.lock().expect("no panic under this lock");
        if let Some(again) = running.get_mut(key) {
            *again = true;
            return true;
        }
        let Some(permit) = self.permit() else { return false };
        running.insert(key.clone(), false);
        let turn = Turn { running: self.running.clone(), key: key.clone() };
        let client = client.clone();
        tokio::spawn(async move {
            loop {
                update(&client, &turn.key).await;
                if !turn.is_wanted_again() {
                    break;
                }
            }
            drop(permit);
        });
        true
    }
}

/// Takes the key off those that run, also if the update panics.
struct Turn {
    running: Running,
    key: Key,
}

impl Turn {
    /// Whether it was asked for since it began. If not, the next one to ask begins anew.
    fn is_wanted_again(&self) -> bool {
        let mut running = self.running.lock().expect("no panic under this lock");
        let again = running.get_mut(&self.key).is_some_and(std::mem::take);
        if !again {
            running.remove(&self.key);
        }
        again
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.running.lock().expect("no panic under this lock").remove(&self.key);
        }
    }
}

async fn update(client: &Client, key: &Key) {
    match client.update(key).await {
        Ok(replicas) => {
            for replica in replicas {
                if let Some(error) = replica.error {
                    warn!(%key, node = %replica.node, %error, "replica not updated");
                }
            }
        }
        Err(error) => warn!(%key, %error, "update failed"),
    }
}
