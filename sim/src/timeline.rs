//! A run as one self-contained page.

use crate::{Outcome, Script, trace::Event};

/// The page.
#[must_use]
pub fn page(_script: &Script, _outcome: &Outcome, _events: &[Event]) -> String {
    String::new()
}
