//! The first process of a container: starts the program again as its child, passes signals on, and takes in all that ends.
//!
//! ```text
//!   PID 1: this, waits for anything that ends
//!     \_ datad-gossip serve ...      waits for its own children only
//!         \_ git, killed with what it started: that becomes a child of PID 1
//! ```
//!
//! A process whose parent is gone becomes a child of the first process, and stays in the process table until that one waits
//! for it. A node cannot: what it waits for in general it takes from the runtime, which waits for the programs that the
//! node has started.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::output;

/// What is passed on. SIGCHLD is for this process.
const PASSED_ON: [Signal; 6] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];
/// Signals that wait to be passed on.
const SIGNALS_MAX: usize = 16;
/// What a shell adds to the number of the signal that ended a program.
const BY_SIGNAL: u8 = 128;

/// Whether this process is the first one.
pub(crate) fn is_needed() -> bool {
    getpid() == Pid::INIT
}

/// Runs the program with the same arguments in a process of its own, and ends as it ends.
pub(crate) fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run())) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            output::complain(&format!("error: cannot run as the first process of a container: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> io::Result<u8> {
    let mut ended = signal(SignalKind::child())?;
    let (told, mut signals) = mpsc::channel(SIGNALS_MAX);
    for passed_on in PASSED_ON {
        let (mut incoming, told) = (signal(SignalKind::from_raw(passed_on.as_raw()))?, told.clone());
        tokio::spawn(async move {
            while incoming.recv().await.is_some() {
                let _ = told.send(passed_on).await;
            }
        });
    }
    let mut arguments = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // In a group of its own, because a terminal sends its signals to all of a group, and they are passed on anyway.
    let child = command.args(arguments).process_group(0).spawn()?;
    let program = Pid::from_child(&child);
    loop {
        tokio::select! {
            _ = ended.recv() => {
                if let Some(status) = take_in(program)? {
                    return Ok(status);
                }
            }
            Some(signal) = signals.recv() => drop(kill_process(program, signal)),
        }
    }
}

/// Waits for all that has ended; the status of `program` if that is among them.
fn take_in(program: Pid) -> io::Result<Option<u8>> {
    while let Some((id, status)) = wait(WaitOptions::NOHANG)? {
        if id == program {
            let code = status.exit_status().map(|code| u8::try_from(code).unwrap_or(u8::MAX));
            let signal =
                status.terminating_signal().map(|signal| u8::try_from(signal).map_or(u8::MAX, |s| BY_SIGNAL + s));
            return Ok(code.or(signal).or(Some(1)));
        }
    }
    Ok(None)
}
