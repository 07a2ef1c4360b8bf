//! What a program that this node starts may take: memory, processor time and open files. What it starts itself inherits
//! that.
//!
//! A supervisor sets them on itself before it starts the program. Without one they are set right after the start, from
//! outside: setting them in the child before it runs needs unsafe code. A program has to be loaded before it can take
//! anything, so it cannot outrun them by much.
//!
//! Memory means what it writes to (`RLIMIT_DATA`): packs are mapped and read, whatever their size. How much is written to
//! the disk is watched while it is fetched ([`super::watch`]), because that is shared with others.

use std::fs;

use rustix::{
    io::Result,
    process::{Pid, Resource, Rlimit, getrlimit, prlimit},
};

const MEMORY_BYTES_MIN: u64 = 1 << 30;
const MEMORY_BYTES_MAX: u64 = 8 << 30;
/// As long as an update that gets on may take, on each processor: resolving the deltas of a large pack keeps all of them busy.
const PROCESSOR_SECONDS_MAX: u64 = 24 * 3_600;
/// git opens some packs and their indices.
const FILES_MAX: u64 = 1_024;

/// The limits of one program: a quarter of this machine's memory, between 1 and 8 GiB; a day of all processors; 1,024
/// files; no core dump.
pub(crate) fn limits_of_children() -> [(Resource, u64); 4] {
    [
        (Resource::Data, memory_of_children()),
        (Resource::Cpu, PROCESSOR_SECONDS_MAX * processors()),
        (Resource::Nofile, FILES_MAX),
        (Resource::Core, 0),
    ]
}

fn processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

/// How much memory one program may take.
pub(crate) fn memory_of_children() -> u64 {
    memory_bytes().map_or(MEMORY_BYTES_MIN, |all| (all / 4).clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_MAX))
}

/// Sets them for a process that was just started. One that has ended already needs none.
pub(crate) fn limit(child: Pid) {
    lower_all(Some(child));
}

/// Limits this process, a [supervisor](super::GitConfig::supervisor), and what it starts: memory, processor time and open
/// files. Call it before anything is started. No limit is ever raised.
pub fn limit_supervisor() {
    lower_all(None);
}

fn lower_all(process: Option<Pid>) {
    for (resource, wanted) in limits_of_children() {
        if let Err(error) = lower(process, resource, wanted) {
            tracing::debug!(?resource, %error, "a program cannot be limited");
        }
    }
}

/// Never raises a limit: a child begins with those of this process.
fn lower(process: Option<Pid>, resource: Resource, wanted: u64) -> Result<()> {
    let known = getrlimit(resource);
    let lowest = |limit: Option<u64>| Some(limit.map_or(wanted, |limit| limit.min(wanted)));
    let lower = Rlimit { current: lowest(known.current), maximum: lowest(known.maximum) };
    prlimit(process, resource, lower).map(drop)
}

fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, process::Command};

    use super::*;
    use crate::providers::git::process::Group;

    #[tokio::test]
    async fn a_program_and_what_it_starts_is_limited() {
        let mut command = Command::new("bash");
        command.args(["-c", "read line; bash -c 'ulimit -H -d; ulimit -H -t; ulimit -H -n; ulimit -H -c'"]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut group = Group::spawn(&mut command).unwrap();
        group.child.stdin.take().unwrap().write_all(b"go\n").await.unwrap();
        let mut said = String::new();
        let mut stdout = group.child.stdout.take().unwrap();
        tokio::io::AsyncReadExt::read_to_string(&mut stdout, &mut said).await.unwrap();
        let [(_, memory), (_, seconds), ..] = limits_of_children();
        let lines: Vec<u64> = said.lines().filter_map(|line| line.parse().ok()).collect();
        let [data_kib, cpu, files, core] = lines[..] else { panic!("{said}") };
        assert_eq!((data_kib, cpu, core), (memory / 1024, seconds, 0));
        assert!(seconds >= crate::core::updater::FETCH_MAX.as_secs(), "an update that gets on may take that long");
        assert!(files <= FILES_MAX);
    }
}
