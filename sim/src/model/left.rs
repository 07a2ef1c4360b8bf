//! What is left of a machine's disk.

use serde::{Deserialize, Serialize};

/// What a crash leaves on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Left {
    /// Everything that was written, synced or not.
    #[default]
    Kept,
    /// What was synced; of what was not, some is lost and some is torn.
    Synced,
    /// Nothing.
    Nothing,
}
