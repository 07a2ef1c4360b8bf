//! What happened in a run, in order: every datagram and every decision of the run, as one hash and, if kept, as a list.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Virtual time since the beginning of the run.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A datagram was handed to the network, whatever became of it.
    Datagram {
        /// Sender.
        from: SocketAddr,
        /// Addressee.
        to: SocketAddr,
        /// Bytes.
        length: usize,
        /// Hash of the bytes.
        hash: u64,
    },
    /// Something that the run did or saw.
    Note(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s ", self.at.as_secs_f64())?;
        match &self.what {
            What::Datagram { from, to, length, hash } => write!(f, "{from} -> {to}, {length} bytes, {hash:016x}"),
            What::Note(note) => f.write_str(note),
        }
    }
}

/// The record of one run. A handle; clones write to the same record.
#[derive(Debug, Clone)]
pub struct Trace {
    state: Arc<Mutex<State>>,
    began: Instant,
}

#[derive(Debug)]
struct State {
    hasher: DefaultHasher,
    events: Option<Vec<Event>>,
    datagrams: u64,
}

impl Trace {
    /// An empty record that begins now. With `keep`, the events are kept besides their hash.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        let state = State { hasher: DefaultHasher::new(), events: keep.then(Vec::new), datagrams: 0 };
        Self { state: Arc::new(Mutex::new(state)), began: Instant::now() }
    }

    /// Virtual time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Writes down that a datagram was sent.
    pub fn datagram(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        let (at, hash) = (self.now(), hasher.finish());
        let mut state = self.state();
        state.datagrams += 1;
        for number in [at.as_nanos() as u64, number(from), number(to), bytes.len() as u64, hash] {
            state.hasher.write_u64(number);
        }
        if let Some(events) = &mut state.events {
            events.push(Event { at, what: What::Datagram { from, to, length: bytes.len(), hash } });
        }
    }

    /// Writes down something that the run did or saw.
    pub fn note(&self, note: impl Into<String>) {
        let (at, note) = (self.now(), note.into());
        tracing::info!(target: "datad_sim", "{:.3}s {note}", at.as_secs_f64());
        let mut state = self.state();
        state.hasher.write_u64(at.as_nanos() as u64);
        state.hasher.write(note.as_bytes());
        if let Some(events) = &mut state.events {
            events.push(Event { at, what: What::Note(note) });
        }
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.state().hasher.finish()
    }

    /// Datagrams so far.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        self.state().datagrams
    }

    /// Hands over the events that were kept.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        self.state().events.take().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}

fn number(address: SocketAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    hasher.finish()
}

/// The first place at which two runs differ.
#[must_use]
pub fn first_difference(first: &[Event], second: &[Event]) -> Option<(usize, Option<Event>, Option<Event>)> {
    let length = first.len().max(second.len());
    let at = (0..length).find(|&at| first.get(at) != second.get(at))?;
    Some((at, first.get(at).cloned(), second.get(at).cloned()))
}
