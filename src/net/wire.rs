//! What travels between nodes, apart from the domain types it is made of.
//!
//! Compatibility: the ALPN name carries the major version; within it, variants and messages are only ever appended, and
//! the golden bytes in the tests pin what exists. A node that gets a variant it does not know answers
//! [`Refusal::Malformed`], so version N talks to N-1 by not using what N-1 lacks (told by [`Hello::revision`]).
//!
//! ```text
//! bi   Opening::Hello    -> HelloReply                       first stream of a connection, once
//! bi   Opening::Call     -> Reply
//! bi   Opening::Feed     -> Delta, Delta, ...                until either side goes
//! bi   Opening::Exchange body... -> ResponseHead body...
//! bi   Opening::Watch    -> MemberNews, MemberNews, ...      until either side goes
//! uni  gossip message, raw
//! ```

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Likewise an intent and a part of a catalog.
pub(crate) use crate::catalog::{Page, Record, Time};
pub(crate) use crate::explain::Insight;
use crate::key::{Key, NodeName};
/// A ledger's own positions and deltas are its wire form: they are plain data, made to travel.
pub(crate) use crate::registry::{Delta, Position};

/// The application protocol of a connection (RFC 7301).
pub(crate) const ALPN: &[u8] = b"datad/1";

/// The revision of the messages below that this build speaks.
pub(crate) const REVISION: u16 = 5;

/// The first revision that knows [`HelloRefusal::Outdated`].
pub(crate) const REVISION_OUTDATED: u16 = 3;

/// The first revision that knows [`Refusal::Elsewhere`], [`Call::Explain`] and [`Reply::Superseded`].
pub(crate) const REVISION_ELSEWHERE: u16 = 4;

/// The first revision that knows [`Purpose::Relay`], [`Refusal::Unreachable`], [`Call::PullGone`], [`Call::Copy`],
/// [`Call::Create`], [`Ensured::Later`], [`Refusal::Busy`], [`Opening::Watch`], [`Purpose::Part`] and [`Call::Progress`].
pub(crate) const REVISION_RELAY: u16 = 5;

/// Largest gossip message, in bytes, before and after decompression is chitchat's own limit of a UDP datagram.
pub(crate) const GOSSIP_BYTES_MAX: usize = 65_507;

/// The first frame of every bidirectional stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Opening {
    Hello(Hello),
    Call(Call),
    Feed(Position),
    Exchange(RequestHead),
    /// Tell the caller, an observer, who the members are, now and whenever that changes.
    Watch,
}

/// A part of what a member tells an observer of the members: first all that it sees, then what has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberNews {
    /// New, or different from what was told before.
    pub(crate) seen: Vec<MemberSeen>,
    /// Names and incarnations that are not seen any more.
    pub(crate) unseen: Vec<(NodeName, u64)>,
    /// Whether further parts follow that belong to the same moment.
    pub(crate) more: bool,
}

/// What a member sees of one start of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberSeen {
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    pub(crate) address: SocketAddr,
    pub(crate) alive: bool,
    /// What the node says of itself, as gossip carries it: names and values.
    pub(crate) facts: Vec<(String, String)>,
}

/// Who dials. The name has to be one that the dialler's certificate carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) revision: u16,
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    pub(crate) advertise: SocketAddr,
}

/// Who was dialled, or why the dialler is not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HelloReply {
    Welcome(Hello),
    Refused(HelloRefusal),
}

/// Why a peer is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum HelloRefusal {
    /// The certificate does not carry the name.
    #[error("the certificate is not for the name {claimed}")]
    WrongName { claimed: NodeName },
    /// A live node has that name already.
    #[error("a live node at {at} is already called {name}")]
    NameInUse { name: NodeName, at: SocketAddr },
    /// An older start of a node that has started again since.
    #[error("a newer incarnation of {name} is known")]
    Stale { name: NodeName },
    /// Too many connections from that name.
    #[error("too many connections")]
    TooMany,
    /// As [`HelloRefusal::Stale`], with what is known, so that the dialler can begin anew after it.
    #[error("incarnation {incarnation} of {name} is known, which is newer")]
    Outdated { name: NodeName, incarnation: u64 },
}

