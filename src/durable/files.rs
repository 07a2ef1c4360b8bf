//! Whole files: replaced, appended to, renamed and synced so that a crash leaves the old content or the new one.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::medium::{Medium, Os};

/// Runs `work` where blocking is allowed. Once begun it runs to its end, also when the future is dropped.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Writes files durably. A handle; clones write to the same medium and count together. All methods block.
#[derive(Debug, Clone)]
pub(crate) struct Durable {
    pub(super) medium: Arc<dyn Medium>,
    pub(super) counts: Arc<Counts>,
}

/// What was acknowledged since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    appends: AtomicU64,
    replacements: AtomicU64,
    pub(super) files: AtomicU64,
    bytes: AtomicU64,
}

#[cfg(test)]
impl Counts {
    /// Additions to files.
    pub(crate) fn appends(&self) -> u64 {
        self.appends.load(Ordering::Relaxed)
    }

    /// Files that were replaced as a whole.
    pub(crate) fn replacements(&self) -> u64 {
        self.replacements.load(Ordering::Relaxed)
    }

    /// Files that were written from the start.
    pub(crate) fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Bytes of all of these.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Default for Durable {
    fn default() -> Self {
        Self::on(Arc::new(Os))
    }
}

impl Durable {
    /// On another medium than the machine's own.
    pub(crate) fn on(medium: Arc<dyn Medium>) -> Self {
        Self { medium, counts: Arc::default() }
    }

    #[cfg(test)]
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Makes `bytes` the content of the file at `path`, which need not be there.
    ///
    /// # Errors
    /// The file is the old one, or the new one as a whole; after a crash too.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let aside = beside(path, ".new");
        let written = self.write(&aside, bytes).and_then(|()| verify(&aside, bytes));
        if let Err(error) = written.and_then(|()| self.medium.rename(&aside, path)) {
            // It takes up room that may be what is missing.
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        self.sync(parent(path))?;
        self.acknowledge(&self.counts.replacements, bytes.len());
        Ok(())
    }

    /// Adds `bytes` to the end of the file at `path`, which begins empty.
    ///
    /// # Errors
    /// What was there before is there. Any part of `bytes` may follow it: write the file anew before adding more.
    pub(crate) fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let is_new = !path.try_exists()?;
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let length = file.metadata()?.len();
        let written = self.write_all(&file, bytes);
        if let Err(error) = written.and_then(|()| self.finish(&file, length + bytes.len() as u64)) {
            // Best effort: the caller has to expect debris anyway.
            let _ = self.medium.truncate(&file, length).and_then(|()| self.medium.sync(&file));
            return Err(error);
        }
        if is_new {
            self.sync(parent(path))?;
        }
        self.acknowledge(&self.counts.appends, bytes.len());
        Ok(())
    }

