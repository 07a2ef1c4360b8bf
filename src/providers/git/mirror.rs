//! Making and refreshing bare mirrors.
//!
//! A new mirror is cloned beside the store and moved into it when it is whole and on disk. A held one is first compared
//! with the remote, which costs one question and usually ends there; otherwise it is fetched into in place, in one
//! reference transaction, so that readers see the old references or the new ones. Objects that are no longer reachable
//! stay for a while (`prune`): a reader may be in the middle of them.
//!
//! git that is killed leaves lock files and half packs behind. Only one update of a key runs at a time and nobody else
//! writes to the store, so each begins by deleting them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::process::Command;

use super::{
    making::Told,
    outcome::{classify, is_reference_conflict},
    process::{Outcome, Program, run, run_and_keep},
    references::{Format, References},
    store::{Mirrors, files, files_below},
    template::{Remote, Scheme},
    watch::watched,
};
use crate::{
    durable::Durable,
    key::Key,
    provider::{UpdateContext, UpdateError},
    providers::{
        key_store::{KEY_FILE, blocking},
        version_of,
    },
};

/// Each refresh adds a pack; with more than this they are rolled into fewer, so that reading stays quick.
const PACKS_MAX: usize = 24;
/// Each refresh writes new references into files of their own; with more than this they are put into one.
const LOOSE_MAX: usize = 256;
/// Longest list of references that clients are told while a mirror is being made: those of some hundred thousand. With more,
/// they wait for the mirror.
const TOLD_BYTES_MAX: usize = 8 << 20;

impl Mirrors {
    /// Makes the mirror of `key` equal to `remote`, durably; whether that changed it. Dropping the future kills git and
    /// leaves what was there.
    ///
    /// # Errors
    /// What was there stays.
    pub(crate) async fn bring(&self, key: &Key, remote: &Remote, context: &UpdateContext) -> Result<bool, UpdateError> {
        if !self.shelf.holds(key, KEY_FILE).await? {
            return self.make(key, remote, context).await.map(|()| true);
        }
        match self.refresh(key, remote, context).await {
            // What git could not finish takes up the room that there is.
            Err(UpdateError::NoRoom(reason)) => {
                let slot = self.shelf.slot(key);
                blocking(move || sweep(&slot)).await?;
                Err(UpdateError::NoRoom(reason))
            }
            // The mirror itself may be spoilt, and a new one heals that.
            Err(UpdateError::Failed(reason)) => {
                tracing::warn!(%key, %reason, "the mirror cannot be refreshed and is made anew");
                self.make(key, remote, context).await.map(|()| true)
            }
            outcome => outcome,
        }
    }

    async fn make(&self, key: &Key, remote: &Remote, context: &UpdateContext) -> Result<(), UpdateError> {
        let scratch = self.shelf.scratch()?;
        let path = path_text(scratch.path())?;
        let clone = ["clone", "--quiet", "--mirror", "--template=", "--", &remote.url, &path];
        let mut clone = self.program.to_remote(clone, remote);
        // Where it is copied from another node, clients have it from that.
        let entry = context.peers().is_empty().then(|| self.making.begin(key, remote));
        succeed(watched(run(&mut clone), scratch.path(), &self.shelf, context).await?)?;
        if let Some(told) = entry.and_then(|entry| entry.close()) {
            let caught_up = self.catch_up(&path, remote, &told);
            if let Err(error) = watched(caught_up, scratch.path(), &self.shelf, context).await {
                // What was cloned is whole without it.
                tracing::debug!(%key, %error, "clients may have been told of more than there is");
                let cloned = scratch.path().to_owned();
                blocking(move || sweep(&cloned)).await?;
            }
        }
        // Where it came from is the template's business, and may be another node next time.
        let forget = ["--git-dir", &path, "config", "--remove-section", "remote.origin"];
        succeed(run(&mut self.program.command(forget, None)).await?)?;
        let (shelf, key) = (Arc::clone(&self.shelf), key.clone());
        Ok(blocking(move || shelf.publish(&key, scratch)).await?)
    }

    /// Fetches what clients were told of, if that is not what was cloned: the origin has got something new in between.
    async fn catch_up(&self, path: &str, remote: &Remote, told: &Told) -> Result<(), UpdateError> {
        if self.references(path).await?.digest != told.digest {
            self.fetch(path, remote, true).await?;
        }
        Ok(())
    }

    /// What clients are told of the mirror of `key` while it is being made; `None` if it is not, or there is no telling.
    pub(super) async fn told(&self, key: &Key) -> Option<Arc<Told>> {
        let program = self.program.clone();
        self.making.told(key, |remote| what_is_there(program, remote)).await
    }

