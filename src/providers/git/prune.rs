//! Letting go of objects that no reference leads to any more, some time after that was found.
//!
//! ```text
//!   a refresh drops a reference --> the mirror is marked
//!   a day later                 --> what is unreachable goes into a cruft pack, with the time: now
//!   two weeks after that        --> a new cruft pack is made without it, and the old packs go
//! ```
//!
//! git would date an unreachable object by the pack that it came in, which may be years old when the object becomes
//! unreachable. So packs are touched before what is unreachable in them is set apart. New packs are made while clients
//! read; the old ones go at a moment when no client reads the mirror, for git gives an object up that it has seen and
//! then finds in no pack. Needs git 2.37; with an older one everything stays.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    process::run,
    store::{Mirrors, files},
    watch::{has_room, watched},
};
use crate::{
    key::Key,
    provider::{Capacity, UpdateContext, UpdateError},
    providers::key_store::blocking,
};

/// The file in a mirror that says since when there may be something unreachable.
const MARK: &str = "datad-dropped";
/// The part of the time that objects are kept after which the mirror is looked at: a day of two weeks.
const LOOK_SHARE: u32 = 14;
/// How often a moment without readers is looked for, and how long to wait in between.
const MOMENTS: u32 = 100;
const MOMENT_PAUSE: Duration = Duration::from_millis(100);

impl Mirrors {
    /// Notes that references of the mirror in `slot` went, or point elsewhere. Blocks.
    pub(super) fn mark(slot: &Path) -> io::Result<()> {
        File::options().append(true).create(true).open(slot.join(MARK)).map(drop)
    }

    /// Lets go of what has been unreachable for long enough, if it is time to look. If this fails,
    /// the update does not fail.
    pub(super) async fn prune(&self, key: &Key, path: &str, context: &UpdateContext) {
        let (slot, kept) = (self.shelf.slot(key), self.unreachable_kept);
        match blocking(move || is_due(&slot, kept)).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::warn!(%key, %error, "a mirror cannot be looked at"),
        }
        if let Err(error) = self.repack(key, path, context).await {
            tracing::warn!(%key, %error, "what is unreachable in a mirror stays for now");
        }
    }

    async fn repack(&self, key: &Key, path: &str, context: &UpdateContext) -> Result<(), UpdateError> {
        let slot = self.shelf.slot(key);
        // Whatever comes of it, the next look is a day away.
        let marked = slot.clone();
        let before = blocking(move || {
            Self::mark(&marked)?;
            File::options().append(true).open(marked.join(MARK))?.set_modified(now())?;
            touched_packs(&marked)
        });
        let before = before.await?;
        let Capacity { used, total } = self.shelf.capacity().await?;
        let bytes: u64 = before.values().map(|pack| pack.bytes).sum();
        if !has_room(Capacity { used: used + bytes, total }) {
            return Err(UpdateError::NoRoom("there is no room for a second copy of it while it is packed anew".into()));
        }
        let expiry = format!("--cruft-expiration={}.seconds.ago", self.unreachable_kept.as_secs());
        let args = ["--git-dir", path, "repack", "-a", "--quiet", "--cruft", &expiry];
        let outcome = watched(run(&mut self.program.command(args, None)), &slot, &self.shelf, context).await?;
        if !outcome.success {
            return Err(UpdateError::Failed(outcome.stderr.trim().to_owned()));
        }
        let looked = slot.clone();
        let after = blocking(move || packs(&looked)).await?;
        // A new pack may have the name of an old one, which it then replaced.
        let (old, new): (Vec<_>, Vec<_>) =
            after.into_iter().partition(|(name, pack)| before.get(name).is_some_and(|old| old.made == pack.made));
        // All that is reachable is in one pack now, unless this git works in another way than is known here.
        let is_whole = |(_, pack): &(String, Pack)| !pack.is_cruft;
        let old = if new.iter().any(is_whole) { old } else { Vec::new() };
        self.retire(&slot, old.into_iter().map(|(name, _)| name).collect()).await
    }

    /// Takes packs out of a mirror once no request reads it.
    async fn retire(&self, slot: &Path, names: Vec<String>) -> Result<(), UpdateError> {
        for _ in 0..MOMENTS {
            let (readers, shelf) = (self.readers.clone(), Arc::clone(&self.shelf));
            let (slot, names) = (slot.to_owned(), names.clone());
            let retired = blocking(move || {
                let scratch = shelf.scratch()?;
                let durable = shelf.durable.clone();
                // Moved at first: deleting large files takes a while. The index goes first, for by it a pack is found.
                let moved = readers.alone(&slot, || take_out(&slot.join("objects/pack"), &names, scratch.path()));
                let moved = moved.transpose()?;
                if moved.is_some() {
                    durable.sync(&slot.join("objects/pack"))?;
                    fs::remove_file(slot.join(MARK))?;
                }
                Ok(moved.is_some())
            });
            if retired.await? {
                return Ok(());
            }
            tokio::time::sleep(MOMENT_PAUSE).await;
        }
        Err(UpdateError::Unavailable("it is read all the time".into()))
    }
}

#[expect(clippy::disallowed_methods, reason = "git dates what it keeps by this machine's clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// A pack in a mirror.
#[derive(Debug)]
struct Pack {
    made: SystemTime,
    /// Whether it holds what is unreachable.
    is_cruft: bool,
    bytes: u64,
}

fn is_due(slot: &Path, kept: Duration) -> io::Result<bool> {
    let look = kept / LOOK_SHARE;
    let older = |path: &Path, age: Duration| match fs::metadata(path) {
        Ok(file) => Ok(file.modified()?.elapsed().unwrap_or_default() >= age),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    if slot.join(MARK).try_exists()? {
        return older(&slot.join(MARK), look);
    }
    for file in files(&slot.join("objects/pack"))? {
        if file.extension().is_some_and(|end| end == "mtimes") && older(&file, kept + look)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The packs of a mirror, by their names without an ending.
fn packs(slot: &Path) -> io::Result<BTreeMap<String, Pack>> {
    let mut found = BTreeMap::new();
    for file in files(&slot.join("objects/pack"))? {
        if file.extension().is_some_and(|end| end == "pack")
            && let Some(name) = file.file_stem().and_then(|name| name.to_str())
        {
            let about = fs::metadata(&file)?;
            let is_cruft = file.with_extension("mtimes").try_exists()?;
            found.insert(name.to_owned(), Pack { made: about.modified()?, is_cruft, bytes: about.len() });
        }
    }
    Ok(found)
}

/// As [`packs`], after those that are no cruft were given the time of this moment.
fn touched_packs(slot: &Path) -> io::Result<BTreeMap<String, Pack>> {
    let now = now();
    let folder = slot.join("objects/pack");
    for (name, _) in packs(slot)?.into_iter().filter(|(_, pack)| !pack.is_cruft) {
        File::open(folder.join(format!("{name}.pack")))?.set_modified(now)?;
    }
    packs(slot)
}

/// Moves all files of the packs `names` from `folder` to `away`.
fn take_out(folder: &Path, names: &[String], away: &Path) -> io::Result<()> {
    let of = |file: &Path| {
        file.file_stem().and_then(|name| name.to_str()).is_some_and(|name| names.iter().any(|n| n == name))
    };
    let mut going: Vec<PathBuf> = files(folder)?.into_iter().filter(|file| of(file)).collect();
    going.sort_by_key(|file| file.extension().is_none_or(|end| end != "idx"));
    for file in going {
        if let Some(name) = file.file_name() {
            fs::rename(&file, away.join(name))?;
        }
    }
    Ok(())
}
