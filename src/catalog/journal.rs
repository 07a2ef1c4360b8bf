//! The catalog on disk: a log of what was taken in, one frame a step, rewritten when most of it is history.
//!
//! ```text
//!   frame = length (u32), checksum (u64), entries      durable before the step is answered
//! ```
//!
//! A crash in the middle of an append leaves a torn frame at the end, which its checksum tells; what was acknowledged is
//! before it. After a torn or failed append nothing may follow the debris, so the next step rewrites the log.

use std::{hash::Hasher, io, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;
use tracing::warn;

use super::{
    clock::Time,
    intent::{Record, Stamp},
    state::Catalog,
};
use crate::{key::Key, net::codec, world::Disk};

const FILE: &str = "catalog";
const HEAD_BYTES: usize = 12;
/// Entries beyond twice the live ones, above which the log is rewritten.
const SLACK_ENTRIES: usize = 1_024;
/// Entries in a frame of a rewritten log.
const FRAME_ENTRIES: usize = 1_024;

/// What a step did. Variants are only ever appended: logs of earlier versions are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// It was taken in.
    Record(Record),
    /// The own copy of before then is to go.
    Pending { key: Key, stamp: Stamp },
    /// It is gone.
    Executed { key: Key, stamp: Stamp },
    /// The floor was raised.
    Floor(Time),
}

/// The log, open for appending. Without a disk, nothing is kept.
#[derive(Debug)]
pub(super) struct Journal {
    disk: Option<Arc<dyn Disk>>,
    entries: usize,
    /// Whether there may be debris at its end, or something is missing: the next step writes it anew.
    broken: bool,
    /// From how many entries on it is to be written anew because most of them are history.
    rewrite_from: usize,
}

impl Journal {
    /// Reads the log.
    ///
    /// # Errors
    /// The medium failed: what was acknowledged cannot be known, so the node must not go on without it.
    pub(super) async fn open(disk: Option<Arc<dyn Disk>>) -> io::Result<(Self, Catalog)> {
        let bytes = match &disk {
            Some(disk) => disk.read(FILE).await?.unwrap_or_default(),
            None => Bytes::new(),
        };
        let (entries, intact) = replay(&bytes);
        if intact < bytes.len() {
            warn!(bytes = bytes.len() - intact, "the end of the catalog's log is torn; it was not acknowledged");
        }
        let mut catalog = Catalog::default();
        for entry in &entries {
            match entry {
                Entry::Record(record) => drop(catalog.apply(record)),
                Entry::Pending { key, stamp } => catalog.set_pending(key, stamp),
                Entry::Executed { key, stamp } => drop(catalog.set_executed(key, stamp)),
                Entry::Floor(floor) => drop(catalog.collect(*floor)),
            }
        }
        Ok((Self { disk, entries: entries.len(), broken: intact < bytes.len(), rewrite_from: 0 }, catalog))
    }

    /// Makes a step durable. `catalog` is the state after it.
    ///
    /// # Errors
    /// The step may or may not be found after a crash.
    pub(super) async fn append(&mut self, entries: &[Entry], catalog: &Catalog) -> io::Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        if entries.is_empty() && !self.broken {
            return Ok(());
        }
        if self.broken {
            return self.rewrite(catalog).await;
        }
        let live = catalog.len() + catalog.pending().count();
        if self.entries > (2 * live + SLACK_ENTRIES).max(self.rewrite_from) {
            match self.write_anew(disk, catalog).await {
                Ok(written) => {
                    self.entries = written;
                    return Ok(());
                }
                // There may be room for a step and none for a second log beside the first.
                Err(error) => warn!(%error, "the catalog's log cannot be shortened now"),
            }
            self.rewrite_from = self.entries + SLACK_ENTRIES;
        }
        self.broken = true;
        disk.append(FILE, frame(entries)?.into()).await?;
        self.broken = false;
        self.entries += entries.len();
        Ok(())
    }

    /// Whether a step may be missing on disk, until the log is written anew.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Writes the log anew: what `catalog` is, without how it came to be.
    ///
    /// # Errors
    /// The old log still stands, and the next step tries this again.
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
        // The floor comes last: what is below it was taken in before it was raised.
        let entries: Vec<Entry> = records.chain(pending).chain([Entry::Floor(catalog.floor())]).collect();
        let mut bytes = Vec::new();
        for part in entries.chunks(FRAME_ENTRIES) {
            bytes.extend(frame(part)?);
        }
        disk.replace(FILE, bytes.into()).await?;
        Ok(entries.len())
    }
}

fn frame(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let body = codec::encode(&entries.to_vec()).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(checksum(&body).to_le_bytes());
    bytes.extend(body);
    Ok(bytes)
}

/// The entries of all whole frames from the beginning, and how many bytes these are.
fn replay(bytes: &[u8]) -> (Vec<Entry>, usize) {
    let (mut entries, mut at) = (Vec::new(), 0);
    while let Some((found, length)) = first_frame(&bytes[at..]) {
        entries.extend(found);
        at += length;
    }
    (entries, at)
}

fn first_frame(bytes: &[u8]) -> Option<(Vec<Entry>, usize)> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let length = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
    let body = rest.get(..length)?;
    (checksum(body).to_le_bytes() == head[4..]).then_some(())?;
    Some((codec::decode(body).ok()?, HEAD_BYTES + length))
}

fn checksum(body: &[u8]) -> u64 {
    let mut state = SipHasher13::new_with_keys(0x6a6f_7572_6e61_6c2d, 0x6672_616d_652d_3031);
    state.write(body);
    state.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::{super::intent::Intent, *};
    use crate::{
        durable::{
            Durable,
            testing::{Fault, Faulty, SmallDisk},
        },
        key::NodeName,
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

    fn record(number: u64) -> Record {
        let stamp = Stamp { time: Time { ms: number, count: 0 }, node: NodeName::new("n1").unwrap() };
        Record { key: Key::new(format!("k{number}")).unwrap(), stamp, intent: Intent::Pin { replicas: 2 } }
    }

    async fn add(journal: &mut Journal, catalog: &mut Catalog, number: u64) -> io::Result<()> {
        let record = record(number);
        let mut next = catalog.clone();
        next.apply(&record);
        journal.append(&[Entry::Record(record)], &next).await?;
        *catalog = next;
        Ok(())
    }

    #[test]
    fn the_form_on_disk_is_pinned() {
        let key = Key::new("a").unwrap();
        let stamp = record(1).stamp;
        let entries = [
            Entry::Record(record(1)),
            Entry::Pending { key: key.clone(), stamp: stamp.clone() },
            Entry::Executed { key, stamp },
            Entry::Floor(Time { ms: 300, count: 2 }),
        ];
        let golden = "0400026b310100026e3100020101610100026e310201610100026e3103fb2c0102";
        let bytes = frame(&entries).unwrap();
        assert_eq!(hex::encode(&bytes[HEAD_BYTES..]), golden, "logs of earlier versions cannot be read any more");
        assert_eq!(replay(&bytes), (entries.to_vec(), bytes.len()));
    }

    #[tokio::test]
    async fn every_torn_end_leaves_what_was_before_it_and_can_be_written_on() {
        let whole = frame(&[Entry::Record(record(3))]).unwrap().len();
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

        // Neither shortening it nor going on replaces what is good by what is cut.
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

    proptest::proptest! {
        #[test]
        fn garbage_is_no_frame_and_never_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            proptest::prop_assert!(replay(&bytes).1 <= bytes.len());
        }
    }
}
