//! What would move if members went or came.

use std::{sync::Arc, time::Duration};

use axum::{extract::State as Shared, response::Response};
use http::StatusCode;
use serde::Deserialize;
use tokio::runtime::Handle;

use super::extract::{Parameters, document};
use crate::{
    api,
    core::placement::Change,
    gateway::{problem::Problem, state::State},
    key::NodeName,
};

/// Names in a plan: as many members as an operator changes at a time.
const PLAN_NAMES_MAX: usize = 64;
/// The largest weight of a member, and that of all in a plan together: virtual nodes follow from weights, 100 being usual, and
/// so does how long it takes to build their ring, some tens of milliseconds.
const WEIGHT_MAX: u32 = 1_000;
const PLAN_WEIGHT_MAX: u64 = 20_000;
/// How long a plan may take: less than the program's own commands wait.
const PLAN_PATIENCE: Duration = Duration::from_secs(25);
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Planning {
    #[serde(default)]
    without: String,
    #[serde(default)]
    with: String,
}

pub(super) async fn plan(
    Shared(state): Shared<Arc<State>>,
    Parameters(Planning { without, with }): Parameters<Planning>,
) -> Result<Response, Problem> {
    let change = change_of(&without, &with)?;
    let turn = state.admission.plans.take().await?;
    let (client, runtime) = (state.client.clone(), Handle::current());
    // Away from the threads that answer peers: a ring is built in one go, and all keys are looked up on it.
    let planned = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        runtime.block_on(tokio::time::timeout(PLAN_PATIENCE, client.forecast(&change)))
    });
    match planned.await {
        Ok(Ok(Ok(forecast))) => Ok(document(api::Plan::from(forecast))),
        Ok(Ok(Err(error))) => Err(Problem::bad_request(error.to_string())),
        Ok(Err(_)) => Err(Problem::overloaded(format!("the plan was not made within {PLAN_PATIENCE:?}"))),
        Err(error) => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", "The plan failed", error.to_string()))
        }
    }
}

/// Reads lists of members that go and come.
fn change_of(without: &str, with: &str) -> Result<Change, Problem> {
    let parts =
        |list: &str| -> Vec<String> { list.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect() };
    let names = parts(without).len() + parts(with).len();
    if names > PLAN_NAMES_MAX {
        return Err(Problem::bad_request(format!("a plan may have {PLAN_NAMES_MAX} names; this one has {names}")));
    }
    let name = |text: &str| NodeName::new(text).map_err(|error| Problem::bad_request(format!("{text}: {error}")));
    let without = parts(without).iter().map(|text| name(text)).collect::<Result<_, _>>()?;
    let weighted = |text: &String| {
        let pair = text.split_once('=').and_then(|(node, weight)| Some((node, weight.parse().ok()?)));
        let (node, weight) = pair.ok_or_else(|| Problem::bad_request(format!("{text}: it looks like node-4=100")))?;
        if weight > WEIGHT_MAX {
            return Err(Problem::bad_request(format!("{text}: a weight is 0 to {WEIGHT_MAX}")));
        }
        Ok((name(node)?, weight))
    };
    let with: Vec<(NodeName, u32)> = parts(with).iter().map(weighted).collect::<Result<_, _>>()?;
    let weight: u64 = with.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if weight > PLAN_WEIGHT_MAX {
        let detail = format!("the weights in a plan may come to {PLAN_WEIGHT_MAX}; these come to {weight}");
        return Err(Problem::bad_request(detail));
    }
    Ok(Change { without, with })
}
