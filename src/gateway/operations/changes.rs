//! What changes something. Only the operator may, and the log says that it was asked for.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State as Shared,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode};
use serde::Deserialize;
use tracing::info;

use super::extract::{About, Named, Operator, Parameters, ToPin, ToUnpin, document};
use crate::{
    api,
    gateway::{problem::Problem, state::State},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Waiting {
    #[serde(default)]
    wait: bool,
}

pub(super) async fn update(
    Shared(state): Shared<Arc<State>>,
    Operator(peer): Operator,
    Parameters(Waiting { wait }): Parameters<Waiting>,
    About(key): About,
    method: Method,
) -> Result<Response, Problem> {
    let overloaded = || Problem::overloaded("too many updates are under way; ask again");
    info!(%key, %peer, %method, wait, "update asked for");
    if wait {
        let _permit = state.background.permit().ok_or_else(overloaded)?;
        let replicas = api::documents(state.client.update(&key).await?);
        return Ok(document(api::UpdatedKey { key, replicas }));
    }
    state.background.update(&state.client, &key).then_some(()).ok_or_else(overloaded)?;
    Ok((StatusCode::ACCEPTED, document(api::Started::of(key))).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pinning {
    replicas: Option<usize>,
}

pub(super) async fn pin(
    Shared(state): Shared<Arc<State>>,
    Operator(peer): Operator,
    Parameters(Pinning { replicas }): Parameters<Pinning>,
    ToPin(key): ToPin,
) -> Result<Response, Problem> {
    info!(%key, ?replicas, %peer, "pin asked for");
    Ok(document(api::IntentAck::from(state.client.pin(&key, replicas).await?)))
}

pub(super) async fn unpin(
    Shared(state): Shared<Arc<State>>,
    Operator(peer): Operator,
    ToUnpin(key): ToUnpin,
) -> Result<Response, Problem> {
    info!(%key, %peer, "unpin asked for");
    Ok(document(api::IntentAck::from(state.client.unpin(&key).await?)))
}

pub(super) async fn forget(
    Shared(state): Shared<Arc<State>>,
    Operator(peer): Operator,
    About(key): About,
) -> Result<Response, Problem> {
    info!(%key, %peer, "forget asked for");
    Ok(document(api::IntentAck::from(state.client.forget(&key).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draining {
    #[serde(default)]
    force: bool,
    #[serde(default, with = "humantime_serde::option")]
    timeout: Option<Duration>,
}

pub(super) async fn drain(
    Shared(state): Shared<Arc<State>>,
    Operator(peer): Operator,
    Parameters(Draining { force, timeout }): Parameters<Draining>,
    Named(name): Named,
) -> Result<Response, Problem> {
    info!(%name, force, %peer, "drain asked for");
    let drained = state.client.drain(&name, force, timeout).await?;
    if drained.left { Ok(document(api::Drained::from(drained))) } else { Err(Problem::last_holder(&drained)) }
}

pub(super) async fn remove_member(
    Shared(state): Shared<Arc<State>>,
    Operator(peer): Operator,
    Named(name): Named,
) -> Result<Response, Problem> {
    info!(%name, %peer, "removal of a member asked for");
    // It walks over all known keys.
    let _turn = state.admission.listings.take().await?;
    Ok(document(api::RemovedMember::from(state.client.remove_member(&name).await?)))
}