    /// Makes a repository of nothing at `path`, unless it is there.
    pub(super) async fn init(&self, path: &Path, format: Format) -> Result<(), UpdateError> {
        let (path, format) = (path_text(path)?, format!("--object-format={}", format.name()));
        let init = ["init", "--quiet", "--bare", "--template=", &format, "--", &path];
        succeed(run(&mut self.program.command(init, None)).await?).map(drop)
    }

    async fn refresh(&self, key: &Key, remote: &Remote, context: &UpdateContext) -> Result<bool, UpdateError> {
        let slot = self.shelf.slot(key);
        let path = path_text(&slot)?;
        let swept = slot.clone();
        blocking(move || sweep(&swept)).await?;
        // Naming the mirror changes nothing for git, and tells whose process it is.
        let ask = ["--git-dir", &path, "ls-remote", "--symref", "--", &remote.url];
        let mut ask = self.program.to_remote(ask, remote);
        let theirs = succeed(watched(run(&mut ask), &slot, &self.shelf, context).await?)?;
        let ours = self.references(&path).await?;
        if theirs.digest == ours.digest {
            tracing::debug!(%key, "the mirror is up to date");
            self.prune(key, &path, context).await;
            return Ok(false);
        }
        // A detached HEAD may lie outside all references.
        let is_detached = matches!(head_of(&theirs.stdout), Some(Head::Detached(_)));
        let drops = watched(self.fetch(&path, remote, is_detached), &slot, &self.shelf, context).await?;
        if drops {
            let marked = slot.clone();
            blocking(move || Self::mark(&marked)).await?;
        }
        self.point_head(&path, &theirs.stdout).await?;
        self.tidy(&slot, &path).await?;
        let durable = self.shelf.durable.clone();
        blocking(move || sync_references(&durable, &slot)).await?;
        self.prune(key, &path, context).await;
        Ok(true)
    }

    /// Whether `remote` is a repository with a HEAD. The mirror of `key` stays as it is.
    pub(super) async fn has_head(&self, key: &Key, remote: &Remote) -> Result<bool, UpdateError> {
        // Naming the mirror changes nothing for git, and tells whose process it is.
        let path = path_text(&self.shelf.slot(key))?;
        let ask = ["--git-dir", &path, "ls-remote", "--", &remote.url, "HEAD"];
        let answer = succeed(run(&mut self.program.to_remote(ask, remote)).await?)?;
        Ok(!answer.stdout.trim().is_empty())
    }

    /// What a mirror says of itself.
    async fn references(&self, path: &str) -> Result<Outcome, UpdateError> {
        let ours = run(&mut self.program.command(["ls-remote", "--symref", "--", path], Some(Scheme::File))).await?;
        if ours.success {
            return Ok(ours);
        }
        Err(UpdateError::Failed(format!("the mirror cannot be read: {}", ours.stderr.trim())))
    }

    /// A short name of where all references of the mirror point.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(crate) async fn version(&self, key: &Key) -> Result<String, UpdateError> {
        let references = self.references(&path_text(&self.shelf.slot(key))?).await?;
        Ok(version_of(&references.digest))
    }

    /// Fetches what is new, and what HEAD points to if `head`; whether there may be something now that no reference leads to any
    /// more.
    async fn fetch(&self, path: &str, remote: &Remote, head: bool) -> Result<bool, UpdateError> {
        let head: &[&str] = if head { &["HEAD"] } else { &[] };
        let args = |atomic: &'static str| {
            let fetch = ["--git-dir", path, "fetch", "--prune", atomic, "--no-tags", "--no-write-fetch-head"];
            [&fetch[..], &["--no-recurse-submodules", "--", &remote.url, "+refs/*:refs/*"], head].concat()
        };
        let outcome = run(&mut self.program.to_remote(args("--atomic"), remote)).await?;
        if outcome.success || !is_reference_conflict(&outcome.stderr) {
            return succeed(outcome).map(|outcome| outcome.drops);
        }
        // `a` became `a/b`: git cannot do that in one transaction, so the old ones are pruned first.
        succeed(run(&mut self.program.to_remote(args("--no-atomic"), remote)).await?).map(|_| true)
    }

    /// Points HEAD to where the remote's points, as `ls-remote --symref` told it.
    async fn point_head(&self, path: &str, advertised: &str) -> Result<(), UpdateError> {
        let args = match head_of(advertised) {
            Some(Head::Branch(branch)) => vec!["--git-dir", path, "symbolic-ref", "HEAD", branch],
            Some(Head::Detached(id)) => vec!["--git-dir", path, "update-ref", "--no-deref", "HEAD", id],
            None => return Ok(()),
        };
        let outcome = run(&mut self.program.command(args, None)).await?;
        if !outcome.success {
            // The mirror is good without it.
            tracing::debug!(path, complaint = outcome.stderr.trim(), "HEAD stays where it was");
        }
        Ok(())
    }

    /// Keeps the number of packs and of loose references small.
    async fn tidy(&self, slot: &Path, path: &str) -> Result<(), UpdateError> {
        let (packs, references) = (slot.join("objects/pack"), slot.join("refs"));
        let packs = blocking(move || count_packs(&packs)).await?;
        let loose = blocking(move || Ok(files_below(&references)?.len())).await?;
        let jobs: [(bool, &[&str]); 2] = [
            (packs > PACKS_MAX, &["repack", "--quiet", "-d", "--geometric=2"]),
            (loose > LOOSE_MAX || packs > PACKS_MAX, &["pack-refs", "--all"]),
        ];
        for (_, job) in jobs.into_iter().filter(|(needed, _)| *needed) {
            let mut command: Command = self.program.command([&["--git-dir", path], job].concat(), None);
            let outcome = run(&mut command).await?;
            if !outcome.success {
                tracing::warn!(path, complaint = outcome.stderr.trim(), "tidying a mirror failed");
            }
        }
        Ok(())
    }
}

