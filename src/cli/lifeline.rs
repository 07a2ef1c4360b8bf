//! `datad-gossip child LIFELINE -- PROGRAM ARGUMENTS`: runs a program of a node, and ends it with everything it started
//! when the node is gone, also when that was killed. Hidden: only nodes call it, in a process group of its own.
//!
//! ```text
//!   node --holds the writing end of a pipe-->  LIFELINE, the number of the reading end
//!     \_ datad-gossip child ...                waits for the program, and for the end of the pipe
//!         \_ git fetch                         all in one process group
//!             \_ git-remote-https, index-pack
//! ```
//!
//! A signal at the parent's death would not do: it is meant for the thread that started the process, and reaches no
//! grandchildren. What the program may use of the machine belongs here too: limits that this process sets on itself
//! before it starts the program pass on to it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode, ExitStatus},
};

use datad_gossip::providers::git::limit_supervisor;
use rustix::process::{Signal, getpgrp, getpid, kill_process, kill_process_group};

use super::output;

/// The subcommand's name.
pub(crate) const NAME: &str = "child";

/// What a shell says if it cannot start a program.
const CANNOT_START: u8 = 127;

/// Runs the program that `arguments` name, and ends as it ends.
pub(crate) fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (lifeline, dashes, program) = (arguments.next(), arguments.next(), arguments.next());
    let (Some(lifeline), Some(program)) = (lifeline, program.filter(|_| dashes.is_some_and(|dashes| dashes == "--")))
    else {
        output::complain("error: this command is for nodes only");
        return ExitCode::from(2);
    };
    // Otherwise it is listed under the name of the link that it was started through.
    let _ = fs::write("/proc/self/comm", "datad-gossip");
    match run(&lifeline, Command::new(&program).args(arguments)) {
        Ok(status) => end_as(status),
        Err(error) => {
            output::complain(&format!("cannot run {}: {error}", program.display()));
            ExitCode::from(CANNOT_START)
        }
    }
}

fn run(lifeline: &OsString, program: &mut Command) -> io::Result<ExitStatus> {
    // Opened anew, because only a number was passed on. That the node is gone by now is seen at the first read.
    let mut lifeline = File::open(std::path::Path::new("/dev/fd").join(lifeline))?;
    limit_supervisor();
    let mut program = program.spawn()?;
    std::thread::Builder::new().spawn(move || {
        // Nothing is ever written to it.
        while lifeline.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
        let _ = kill_process_group(getpgrp(), Signal::KILL);
    })?;
    program.wait()
}

/// A program that was ended by a signal is told from one that failed.
fn end_as(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal().and_then(Signal::from_named_raw) {
        let _ = kill_process(getpid(), signal);
    }
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(CANNOT_START))
}
