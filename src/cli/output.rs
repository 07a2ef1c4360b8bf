//! Standard output and standard error, which may both be gone: a reader that has seen enough ends
//! the program quietly, and a message that no reader gets is not a reason to panic.

use std::io::{self, Write};

use anyhow::Context;

/// Writes `text` and a line end to standard output, at once.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.context("cannot write to standard output"),
    }
}

/// Writes `text` and a line end to standard error.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