/// Asks the origin, for clients. `None`: there is no telling.
async fn what_is_there(program: Program, remote: Remote) -> Option<Told> {
    let mut ask = program.to_remote(["ls-remote", "--symref", "--", &remote.url], &remote);
    let outcome = run_and_keep(&mut ask, TOLD_BYTES_MAX).await.ok()?;
    if !outcome.success || outcome.stdout.len() >= TOLD_BYTES_MAX {
        tracing::debug!(complaint = outcome.stderr.trim(), "clients wait for the mirror");
        return None;
    }
    Some(Told { references: References::parse(&outcome.stdout)?, digest: outcome.digest })
}

fn succeed(outcome: Outcome) -> Result<Outcome, UpdateError> {
    if outcome.success { Ok(outcome) } else { Err(classify(&outcome.stderr)) }
}

#[derive(Debug, PartialEq, Eq)]
enum Head<'t> {
    Branch(&'t str),
    Detached(&'t str),
}

fn head_of(advertised: &str) -> Option<Head<'_>> {
    let lines = || advertised.lines().filter_map(|line| line.strip_suffix("\tHEAD"));
    let branch = lines().find_map(|line| line.strip_prefix("ref: ")).filter(|name| name.starts_with("refs/"));
    let id = || lines().find(|line| line.len() >= 40 && line.bytes().all(|b| b.is_ascii_hexdigit()));
    branch.map(Head::Branch).or_else(|| id().map(Head::Detached))
}

fn path_text(path: &Path) -> io::Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| io::Error::other("the data directory's name is not UTF-8"))
}

/// Deletes what git leaves behind when it is killed.
fn sweep(slot: &Path) -> io::Result<()> {
    let locked = |path: &PathBuf| path.extension().is_some_and(|end| end == "lock");
    for path in files(slot)?.into_iter().chain(files_below(&slot.join("refs"))?).filter(locked) {
        fs::remove_file(path)?;
    }
    for path in files(&slot.join("objects/pack"))? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("tmp_") || name.starts_with(".tmp-") || name.ends_with(".lock") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn sync_references(durable: &Durable, slot: &Path) -> io::Result<()> {
    durable.sync_tree(&slot.join("refs"))?;
    ["objects/pack", "objects", ""].iter().try_for_each(|dir| durable.sync(&slot.join(dir)))
}

fn count_packs(dir: &Path) -> io::Result<usize> {
    Ok(files(dir)?.iter().filter(|path| path.extension().is_some_and(|end| end == "pack")).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_read_from_the_advertisement() {
        let id = "0123456789012345678901234567890123456789";
        let text = format!("ref: refs/heads/main\tHEAD\n{id}\tHEAD\n{id}\trefs/heads/main\n");
        assert_eq!(head_of(&text), Some(Head::Branch("refs/heads/main")));
        assert_eq!(head_of(&format!("{id}\tHEAD\n{id}\trefs/heads/x\n")), Some(Head::Detached(id)));
        assert_eq!(head_of(""), None);
        assert_eq!(head_of("ref: --exec=x\tHEAD\n"), None);
    }

    #[test]
    fn the_sweep_takes_locks_and_half_packs_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let leftovers =
            ["packed-refs.lock", "refs/heads/a.lock", "objects/pack/tmp_pack_x", "objects/pack/.tmp-1-pack"];
        let kept = ["HEAD", "refs/heads/a", "objects/pack/pack-1.pack"];
        for name in leftovers.iter().chain(&kept) {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        sweep(dir.path()).unwrap();
        assert!(leftovers.iter().all(|name| !dir.path().join(name).exists()));
        assert!(kept.iter().all(|name| dir.path().join(name).exists()));
    }
}