    /// Writes a file that has no readers yet. Its name is durable once its folder is synced.
    ///
    /// # Errors
    /// The file may be there in part.
    pub(crate) fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write(path, bytes)?;
        self.acknowledge(&self.counts.files, bytes.len());
        Ok(())
    }

    /// Moves a file to another name, and makes that durable.
    ///
    /// # Errors
    /// It may have moved or not.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.medium.rename(from, to)?;
        self.sync(parent(to))
    }

    /// Makes a file or folder durable that was written by others, or by several renames.
    ///
    /// # Errors
    /// What is on the medium is not known.
    pub(crate) fn sync(&self, path: &Path) -> io::Result<()> {
        self.medium.sync(&File::open(path)?)
    }

    /// Makes a folder durable with everything in it.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub(crate) fn sync_tree(&self, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.sync_tree(&entry.path())?;
            } else if kind.is_file() {
                self.sync(&entry.path())?;
            }
        }
        self.sync(path)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = File::create(path)?;
        self.write_all(&file, bytes)?;
        self.finish(&file, bytes.len() as u64)
    }

    /// Syncs a file that should have `length` bytes now.
    pub(super) fn finish(&self, file: &File, length: u64) -> io::Result<()> {
        self.medium.sync(file)?;
        let found = file.metadata()?.len();
        if found == length { Ok(()) } else { Err(cut_short(found, length)) }
    }

    pub(super) fn write_all(&self, file: &File, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.medium.write(file, bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn acknowledge(&self, what: &AtomicU64, bytes: usize) {
        what.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// `path` with something added to its name.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn verify(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let found = fs::read(path)?;
    if found.len() != bytes.len() {
        return Err(cut_short(found.len() as u64, bytes.len() as u64));
    }
    if found == bytes { Ok(()) } else { Err(io::Error::other("what was written is not what can be read back")) }
}

fn cut_short(found: u64, wanted: u64) -> io::Error {
    io::Error::new(io::ErrorKind::WriteZero, format!("the file has {found} bytes instead of {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::testing::{Fault, Faulty, SmallDisk};

    /// A folder, and files on a medium that fails from its `nth` operation of that kind on.
    fn failing(fault: Fault) -> (tempfile::TempDir, Arc<Faulty>, Durable) {
        let medium = Arc::new(Faulty::new(fault));
        (tempfile::tempdir().unwrap(), medium.clone(), Durable::on(medium))
    }

    #[test]
    fn a_replacement_that_fails_in_any_way_leaves_the_good_file_and_nothing_beside_it() {
        let large = vec![b'x'; 100];
        for fault in [Fault::Write, Fault::WriteHalf, Fault::WriteCut, Fault::Sync, Fault::Rename] {
            let (dir, medium, durable) = failing(fault);
            let path = dir.path().join("record");
            durable.replace(&path, b"good").unwrap();
            medium.begin();
            durable.replace(&path, &large).unwrap_err();
            assert_eq!(fs::read(&path).unwrap(), b"good", "{fault:?}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{fault:?}");
            medium.end();
            durable.replace(&path, &large).unwrap();
            assert_eq!(fs::read(&path).unwrap(), large, "{fault:?}");
            assert_eq!(durable.counts().replacements(), 2);
        }
    }

    #[test]
    fn an_append_that_fails_is_not_acknowledged_and_leaves_what_was_there() {
        for fault in [Fault::Write, Fault::WriteHalf, Fault::WriteCut, Fault::Sync] {
            let (dir, medium, durable) = failing(fault);
            let path = dir.path().join("log");
            durable.append(&path, b"good").unwrap();
            medium.begin();
            durable.append(&path, b" bad").unwrap_err();
            medium.end();
            assert_eq!(fs::read(&path).unwrap(), b"good", "{fault:?}");
            durable.append(&path, b" again").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"good again", "{fault:?}");
            assert_eq!((durable.counts().appends(), durable.counts().bytes()), (2, 10));
        }
    }

    #[test]
    fn a_medium_that_writes_in_small_pieces_gets_it_all() {
        let (dir, medium, durable) = failing(Fault::WriteShort);
        medium.begin();
        durable.append(&dir.path().join("log"), b"piece by piece").unwrap();
        durable.replace(&dir.path().join("record"), b"piece by piece").unwrap();
        for name in ["log", "record"] {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"piece by piece");
        }
    }

    #[test]
    fn on_a_full_disk_what_was_acknowledged_is_there_and_writing_goes_on_when_there_is_room() {
        let Some(disk) = SmallDisk::mount(256) else { return };
        let durable = Durable::default();
        let (log, record) = (disk.path().join("log"), disk.path().join("record"));
        durable.replace(&record, &[b'r'; 50_000]).unwrap();
        let line = [b'l'; 1_000];
        let refused = (0..1_000).map(|_| durable.append(&log, &line)).filter(Result::is_err).count();
        assert!(refused > 0, "the disk is full");
        let length = || usize::try_from(fs::metadata(&log).unwrap().len()).unwrap();
        assert_eq!(length(), line.len() * usize::try_from(durable.counts().appends()).unwrap());
        assert_eq!(durable.replace(&record, &[b'n'; 60_000]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&record).unwrap(), [b'r'; 50_000]);

        fs::remove_file(&log).unwrap();
        durable.append(&log, &line).unwrap();
        durable.replace(&record, &[b'n'; 60_000]).unwrap();
        assert_eq!((length(), fs::read(&record).unwrap().len()), (line.len(), 60_000));
    }
}
