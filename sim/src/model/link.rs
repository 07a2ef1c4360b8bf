//! How a network link behaves: latency, loss, and what else may happen to a datagram.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a link behaves, or what a fault adds to that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// Shortest way of a datagram.
    #[serde(with = "humantime_serde")]
    pub latency: Duration,
    /// At most this is added, evenly distributed.
    #[serde(with = "humantime_serde")]
    pub jitter: Duration,
    /// Share of datagrams that are lost.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplication: f64,
    /// Share of datagrams that later ones overtake.
    pub reordering: f64,
    /// Share of datagrams of which a byte is changed.
    pub corruption: f64,
    /// Bytes a second, one way; 0 for no limit.
    pub bytes_per_second: u64,
    /// Largest datagram that gets through, in bytes; 0 for no limit.
    pub mtu: usize,
}

impl Default for Link {
    /// What changes nothing.
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            corruption: 0.0,
            bytes_per_second: 0,
            mtu: 0,
        }
    }
}

impl Link {
    /// Both links, one after the other.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let either = |a: f64, b: f64| 1.0 - (1.0 - a) * (1.0 - b);
        let smaller = |a: u64, b: u64| if a == 0 || (b > 0 && b < a) { b } else { a };
        Self {
            latency: self.latency + other.latency,
            jitter: self.jitter + other.jitter,
            loss: either(self.loss, other.loss),
            duplication: either(self.duplication, other.duplication),
            reordering: either(self.reordering, other.reordering),
            corruption: either(self.corruption, other.corruption),
            bytes_per_second: smaller(self.bytes_per_second, other.bytes_per_second),
            mtu: smaller(self.mtu as u64, other.mtu as u64) as usize,
        }
    }

    /// Refuses what no link can be.
    ///
    /// # Errors
    /// What is out of range.
    pub fn check(&self) -> Result<(), String> {
        let shares = [self.loss, self.duplication, self.reordering, self.corruption];
        if shares.iter().any(|share| !(0.0..=1.0).contains(share)) {
            return Err("loss, duplication, reordering and corruption are shares, 0 to 1".into());
        }
        if self.latency + self.jitter > Duration::from_secs(60) {
            return Err("latency and jitter: at most a minute".into());
        }
        if self.mtu != 0 && self.mtu < 1_200 {
            return Err("mtu: 1200 bytes at least, or 0 for no limit".into());
        }
        Ok(())
    }
}
