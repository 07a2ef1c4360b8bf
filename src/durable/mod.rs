//! Files that last: the one place where this program writes what must survive a crash.
//!
//! Each operation is plain, blocking code of the standard library, which reports every short write and every failed
//! sync. tokio's files do not: `write_all` only schedules the write, and `sync_all` drops its error. Asynchronous callers
//! put a whole operation on the blocking pool ([`blocking`]), one trip for each.
//!
//! What must hold:
//! - An operation that returns `Ok` is on the medium: the bytes, and the name they have.
//! - A file that is replaced is the old one or the new one. The new one is read back before it takes the place of a good
//!   one, so a cut file never does.
//! - After a failed append the file ends where it ended before, as far as the medium can still be told to. A failed sync
//!   leaves open what is on the medium (the kernel may drop the pages and report the failure once; Rebello et al., "Can
//!   Applications Recover from fsync Failures?", 2020), so a caller writes the whole file anew then, from memory.
//! - Tests count what was acknowledged, and compare it with what is there.
//!
//! | file | concern |
//! | --- | --- |
//! | `medium` | what is asked of the operating system |
//! | `files` | whole files: replace, append, rename, sync |
//! | `stream` | a new file that is written as its bytes arrive |

mod files;
mod medium;
mod stream;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use self::files::{Durable, blocking};
