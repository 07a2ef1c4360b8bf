//! All mirrors of a node, and the files in them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{making::Making, process::Program, readers::Readers};
use crate::providers::key_store::KeyStore;

/// All mirrors of a node.
#[derive(Debug)]
pub(crate) struct Mirrors {
    pub(crate) program: Program,
    pub(crate) shelf: Arc<KeyStore>,
    pub(super) readers: Readers,
    /// How long what is unreachable is kept.
    pub(super) unreachable_kept: Duration,
    pub(super) making: Making,
}

/// The files directly in `dir`, or none if it is not there.
pub(super) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !dir.try_exists()? {
        return Ok(found);
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The files in `dir` and in all folders below it.
pub(super) fn files_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = files(dir)?;
    if dir.try_exists()? {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.extend(files_below(&entry.path())?);
            }
        }
    }
    Ok(found)
}
