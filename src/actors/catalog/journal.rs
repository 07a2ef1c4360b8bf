//! The catalog on disk: a log of the records that were taken in. The catalog appends a step before
//! it answers, and rewrites the log when most of it is history. `frames` has its form.
//!
//! A crash in the middle of an append leaves a torn frame at the end; all acknowledged steps stand
//! before it. No frame may follow a torn or failed append, so the next step rewrites the log.
//!
//! A log that was damaged otherwise (a flipped bit, a lost block) is kept aside as
//! `catalog.damaged-1` and so on, and its intact records are taken over. The *floor* is not taken
//! over: it says "a record that is older and absent here is obsolete", which a log with holes must
//! not say, or other members would drop the records that were lost here. The floor comes back with
//! the records that this node pulls from them.

use std::{io, sync::Arc};

use bytes::Bytes;
use tracing::{error, warn};

pub(super) use crate::core::catalog::Entry;
use crate::{
    core::catalog::{Catalog, frames},
    world::Disk,
};

const FILE: &str = "catalog";
/// Entries beyond twice the live ones, above which the log is rewritten.
const SLACK_ENTRIES: usize = 1_024;
/// Damaged logs that are kept aside; later ones take the place of the last.
const ASIDE_MAX: u32 = 8;

/// The log, open for appending. Without a disk, it keeps no records.
#[derive(Debug)]
pub(super) struct Journal {
    disk: Option<Arc<dyn Disk>>,
    entries: usize,
    /// Whether a torn frame may stand at its end, or a step is missing: the next step rewrites the
    /// log.
    broken: bool,
    /// Number of entries from which the log is rewritten because most of them are history.
    rewrite_from: usize,
    /// Whether it has frames of many records, which damage would cost at once.
    is_coarse: bool,
    damage: Option<Damage>,
}

/// The damage that was found in a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes of the catalog's log were damaged{}; what they held is taken from other members", self.where_kept())]
pub(super) struct Damage {
    bytes: usize,
    /// The record on disk that has the log as it was found, if it could be kept.
    kept: Option<String>,
}

impl Damage {
    fn where_kept(&self) -> String {
        self.kept.as_ref().map(|name| format!(" (kept as {name})")).unwrap_or_default()
    }
}

impl Journal {
    /// Reads the log.
    ///
    /// # Errors
    /// The medium failed: the acknowledged steps are unknown, so the node must not go on without
    /// them.
    pub(super) async fn open(disk: Option<Arc<dyn Disk>>) -> io::Result<(Self, Catalog)> {
        let bytes = match &disk {
            Some(disk) => disk.read(FILE).await?.unwrap_or_default(),
            None => Bytes::new(),
        };
        let found = frames::read(&bytes);
        if found.torn > 0 {
            warn!(bytes = found.torn, "the end of the catalog's log is torn; it was not acknowledged");
        }
        let damage = match &disk {
            Some(disk) if found.damaged > 0 => {
                let damage = Damage { bytes: found.damaged, kept: keep_aside(disk, bytes).await };
                error!(whole = found.entries.len(), "{damage}");
                Some(damage)
            }
            _ => None,
        };
        let mut catalog = Catalog::default();
        for entry in &found.entries {
            match entry {
                Entry::Record(record) => drop(catalog.apply(record)),
                Entry::Pending { key, stamp } => catalog.set_pending(key, stamp),
                Entry::Executed { key, stamp } => drop(catalog.set_executed(key, stamp)),
                Entry::Floor(_) if damage.is_some() => {}
                Entry::Floor(floor) => drop(catalog.collect(*floor)),
            }
        }
        let (entries, is_coarse) = (found.entries.len(), found.is_coarse);
        let broken = found.torn + found.damaged > 0;
        Ok((Self { disk, entries, broken, rewrite_from: 0, is_coarse, damage }, catalog))
    }

    /// The damage that was found in the log, until it is healed.
    pub(super) fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// The other members have sent all their records.
    pub(super) fn heal(&mut self) {
        self.damage = None;
    }

