//! The calls that a node makes to another node, and their answers.
//!
//! Each call is a struct that implements [`NodeRequest`], which names the type of its answer. [`Call`] and [`Reply`] are the
//! bytes of all of them: a caller never sees either, and the node that answers takes a [`Call`] apart once. What a node of an
//! older version understands is decided here as well: see [`Call::for_revision`] and [`Reply::for_revision`].
//!
//! To add a call: a struct, a variant of [`Call`] and of [`Reply`] (the last ones, for the bytes), and a line of `requests!`.

use serde::{Deserialize, Serialize};

use super::{
    Ensured,
    refusal::Rejection,
    reports::KeyReport,
    revision::{REVISION_ELSEWHERE, REVISION_RELAY},
};
use crate::{
    core::{
        catalog::{HlcTimestamp, Page, Record},
        membership::GoneMembers,
        registry::{Delta, Position},
    },
    key::{Key, NodeName},
};

/// A short question to one node.
pub(crate) trait NodeRequest: Into<Call> {
    /// What the node answers if it does what it was asked.
    type Answer;

    /// The bytes of an answer.
    fn reply(answer: Self::Answer) -> Reply;

    /// The answer in `reply`; `reply` itself if it answers another call.
    fn read(reply: Reply) -> Result<Self::Answer, Reply>;

    /// The bytes of what a node answers to this call: what was asked for, or why not.
    fn respond(outcome: Result<Self::Answer, Rejection>) -> Reply {
        outcome.map_or_else(Reply::Refused, Self::reply)
    }
}

/// Have the key, fetching it if need be, and say when you do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ensure {
    pub(crate) key: Key,
    /// How long the caller waits, in milliseconds.
    pub(crate) patience_ms: u32,
    /// How often the call may still be passed on.
    pub(crate) hops: u8,
    /// Fingerprint of the ring the caller planned on.
    pub(crate) ring: u64,
}

/// As [`Ensure`], but ask the origin also if you remember that it did not give the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Create {
    pub(crate) key: Key,
    pub(crate) patience_ms: u32,
    pub(crate) hops: u8,
    pub(crate) ring: u64,
}

/// Bring a key you hold up to date; `from` empty means from the origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refresh {
    pub(crate) key: Key,
    pub(crate) from: Vec<NodeName>,
    pub(crate) patience_ms: u32,
}

/// What do you know of `node`'s ledger beyond `position`? The answer is `None` if nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pull {
    pub(crate) node: NodeName,
    pub(crate) position: Position,
}

/// Are you a ready owner of these keys, and will you stay so for a while? The answer has one word for each key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vouch {
    pub(crate) keys: Vec<Key>,
    pub(crate) ring: u64,
}

/// Write these intents down, and say when they are durable. The answer is the time of something later that the node knows of
/// the same key, if it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Intend {
    pub(crate) records: Vec<Record>,
}

/// What do you know of the intents about keys after `after`?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PullCatalog {
    pub(crate) after: Option<Key>,
}

/// Hand over what only you hold, and leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drain {
    pub(crate) force: bool,
    pub(crate) patience_ms: u32,
}

/// The answer to [`Drain`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drained {
    /// Whether the node left.
    pub(crate) left: bool,
    /// How many keys no other live node has.
    pub(crate) remaining: u64,
    /// Some of these.
    pub(crate) keys: Vec<Key>,
}

/// What have you of the key, and what are you about to do with it?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Explain {
    pub(crate) key: Key,
}

/// Which members do you remember that are gone, and which were removed?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PullGone;

/// Keep a copy of the key, which only the caller has, while the caller is away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeepCopy {
    pub(crate) key: Key,
}

/// How far is your update of the key? The answer is the bytes that it has brought so far, if one runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) key: Key,
}

/// A call as it travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Call {
    Ensure(Ensure),
    Refresh(Refresh),
    Pull(Pull),
    Vouch(Vouch),
    Intend(Intend),
    PullCatalog(PullCatalog),
    Drain(Drain),
    Explain(Explain),
    PullGone(PullGone),
    Copy(KeepCopy),
    Create(Create),
    Progress(Progress),
}

impl Call {
    /// The same, as a peer of this revision understands it; `None` if it does not.
    pub(crate) fn for_revision(self, revision: u16) -> Option<Self> {
        let since = match &self {
            Self::Create(_) if revision < REVISION_RELAY => {
                let Self::Create(Create { key, patience_ms, hops, ring }) = self else { return None };
                return Some(Self::Ensure(Ensure { key, patience_ms, hops, ring }));
            }
            Self::Explain(_) => REVISION_ELSEWHERE,
            Self::PullGone(_) | Self::Copy(_) | Self::Progress(_) => REVISION_RELAY,
            _ => 0,
        };
        (revision >= since).then_some(self)
    }
}

/// The answer to a [`Call`] as it travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Ensured(Ensured),
    Delta(Option<Box<Delta>>),
    Vouched(Vec<bool>),
    Refused(Rejection),
    /// Written down.
    Intended,
    Catalog(Box<Page>),
    Drained(Drained),
    Explained(Box<KeyReport>),
    /// Written down, but something later is known of the same key: of this time.
    Superseded(HlcTimestamp),
    Gone(GoneMembers),
    Progress(Option<u64>),
}

