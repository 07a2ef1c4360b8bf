//! How providers keep keys on disk: one directory for each key, whole or not there.
//!
//! ```text
//! ROOT/held/3f/3fa4...   one slot for a key, named by the key's SHA-256; `datad-key` inside says which key it is
//! ROOT/tmp/...           what is being made; swept at start
//! ROOT/trash/...         what is being deleted; swept at start
//! ```
//!
//! A slot appears by one `rename` of a directory that has been written and synced to disk before, so a crash at any
//! moment leaves the previous slot or none, and readers never see half of one. Hashed names mean that no key is ever a
//! path, that `a` and `a/b` do not get in each other's way, and that no directory grows without bound.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use rustix::fs::{
    AtFlags, CWD, RenameFlags, StatVfs, Timespec, Timestamps, UTIME_NOW, renameat_with, statvfs, utimensat,
};
use sha2::{Digest, Sha256};

pub(crate) use crate::durable::blocking;
use crate::{
    durable::Durable,
    key::{KEY_BYTES_MAX, Key},
    provider::{Capacity, ProviderError},
};

/// The file in a slot that says which key it holds.
pub(crate) const KEY_FILE: &str = "datad-key";

/// When all keys are listed: slots that are read in one go, and goes at a time.
const SLOTS_AT_ONCE: usize = 64;
const READERS: usize = 4;

/// How often the deletion of a directory is tried while a program that was killed may still add to it.
const REMOVE_ATTEMPTS: u32 = 50;
/// How long to wait between two of those attempts.
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// The directory of one provider. At most one process may use it at a time.
#[derive(Debug)]
pub(crate) struct KeyStore {
    root: PathBuf,
    /// What writes to it; the files that other programs write are synced through it.
    pub(crate) durable: Durable,
    /// Part of every name that is made up: programs that a killed process left running still write to its scratches.
    run: String,
    scratches: AtomicU64,
}

