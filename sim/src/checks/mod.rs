//! What must always hold, and what must hold again once all faults have ended. One property a file, named with its number
//! in the design: `s` for safety, `l` for liveness.

pub mod l12_agreement;
pub mod l13_replicas;
pub mod l14_new_requests;
pub mod l15_idle;
pub mod s01_no_going_back;
pub mod s02_ready_is_there;
pub mod s03_same_owners;
pub mod s06_one_fetch;
pub mod s09_answers;

use std::{fmt, time::Duration};

/// Without faults for this long, a cluster has to behave as if there had never been any: members know of each other,
/// connections are up.
pub const CALM: Duration = Duration::from_secs(12);

/// What kind of property was violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Something happened that must never happen.
    Safety,
    /// Something did not happen that has to happen.
    Liveness,
}

/// A property that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its kind.
    pub class: Class,
    /// Its number in the design.
    pub property: u8,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    /// Of a safety property.
    pub fn safety(property: u8, detail: impl Into<String>) -> Self {
        Self { class: Class::Safety, property, detail: detail.into() }
    }

    /// Of a liveness property.
    pub fn liveness(property: u8, detail: impl Into<String>) -> Self {
        Self { class: Class::Liveness, property, detail: detail.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}: {}", self.class, self.property, self.detail)
    }
}
