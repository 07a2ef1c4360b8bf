//! Slots for connections, and which connection gives way when all are taken: the one on which nothing has been asked for
//! the longest time. A few hundred idle clients must not keep others from the node, nor the operator. Connections with a
//! request under way keep their slots.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// How long nothing has to be asked on a connection before it gives way: a request that is on its way should arrive. With
/// a dozen slots, 180 idle clients hold up a new one for seven seconds.
const QUIET_MIN: Duration = Duration::from_millis(500);
/// How often it is looked for a connection that may give way.
const GIVE_WAY_PAUSE: Duration = Duration::from_millis(20);

/// A slot for a new connection, if need be that of one on which nothing is asked.
pub(super) async fn slot(slots: &Arc<Semaphore>, quiet: &Quiet) -> OwnedSemaphorePermit {
    loop {
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            return slot;
        }
        quiet.one_gives_way();
        if let Ok(slot) = tokio::time::timeout(GIVE_WAY_PAUSE, slots.clone().acquire_owned()).await {
            return slot.expect("never closed");
        }
    }
}

/// The connections on which nothing is asked, by when that began.
#[derive(Debug, Clone, Default)]
pub(super) struct Quiet(Arc<Mutex<QuietConnections>>);

#[derive(Debug, Default)]
struct QuietConnections {
    entries: u64,
    waiting: BTreeMap<u64, (Instant, CancellationToken)>,
}

impl Quiet {
    /// The connection that has been quiet for the longest time is to end, if that is long enough.
    fn one_gives_way(&self) {
        let mut connections = self.lock();
        if let Some(first) = connections.waiting.first_entry()
            && first.get().0.elapsed() >= QUIET_MIN
        {
            first.remove().1.cancel();
        }
    }

    fn enter(&self, connection: &CancellationToken) -> u64 {
        let mut connections = self.lock();
        connections.entries += 1;
        let place = connections.entries;
        connections.waiting.insert(place, (Instant::now(), connection.clone()));
        place
    }

    fn leave(&self, place: u64) {
        self.lock().waiting.remove(&place);
    }

    fn lock(&self) -> MutexGuard<'_, QuietConnections> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }
}

/// What is asked on one connection; it is among the quiet ones while that is nothing.
pub(super) struct Presence {
    quiet: Quiet,
    /// Cancelled when the connection is to end.
    pub(super) gives_way: CancellationToken,
    /// Cancelled when the client takes in nothing of all that it has asked for.
    pub(super) stalled: CancellationToken,
    state: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    requests: usize,
    /// Of these, those whose client takes nothing in.
    stalled: usize,
    place: Option<u64>,
}

impl Presence {
    pub(super) fn new(quiet: Quiet) -> Arc<Self> {
        let (gives_way, stalled, state) = (CancellationToken::new(), CancellationToken::new(), Mutex::default());
        let presence = Arc::new(Self { quiet, gives_way, stalled, state });
        presence.count(|requests| requests);
        presence
    }

    /// A request is under way, until what is returned is dropped.
    pub(super) fn ask(self: &Arc<Self>) -> UnderWay {
        self.count(|requests| requests + 1);
        UnderWay { presence: self.clone(), stalled: AtomicBool::new(false) }
    }

    fn count(&self, change: impl FnOnce(usize) -> usize) {
        let mut asked = self.lock();
        asked.requests = change(asked.requests);
        if let Some(place) = asked.place.take() {
            self.quiet.leave(place);
        }
        asked.place = (asked.requests == 0).then(|| self.quiet.enter(&self.gives_way));
    }
}

impl Presence {
    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(place) = self.state.get_mut().ok().and_then(|asked| asked.place.take()) {
            self.quiet.leave(place);
        }
    }
}

/// A request, from its head to the end of the body of its answer.
pub(super) struct UnderWay {
    presence: Arc<Presence>,
    stalled: AtomicBool,
}

impl UnderWay {
    /// The client takes in nothing of the answer. If that is so of all answers on the connection, it ends.
    pub(super) fn stalled(&self) {
        if !self.stalled.swap(true, Ordering::Relaxed) {
            let mut asked = self.presence.lock();
            asked.stalled += 1;
            if asked.stalled == asked.requests {
                self.presence.stalled.cancel();
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.presence.lock().stalled -= usize::from(self.stalled.load(Ordering::Relaxed));
        self.presence.count(|requests| requests - 1);
    }
}
