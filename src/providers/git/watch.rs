//! How a git that fetches gets on, by what it adds to the disk and by the time that it computes; and when it takes too
//! much.
//!
//! git tells of its progress in words only, mixed with its complaints. What it receives grows in `objects`; while it
//! resolves the deltas of a large pack nothing grows for minutes, but it uses a processor. An origin that hangs does
//! neither.
//!
//! No git says how much it will send. So a fetch ends when the disk has hardly any room left, before others that write to
//! it find none; and when git takes much memory before the first object arrives: the list of references has no end.

use std::{fs, path::Path, pin::pin, time::Duration};

use super::limits::memory_of_children;
use crate::{
    provider::{Capacity, UpdateContext, UpdateError},
    providers::key_store::{KeyStore, blocking, tree_bytes},
};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Of the disk, this part is left to others that write to it.
const ROOM_LEFT: u64 = 64;
/// Memory that a list of references may take, if a program may take so much: about a kilobyte for each, so two million.
const REFERENCES_BYTES_MAX: u64 = 2 << 30;

/// Runs `work`, in which git clones or fetches into `repository` on `shelf`, and notes its progress.
///
/// # Errors
/// Those of `work`; or it takes too much, and is dropped.
pub(crate) async fn watched<T>(
    work: impl Future<Output = Result<T, UpdateError>>,
    repository: &Path,
    shelf: &KeyStore,
    context: &UpdateContext,
) -> Result<T, UpdateError> {
    let mut work = pin!(work);
    let references_bytes_max = memory_of_children().min(REFERENCES_BYTES_MAX);
    let begun = seen_of(repository).await;
    let mut seen = begun;
    loop {
        tokio::select! {
            outcome = &mut work => return outcome,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let sees = seen_of(repository).await;
        let (grown, computed) = (sees.bytes.saturating_sub(seen.bytes), sees.ticks > seen.ticks);
        context.note_progress(grown.max(computed.into()));
        if sees.bytes <= begun.bytes && sees.memory > references_bytes_max {
            return Err(UpdateError::Unavailable("the list of its references has no end".to_owned()));
        }
        if grown > 0 && !has_room(shelf.capacity().await?) {
            return Err(UpdateError::NoRoom("No space left on the disk for all of it".to_owned()));
        }
        seen = sees;
    }
}

pub(super) fn has_room(Capacity { used, total }: Capacity) -> bool {
    total - used.min(total) > total / ROOM_LEFT
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Of objects.
    bytes: u64,
    /// Of a processor.
    ticks: u64,
    /// Bytes.
    memory: u64,
}

async fn seen_of(repository: &Path) -> Seen {
    let repository = repository.to_owned();
    let look = move || {
        let Process { ticks, memory, .. } = group(&repository).unwrap_or_default();
        Ok(Seen { bytes: tree_bytes(&repository.join("objects")).unwrap_or(0), ticks, memory })
    };
    blocking(look).await.unwrap_or_default()
}

/// The process that clones or fetches into `repository`, with all of its group. Blocks.
fn group(repository: &Path) -> Option<Process> {
    let wanted = repository.to_str()?;
    let numbers = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let processes: Vec<Process> = numbers.filter_map(Process::read).collect();
    // Programs that serve the repository name it too.
    let fetches = |process: &&Process| {
        let line = fs::read(format!("/proc/{}/cmdline", process.number)).unwrap_or_default();
        let mut arguments = line.split(|byte| *byte == 0);
        arguments.clone().any(|argument| argument == wanted.as_bytes())
            && arguments.any(|argument| [&b"clone"[..], b"fetch", b"ls-remote", b"repack"].contains(&argument))
    };
    let leader = processes.iter().filter(|process| process.number == process.group).find(fetches)?;
    let members = processes.iter().filter(|process| process.group == leader.group);
    Some(members.fold(Process { number: leader.number, group: leader.group, ..Process::default() }, |sum, process| {
        Process { ticks: sum.ticks + process.ticks, memory: sum.memory + process.memory, ..sum }
    }))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Process {
    number: i32,
    group: i32,
    ticks: u64,
    /// Bytes of its own, without files that are mapped.
    memory: u64,
}

impl Process {
    fn read(number: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        let statm = fs::read_to_string(format!("/proc/{number}/statm")).ok()?;
        Self::parse(number, &stat, &statm)
    }

    /// What `/proc/NUMBER/stat` and `statm` say; the name in parentheses may hold anything.
    fn parse(number: i32, stat: &str, statm: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        // Its own time, and that of its children that have ended.
        let ticks = ticks(11)? + ticks(12)? + ticks(13)? + ticks(14)?;
        let mut pages = statm.split_whitespace().skip(1).map_while(|field| field.parse::<u64>().ok());
        let (resident, shared) = (pages.next()?, pages.next()?);
        let memory = resident.saturating_sub(shared) * rustix::param::page_size() as u64;
        Some(Self { number, group: fields.get(2)?.parse().ok()?, ticks, memory })
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, process::Stdio};

    use tokio::process::Command;

    use super::*;
    use crate::{durable::testing::SmallDisk, providers::testing::alone};

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let stat = "7 (a) b) S 1 5 7 0 -1 4194560 10 20 0 0 3 4 10 20 20 0 1 0";
        let memory = 3 * rustix::param::page_size() as u64;
        let expected = Process { number: 7, group: 5, ticks: 37, memory };
        assert_eq!(Process::parse(7, stat, "90 5 2 1 0 9 0"), Some(expected));
        assert_eq!(Process::parse(7, "7 (a) S 1", "90 5 2 1 0 9 0"), None);
    }

    /// What is noted within some seconds while `program` runs as if it were git.
    async fn progress(program: &str) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("objects")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", program, "sh", "fetch"]).arg(dir.path()).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _child = command.spawn().unwrap();
        let context = alone();
        let shelf = KeyStore::open(&dir.path().join("shelf")).unwrap();
        let watch = watched(pending::<Result<(), UpdateError>>(), dir.path(), &shelf, &context);
        let moved = async {
            while context.progress_bytes() == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            never = watch => panic!("{never:?}"),
            _ = tokio::time::timeout(INTERVAL * 5, moved) => context.progress_bytes(),
        }
    }

    #[tokio::test]
    async fn what_grows_or_computes_gets_on_and_what_waits_does_not() {
        let grows = "while sleep 0.2; do echo 0123456789 >> \"$2/objects/pack\"; done";
        let (growing, computing, waiting) =
            tokio::join!(progress(grows), progress("while :; do :; done"), progress("sleep 8; true"));
        assert!(growing >= 11, "{growing}");
        assert!(computing > 0);
        assert_eq!(waiting, 0);
    }

    #[tokio::test]
    async fn a_fetch_ends_before_the_disk_is_full() {
        let Some(disk) = SmallDisk::mount(8 << 10) else { return };
        let shelf = KeyStore::open(&disk.path().join("shelf")).unwrap();
        let repository = disk.path().join("repository");
        fs::create_dir_all(repository.join("objects")).unwrap();
        let file = repository.join("objects/pack");
        let grows = async {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let length = fs::metadata(&file).map_or(0, |meta| meta.len());
                fs::write(&file, vec![0; usize::try_from(length).unwrap() + (32 << 10)])?;
            }
        };
        let ended: Result<(), UpdateError> = watched(grows, &repository, &shelf, &alone()).await;
        assert!(matches!(ended, Err(UpdateError::NoRoom(_))), "{ended:?}");
        assert!(!has_room(Capacity { used: 63, total: 64 }) && has_room(Capacity { used: 62, total: 64 }));
    }
}