/// A short question to one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Have the key, fetching it if need be, and say when you do.
    Ensure {
        key: Key,
        /// How long the caller waits, in milliseconds.
        patience_ms: u32,
        /// How often the call may still be passed on.
        hops: u8,
        /// Fingerprint of the ring the caller planned on.
        ring: u64,
    },
    /// Bring a key you hold up to date; `from` empty means from the origin.
    Refresh { key: Key, from: Vec<NodeName>, patience_ms: u32 },
    /// What do you know of `node`'s ledger beyond `position`?
    Pull { node: NodeName, position: Position },
    /// Are you a ready owner of these keys, and will you stay so for a while?
    Vouch { keys: Vec<Key>, ring: u64 },
    /// Write these intents down, and say when they are durable.
    Intend { records: Vec<Record> },
    /// What do you know of the intents about keys after `after`?
    PullCatalog { after: Option<Key> },
    /// Hand over what only you hold, and leave.
    Drain { force: bool, patience_ms: u32 },
    /// What have you of the key, and what are you about to do with it?
    Explain { key: Key },
    /// Which members do you remember that are gone, and which were removed?
    PullGone,
    /// Keep a copy of the key, which only the caller has, while the caller is away; answered with `Ensured`.
    Copy { key: Key },
    /// As [`Call::Ensure`], but ask the origin also if you remember that it did not give the key.
    Create { key: Key, patience_ms: u32, hops: u8, ring: u64 },
    /// How far is your update of the key?
    Progress { key: Key },
}

/// The answer to a [`Call`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Ensured(Ensured),
    Delta(Option<Box<Delta>>),
    Vouched(Vec<bool>),
    Refused(Refusal),
    Intended,
    Catalog(Box<Page>),
    /// Whether the node left, how many keys no other live node has, and some of them.
    Drained {
        left: bool,
        remaining: u64,
        keys: Vec<Key>,
    },
    Explained(Box<Insight>),
    /// Written down, but something later is known of the same key: of this time.
    Superseded(Time),
    /// Members that are gone, and those that were removed.
    Gone {
        gone: Vec<GoneMember>,
        removed: Vec<RemovedMember>,
    },
    /// The bytes that an update has brought so far, if one runs.
    Progress(Option<u64>),
}

/// What a node remembers of a member that is gone. Gossip tells only of the living and of those that died a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GoneMember {
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    pub(crate) address: SocketAddr,
    pub(crate) weight: u32,
    /// Whether it said goodbye; else it died.
    pub(crate) left: bool,
    /// For how many seconds it has been gone.
    pub(crate) age_s: u64,
}

/// A member that is gone and is not to be listed any more: up to this start of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemovedMember {
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    /// How many seconds ago it was removed.
    pub(crate) age_s: u64,
}

/// How an [`Call::Ensure`] or [`Call::Refresh`] ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ensured {
    /// These nodes have it.
    Ready(Vec<NodeName>),
    /// The origin says there is no such key.
    NotFound,
    /// The operator does not let this key be fetched.
    Forbidden(String),
    /// The fetch failed on `node`.
    Failed { node: NodeName, reason: String, retry_after_ms: u32 },
    /// Not done within the caller's patience; it goes on.
    Pending,
    /// Nothing is wrong with the key, but `node` or the origin has too much to do: ask again after that time.
    Later { node: NodeName, reason: String, retry_after_ms: u32 },
}

impl Ensured {
    /// The same, as a peer of this revision understands it.
    pub(crate) fn for_revision(self, revision: u16) -> Self {
        match self {
            Self::Later { node, reason, retry_after_ms } if revision < REVISION_RELAY => {
                Self::Failed { node, reason, retry_after_ms }
            }
            other => other,
        }
    }
}

/// Why a node does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it does not hold the key")]
    NotHeld,
    #[error("its data source failed: {0}")]
    Failed(String),
    #[error("it is overloaded")]
    Overloaded,
    #[error("it is stopping")]
    Stopping,
    #[error("it cannot read the message: {0}")]
    Malformed(String),
    /// It neither has the key nor, by the ring it knows, owns it; the caller's ring may be another.
    #[error("it neither has nor owns the key, by its ring {ring:016x}")]
    Elsewhere { ring: u64 },
    /// It was to pass a request on, and cannot reach the node.
    #[error("it cannot reach the node either: {0}")]
    Unreachable(String),
    /// As [`Refusal::Overloaded`], with when to ask again.
    #[error("it is overloaded")]
    Busy { retry_after_ms: u32 },
}

