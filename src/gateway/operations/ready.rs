//! Whether requests may be sent to this node.

use std::{sync::Arc, time::Duration};

use axum::extract::State as Shared;

use crate::{
    client::Client,
    core::membership::MemberState,
    gateway::{problem::Problem, state::State},
};

/// How long `readyz` lets a node catch up with what was published a moment ago before it calls it behind.
const CATCH_UP: Duration = Duration::from_secs(1);
const CATCH_UP_STEP: Duration = Duration::from_millis(50);

pub(super) async fn readyz(Shared(state): Shared<Arc<State>>) -> Result<&'static str, Problem> {
    let view = state.client.view();
    match view.member(view.me()).map(|me| me.state) {
        Some(MemberState::Leaving | MemberState::Away) => return Err(Problem::not_ready("the node is about to stop")),
        Some(MemberState::Draining) => return Err(Problem::not_ready("the node is draining")),
        Some(MemberState::Left) => return Err(Problem::not_ready("the node has left the cluster")),
        state_now => {
            if let Some(what) = state.client.waits_to_join() {
                return Err(Problem::not_ready(format!("the node is joining the cluster: it waits for {what}")));
            }
            if state_now != Some(MemberState::Serving) {
                return Err(Problem::not_ready("the node is joining the cluster"));
            }
        }
    }
    if state.requests.is_exhausted() {
        return Err(Problem::overloaded("the node answers as many requests as it can"));
    }
    if !catches_up(&state.client).await {
        return Err(Problem::not_ready("the node is behind on what the others have published"));
    }
    Ok("ready\n")
}

async fn catches_up(client: &Client) -> bool {
    let caught_up = async {
        while !client.is_caught_up().await {
            tokio::time::sleep(CATCH_UP_STEP).await;
        }
    };
    tokio::time::timeout(CATCH_UP, caught_up).await.is_ok()
}
