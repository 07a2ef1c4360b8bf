//! What happens in a run, as it is written down and shown.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::Serialize;

use super::Name;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Virtual time since the beginning of the run, in seconds.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
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
    /// A fault began.
    Fault {
        /// Its place in the script.
        number: usize,
        /// Its kind.
        kind: &'static str,
        /// Machines that it is about.
        machines: Vec<Name>,
        /// Everything about it.
        detail: String,
    },
    /// A fault was over.
    Over {
        /// Its place in the script.
        number: usize,
    },
    /// A node changed: started, serves, stopped, ...
    Node {
        /// Which.
        machine: Name,
        /// What it does now.
        now: &'static str,
    },
    /// A request ended.
    Request {
        /// The machine that was asked.
        machine: Name,
        /// About which key.
        key: String,
        /// When it began, in seconds.
        #[serde(serialize_with = "seconds")]
        began: Duration,
        /// Whether it got what it wanted.
        good: bool,
        /// The answer.
        answer: String,
    },
    /// A node says something else of a key than before.
    Claim {
        /// Which.
        machine: Name,
        /// The key.
        key: String,
        /// What it says.
        state: &'static str,
    },
    /// A fetch or copy ended.
    Update {
        /// Whose.
        machine: Name,
        /// The key.
        key: String,
        /// When it began, in seconds.
        #[serde(serialize_with = "seconds")]
        began: Duration,
        /// Why.
        why: String,
        /// Where the bytes came from.
        source: &'static str,
        /// How it went.
        outcome: String,
    },
    /// A node dropped its data of a key.
    Dropped {
        /// Which.
        machine: Name,
        /// The key.
        key: String,
    },
    /// A property did not hold.
    Violation {
        /// Which, and what was seen.
        detail: String,
    },
    /// Something else that the run did or saw.
    Note {
        /// What.
        note: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s ", self.at.as_secs_f64())?;
        match &self.what {
            What::Datagram { from, to, length, hash } => write!(f, "{from} -> {to}, {length} bytes, {hash:016x}"),
            What::Fault { number, kind, detail, .. } => write!(f, "fault {number} {kind} {detail}"),
            What::Over { number } => write!(f, "fault {number} is over"),
            What::Node { machine, now } => write!(f, "{machine} {now}"),
            What::Request { machine, key, answer, .. } => write!(f, "{machine} asked for {key}: {answer}"),
            What::Claim { machine, key, state } => write!(f, "{machine} claims {key} {state}"),
            What::Update { machine, key, why, source, outcome, .. } => {
                write!(f, "{machine} updates {key} ({why}) from {source}: {outcome}")
            }
            What::Dropped { machine, key } => write!(f, "{machine} drops {key}"),
            What::Violation { detail } => write!(f, "VIOLATION {detail}"),
            What::Note { note } => f.write_str(note),
        }
    }
}

fn seconds<S: serde::Serializer>(at: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(at.as_secs_f64())
}

/// The first place at which two runs differ.
#[must_use]
pub fn first_difference(first: &[Event], second: &[Event]) -> Option<(usize, Option<Event>, Option<Event>)> {
    let length = first.len().max(second.len());
    let at = (0..length).find(|&at| first.get(at) != second.get(at))?;
    Some((at, first.get(at).cloned(), second.get(at).cloned()))
}