    /// Makes a step durable. `catalog` is the state after this step.
    ///
    /// # Errors
    /// The write failed: the step may or may not survive a crash.
    pub(super) async fn append(&mut self, entries: &[Entry], catalog: &Catalog) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        if entries.is_empty() && !self.broken {
            return Ok(());
        }
        if self.broken {
            return self.rewrite(catalog).await;
        }
        let live = catalog.len() + catalog.pending().count();
        if std::mem::take(&mut self.is_coarse) || self.entries > (2 * live + SLACK_ENTRIES).max(self.rewrite_from) {
            match self.write_anew(disk, catalog).await {
                Ok(written) => {
                    self.entries = written;
                    return Ok(());
                }
                // The disk may have room for a step but none for a second log beside the first.
                Err(error) => warn!(%error, "the catalog's log cannot be shortened now"),
            }
            self.rewrite_from = self.entries + SLACK_ENTRIES;
        }
        self.broken = true;
        disk.append(FILE, frames::write(entries)?.into()).await?;
        self.broken = false;
        self.entries += entries.len();
        Ok(())
    }

    /// Whether a step may be missing on disk, until the log is written anew.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Rewrites the log: the present state of `catalog`, without its history.
    ///
    /// # Errors
    /// The write failed: the old log still stands, and the next step tries again.
    pub(super) async fn rewrite(&mut self, catalog: &Catalog) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        self.broken = true;
        self.entries = self.write_anew(disk, catalog).await?;
        (self.broken, self.rewrite_from) = (false, 0);
        Ok(())
    }

    /// Returns how many entries it has then.
    async fn write_anew(&self, disk: &Arc<dyn Disk>, catalog: &Catalog) -> io::Result<usize> {
        let records = catalog.records().map(Entry::Record);
        let pending = catalog.pending().map(|(key, stamp)| Entry::Pending { key: key.clone(), stamp: stamp.clone() });
        // The floor comes last: all records below it were taken in before it was raised.
        let entries: Vec<Entry> = records.chain(pending).chain([Entry::Floor(catalog.floor())]).collect();
        disk.replace(FILE, frames::write(&entries)?.into()).await?;
        Ok(entries.len())
    }
}

