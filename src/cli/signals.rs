//! What asks a process to stop: SIGTERM, SIGINT, and, for a child, the end of its parent.

use std::io::{self, Read};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// Waits for SIGTERM and SIGINT, from the moment it is made.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next of them. Cancel safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
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
