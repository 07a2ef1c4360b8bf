//! What happened in a run, in order: every datagram and every decision, as one hash and, if kept, as a list.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::model::{Clock, Event, What};

/// What of a run is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// The hash.
    #[default]
    Hash,
    /// Besides, what happened, without datagrams.
    Story,
    /// Everything.
    All,
}

/// The record of one run. A handle; clones write to the same record.
#[derive(Debug, Clone)]
pub struct Trace {
    state: Arc<Mutex<State>>,
    clock: Clock,
    keep: Keep,
}

#[derive(Debug)]
struct State {
    hasher: DefaultHasher,
    events: Vec<Event>,
}

impl Trace {
    /// An empty record.
    #[must_use]
    pub fn new(clock: Clock, keep: Keep) -> Self {
        let state = State { hasher: DefaultHasher::new(), events: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)), clock, keep }
    }

    /// Writes down that a datagram was sent.
    pub fn datagram(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        let (at, hash) = (self.clock.now(), hasher.finish());
        let mut state = self.state();
        state.hasher.write_u64(at.as_nanos() as u64);
        (from, to, bytes.len(), hash).hash(&mut state.hasher);
        if self.keep == Keep::All {
            state.events.push(Event { at, what: What::Datagram { from, to, length: bytes.len(), hash } });
        }
    }

    /// Writes down something that the run did or saw.
    pub fn tell(&self, what: What) {
        let event = Event { at: self.clock.now(), what };
        let line = event.to_string();
        tracing::info!(target: "datad_sim", "{line}");
        let mut state = self.state();
        state.hasher.write(line.as_bytes());
        if self.keep >= Keep::Story {
            state.events.push(event);
        }
    }

    /// Writes down a remark.
    pub fn note(&self, note: impl Into<String>) {
        self.tell(What::Note { note: note.into() });
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.state().hasher.finish()
    }

    /// Hands over the events that were kept.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.state().events)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}