impl KeyStore {
    /// Opens or creates the directory and deletes what a crash left behind. Blocks.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        Self::open_on(root, Durable::default())
    }

    /// The same with files that are written by `durable`.
    #[expect(
        clippy::disallowed_methods,
        reason = "only the name of a scratch folder, which has to differ in every run"
    )]
    pub(crate) fn open_on(root: &Path, durable: Durable) -> io::Result<Self> {
        for name in ["tmp", "trash"] {
            let dir = root.join(name);
            remove_tree(&dir)?;
            fs::create_dir_all(&dir)?;
        }
        fs::create_dir_all(root.join("held"))?;
        let root = root.canonicalize()?;
        durable.sync(&root)?;
        Ok(Self { root, durable, run: hex::encode(rand::random::<[u8; 8]>()), scratches: AtomicU64::new(0) })
    }

    /// The absolute path of the directory, without symbolic links.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where `key` is, or would be.
    pub(crate) fn slot(&self, key: &Key) -> PathBuf {
        let name = hex::encode(Sha256::digest(key.as_str()));
        self.root.join("held").join(&name[..2]).join(name)
    }

    /// Whether the slot of `key` is there and has the file `marker`.
    pub(crate) async fn holds(&self, key: &Key, marker: &str) -> io::Result<bool> {
        tokio::fs::try_exists(self.slot(key).join(marker)).await
    }

    /// Notes that the slot of `key` is up to date now, for [`KeyStore::touched_ms`]. Nothing depends on it.
    pub(crate) async fn touch(&self, key: &Key) {
        let path = self.slot(key).join(KEY_FILE);
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let touched = blocking(move || {
            let times = Timestamps { last_access: now, last_modification: now };
            Ok(utimensat(CWD, &path, &times, AtFlags::empty())?)
        });
        if let Err(error) = touched.await {
            tracing::debug!(%key, %error, "cannot note when it was updated");
        }
    }

    /// When the slot of `key` was made or touched last, in milliseconds since the Unix epoch.
    pub(crate) async fn touched_ms(&self, key: &Key) -> Option<u64> {
        let modified = tokio::fs::metadata(self.slot(key).join(KEY_FILE)).await.ok()?.modified().ok()?;
        u64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    }

    /// Bytes of the files in the slot of `key`.
    pub(crate) async fn bytes(&self, key: &Key) -> io::Result<u64> {
        let slot = self.slot(key);
        blocking(move || tree_bytes(&slot)).await
    }

    /// A fresh directory to build something in.
    pub(crate) fn scratch(&self) -> io::Result<StagingDir> {
        let path = self.unused("tmp");
        fs::create_dir(&path)?;
        Ok(StagingDir { path })
    }

    /// Puts what was built into the slot of `key`, replacing what is there in one step, and returns once it is durable.
    /// Blocks.
    pub(crate) fn publish(&self, key: &Key, scratch: StagingDir) -> io::Result<()> {
        self.durable.write_new(&scratch.path().join(KEY_FILE), key.as_str().as_bytes())?;
        self.durable.sync_tree(scratch.path())?;
        let slot = self.slot(key);
        let shelf = slot.parent().expect("a slot is two levels below the root");
        fs::create_dir_all(shelf)?;
        match fs::rename(scratch.path(), &slot) {
            Ok(()) => {}
            // Something is there: swap the two, and the old one is deleted with the scratch.
            Err(_) if slot.exists() => renameat_with(CWD, scratch.path(), CWD, &slot, RenameFlags::EXCHANGE)?,
            Err(error) => return Err(error),
        }
        self.durable.sync(shelf)?;
        self.durable.sync(&self.root.join("held"))
    }

    /// Deletes the slot of `key`: gone for good as soon as it is renamed, its bytes freed before this returns.
    pub(crate) async fn remove(&self, key: &Key) -> io::Result<()> {
        let (slot, trash, durable) = (self.slot(key), self.unused("trash"), self.durable.clone());
        blocking(move || {
            match fs::rename(&slot, &trash) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            }
            durable.sync(slot.parent().expect("a slot is two levels below the root"))?;
            remove_tree(&trash)
        })
        .await
    }

    /// The free space for users other than root.
    pub(crate) async fn capacity(&self) -> io::Result<Capacity> {
        let root = self.root.clone();
        blocking(move || Ok(scarcest(&statvfs(&root)?))).await
    }

    /// The keys of all slots that have the file `marker`, found while the stream is read.
    pub(crate) fn keys(&self, marker: &'static str) -> BoxStream<'_, Result<Key, ProviderError>> {
        let folders_in = |dir: PathBuf| blocking(move || folders(&dir));
        let each = |found: Vec<PathBuf>| stream::iter(found.into_iter().map(Ok::<_, io::Error>));
        let shelves = stream::once(folders_in(self.root.join("held"))).map_ok(each).try_flatten();
        let slots = shelves.and_then(folders_in);
        let parts = slots.map_ok(|slots| {
            let parts: Vec<Vec<PathBuf>> = slots.chunks(SLOTS_AT_ONCE).map(<[PathBuf]>::to_vec).collect();
            stream::iter(parts.into_iter().map(Ok))
        });
        let read = move |part: Vec<PathBuf>| {
            blocking(move || Ok(part.iter().filter_map(|slot| key_in(slot, marker)).collect::<Vec<_>>()))
        };
        let keys = parts.try_flatten().map_ok(read).try_buffered(READERS);
        // An unusable slot is an item, not the end.
        keys.map(|part| match part {
            Ok(part) => stream::iter(part).left_stream(),
            Err(error) => stream::once(std::future::ready(Err(error.into()))).right_stream(),
        })
        .flatten()
        .boxed()
    }

    fn unused(&self, place: &str) -> PathBuf {
        let number = self.scratches.fetch_add(1, Ordering::Relaxed);
        self.root.join(place).join(format!("{}-{number}", self.run))
    }
}

/// The free space on the file system of `path` for users other than root.
pub(crate) async fn capacity_of(path: &Path) -> io::Result<Capacity> {
    let path = path.to_owned();
    // A file system may be slow to say, one on a network for instance.
    blocking(move || Ok(bytes_of(&statvfs(&path)?))).await
}

fn bytes_of(found: &StatVfs) -> Capacity {
    let used = found.f_blocks.saturating_sub(found.f_bfree);
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Capacity { used: bytes(used), total: bytes(used.saturating_add(found.f_bavail)) }
}

/// The room of a file system, in bytes. Where it runs out of files sooner than of bytes, as many bytes count as used as
/// make the same share. Some file systems do not count their files.
fn scarcest(found: &StatVfs) -> Capacity {
    let bytes = bytes_of(found);
    let used = found.f_files.saturating_sub(found.f_ffree);
    let files = Capacity { used, total: used.saturating_add(found.f_favail) };
    if found.f_files == 0 || files.share() <= bytes.share() {
        return bytes;
    }
    Capacity { used: ((files.share() * bytes.total as f64) as u64).min(bytes.total), total: bytes.total }
}

