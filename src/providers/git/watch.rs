//! How a git that fetches gets on: by what it adds to the disk, and by the time that it computes.
//!
//! git tells of its progress in words only, mixed with its complaints. What it receives grows in `objects`; while it
//! resolves the deltas of a large pack nothing grows for minutes, but it uses a processor. An origin that hangs does
//! neither.

use std::{fs, path::Path, pin::pin, time::Duration};

use crate::{
    provider::{UpdateContext, UpdateError},
    providers::shelf::{blocking, tree_bytes},
};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Runs `work`, in which git clones or fetches into `repository`, and notes its progress.
///
/// # Errors
/// Those of `work`.
pub(crate) async fn watched<T>(
    work: impl Future<Output = Result<T, UpdateError>>,
    repository: &Path,
    context: &UpdateContext,
) -> Result<T, UpdateError> {
    let mut work = pin!(work);
    let mut seen = seen_of(repository).await;
    loop {
        tokio::select! {
            outcome = &mut work => return outcome,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let sees = seen_of(repository).await;
        let (grown, computed) = (sees.bytes.saturating_sub(seen.bytes), sees.ticks > seen.ticks);
        context.note_progress(grown.max(computed.into()));
        seen = sees;
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    bytes: u64,
    /// Of a processor.
    ticks: u64,
}

async fn seen_of(repository: &Path) -> Seen {
    let repository = repository.to_owned();
    let look =
        move || Ok(Seen { bytes: tree_bytes(&repository.join("objects")).unwrap_or(0), ticks: ticks(&repository) });
    blocking(look).await.unwrap_or_default()
}

/// What the process that clones or fetches into `repository` and all of its group have computed so far. Blocks.
fn ticks(repository: &Path) -> u64 {
    let Some(wanted) = repository.to_str() else { return 0 };
    let processes: Vec<Process> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Process::parse(number, &stat)
        })
        .collect();
    // Programs that serve the repository name it too.
    let fetches = |process: &&Process| {
        let line = fs::read(format!("/proc/{}/cmdline", process.number)).unwrap_or_default();
        let mut arguments = line.split(|byte| *byte == 0);
        arguments.clone().any(|argument| argument == wanted.as_bytes())
            && arguments.any(|argument| argument == b"clone" || argument == b"fetch")
    };
    let leaders = processes.iter().filter(|process| process.number == process.group);
    let Some(group) = leaders.filter(fetches).map(|process| process.group).next() else { return 0 };
    processes.iter().filter(|process| process.group == group).map(|process| process.ticks).sum()
}

#[derive(Debug, PartialEq, Eq)]
struct Process {
    number: i32,
    group: i32,
    ticks: u64,
}

impl Process {
    /// What `/proc/NUMBER/stat` says; the name in parentheses may hold anything.
    fn parse(number: i32, stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
        // Its own time, and that of its children that have ended.
        let ticks = ticks(11)? + ticks(12)? + ticks(13)? + ticks(14)?;
        Some(Self { number, group: fields.get(2)?.parse().ok()?, ticks })
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, process::Stdio};

    use tokio::process::Command;

    use super::*;
    use crate::providers::shelf::testing::alone;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let stat = "7 (a) b) S 1 5 7 0 -1 4194560 10 20 0 0 3 4 10 20 20 0 1 0";
        assert_eq!(Process::parse(7, stat), Some(Process { number: 7, group: 5, ticks: 37 }));
        assert_eq!(Process::parse(7, "7 (a) S 1"), None);
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
        let watch = watched(pending::<Result<(), UpdateError>>(), dir.path(), &context);
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
}
