//! The way of an intent through the cluster: written down here, then by every other member, then
//! acknowledged.

use std::{sync::Arc, time::Duration};

use crate::{
    core::{
        catalog::{HlcTimestamp, Intent, IntentAck, IntentError, PendingMember, Record},
        membership::Member,
    },
    key::{Key, NodeName},
    net::wire::calls::Intend,
    runtime::Shared,
};

/// How long the other members have to write an intent down before the answer says that they have not.
const SPREAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes `intent` hold everywhere, and returns when it is durable wherever it can be now. Cancelling leaves it to its
/// course.
pub(crate) async fn write(shared: &Arc<Shared>, key: Key, intent: Intent) -> Result<IntentAck, IntentError> {
    let (recorded, later) = write_after(shared, key.clone(), intent, HlcTimestamp::default()).await?;
    let Some(time) = later else { return Ok(recorded) };
    // A member whose clock is ahead recorded another intent before, which has not come here yet.
    // The last intent has to hold.
    write_after(shared, key, intent, time).await.map(|(recorded, _)| recorded)
}

/// Writes `intent` with a time later than `time`. Returns also the time of something still later that a member knows of.
async fn write_after(
    shared: &Arc<Shared>,
    key: Key,
    intent: Intent,
    time: HlcTimestamp,
) -> Result<(IntentAck, Option<HlcTimestamp>), IntentError> {
    let asked = shared.ports.catalog.write(key, intent, time);
    let record = asked.await.map_err(|_| IntentError::Stopping)??;
    let is_observer = shared.context.provider.is_none();
    let mut recorded = IntentAck { key: record.key.clone(), confirmed: Vec::new(), pending: Vec::new() };
    if !is_observer {
        recorded.confirmed.push(shared.context.name.clone());
    }
    let mut latest = None;
    for (node, outcome) in push(shared, &record).await {
        match outcome {
            Ok(later) => {
                latest = latest.max(later);
                recorded.confirmed.push(node);
            }
            Err(reason) => recorded.pending.push(PendingMember { node, reason }),
        }
    }
    if recorded.confirmed.is_empty() {
        return Err(IntentError::NobodyReached);
    }
    if is_observer {
        let records = vec![record];
        let _ = shared.ports.catalog.take(records).await;
    }
    recorded.confirmed.sort();
    Ok((recorded, latest))
}

/// Has every other member write `record` down, and returns each answer. Members that left are not
/// asked.
async fn push(shared: &Arc<Shared>, record: &Record) -> Vec<(NodeName, Result<Option<HlcTimestamp>, String>)> {
    let view = shared.lookup.view.snapshot();
    let others = view.members().filter(|member| {
        member.name != shared.context.name
            && !member.observer
            && member.state != crate::core::membership::MemberState::Left
    });
    let pushes = others.map(|member: &Member| async {
        let outcome = if member.state.is_alive() {
            push_to(shared, &member.name, record).await
        } else {
            Err("it is dead; it gets it when it returns".to_owned())
        };
        (member.name.clone(), outcome)
    });
    futures::future::join_all(pushes).await
}

/// Has `node` write `record` down. Returns the time of something later that it knows of the same key.
pub(crate) async fn push_to(
    shared: &Arc<Shared>,
    node: &NodeName,
    record: &Record,
) -> Result<Option<HlcTimestamp>, String> {
    let pushed = async {
        let peer = shared.peers.peer(node).await.map_err(|error| error.to_string())?;
        let request = Intend { records: vec![record.clone()] };
        peer.call(request, SPREAD_TIMEOUT).await.map_err(|error| error.to_string())
    };
    let answered = tokio::time::timeout(SPREAD_TIMEOUT, pushed).await;
    answered.unwrap_or_else(|_| Err(format!("no answer within {SPREAD_TIMEOUT:?}")))
}
