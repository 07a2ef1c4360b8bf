//! A property that did not hold in a run.

use std::fmt;

/// What kind of property was violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Something happened that must never happen.
    Safety,
    /// Something did not happen that has to happen.
    Liveness,
    /// The code panicked.
    Crash,
}

/// A property that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its kind.
    pub class: Class,
    /// Its number in the design; 0 for a panic.
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

    /// Of the promise not to panic.
    pub fn crash(detail: impl Into<String>) -> Self {
        Self { class: Class::Crash, property: 0, detail: detail.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            Class::Crash => write!(f, "panic: {}", self.detail),
            class => write!(f, "{} {}: {}", format!("{class:?}").to_lowercase(), self.property, self.detail),
        }
    }
}