/// Keeps a damaged log for the operator to look at. Returns the name it has now, unless the disk
/// cannot take it.
async fn keep_aside(disk: &Arc<dyn Disk>, bytes: Bytes) -> Option<String> {
    let name = |number: u32| format!("{FILE}.damaged-{number}");
    let mut number = 1;
    while number < ASIDE_MAX && disk.read(&name(number)).await.ok()?.is_some() {
        number += 1;
    }
    match disk.replace(&name(number), bytes).await {
        Ok(()) => Some(name(number)),
        Err(error) => {
            warn!(%error, "the damaged log of the catalog cannot be kept");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::{
        core::catalog::{
            HlcTimestamp, Record,
            frames::tests::{coarse, record},
            state::Merged,
        },
        durable::{
            Durable,
            testing::{Fault, Faulty, SmallDisk},
        },
        key::Key,
        world::Folder,
    };

    /// One record, which can be told to tear the next append.
    #[derive(Debug, Default)]
    struct Tearing {
        bytes: Mutex<Vec<u8>>,
        keep: Mutex<Option<usize>>,
    }

    #[async_trait]
    impl Disk for Tearing {
        async fn read(&self, _name: &str) -> io::Result<Option<Bytes>> {
            Ok(Some(self.bytes.lock().unwrap().clone().into()))
        }

        async fn replace(&self, _name: &str, bytes: Bytes) -> io::Result<()> {
            *self.bytes.lock().unwrap() = bytes.to_vec();
            Ok(())
        }

        async fn append(&self, _name: &str, bytes: Bytes) -> io::Result<()> {
            let keep = self.keep.lock().unwrap().take();
            self.bytes.lock().unwrap().extend(&bytes[..keep.unwrap_or(bytes.len())]);
            keep.map_or(Ok(()), |_| Err(io::Error::other("no space left")))
        }
    }

    async fn add(journal: &mut Journal, catalog: &mut Catalog, number: u64) -> io::Result<()> {
        let record = record(number);
        let mut next = catalog.clone();
        next.apply(&record);
        journal.append(&[Entry::Record(record)], &next).await?;
        *catalog = next;
        Ok(())
    }

    #[tokio::test]
    async fn every_torn_end_leaves_what_was_before_it_and_can_be_written_on() {
        let whole = frames::write(&[Entry::Record(record(3))]).unwrap().len();
        for keep in 0..whole {
            let disk = Arc::new(Tearing::default());
            let (mut journal, mut catalog) = Journal::open(Some(disk.clone())).await.unwrap();
            add(&mut journal, &mut catalog, 1).await.unwrap();
            *disk.keep.lock().unwrap() = Some(keep);
            assert!(add(&mut journal, &mut catalog, 3).await.is_err());
            // Either the process goes on, or it is started again.
            let (mut again, mut found) = Journal::open(Some(disk.clone())).await.unwrap();
            assert_eq!(found, catalog);
            if keep % 2 == 0 {
                (journal, catalog) = (again, found);
            } else {
                (again, found) = (journal, catalog);
                (journal, catalog) = (again, found);
            }
            add(&mut journal, &mut catalog, 4).await.unwrap();
            assert_eq!(Journal::open(Some(disk)).await.unwrap().1, catalog);
        }
    }

    #[tokio::test]
    async fn a_log_does_not_grow_with_history() {
        let disk = Arc::new(Tearing::default());
        let (mut journal, mut catalog) = Journal::open(Some(disk.clone())).await.unwrap();
        for number in 0..3 * SLACK_ENTRIES as u64 {
            let record = Record { key: Key::new("k").unwrap(), ..record(number) };
            catalog.apply(&record);
            journal.append(&[Entry::Record(record)], &catalog).await.unwrap();
        }
        assert!(journal.entries <= SLACK_ENTRIES + 3);
        assert_eq!(Journal::open(Some(disk)).await.unwrap().1, catalog);
    }

    /// Adds `numbers` one after the other; how many were acknowledged.
    async fn add_all(journal: &mut Journal, catalog: &mut Catalog, numbers: std::ops::Range<u64>) -> usize {
        let mut acknowledged = 0;
        for number in numbers {
            acknowledged += usize::from(add(journal, catalog, number).await.is_ok());
        }
        acknowledged
    }

    #[tokio::test]
    async fn a_pin_that_was_acknowledged_on_a_full_disk_is_there_after_a_restart() {
        let Some(small) = SmallDisk::mount(256) else { return };
        let disk = Arc::new(Folder::new(small.path().join("node"), Durable::default()));
        let (mut journal, mut catalog) = Journal::open(Some(disk.clone())).await.unwrap();
        assert_eq!(add_all(&mut journal, &mut catalog, 0..60).await, 60);
        small.fill_up_to(8);
        let acknowledged = add_all(&mut journal, &mut catalog, 60..1_000).await;
        assert!(acknowledged < 940, "the disk is full");
        let found = Journal::open(Some(disk.clone())).await.unwrap().1;
        assert!(catalog.records().all(|record| found.knows(&record)), "all that was acknowledged");

        // Neither shortening the log nor going on replaces intact records by cut ones.
        journal.rewrite(&catalog).await.ok();
        let found = Journal::open(Some(disk.clone())).await.unwrap().1;
        assert!(catalog.records().all(|record| found.knows(&record)));
        small.make_room();
        assert_eq!(add_all(&mut journal, &mut catalog, 2_000..2_100).await, 100);
        assert_eq!(Journal::open(Some(disk)).await.unwrap().1, catalog);
    }

    #[tokio::test]
    async fn whatever_fails_below_no_acknowledged_pin_is_lost() {
        for fault in [Fault::Write, Fault::WriteHalf, Fault::WriteCut, Fault::Sync, Fault::Rename] {
            let folder = tempfile::tempdir().unwrap();
            let medium = Arc::new(Faulty::new(fault));
            let disk = Arc::new(Folder::new(folder.path().to_owned(), Durable::on(medium.clone())));
            let (mut journal, mut catalog) = Journal::open(Some(disk.clone())).await.unwrap();
            for round in 0..3 {
                let numbers = 1_000 * round;
                assert_eq!(add_all(&mut journal, &mut catalog, numbers..numbers + 20).await, 20, "{fault:?}");
                medium.begin();
                let acknowledged = add_all(&mut journal, &mut catalog, numbers + 20..numbers + 40).await;
                assert!(acknowledged == 0 || fault == Fault::Rename, "{fault:?}");
                journal.rewrite(&catalog).await.unwrap_err();
                let found = Journal::open(Some(disk.clone())).await.unwrap().1;
                assert_eq!(found, catalog, "{fault:?}");
                medium.end();
            }
        }
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_shortened_is_added_to_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let medium = Arc::new(Faulty::new(Fault::Rename));
        let disk = Arc::new(Folder::new(folder.path().to_owned(), Durable::on(medium.clone())));
        let (mut journal, mut catalog) = Journal::open(Some(disk.clone())).await.unwrap();
        add(&mut journal, &mut catalog, 1).await.unwrap();
        journal.entries = 2 * SLACK_ENTRIES;
        medium.begin();
        add(&mut journal, &mut catalog, 2).await.unwrap();
        assert_eq!(Journal::open(Some(disk.clone())).await.unwrap().1, catalog);
        assert!(journal.entries > journal.rewrite_from - SLACK_ENTRIES, "it waits before it tries again");
        medium.end();
        journal.rewrite_from = 0;
        add(&mut journal, &mut catalog, 3).await.unwrap();
        assert_eq!(journal.entries, catalog.len() + 1);
    }

    #[tokio::test]
    async fn whichever_byte_is_flipped_at_most_one_record_is_lost_and_the_log_is_kept_aside_and_whole_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let disk: Arc<dyn Disk> = Arc::new(Folder::new(folder.path().to_owned(), Durable::default()));
        let (mut journal, mut catalog) = Journal::open(Some(disk.clone())).await.unwrap();
        assert_eq!(add_all(&mut journal, &mut catalog, 1..51).await, 50);
        let appended = std::fs::read(file(FILE)).unwrap();
        journal.rewrite(&catalog).await.unwrap();
        let rewritten = std::fs::read(file(FILE)).unwrap();
        for (good, at) in [&appended, &rewritten].into_iter().flat_map(|good| (0..good.len()).map(move |at| (good, at)))
        {
            let mut spoilt = good.clone();
            spoilt[at] ^= 0x20;
            let disk = Arc::new(Tearing::default());
            *disk.bytes.lock().unwrap() = spoilt;
            let (mut journal, mut found) = Journal::open(Some(disk.clone())).await.unwrap();
            assert!(found.len() >= 49, "byte {at} costs {} records", 50 - found.len());
            assert!(found.records().all(|record| catalog.knows(&record)));
            add(&mut journal, &mut found, 60).await.unwrap();
            let (journal, again) = Journal::open(Some(disk)).await.unwrap();
            assert_eq!((again, journal.damage()), (found, None), "byte {at}");
        }

        let mut spoilt = rewritten.clone();
        spoilt[rewritten.len() / 2] ^= 1;
        for round in 1..=ASIDE_MAX + 2 {
            std::fs::write(file(FILE), &spoilt).unwrap();
            let (journal, _) = Journal::open(Some(disk.clone())).await.unwrap();
            let name = format!("{FILE}.damaged-{}", round.min(ASIDE_MAX));
            assert_eq!(journal.damage().unwrap().kept.as_ref(), Some(&name));
            assert_eq!(std::fs::read(file(&name)).unwrap(), spoilt);
        }
    }

    #[tokio::test]
    async fn a_log_with_holes_does_not_say_that_what_it_lacks_is_over() {
        let disk = Arc::new(Tearing::default());
        let (mut journal, mut catalog) = Journal::open(Some(disk.clone())).await.unwrap();
        add_all(&mut journal, &mut catalog, 1..4).await;
        catalog.collect(HlcTimestamp { ms: 1_000, count: 0 });
        journal.rewrite(&catalog).await.unwrap();
        disk.bytes.lock().unwrap()[15] ^= 1;
        let (mut journal, mut found) = Journal::open(Some(disk.clone())).await.unwrap();
        assert_eq!((found.len(), found.floor()), (2, HlcTimestamp::default()));
        journal.rewrite(&found).await.unwrap();
        found = Journal::open(Some(disk)).await.unwrap().1;
        let mut other = catalog.clone();
        assert_eq!(other.merge(None, &found.page(None)), Merged::default(), "others keep it");
        let page = catalog.page(None);
        assert_eq!(found.merge(None, &page).news, [record(1)], "and give it back");
        found.raise_floor(page.floor);
        assert_eq!(found, catalog);
    }

    #[tokio::test]
    async fn a_log_of_an_earlier_version_is_read_and_written_in_small_frames_with_the_next_step() {
        let disk = Arc::new(Tearing::default());
        let entries: Vec<Entry> = (1..51).map(|number| Entry::Record(record(number))).collect();
        *disk.bytes.lock().unwrap() = coarse(&entries);
        let (mut journal, mut catalog) = Journal::open(Some(disk.clone())).await.unwrap();
        assert_eq!(catalog.len(), 50);
        add(&mut journal, &mut catalog, 51).await.unwrap();
        let bytes = disk.bytes.lock().unwrap().clone();
        assert!(!frames::read(&bytes).is_coarse);
        assert_eq!(Journal::open(Some(disk)).await.unwrap().1, catalog);
    }
}
