//! What durable writes ask of the operating system. Tests put one in its place that fails.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Writes to files. The methods are those of the operating system unless an implementation says otherwise.
pub(crate) trait Medium: fmt::Debug + Send + Sync + 'static {
    /// Writes some of `bytes`, and says how many.
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        let mut file = file;
        file.write(bytes)
    }

    /// Makes a file, or the names in a folder, durable.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Gives a file another name, in place of the file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Cuts a file down to `length` bytes.
    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }
}

/// The operating system.
#[derive(Debug)]
pub(crate) struct Os;

impl Medium for Os {}
