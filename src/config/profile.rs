//! How quickly nodes notice each other's death, for three kinds of networks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Pace of gossip and failure detection: a trade of quick detection against traffic and false alarms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "ProfileName", into = "ProfileName")]
#[non_exhaustive]
pub struct Profile {
    name: ProfileName,
    /// Time between two rounds of gossip, each with three other nodes.
    pub gossip_interval: Duration,
    /// Silence, in multiples of the usual interval between signs of life, after which a node takes
    /// a member for dead (the phi of Hayashibara et al., "The phi accrual failure detector", 2004,
    /// in chitchat's linear form).
    pub phi_threshold: f64,
    /// The interval between signs of life that a node assumes before it has measured one.
    pub first_interval: Duration,
    /// Silence after which a connection is dead.
    pub idle_timeout: Duration,
    /// Time between signs of life on a connection without other traffic.
    pub keep_alive: Duration,
    /// The round trip that a node assumes before it has measured one.
    pub initial_rtt: Duration,
    /// Time without an answer from one holder after which the request goes to another holder as
    /// well.
    pub hedge_after: Duration,
    /// Largest UDP payload that a connection probes for, in bytes.
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

    /// How long the members have to be the same before nodes move data on account of them, and
    /// before a joining node believes that it knows all members.
    #[must_use]
    pub fn settle(&self) -> Duration {
        self.gossip_interval * 5
    }

    /// The profile's name.
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
