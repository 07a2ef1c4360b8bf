//! Each document, as it has always looked.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, from_str, json, to_string};

use super::*;
use crate::{
    core::{balancer::IntendedAction, membership::MemberState},
    key::{Key, NodeName},
};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

/// Checks that the library's `value` is written as `text`, and that it is read back from that.
fn is_written<T, D>(value: T, text: &str)
where
    D: From<T> + Serialize + DeserializeOwned + PartialEq + Debug,
{
    let document = D::from(value);
    assert_eq!(to_string(&document).unwrap(), text);
    assert_eq!(from_str::<D>(text).unwrap(), document);
}

fn status() -> crate::client::Status {
    crate::client::Status {
        node: name("n1"),
        members: 3,
        observers: 1,
        keys: 9,
        under_replicated: 1,
        lacking: vec![crate::client::Shortage { key: key("a"), replicas: 2, ready: 1, seconds: 5, reason: None }],
        hot: 2,
        fetching: 4,
        repairs_waiting: 6,
        repairs_running: 7,
        repairs_paused: None,
        converged: true,
        scanning: None,
        seeds: vec![crate::core::membership::SeedStatus { address: "h:1".into(), answers: true, reason: None }],
        clocks_apart: vec![crate::core::membership::ClockDifference { node: name("n2"), ahead_seconds: -90 }],
        waiting_for: vec!["a member".into()],
        connections: 2,
        gossip_messages: 10,
        gossip_bytes: 11,
        gossip_largest: 12,
        gossip_identities: 13,
        full: false,
        disk: None,
        trouble: None,
    }
}

#[test]
fn a_status_leaves_out_what_is_not_so() {
    let text = concat!(
        r#"{"node":"n1","members":3,"observers":1,"keys":9,"under_replicated":1,"#,
        r#""lacking":[{"key":"a","replicas":2,"ready":1,"seconds":5,"reason":null}],"hot":2,"fetching":4,"#,
        r#""repairs_waiting":6,"repairs_running":7,"converged":true,"seeds":[{"address":"h:1","answers":true}],"#,
        r#""clocks_apart":[{"node":"n2","ahead_seconds":-90}],"waiting_for":["a member"],"connections":2,"#,
        r#""gossip_messages":10,"gossip_bytes":11,"gossip_largest":12,"gossip_identities":13,"full":false}"#,
    );
    is_written::<_, Status>(status(), text);
}

#[test]
fn a_status_says_what_is_wrong() {
    let mut status = status();
    status.repairs_paused = Some("half is lost".into());
    status.scanning = Some(8);
    status.seeds[0] =
        crate::core::membership::SeedStatus { address: "h:1".into(), answers: false, reason: Some("refused".into()) };
    status.disk = Some(crate::provider::Capacity { used: 1, total: 2 });
    status.trouble = Some("no etcd".into());
    let document = serde_json::to_value(Status::from(status)).unwrap();
    assert_eq!(document["repairs_paused"], "half is lost");
    assert_eq!((&document["scanning"], &document["trouble"]), (&json!(8), &json!("no etcd")));
    assert_eq!(document["seeds"], json!([{ "address": "h:1", "answers": false, "reason": "refused" }]));
    assert_eq!(document["disk"], json!({ "used": 1, "total": 2 }));
}

#[test]
fn documents_of_an_older_node_are_read() {
    let status = json!({
        "node": "n1", "members": 1, "keys": 0, "under_replicated": 0, "fetching": 0, "converged": true,
    });
    assert_eq!(serde_json::from_value::<Status>(status).unwrap().disk, None);
    let member = json!({
        "name": "n1", "address": "127.0.0.1:1", "http": null, "state": "dreaming", "accepting": true, "keys": 1, "new": {},
    });
    assert_eq!(serde_json::from_value::<Member>(member).unwrap().state, "dreaming");
}

#[test]
fn a_member_stands_beside_what_it_has() {
    let member = crate::core::membership::Member {
        name: name("n1"),
        incarnation: 7,
        address: "127.0.0.1:8401".parse().unwrap(),
        http: None,
        state: MemberState::Away,
        weight: 100,
        accepting: false,
        observer: false,
        serves_other: false,
    };
    let status = |only_there| crate::client::MemberStatus { member: member.clone(), keys: 4, only_there };
    let text = concat!(
        r#"{"name":"n1","incarnation":7,"address":"127.0.0.1:8401","http":null,"state":"leaving","weight":100,"#,
        r#""accepting":false,"observer":false,"serves_other":false,"keys":4"#,
    );
    is_written::<_, Member>(status(None), &format!("{text}}}"));
    is_written::<_, Member>(status(Some(2)), &format!("{text},\"only_there\":2}}"));
}

#[test]
fn states_are_the_words_that_the_library_writes() {
    use MemberState::{Away, Dead, Draining, Joining, Leaving, Left, Serving};
    for state in [Joining, Serving, Leaving, Away, Draining, Left, Dead] {
        assert_eq!(serde_json::to_value(state).unwrap(), state_name(state));
    }
    use crate::core::registry::HoldingState::{Failed, Fetching, Ready};
    for state in [Fetching, Ready, Failed] {
        let holding = Holding::from(crate::client::Holding { node: name("n1"), state });
        assert_eq!(serde_json::to_value(state).unwrap(), *holding.state);
    }
    use IntendedAction::{Copy, Fetch, Nothing, Release};
    for action in [Nothing, Copy, Fetch, Release] {
        let planned = PlannedAction::from(crate::core::balancer::PlannedAction { action, waits_for: None });
        assert_eq!(serde_json::to_value(action).unwrap(), *planned.action);
    }
}

