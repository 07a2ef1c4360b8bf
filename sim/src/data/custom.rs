//! Data that users bring: their own providers, under the same faults.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use datad_gossip::{key::Key, provider::Provider};

use super::Data;
use crate::model::Left;

/// Makes the provider of one machine; called at every start, with what the machine's last crash left on its disk.
pub type Make = Arc<dyn Fn(usize, Left) -> Arc<dyn Provider> + Send + Sync>;
/// Whether the key ever had this value.
pub type Judge = Arc<dyn Fn(&Key, &Bytes) -> bool + Send + Sync>;

/// Providers of a user, each over what that user keeps for the machine.
pub struct Custom {
    keys: Vec<Key>,
    make: Make,
    judge: Judge,
    /// By machine: the provider of the last start, and what the last crash left.
    machines: Vec<(Option<Arc<dyn Provider>>, Left)>,
}

impl Custom {
    /// Providers made by `make` for `machines` machines. Answers are right if `judge` says so.
    #[must_use]
    pub fn new(machines: usize, keys: Vec<Key>, make: Make, judge: Judge) -> Self {
        Self { keys, make, judge, machines: (0..machines).map(|_| (None, Left::Kept)).collect() }
    }
}

impl Data for Custom {
    fn keys(&self) -> Vec<Key> {
        self.keys.clone()
    }

    fn provider(&mut self, machine: usize) -> Arc<dyn Provider> {
        let (current, left) = &mut self.machines[machine];
        let made = (self.make)(machine, *left);
        *current = Some(made.clone());
        *left = Left::Kept;
        made
    }

    /// Asks the provider, which has to answer at once, as one without real input and output does.
    fn holds(&self, machine: usize, key: &Key) -> bool {
        let Some(provider) = &self.machines[machine].0 else { return false };
        let asked = pin!(provider.has(key));
        matches!(asked.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(true)))
    }

    fn was_published(&self, key: &Key, bytes: &Bytes) -> bool {
        (self.judge)(key, bytes)
    }

    fn crash(&mut self, machine: usize, left: Left) {
        self.machines[machine].1 = left;
        if left == Left::Nothing {
            self.machines[machine].0 = None;
        }
    }
}
