//! The copies on this machine: one slot for a key, with a manifest and the contents it names.
//!
//! ```text
//! SLOT/manifest.json          which objects the key has
//! SLOT/contents/<sha256>      what is in them
//! ```
//!
//! Contents never change, so an update adds the new ones, replaces the manifest by a rename, and only then deletes what
//! is no longer named. All of it is synced to disk first. A reader that holds the old manifest either has its file
//! open already, or finds it gone and reads the manifest again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use sha2::{Digest, Sha256};

use super::{incoming::Entry, manifest::Manifest};
use crate::{
    durable::Durable,
    key::Key,
    provider::{Capacity, UpdateContext, UpdateError},
    providers::key_store::{KeyStore, StagingDir, blocking, capacity_of},
};

/// The file that makes a slot complete.
pub(crate) const MANIFEST: &str = "manifest.json";
const CONTENTS: &str = "contents";
/// Manifests that are kept in memory; those of single objects have some hundred bytes.
const MANIFESTS_KEPT: usize = 1024;
/// Contents from this size on are held against the room that there is before they are fetched; smaller ones are not worth
/// the question.
const SIZE_LOOKED_AT: u64 = 1 << 20;
/// Bytes of a content of unknown size between two checks of the free space.
const UNKNOWN_LOOKED_AT: u64 = 64 << 20;

/// All that is held.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) shelf: KeyStore,
    read: Mutex<BTreeMap<Key, Arc<Manifest>>>,
    /// Held while a slot changes, because a commit goes on when its update is dropped.
    commits: Mutex<()>,
}

impl Cache {
    pub(crate) fn new(shelf: KeyStore) -> Self {
        Self { shelf, read: Mutex::default(), commits: Mutex::default() }
    }

    /// The manifest of `key`; `None` if it is not held, or not readable and to be fetched anew.
    pub(crate) async fn manifest(&self, key: &Key) -> io::Result<Option<Arc<Manifest>>> {
        if let Some(manifest) = self.kept().get(key) {
            return Ok(Some(Arc::clone(manifest)));
        }
        let bytes = match tokio::fs::read(self.shelf.slot(key).join(MANIFEST)).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match Manifest::parse(&bytes, key) {
            Ok(manifest) => Ok(Some(self.keep(key, manifest))),
            Err(reason) => {
                tracing::warn!(%key, %reason, "what is held cannot be used");
                Ok(None)
            }
        }
    }

    fn keep(&self, key: &Key, manifest: Manifest) -> Arc<Manifest> {
        let manifest = Arc::new(manifest);
        let mut kept = self.kept();
        if kept.len() >= MANIFESTS_KEPT {
            kept.pop_first();
        }
        kept.insert(key.clone(), Arc::clone(&manifest));
        manifest
    }