/// The folders in a folder. Blocks.
fn folders(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The key of a slot; `None` if it is not complete, or vanished meanwhile. Blocks.
fn key_in(slot: &Path, marker: &str) -> Option<Result<Key, ProviderError>> {
    if !slot.join(marker).try_exists().ok()? {
        return None;
    }
    let text = match fs::read_to_string(slot.join(KEY_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(error.into())),
    };
    let shown: String = text.chars().take(KEY_BYTES_MAX).collect();
    Some(Key::new(text).map_err(|error| ProviderError::new(format!("{shown:?} in {}: {error}", slot.display()))))
}

/// A directory that is deleted, with all that is in it, when this is dropped, unless it was published before.
#[derive(Debug)]
pub(crate) struct StagingDir {
    path: PathBuf,
}

impl StagingDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        let remove = move || {
            if let Err(error) = remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "left for the sweep at the next start");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Deletes a directory and all in it, if it is there. Tries again while something is still being written into it. Blocks.
#[expect(clippy::disallowed_methods, reason = "runs on a thread that may block")]
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let mut attempts = 1;
    loop {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if attempts < REMOVE_ATTEMPTS => std::thread::sleep(REMOVE_PAUSE),
            outcome => return outcome,
        }
        attempts += 1;
    }
}

/// Bytes of the files in a directory and below. Blocks.
pub(crate) fn tree_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // What goes away meanwhile counts for nothing.
        let Ok(meta) = entry.metadata() else { continue };
        bytes += if meta.is_dir() { tree_bytes(&entry.path()).unwrap_or(0) } else { meta.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures::TryStreamExt;

    use super::*;
    use crate::{
        durable::testing::SmallDisk,
        providers::testing::{eventually, key},
    };

    fn built(shelf: &KeyStore, text: &str) -> StagingDir {
        let scratch = shelf.scratch().unwrap();
        fs::write(scratch.path().join("data"), text).unwrap();
        scratch
    }

    #[tokio::test]
    async fn a_key_and_a_key_below_it_are_both_held_and_found() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = KeyStore::open(dir.path()).unwrap();
        for name in ["a", "a/b", "with space/ünïcode"] {
            shelf.publish(&key(name), built(&shelf, name)).unwrap();
        }
        let found: BTreeSet<Key> = shelf.keys(KEY_FILE).try_collect().await.unwrap();
        assert_eq!(found, ["a", "a/b", "with space/ünïcode"].map(key).into());
        shelf.remove(&key("a")).await.unwrap();
        assert!(!shelf.holds(&key("a"), KEY_FILE).await.unwrap());
        assert!(shelf.holds(&key("a/b"), KEY_FILE).await.unwrap());
        assert_eq!(fs::read_dir(dir.path().join("trash")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn publishing_again_replaces_the_slot() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = KeyStore::open(dir.path()).unwrap();
        shelf.publish(&key("a"), built(&shelf, "old")).unwrap();
        shelf.publish(&key("a"), built(&shelf, "new")).unwrap();
        assert_eq!(fs::read_to_string(shelf.slot(&key("a")).join("data")).unwrap(), "new");
        eventually("the old slot is deleted", || fs::read_dir(dir.path().join("tmp")).unwrap().count() == 0).await;
    }

    #[tokio::test]
    async fn what_a_crash_left_is_swept_at_the_next_start_and_what_was_held_stays() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = KeyStore::open(dir.path()).unwrap();
        shelf.publish(&key("a"), built(&shelf, "kept")).unwrap();
        std::mem::forget(built(&shelf, "half"));
        drop(shelf);
        let shelf = KeyStore::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        assert!(shelf.holds(&key("a"), KEY_FILE).await.unwrap());
    }

    #[tokio::test]
    async fn a_disk_that_can_take_no_more_files_is_full_however_many_bytes_are_left() {
        let Some(disk) = SmallDisk::mount_for_files(4 << 10, 100) else { return };
        let shelf = KeyStore::open(&disk.path().join("shelf")).unwrap();
        assert!(shelf.capacity().await.unwrap().share() < 0.5);
        let ends = (0..).find(|number| fs::write(disk.path().join(number.to_string()), "").is_err()).unwrap();
        assert!(ends < 100);
        assert!(shelf.capacity().await.unwrap().share() > 0.99);
        fs::remove_file(disk.path().join("0")).unwrap();
        assert!(shelf.capacity().await.unwrap().share() < 1.0);
    }

    #[tokio::test]
    async fn a_slot_without_its_marker_is_passed_over_and_a_spoilt_name_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = KeyStore::open(dir.path()).unwrap();
        shelf.publish(&key("a"), built(&shelf, "x")).unwrap();
        fs::remove_file(shelf.slot(&key("a")).join("data")).unwrap();
        assert_eq!(shelf.keys("data").count().await, 0);
        fs::write(shelf.slot(&key("a")).join(KEY_FILE), "../x").unwrap();
        let found: Vec<_> = shelf.keys(KEY_FILE).collect().await;
        assert!(matches!(&found[..], [Err(_)]), "{found:?}");
    }
}
