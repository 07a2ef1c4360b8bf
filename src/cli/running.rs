//! Which `dev` clusters run for this user, and where their admin tokens lie, so that commands find them by themselves.
//!
//! Each `dev` has a file of its own in a folder that only its user can enter, and holds a lock on it. The lock goes with
//! the process, however it ends, so a file without one is stale: readers pass over it and delete it.
//!
//! ```text
//!   $XDG_RUNTIME_DIR/datad-gossip/PID.json, else /run/user/UID/datad-gossip/PID.json, else /tmp/datad-gossip-UID/PID.json
//! ```
//!
//! A `dev` writes to the first of these folders that there can be, and commands read all of them.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// How often a folder is made again that another `dev` has just removed.
const TRIES: usize = 5;

/// One `dev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Where the HTTP sides of its nodes listen, the first node first.
    pub(crate) nodes: Vec<SocketAddr>,
    /// The file of their admin token.
    pub(crate) token_file: PathBuf,
}

impl Running {
    /// Whether a node of it is asked at `address`.
    pub(crate) fn listens_at(&self, address: SocketAddr) -> bool {
        let reaches =
            |node: &SocketAddr| node.ip() == address.ip() || (node.ip().is_unspecified() && address.ip().is_loopback());
        self.nodes.iter().any(|node| node.port() == address.port() && reaches(node))
    }

    /// The address at which its first node is asked from this machine.
    pub(crate) fn first(&self) -> Option<SocketAddr> {
        let mut first = *self.nodes.first()?;
        if first.ip().is_unspecified() {
            first.set_ip(IpAddr::from(Ipv4Addr::LOCALHOST));
        }
        Some(first)
    }
}

/// This process's file; removed when it is dropped.
pub(crate) struct Entry {
    path: PathBuf,
    locked: Option<File>,
}

impl Entry {
    /// One for this process, in the user's folder.
    pub(crate) fn new() -> Self {
        Self::within(&folders()[0])
    }

    fn within(folder: &Path) -> Self {
        Self { path: folder.join(format!("{}.json", std::process::id())), locked: None }
    }

    /// Writes down `running` in place of what was written before.
    ///
    /// # Errors
    /// The folder is not this user's alone, or cannot be written to.
    pub(crate) fn write(&mut self, running: &Running) -> io::Result<()> {
        let folder = self.path.parent().expect("it was made within a folder");
        let mut file = create_within(folder)?;
        // Locked before it gets its name, so that no reader takes it for stale.
        flock(file.as_file(), FlockOperation::NonBlockingLockExclusive)?;
        file.write_all(&serde_json::to_vec(running)?)?;
        self.locked = Some(file.persist(&self.path).map_err(|error| error.error)?);
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.locked.is_some() {
            let _ = fs::remove_file(&self.path);
            // Only if it is empty.
            let _ = self.path.parent().map(fs::remove_dir);
        }
    }
}

/// Those that run, in no order.
pub(crate) fn all() -> Vec<Running> {
    folders().iter().flat_map(|folder| within(folder)).collect()
}

fn within(folder: &Path) -> Vec<Running> {
    if check(folder).is_err() {
        return Vec::new();
    }
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|end| end == "json")).filter_map(|path| read(&path)).collect()
}

fn read(path: &Path) -> Option<Running> {
    let file = File::open(path).ok()?;
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        let _ = fs::remove_file(path);
        return None;
    }
    serde_json::from_reader(file).ok()
}

fn folders() -> Vec<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let said = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let usual = Path::new("/run/user").join(user.to_string());
    let mut runtime: Vec<_> = said.into_iter().chain([usual]).filter(|folder| folder.is_dir()).collect();
    runtime.dedup();
    let own = runtime.into_iter().map(|folder| folder.join("datad-gossip"));
    // Not that of TMPDIR, which a `dev` and a command may well have set differently.
    own.chain([Path::new("/tmp").join(format!("datad-gossip-{user}"))]).collect()
}

fn create_within(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for _ in 0..TRIES {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        check(folder)?;
        match tempfile::Builder::new().prefix(".").tempfile_in(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => last = error,
            made => return made,
        }
    }
    Err(last)
}

/// Another user could have made the folder first, in a place where everyone may.
fn check(folder: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(folder)?;
    if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("{} is not a folder that only this user can enter", folder.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn running(port: u16) -> Running {
        Running { nodes: vec![SocketAddr::from(([127, 0, 0, 1], port))], token_file: "/t".into() }
    }

    #[test]
    fn what_runs_is_found_and_what_was_left_behind_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("folder");
        assert_eq!(within(&folder), []);
        let mut entry = Entry::within(&folder);
        entry.write(&running(1)).unwrap();
        entry.write(&running(2)).unwrap();
        let stale = folder.join("1.json");
        fs::write(&stale, serde_json::to_vec(&running(3)).unwrap()).unwrap();
        assert_eq!(within(&folder), [running(2)]);
        assert!(!stale.exists());
        drop(entry);
        assert!(!folder.exists());
    }

    #[test]
    fn a_folder_that_others_can_enter_is_neither_read_nor_written() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let mut entry = Entry::within(folder.path());
        entry.write(&running(1)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(within(folder.path()), []);
        assert!(entry.write(&running(2)).is_err());
    }

    #[test]
    fn a_node_is_recognised_by_each_address_that_leads_to_it() {
        let everywhere = Running { nodes: vec!["0.0.0.0:1".parse().unwrap()], token_file: "/t".into() };
        assert!(
            everywhere.listens_at("127.0.0.1:1".parse().unwrap())
                && running(1).listens_at("127.0.0.1:1".parse().unwrap())
        );
        assert!(!running(1).listens_at("127.0.0.1:2".parse().unwrap()));
        assert!(!everywhere.listens_at("192.0.2.1:1".parse().unwrap()));
        assert_eq!(everywhere.first(), Some("127.0.0.1:1".parse().unwrap()));
    }
}