    /// Forgets what is kept in memory of `key`.
    pub(crate) fn forget(&self, key: &Key) {
        self.kept().remove(key);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Arc<Manifest>>> {
        self.read.lock().expect("nothing panics while it holds this lock")
    }

    /// Opens a content.
    pub(crate) async fn open(&self, key: &Key, sha256: &str) -> io::Result<tokio::fs::File> {
        tokio::fs::File::open(self.shelf.slot(key).join(CONTENTS).join(sha256)).await
    }

    /// The contents of `manifest` that are on disk in their full size.
    pub(crate) async fn contents(&self, key: &Key, manifest: &Arc<Manifest>) -> io::Result<BTreeSet<String>> {
        let (dir, manifest) = (self.shelf.slot(key).join(CONTENTS), Arc::clone(manifest));
        blocking(move || {
            let whole = |sha256: &String, size| fs::metadata(dir.join(sha256)).is_ok_and(|meta| meta.len() == size);
            let objects = manifest.objects.values();
            Ok(objects
                .filter(|object| whole(&object.sha256, object.size))
                .map(|object| object.sha256.clone())
                .collect())
        })
        .await
    }

    /// Begins an update.
    pub(crate) fn draft(&self, context: &UpdateContext) -> io::Result<Draft> {
        let scratch = self.shelf.scratch()?;
        fs::create_dir(scratch.path().join(CONTENTS))?;
        let (durable, context) = (self.shelf.durable.clone(), context.clone());
        Ok(Draft { scratch, durable, context, parts: AtomicU64::new(0) })
    }

    /// Makes `manifest` what `key` holds, durably and in one step, with the contents of `draft`.
    pub(crate) async fn commit(self: &Arc<Self>, key: &Key, draft: Draft, manifest: Manifest) -> io::Result<()> {
        let (cache, key) = (Arc::clone(self), key.clone());
        blocking(move || {
            let _one_at_a_time = cache.commits.lock().map_err(|_| io::Error::other("an earlier commit panicked"))?;
            cache.replace(&key, draft.scratch, &manifest)?;
            cache.keep(&key, manifest);
            Ok(())
        })
        .await
    }

    fn replace(&self, key: &Key, draft: StagingDir, manifest: &Manifest) -> io::Result<()> {
        let (slot, fresh, durable) = (self.shelf.slot(key), draft.path().join(CONTENTS), &self.shelf.durable);
        let held = slot.join(CONTENTS);
        let named: BTreeSet<&str> = manifest.objects.values().map(|object| object.sha256.as_str()).collect();
        if let Some(lost) = named.iter().find(|name| !fresh.join(name).exists() && !held.join(name).exists()) {
            return Err(io::Error::other(format!("{key} changed while it was updated: {lost} is gone")));
        }
        durable.write_new(&draft.path().join(MANIFEST), &manifest.to_bytes())?;
        if !slot.join(MANIFEST).exists() {
            return self.shelf.publish(key, draft);
        }
        fs::create_dir_all(&held)?;
        for name in names(&fresh)? {
            fs::rename(fresh.join(&name), held.join(&name))?;
        }
        durable.sync(&held)?;
        durable.rename(&draft.path().join(MANIFEST), &slot.join(MANIFEST))?;
        for name in names(&held)?.iter().filter(|name| !named.contains(name.as_str())) {
            fs::remove_file(held.join(name))?;
        }
        Ok(())
    }

    /// Deletes what is held of `key`.
    pub(crate) async fn remove(&self, key: &Key) -> io::Result<()> {
        self.forget(key);
        let outcome = self.shelf.remove(key).await;
        self.forget(key);
        outcome
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// A content that was written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) sha256: String,
    /// In bytes.
    pub(crate) size: u64,
}

/// Contents that are being gathered. Dropping it deletes them.
#[derive(Debug)]
pub(crate) struct Draft {
    scratch: StagingDir,
    durable: Durable,
    /// Is told of the progress.
    context: UpdateContext,
    parts: AtomicU64,
}

impl Draft {
    /// Whether this content is there already.
    pub(crate) fn has(&self, sha256: &str) -> bool {
        self.content(sha256).exists()
    }

    fn content(&self, sha256: &str) -> PathBuf {
        self.scratch.path().join(CONTENTS).join(sha256)
    }

    /// Writes a content durably. Without `size` it goes on to the end of the stream. With `expected`, its hash has to be
    /// that, and what is wrong is not kept. `incoming` is told how far it is.
    ///
    /// # Errors
    /// The stream breaks off, has another size or hash, or the disk cannot take it.
    pub(crate) async fn write<S>(
        &self,
        bytes: S,
        size: Option<u64>,
        expected: Option<&str>,
        incoming: Option<&Entry<'_>>,
    ) -> Result<Written, UpdateError>
    where
        S: Stream<Item = Result<Bytes, UpdateError>> + Unpin,
    {
        self.check_room(size.unwrap_or(0)).await?;
        let part = self.scratch.path().join(format!("part-{}", self.parts.fetch_add(1, Ordering::Relaxed)));
        let written = self.write_part(&part, bytes, size, expected, incoming).await;
        if written.is_err() {
            let _ = blocking(move || fs::remove_file(part)).await;
        }
        written
    }

    /// What is announced to be larger than the room there is need not be fetched to find that out.
    async fn check_room(&self, size: u64) -> Result<(), UpdateError> {
        if size < SIZE_LOOKED_AT {
            return Ok(());
        }
        let Capacity { used, total } = capacity_of(self.scratch.path()).await?;
        let room = total.saturating_sub(used);
        if size <= room {
            return Ok(());
        }
        Err(UpdateError::NoRoom(format!("No space left: it has {size} bytes, and there is room for {room}")))
    }

    async fn write_part<S>(
        &self,
        part: &Path,
        mut bytes: S,
        size: Option<u64>,
        expected: Option<&str>,
        incoming: Option<&Entry<'_>>,
    ) -> Result<Written, UpdateError>
    where
        S: Stream<Item = Result<Bytes, UpdateError>> + Unpin,
    {
        let (mut hash, mut written, mut looked_at) = (Sha256::new(), 0u64, 0u64);
        let mut file = self.durable.stream(part.to_owned());
        loop {
            let chunk = tokio::select! {
                chunk = bytes.try_next() => chunk?,
                () = Entry::wanted(incoming) => Some(Bytes::new()),
            };
            let Some(chunk) = chunk else { break };
            written += chunk.len() as u64;
            if size.is_some_and(|size| written > size) {
                break;
            }
            if size.is_none() && written >= looked_at + UNKNOWN_LOOKED_AT {
                looked_at = written;
                self.check_room(UNKNOWN_LOOKED_AT).await?;
            }
            hash.update(&chunk);
            file.write(&chunk).await?;
            if let Some(incoming) = incoming {
                if incoming.is_read() {
                    file.flush().await?;
                }
                incoming.reached(part, file.readable());
            }
            self.context.note_progress(chunk.len() as u64);
        }
        if let Some(size) = size.filter(|size| *size != written) {
            return Err(UpdateError::Unavailable(format!("{written} bytes came instead of {size}")));
        }
        let sha256 = hex::encode(hash.finalize());
        if expected.is_some_and(|expected| expected != sha256) {
            return Err(UpdateError::Unavailable("the content does not have the hash that was announced".to_owned()));
        }
        file.finish(&self.content(&sha256)).await?;
        Ok(Written { sha256, size: written })
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::{
        durable::testing::{Fault, Faulty, SmallDisk},
        providers::{
            files::manifest::Object,
            testing::{alone, key},
        },
    };

    /// Writes `text` as the only object of `name`.
    async fn put(cache: &Arc<Cache>, name: &str, text: &[u8]) -> Result<(), UpdateError> {
        let draft = cache.draft(&alone())?;
        let size = text.len() as u64;
        let parts: Vec<_> = text.chunks(60_000).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        let Written { sha256, .. } = draft.write(stream::iter(parts), Some(size), None, None).await?;
        let (content_type, validator) = ("text/plain".to_owned(), String::new());
        let object = Object { size, sha256, modified: 0, content_type, validator, fields: BTreeMap::new() };
        let manifest = Manifest::new(key(name), [(String::new(), object)].into());
        Ok(cache.commit(&key(name), draft, manifest).await?)
    }

    /// What a process that starts now finds of `name`: `None`, or the text as a whole.
    async fn found(root: &Path, name: &str) -> Option<Vec<u8>> {
        let cache = Cache::new(KeyStore::open(root).unwrap());
        let manifest = cache.manifest(&key(name)).await.unwrap()?;
        let object = &manifest.objects[""];
        let text = fs::read(cache.shelf.slot(&key(name)).join(CONTENTS).join(&object.sha256)).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&text)), object.sha256, "{name} is whole");
        Some(text)
    }