#[test]
fn what_is_done_to_a_member_says_what_only_it_has() {
    let removed = crate::client::RemovedMember { node: name("n1"), only_there: 3 };
    is_written::<_, RemovedMember>(removed, r#"{"node":"n1","only_there":3}"#);
    let drained =
        crate::operations::drain::Drained { node: name("n1"), left: true, remaining: 1, keys: vec![key("a")] };
    is_written::<_, Drained>(drained, r#"{"node":"n1","left":true,"remaining":1,"keys":["a"]}"#);
}

#[test]
fn a_location_names_owners_and_holders() {
    let holders = vec![crate::client::Holding { node: name("n2"), state: crate::core::registry::HoldingState::Ready }];
    let location = crate::client::Location { key: key("a"), owners: vec![name("n1")], holders, pinned: false };
    let text = r#"{"key":"a","owners":["n1"],"holders":[{"node":"n2","state":"ready"}],"pinned":false}"#;
    is_written::<_, Location>(location, text);
}

#[test]
fn an_explanation_says_what_each_node_has_and_intends() {
    let report = crate::operations::explain::NodeReport {
        node: name("n1"),
        state: Some(crate::core::registry::HoldingState::Fetching),
        data: Some(crate::provider::Description { version: Some("v".into()), bytes: Some(1), updated_ms: None }),
        refresh_in_ms: None,
        intention: crate::core::balancer::PlannedAction {
            action: IntendedAction::Copy,
            waits_for: Some("room".into()),
        },
        ring: 5,
    };
    let explanation = crate::operations::explain::Explanation {
        key: key("a"),
        replicas: 2,
        replicas_from: "default",
        extra: 0,
        places: vec![crate::operations::explain::RingStep { node: name("n1"), owner: true, why: "first".into() }],
        nodes: vec![report],
        silent: vec![crate::operations::explain::Unanswered { node: name("n3"), reason: "gone".into() }],
    };
    let text = concat!(
        r#"{"key":"a","replicas":2,"replicas_from":"default","extra":0,"#,
        r#""places":[{"node":"n1","owner":true,"why":"first"}],"#,
        r#""nodes":[{"node":"n1","state":"fetching","data":{"version":"v","bytes":1,"updated_ms":null},"#,
        r#""refresh_in_ms":null,"intention":{"action":"copy","waits_for":"room"},"ring":5}],"#,
        r#""silent":[{"node":"n3","reason":"gone"}]}"#,
    );
    is_written::<_, Explanation>(explanation, text);
}

#[test]
fn pins_and_what_members_say_of_them_name_the_key() {
    is_written::<_, Pin>(crate::core::catalog::Pin { key: key("a/*"), replicas: 2 }, r#"{"key":"a/*","replicas":2}"#);
    let lacking = vec![crate::core::catalog::PendingMember { node: name("n2"), reason: "away".into() }];
    let recorded = crate::core::catalog::IntentAck { key: key("a"), confirmed: vec![name("n1")], pending: lacking };
    let text = r#"{"key":"a","confirmed":["n1"],"lacking":[{"node":"n2","reason":"away"}]}"#;
    is_written::<_, IntentAck>(recorded, text);
}

#[test]
fn an_update_has_started_or_ended() {
    let started = |key, reason, started| to_string(&Started { key, reason, started }).unwrap();
    assert_eq!(started(Some(key("a")), None, true), r#"{"key":"a","started":true}"#);
    let not_held = started(Some(key("a")), Some("no node holds it".into()), false);
    assert_eq!(not_held, r#"{"key":"a","reason":"no node holds it","started":false}"#);
    let replicas = vec![crate::operations::update::UpdatedReplica { node: name("n1"), error: None }];
    let updated = UpdatedKey { key: key("a"), replicas: documents(replicas) };
    assert_eq!(to_string(&updated).unwrap(), r#"{"key":"a","replicas":[{"node":"n1","error":null}]}"#);
}

#[test]
fn a_plan_counts_keys_and_bytes() {
    let node = crate::core::placement::NodeForecast {
        node: "n1".into(),
        owned_now: 1,
        owned_then: 2,
        gained: 3,
        bytes_gained: None,
        lost: 4,
    };
    let forecast = crate::core::placement::Forecast {
        keys: 5,
        keys_moved: 6,
        copies: 7,
        sampled: 8,
        bytes: Some(9),
        nodes: vec![node],
    };
    let text = concat!(
        r#"{"keys":5,"keys_moved":6,"copies":7,"sampled":8,"bytes":9,"nodes":[{"node":"n1","owned_now":1,"#,
        r#""owned_then":2,"gained":3,"bytes_gained":null,"lost":4}]}"#,
    );
    is_written::<_, Plan>(forecast, text);
}

#[test]
fn a_problem_says_more_than_a_status_and_any_server_may_say_it() {
    let attempt = crate::route_error::Attempt { node: name("n1"), error: crate::route_error::AttemptError::Timeout };
    let problem = Problem {
        kind: "urn:datad-gossip:problem:no-answer".into(),
        title: "No node could answer".into(),
        status: 502,
        detail: "n1 did not".into(),
        key: Some(key("a")),
        attempts: Some(vec![Attempt::from(&attempt)]),
    };
    let text = concat!(
        r#"{"type":"urn:datad-gossip:problem:no-answer","title":"No node could answer","status":502,"#,
        r#""detail":"n1 did not","key":"a","attempts":[{"node":"n1","error":"no answer in time"}]}"#,
    );
    assert_eq!(to_string(&problem).unwrap(), text);
    let foreign = json!({ "title": "Forbidden", "detail": "not from here", "instance": "/x" });
    assert_eq!(serde_json::from_value::<Problem>(foreign).unwrap().detail, "not from here");
    assert!(serde_json::from_value::<Problem>(Value::Null).is_err());
}
