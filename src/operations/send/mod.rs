//! A request from a client: refused at once, or sent on its way while what can be done meanwhile is done.

mod attempt;
mod early;
mod failure;
mod holders;
mod lookout;
mod prebuffer;
mod preview;
mod relay;
mod replay;
mod resumable;
mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::FutureExt;
use http::{Request, Response};
use tokio::sync::oneshot;

use self::run::RequestAttempts;
pub(crate) use self::{
    early::progress_at,
    relay::{connected, pass_on},
    replay::all_of,
    run::AnsweredBy,
};
use crate::{key::Key, provider::Body, route_error::RouteError, runtime::Shared};

/// Sends `request` for `key` to a node that can answer it. A request that the provider refuses
/// whatever it holds goes no further.
///
/// Dropping the future cancels what is under way on other nodes, but not the fetch of a cold key.
pub(crate) async fn route(
    shared: &Arc<Shared>,
    key: &Key,
    request: Request<Body>,
) -> Result<Response<Body>, RouteError> {
    let (parts, body) = request.into_parts();
    if let Some(mut refusal) = shared.context.provider.as_ref().and_then(|provider| provider.refuse(key, &parts)) {
        refusal.extensions_mut().insert(AnsweredBy { node: shared.context.name.clone(), fetched: false });
        return Ok(refusal);
    }
    let (tells, waits) = oneshot::channel();
    let course = RequestAttempts::new(shared.clone(), key.clone(), Request::from_parts(parts, body), None).await?;
    early::answer(shared, key, course.telling(tells).run().boxed(), waits).await
}