    #[tokio::test]
    async fn a_full_disk_keeps_what_was_there_whole_and_takes_more_when_there_is_room() {
        let Some(disk) = SmallDisk::mount(4 << 10) else { return };
        let root = disk.path().join("files");
        let cache = Arc::new(Cache::new(KeyStore::open(&root).unwrap()));
        put(&cache, "old", b"old").await.unwrap();
        disk.fill_up_to(400);
        for (name, bytes) in [("old", 500_000), ("old", 3_000_000), ("new", 390 << 10), ("new", 3_000_000)] {
            let error = put(&cache, name, &vec![b'x'; bytes]).await;
            if let Err(error) = error {
                assert!(matches!(error, UpdateError::NoRoom(_)), "{error:?}");
            } else {
                assert_eq!((name, found(&root, name).await.map(|text| text.len())), ("new", Some(bytes)));
            }
        }
        assert_eq!(found(&root, "old").await.unwrap(), b"old");
        disk.make_room();
        put(&cache, "old", &vec![b'x'; 500_000]).await.unwrap();
        assert_eq!(found(&root, "old").await.unwrap().len(), 500_000);
    }

    #[tokio::test]
    async fn what_is_announced_to_be_too_large_is_not_even_read() {
        let Some(disk) = SmallDisk::mount(4 << 10) else { return };
        let cache = Arc::new(Cache::new(KeyStore::open(&disk.path().join("files")).unwrap()));
        let untouched = stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, UpdateError>>> {
            panic!("it is read");
        });
        let refused = cache.draft(&alone()).unwrap().write(untouched, Some(10 << 30), None, None).await;
        assert!(matches!(refused, Err(UpdateError::NoRoom(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn an_update_that_cannot_be_made_durable_fails_and_leaves_a_whole_key() {
        for fault in [Fault::Write, Fault::WriteHalf, Fault::WriteCut, Fault::Sync, Fault::Rename] {
            let dir = tempfile::tempdir().unwrap();
            let medium = Arc::new(Faulty::new(fault));
            let shelf = KeyStore::open_on(dir.path(), Durable::on(medium.clone())).unwrap();
            let cache = Arc::new(Cache::new(shelf));
            put(&cache, "a", b"old").await.unwrap();
            medium.begin();
            put(&cache, "a", &vec![b'x'; 700_000]).await.unwrap_err();
            put(&cache, "b", b"new").await.unwrap_err();
            assert_eq!(found(dir.path(), "a").await.unwrap(), b"old", "{fault:?}");
            assert_eq!(found(dir.path(), "b").await, None, "{fault:?}");
        }
    }
}
