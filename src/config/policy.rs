//! Settings for keys by their prefixes: how fresh nodes keep them, and what nodes may ask of their
//! origins.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::key::Key;

/// Longest time between two refreshes of a key.
pub(super) const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// How often a node asks the origin of held keys for news. One holder asks, the others copy from
/// it, and all of them meanwhile serve what they have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RefreshPolicy {
    /// Time between two requests to the origin for a key. Default 0: no node asks for it.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Shortest interval, where providers say whether an update changed anything: each change
    /// halves the interval of its key, down to this. Default: `interval`.
    #[serde(with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    pub min: Option<Duration>,
    /// Longest interval, a year at most: each update without a change doubles the interval of its
    /// key, up to this. Default: `interval`.
    #[serde(with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    pub max: Option<Duration>,
    /// Largest part of the interval that a node adds at random, so that keys that came together
    /// spread out: 0 to 1, default 0.1.
    pub jitter: f64,
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self { interval: Duration::ZERO, min: None, max: None, jitter: 0.1 }
    }
}

impl RefreshPolicy {
    /// The default, with this interval.
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self { interval, ..Self::default() }
    }

    pub(crate) fn shortest(&self) -> Duration {
        self.min.unwrap_or(self.interval)
    }

    pub(crate) fn longest(&self) -> Duration {
        self.max.unwrap_or(self.interval)
    }

    pub(super) fn is_valid(&self) -> bool {
        let ordered = self.shortest() <= self.interval && self.interval <= self.longest() && self.longest() <= YEAR;
        let off = self.interval.is_zero() && self.min.is_none() && self.max.is_none();
        (off || (ordered && !self.shortest().is_zero())) && (0.0..=1.0).contains(&self.jitter)
    }
}

/// What a node may ask of an origin. Updates beyond it wait, and keep no other update from a
/// worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct UpstreamLimit {
    /// Updates that ask the origin at once, 1 or more. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<usize>,
    /// Updates that begin to ask the origin within a second, evenly spread: 0.001 to 1,000.
    /// Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
}

impl UpstreamLimit {
    pub(super) fn is_valid(&self) -> bool {
        self.concurrency != Some(0) && self.per_second.is_none_or(|rate| (0.001..=1_000.0).contains(&rate))
    }
}

/// The entry for `key` in a table by prefix: the longest prefix that the key begins with, and its
/// value.
pub(crate) fn of_prefix<'a, T>(table: &'a BTreeMap<String, T>, key: &Key) -> Option<(&'a str, &'a T)> {
    let matching = table.iter().filter(|(prefix, _)| key.as_str().starts_with(prefix.as_str()));
    matching.max_by_key(|(prefix, _)| prefix.len()).map(|(prefix, value)| (prefix.as_str(), value))
}
