//! What asks a process to stop: SIGTERM, SIGINT, and, for a child, the end of its parent. Signals that other programs take for
//! a request to read their settings or to show something would end a process without a word; here they are logged.

use std::io::{self, Read};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};
use tracing::info;

/// Waits for SIGTERM and SIGINT, from the moment it is made. From then on SIGHUP, SIGUSR1 and SIGUSR2 end nothing.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next that asks to stop. Cancel safe.
    pub(crate) async fn next(&mut self) {
        loop {
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => "SIGHUP",
                _ = self.user1.recv() => "SIGUSR1",
                _ = self.user2.recv() => "SIGUSR2",
            };
            info!(signal = ignored, "nothing to do: settings are read at the start only; SIGTERM stops");
        }
    }
}

/// Waits until standard input ends, if `asked` to; else for ever. A thread of its own, because a read of standard input
/// cannot be cancelled and must not hold up the runtime's end.
pub(crate) async fn stdin_ended(asked: bool) {
    if !asked {
        return std::future::pending().await;
    }
    let (ended, waiting) = oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        let mut input = io::stdin().lock();
        while input.read(&mut buffer).is_ok_and(|read| read > 0) {}
        let _ = ended.send(());
    });
    let _ = waiting.await;
}
