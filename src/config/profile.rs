//! How quickly nodes notice each other's death, for three kinds of networks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Pace of gossip and failure detection: a trade of quick detection against traffic and false alarms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "ProfileName", into = "ProfileName")]
#[non_exhaustive]
pub struct Profile {
    name: ProfileName,
    /// Between two rounds of gossip with three others.
    pub gossip_interval: Duration,
    /// Silence, in multiples of the usual interval between signs of life, after which a member is taken for dead (the
    /// phi of Hayashibara et al., "The phi accrual failure detector", 2004, in chitchat's linear form).
    pub phi_threshold: f64,
    /// The usual interval that is assumed before any was measured.
    pub first_interval: Duration,
    /// A connection without a sign of life for this long is dead.
    pub idle_timeout: Duration,
    /// Between signs of life on a connection without other traffic.
    pub keep_alive: Duration,
    /// Round trip that is assumed before any was measured.
    pub initial_rtt: Duration,
    /// An attempt at one holder that has no answer by then gets company from another holder.
    pub hedge_after: Duration,
    /// Largest UDP payload that is probed for, in bytes.
    pub mtu_max: u16,
}

/// The profiles by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ProfileName {
    /// One machine: tests, `dev`.
    Local,
    /// One data centre: a killed node is noticed in about a second.
    Lan,
    /// Several regions: some seconds.
    Wan,
}

impl Profile {
    /// For nodes on one machine.
    #[must_use]
    pub fn local() -> Self {
        Self {
            name: ProfileName::Local,
            gossip_interval: Duration::from_millis(100),
            initial_rtt: Duration::from_millis(20),
            ..Self::lan()
        }
    }

    /// For nodes in one data centre.
    #[must_use]
    pub fn lan() -> Self {
        Self {
            name: ProfileName::Lan,
            gossip_interval: Duration::from_millis(200),
            phi_threshold: 8.0,
            first_interval: Duration::from_millis(300),
            idle_timeout: Duration::from_secs(3),
            keep_alive: Duration::from_millis(750),
            initial_rtt: Duration::from_millis(50),
            hedge_after: Duration::from_millis(300),
            mtu_max: 8_952,
        }
    }

    /// For nodes in several regions.
    #[must_use]
    pub fn wan() -> Self {
        Self {
            name: ProfileName::Wan,
            gossip_interval: Duration::from_secs(1),
            phi_threshold: 8.0,
            first_interval: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(15),
            keep_alive: Duration::from_secs(4),
            initial_rtt: Duration::from_millis(300),
            hedge_after: Duration::from_millis(1_500),
            mtu_max: 1_452,
        }
    }

    /// How long the members have to be the same before data is moved on account of them, and before a joining node
    /// believes that it knows them all.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.gossip_interval * 5
    }

    /// The name it goes by.
    #[must_use]
    pub fn name(&self) -> ProfileName {
        self.name
    }
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Local => Self::local(),
            ProfileName::Lan => Self::lan(),
            ProfileName::Wan => Self::wan(),
        }
    }
}

impl From<Profile> for ProfileName {
    fn from(profile: Profile) -> Self {
        profile.name
    }
}