impl Reply {
    /// The same, as a peer of this revision understands it.
    pub(crate) fn for_revision(self, revision: u16) -> Self {
        match self {
            Self::Ensured(ensured) => Self::Ensured(for_revision(ensured, revision)),
            Self::Refused(refusal) => Self::Refused(refusal.for_revision(revision)),
            Self::Superseded(_) if revision < REVISION_ELSEWHERE => Self::Intended,
            other => other,
        }
    }
}

/// What travels for each request, and for its answer.
macro_rules! requests {
    ($(Call::$call:ident($request:ty) => Reply::$reply:ident($answer:ty),)*) => {
        $(
            impl From<$request> for Call {
                fn from(request: $request) -> Self {
                    Self::$call(request)
                }
            }

            impl NodeRequest for $request {
                type Answer = $answer;

                fn reply(answer: $answer) -> Reply {
                    Reply::$reply(answer)
                }

                fn read(reply: Reply) -> Result<$answer, Reply> {
                    match reply {
                        Reply::$reply(answer) => Ok(answer),
                        other => Err(other),
                    }
                }
            }
        )*
    };
}

requests! {
    Call::Ensure(Ensure) => Reply::Ensured(Ensured),
    Call::Create(Create) => Reply::Ensured(Ensured),
    Call::Refresh(Refresh) => Reply::Ensured(Ensured),
    Call::Copy(KeepCopy) => Reply::Ensured(Ensured),
    Call::Progress(Progress) => Reply::Progress(Option<u64>),
    Call::Explain(Explain) => Reply::Explained(Box<KeyReport>),
    Call::Vouch(Vouch) => Reply::Vouched(Vec<bool>),
    Call::Pull(Pull) => Reply::Delta(Option<Box<Delta>>),
    Call::PullCatalog(PullCatalog) => Reply::Catalog(Box<Page>),
    Call::PullGone(PullGone) => Reply::Gone(GoneMembers),
    Call::Drain(Drain) => Reply::Drained(Drained),
}

impl From<Intend> for Call {
    fn from(request: Intend) -> Self {
        Self::Intend(request)
    }
}

impl NodeRequest for Intend {
    type Answer = Option<HlcTimestamp>;

    fn reply(later: Option<HlcTimestamp>) -> Reply {
        later.map_or(Reply::Intended, Reply::Superseded)
    }

    fn read(reply: Reply) -> Result<Option<HlcTimestamp>, Reply> {
        match reply {
            Reply::Intended => Ok(None),
            Reply::Superseded(time) => Ok(Some(time)),
            other => Err(other),
        }
    }
}

/// How it ended, as a peer of this revision understands it.
fn for_revision(ensured: Ensured, revision: u16) -> Ensured {
    match ensured {
        Ensured::Later { node, reason, retry_after_ms } if revision < REVISION_RELAY => {
            Ensured::Failed { node, reason, retry_after_ms }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::new("a/b").unwrap()
    }

    #[test]
    fn an_older_peer_is_asked_to_ensure_what_it_cannot_create() {
        let create = Create { key: key(), patience_ms: 1, hops: 2, ring: 3 };
        let ensure = Ensure { key: key(), patience_ms: 1, hops: 2, ring: 3 };
        assert_eq!(Call::from(create.clone()).for_revision(REVISION_RELAY), Some(create.clone().into()));
        assert_eq!(Call::from(create).for_revision(REVISION_RELAY - 1), Some(ensure.into()));
    }

    #[test]
    fn an_older_peer_is_not_asked_what_it_does_not_know() {
        let explain = Call::from(Explain { key: key() });
        assert_eq!(explain.clone().for_revision(REVISION_ELSEWHERE - 1), None);
        assert_eq!(explain.clone().for_revision(REVISION_ELSEWHERE), Some(explain));
        for call in [Call::from(PullGone), KeepCopy { key: key() }.into(), Progress { key: key() }.into()] {
            assert_eq!(call.clone().for_revision(REVISION_RELAY - 1), None);
            assert_eq!(call.clone().for_revision(REVISION_RELAY), Some(call));
        }
    }

    #[test]
    fn an_older_peer_is_answered_in_words_that_it_knows() {
        let time = HlcTimestamp { ms: 1, count: 2 };
        let told = |reply: Reply| reply.for_revision(REVISION_ELSEWHERE - 1);
        assert_eq!(told(Intend::respond(Ok(Some(time)))), Reply::Intended);
        let elsewhere = Rejection::Elsewhere { ring: 7 };
        assert_eq!(told(Ensure::respond(Err(elsewhere))), Reply::Refused(Rejection::NotHeld));
        let busy = Rejection::Busy { retry_after_ms: 300 };
        assert_eq!(told(Ensure::respond(Err(busy))), Reply::Refused(Rejection::Overloaded));
        assert_eq!(Intend::respond(Ok(Some(time))).for_revision(REVISION_ELSEWHERE), Reply::Superseded(time));
    }

    #[test]
    fn the_answer_to_another_call_is_handed_back() {
        let reply = Vouch::respond(Ok(vec![true]));
        assert_eq!(Progress::read(reply.clone()), Err(reply.clone()));
        assert_eq!(Vouch::read(reply), Ok(vec![true]));
    }
}
