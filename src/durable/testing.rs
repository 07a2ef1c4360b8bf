//! Disks for tests: a real one that is small, and a medium that fails when it is told to.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use super::medium::Medium;

/// A file system of its own, in memory.
#[derive(Debug)]
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// A file system of `kib` KiB. `None`, with a line that says so, where mounting is not
    /// permitted.
    ///
    /// # Panics
    /// Mounting is permitted and fails.
    pub(crate) fn mount(kib: u64) -> Option<Self> {
        Self::mount_with(&format!("size={kib}k"))
    }

    /// A file system of `kib` KiB and `files` files, the root among them.
    pub(crate) fn mount_for_files(kib: u64, files: u64) -> Option<Self> {
        Self::mount_with(&format!("size={kib}k,nr_inodes={files}"))
    }

    fn mount_with(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).output().unwrap();
        if mounted.status.success() {
            return Some(Self(dir));
        }
        let complaint = String::from_utf8_lossy(&mounted.stderr).to_lowercase();
        let forbidden = ["permission denied", "superuser", "not permitted"].iter().any(|why| complaint.contains(why));
        assert!(forbidden, "cannot mount a small disk: {complaint}");
        eprintln!("SKIPPED: a small disk needs permission to mount: {complaint}");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes up all the room but `kib` KiB.
    pub(crate) fn fill_up_to(&self, kib: u64) {
        let found = rustix::fs::statvfs(self.path()).unwrap();
        let bytes = (found.f_bavail * found.f_frsize).saturating_sub(kib << 10);
        fs::write(self.path().join("ballast"), vec![0; usize::try_from(bytes).unwrap()]).unwrap();
    }

    /// Gives back what [`Self::fill_up_to`] took.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also while something on it is still open.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// How a medium fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No write gets anywhere.
    Write,
    /// A write gets somewhere, and the one after it nowhere.
    WriteHalf,
    /// A write says that it wrote all, and did not.
    WriteCut,
    /// Writes get a few bytes further each time: no failure.
    WriteShort,
    /// Nothing can be synced.
    Sync,
    /// Nothing can be renamed.
    Rename,
}

/// A medium that is well until it is told to fail.
#[derive(Debug)]
pub(crate) struct Faulty {
    fault: Fault,
    failing: AtomicBool,
    began_to_write: AtomicBool,
}

impl Faulty {
    pub(crate) fn new(fault: Fault) -> Self {
        Self { fault, failing: AtomicBool::new(false), began_to_write: AtomicBool::new(false) }
    }

    /// It fails from now on.
    pub(crate) fn begin(&self) {
        self.began_to_write.store(false, Ordering::SeqCst);
        self.failing.store(true, Ordering::SeqCst);
    }

    /// It is well from now on.
    pub(crate) fn end(&self) {
        self.failing.store(false, Ordering::SeqCst);
    }

    fn fails(&self, fault: Fault) -> bool {
        self.fault == fault && self.failing.load(Ordering::SeqCst)
    }
}

impl Medium for Faulty {
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        let mut file = file;
        let again = || self.began_to_write.swap(true, Ordering::SeqCst);
        if self.fails(Fault::Write) || (self.fails(Fault::WriteHalf) && again()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.fails(Fault::WriteHalf) {
            return file.write(&bytes[..bytes.len().div_ceil(2)]);
        }
        if self.fails(Fault::WriteCut) {
            return file.write(&bytes[..bytes.len() / 2]).map(|_| bytes.len());
        }
        let length = if self.fails(Fault::WriteShort) { bytes.len().min(3) } else { bytes.len() };
        file.write(&bytes[..length])
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.fails(Fault::Sync) { Err(io::Error::other("the medium failed")) } else { file.sync_all() }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.fails(Fault::Rename) { Err(io::Error::other("the medium failed")) } else { fs::rename(from, to) }
    }
}