impl Refusal {
    /// The same, as a peer of this revision understands it.
    pub(crate) fn for_revision(self, revision: u16) -> Self {
        match self {
            Self::Busy { .. } if revision < REVISION_RELAY => Self::Overloaded,
            other => other,
        }
    }
}

/// What for a request is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// A client's: goes to the provider's `serve`.
    Serve,
    /// Another node's, copying the key: goes to the provider's `export`.
    Export,
    /// A client's, to be passed on to this node, which the sender cannot reach. Once only.
    Relay { to: NodeName },
    /// A client's, to be answered from what an update has brought so far: goes to the provider's `serve_part`.
    Part,
}

/// The head of an HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestHead {
    pub(crate) key: Key,
    pub(crate) purpose: Purpose,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

/// The head of an HTTP response, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ResponseHead {
    Answer { status: u16, headers: Vec<(String, Vec<u8>)> },
    Refused(Refusal),
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;

    use super::*;
    use crate::{
        HoldingState, IntendedAction, Intention,
        catalog::{Intent, Stamp, Time},
        net::codec,
        provider::Description,
        registry::{Change, ClaimState, Incarnation, Version},
    };

    /// Encodes, compares with the pinned bytes, and decodes again.
    fn pinned<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, golden: &str) {
        let bytes = codec::encode(value).unwrap();
        assert_eq!(hex::encode(&bytes), golden, "the wire form of {value:?} changed: older nodes cannot read it");
        assert_eq!(&codec::decode::<T>(&bytes).unwrap(), value);
    }

    #[test]
    fn the_wire_form_of_every_message_is_pinned() {
        let key = Key::new("a/b").unwrap();
        let name = NodeName::new("n1").unwrap();
        let advertise = "127.0.0.1:7".parse().unwrap();
        let hello = Hello { revision: 1, name: name.clone(), incarnation: 5, advertise };
        let position = Position { incarnation: Incarnation(1), version: Version(2), base: Version(3) };
        let change = |version, state| Change { version: Version(version), key: key.clone(), state };
        let delta = Delta {
            incarnation: Incarnation(1),
            from: Version(0),
            to: Version(300),
            reach: Version(2),
            head: Version(301),
            floor: Version(1),
            scanned: Some(Version(9)),
            changes: vec![
                change(3, None),
                change(4, Some(ClaimState::Fetching)),
                change(5, Some(ClaimState::Ready)),
                change(300, Some(ClaimState::failed("x", 8))),
            ],
        };
        let call = |call| Opening::Call(call);
        pinned(&Opening::Hello(hello.clone()), "0001026e3105007f00000107");
        pinned(&call(Call::Ensure { key: key.clone(), patience_ms: 300, hops: 2, ring: 7 }), "010003612f62fb2c010207");
        let from = vec![name.clone()];
        pinned(&call(Call::Refresh { key: key.clone(), from, patience_ms: 1 }), "010103612f6201026e3101");
        pinned(&call(Call::Pull { node: name.clone(), position }), "0102026e31010203");
        pinned(&call(Call::Vouch { keys: vec![key.clone()], ring: 1 }), "01030103612f6201");
        let stamp = Stamp { time: Time { ms: 300, count: 2 }, node: name.clone() };
        let records: Vec<Record> = [Intent::Pin { replicas: 3 }, Intent::Unpin, Intent::Forget]
            .map(|intent| Record { key: key.clone(), stamp: stamp.clone(), intent })
            .into();
        let intents = "0303612f62fb2c0102026e31000303612f62fb2c0102026e310103612f62fb2c0102026e3102";
        pinned(&call(Call::Intend { records: records.clone() }), &format!("0104{intents}"));
        pinned(&call(Call::PullCatalog { after: Some(key.clone()) }), "01050103612f62");
        pinned(&call(Call::Drain { force: true, patience_ms: 300 }), "010601fb2c01");
        pinned(&Reply::Drained { left: true, remaining: 2, keys: vec![key.clone()] }, "0601020103612f62");
        pinned(&call(Call::Explain { key: key.clone() }), "010703612f62");
        let data = Description { version: Some("v".into()), bytes: Some(3), updated_ms: None };
        let insight = Insight {
            node: name.clone(),
            state: Some(HoldingState::Ready),
            data: Some(data),
            refresh_in_ms: Some(300),
            intention: Intention { action: IntendedAction::Copy, waits_for: Some("w".into()) },
            ring: 7,
        };
        pinned(&Reply::Explained(Box::new(insight)), "07026e3101010101017601030001fb2c010101017707");
        pinned(&Reply::Refused(Refusal::Elsewhere { ring: 7 }), "030507");
        pinned(&Reply::Refused(Refusal::Unreachable("m".into())), "0306016d");
        let busy = Refusal::Busy { retry_after_ms: 300 };
        assert_eq!(busy.clone().for_revision(REVISION_RELAY - 1), Refusal::Overloaded);
        pinned(&Reply::Refused(busy), "0307fb2c01");
        pinned(&call(Call::PullGone), "0108");
        pinned(&call(Call::Copy { key: key.clone() }), "010903612f62");
        pinned(&call(Call::Create { key: key.clone(), patience_ms: 300, hops: 2, ring: 7 }), "010a03612f62fb2c010207");
        let gone =
            GoneMember { name: name.clone(), incarnation: 5, address: advertise, weight: 100, left: true, age_s: 9 };
        let removed = RemovedMember { name: name.clone(), incarnation: 5, age_s: 300 };
        let (gone, removed) = (vec![gone], vec![removed]);
        pinned(&Reply::Gone { gone, removed }, "0901026e3105007f0000010764010901026e3105fb2c01");
        pinned(&Purpose::Relay { to: name.clone() }, "02026e31");
        pinned(&Purpose::Part, "03");
        pinned(&call(Call::Progress { key: key.clone() }), "010b03612f62");
        pinned(&Reply::Progress(Some(300)), "0a01fb2c01");
        pinned(&Reply::Superseded(stamp.time), "08fb2c0102");
        pinned(&Reply::Intended, "04");
        let page = Page { floor: stamp.time, records, next: Some(key.clone()) };
        pinned(&Reply::Catalog(Box::new(page)), &format!("05fb2c0102{intents}0103612f62"));
        pinned(&Opening::Feed(position), "02010203");
        let head = RequestHead {
            key: key.clone(),
            purpose: Purpose::Export,
            method: "GET".into(),
            target: "/a/b?c".into(),
            headers: vec![("x".into(), vec![1])],
        };
        pinned(&Opening::Exchange(head), "0303612f620103474554062f612f623f630101780101");
        pinned(&Opening::Watch, "04");
        let facts = vec![("state".to_owned(), "serving".to_owned())];
        let seen = vec![MemberSeen { name: name.clone(), incarnation: 5, address: advertise, alive: true, facts }];
        let news = MemberNews { seen, unseen: vec![(name.clone(), 4)], more: true };
        pinned(&news, "01026e3105007f0000010701010573746174650773657276696e6701026e310401");
        pinned(&HelloReply::Welcome(hello), "0001026e3105007f00000107");
        pinned(
            &HelloReply::Refused(HelloRefusal::NameInUse { name: name.clone(), at: advertise }),
            "0101026e31007f00000107",
        );
        let outdated = HelloRefusal::Outdated { name: name.clone(), incarnation: 300 };
        pinned(&HelloReply::Refused(outdated), "0104026e31fb2c01");
        pinned(&Reply::Ensured(Ensured::Ready(vec![name.clone()])), "000001026e31");
        let failed = Ensured::Failed { node: name.clone(), reason: "r".into(), retry_after_ms: 2 };
        pinned(&Reply::Ensured(failed.clone()), "0003026e31017202");
        let later = Ensured::Later { node: name, reason: "r".into(), retry_after_ms: 2 };
        assert_eq!(later.clone().for_revision(REVISION_RELAY - 1), failed);
        pinned(&Reply::Ensured(later), "0005026e31017202");
        pinned(&Reply::Vouched(vec![true, false]), "02020100");
        pinned(&Reply::Refused(Refusal::Malformed("m".into())), "0304016d");
        let golden = "01010100fb2c0102fb2d01010109040303612f62000403612f6201000503612f620101fb2c0103612f620102017808";
        pinned(&Reply::Delta(Some(Box::new(delta))), golden);
        pinned(&ResponseHead::Answer { status: 200, headers: vec![] }, "00c800");
        pinned(&ResponseHead::Refused(Refusal::NotHeld), "0100");
    }
}
