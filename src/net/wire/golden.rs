//! The bytes of every message, pinned: what an older node cannot read fails here.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use super::{calls::*, reports::*, *};
use crate::{
    core::{
        catalog::{HlcTimestamp, Intent, Page, Stamp},
        membership::{GoneMember, GoneMembers, RemovedMember},
        registry::{Change, ClaimState, Incarnation, Version},
    },
    key::{Key, NodeName},
    util::codec,
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
    fn call(request: impl NodeRequest) -> StreamHeader {
        StreamHeader::Call(request.into())
    }
    pinned(&StreamHeader::Hello(hello.clone()), "0001026e3105007f00000107");
    pinned(&call(Ensure { key: key.clone(), patience_ms: 300, hops: 2, ring: 7 }), "010003612f62fb2c010207");
    let from = vec![name.clone()];
    pinned(&call(Refresh { key: key.clone(), from, patience_ms: 1 }), "010103612f6201026e3101");
    pinned(&call(Pull { node: name.clone(), position }), "0102026e31010203");
    pinned(&call(Vouch { keys: vec![key.clone()], ring: 1 }), "01030103612f6201");
    let stamp = Stamp { time: HlcTimestamp { ms: 300, count: 2 }, node: name.clone() };
    let records: Vec<Record> = [Intent::Pin { replicas: 3 }, Intent::Unpin, Intent::Forget]
        .map(|intent| Record { key: key.clone(), stamp: stamp.clone(), intent })
        .into();
    let intents = "0303612f62fb2c0102026e31000303612f62fb2c0102026e310103612f62fb2c0102026e3102";
    pinned(&call(Intend { records: records.clone() }), &format!("0104{intents}"));
    pinned(&call(PullCatalog { after: Some(key.clone()) }), "01050103612f62");
    pinned(&call(Drain { force: true, patience_ms: 300 }), "010601fb2c01");
    pinned(&Reply::Drained(Drained { left: true, remaining: 2, keys: vec![key.clone()] }), "0601020103612f62");
    pinned(&call(Explain { key: key.clone() }), "010703612f62");
    let data = Data { version: Some("v".into()), bytes: Some(3), updated_ms: None };
    let report = KeyReport {
        node: name.clone(),
        state: Some(Holding::Ready),
        data: Some(data),
        refresh_in_ms: Some(300),
        intention: Intended { action: Action::Copy, waits_for: Some("w".into()) },
        ring: 7,
    };
    pinned(&Reply::Explained(Box::new(report)), "07026e3101010101017601030001fb2c010101017707");
    pinned(&Reply::Refused(Rejection::Elsewhere { ring: 7 }), "030507");
    pinned(&Reply::Refused(Rejection::Unreachable("m".into())), "0306016d");
    let busy = Rejection::Busy { retry_after_ms: 300 };
    assert_eq!(busy.clone().for_revision(REVISION_RELAY - 1), Rejection::Overloaded);
    pinned(&Reply::Refused(busy), "0307fb2c01");
    pinned(&call(PullGone), "0108");
    pinned(&call(KeepCopy { key: key.clone() }), "010903612f62");
    pinned(&call(Create { key: key.clone(), patience_ms: 300, hops: 2, ring: 7 }), "010a03612f62fb2c010207");
    let gone = GoneMember { name: name.clone(), incarnation: 5, address: advertise, weight: 100, left: true, age_s: 9 };
    let removed = RemovedMember { name: name.clone(), incarnation: 5, age_s: 300 };
    let (gone, removed) = (vec![gone], vec![removed]);
    pinned(&Reply::Gone(GoneMembers { gone, removed }), "0901026e3105007f0000010764010901026e3105fb2c01");
    pinned(&Purpose::Relay { to: name.clone() }, "02026e31");
    pinned(&Purpose::Part, "03");
    pinned(&call(Progress { key: key.clone() }), "010b03612f62");
    pinned(&Reply::Progress(Some(300)), "0a01fb2c01");
    pinned(&Reply::Superseded(stamp.time), "08fb2c0102");
    pinned(&Reply::Intended, "04");
    let page = Page { floor: stamp.time, records, next: Some(key.clone()) };
    pinned(&Reply::Catalog(Box::new(page)), &format!("05fb2c0102{intents}0103612f62"));
    pinned(&StreamHeader::Feed(position), "02010203");
    let head = RequestHead {
        key: key.clone(),
        purpose: Purpose::Export,
        method: "GET".into(),
        target: "/a/b?c".into(),
        headers: vec![("x".into(), vec![1])],
    };
    pinned(&StreamHeader::Exchange(head), "0303612f620103474554062f612f623f630101780101");
    pinned(&StreamHeader::Watch, "04");
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
    assert_eq!(Reply::Ensured(later.clone()).for_revision(REVISION_RELAY - 1), Reply::Ensured(failed));
    pinned(&Reply::Ensured(later), "0005026e31017202");
    pinned(&Reply::Vouched(vec![true, false]), "02020100");
    pinned(&Reply::Refused(Rejection::Malformed("m".into())), "0304016d");
    let golden = "01010100fb2c0102fb2d01010109040303612f62000403612f6201000503612f620101fb2c0103612f620102017808";
    pinned(&Reply::Delta(Some(Box::new(delta))), golden);
    pinned(&ResponseHead::Answer { status: 200, headers: vec![] }, "00c800");
    pinned(&ResponseHead::Refused(Rejection::NotHeld), "0100");
}
