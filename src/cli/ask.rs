//! What the commands that ask a running node have in common: where they ask, and how they show what it said, for people or, with
//! `--json`, for programs.

use anyhow::Context;
use clap::Args;
use datad_gossip::key::Key;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{endpoint::Endpoint, failure::Failure, output};

#[derive(Args)]
#[command(after_help = "Example:\n  datad-gossip status --at http://10.0.0.1:8400 --json")]
pub(crate) struct Ask {
    #[command(flatten)]
    pub(super) endpoint: Endpoint,
    /// Print one JSON document
    #[arg(long, env = "DATAD_JSON")]
    pub(super) json: bool,
}

/// A key as people write it, perhaps copied from a URL: slashes at its ends do not count. The node that is asked makes the
/// rest of it what its provider knows.
pub(super) fn parse_key(text: &str) -> Result<Key, String> {
    let bare = text.strip_prefix('/').unwrap_or(text);
    Key::new(bare.trim_end_matches('/')).map_err(|error| error.to_string())
}

/// Reads `document`.
pub(super) fn typed<T: DeserializeOwned>(document: Value) -> anyhow::Result<T> {
    serde_json::from_value(document).context("the node answered in a way that this version does not know")
}

/// Prints `document`: as it is, or as `shown`.
pub(super) fn print<T: DeserializeOwned>(
    document: Value,
    json: bool,
    shown: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    if json {
        return Ok(output::line(&document.to_string())?);
    }
    Ok(output::line(&shown(&typed(document)?))?)
}
