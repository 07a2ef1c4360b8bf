//! A request for data: bounded, stripped of what belongs to the hop, sent through the router, and back the same way.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Request, Uri, header, uri::PathAndQuery};
use hyper::body::Incoming;
use tower::Service;

use super::{access::Peer, body::IdleTimeoutBody, headers, page, problem::Problem, state::State};
use crate::{
    core::membership::MemberState,
    operations::{GuardedBody, send::AnsweredBy},
    transport::PathError,
};

/// How long a request waits for a node that is still joining. It takes a moment, so few get to see the 503 after it.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);

/// Answers one request for data; a limit applies to the number at once.
pub(super) async fn answer(state: &Arc<State>, peer: Peer, request: Request<Incoming>) -> Response {
    let Some(place) = state.requests.admit(&peer.caller()) else {
        return Problem::overloaded("this node answers as many requests as it can; ask again, or ask another node")
            .into_response();
    };
    match route(state, request).await {
        Ok(response) => response.map(|body| Body::new(GuardedBody::new(body, place))),
        Err(problem) => problem.into_response(),
    }
}

async fn route(state: &Arc<State>, request: Request<Incoming>) -> Result<Response, Problem> {
    if request.uri().path() == "/"
        && let Some(response) = page::elsewhere(request.method(), request.uri())
    {
        return Ok(response);
    }
    joined(state).await?;
    let mut request = request.map(|body| IdleTimeoutBody::new(body, state.client_patience));
    to_origin_form(&mut request)?;
    headers::strip_request(request.headers_mut());
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut response = match state.transport.clone().call(request).await {
        Err(PathError::Key(error)) => return page::elsewhere(&method, &uri).ok_or_else(|| error.into()),
        answered => answered?,
    };
    headers::strip_response(response.headers_mut());
    if let Some(answered) = response.extensions_mut().remove::<AnsweredBy>() {
        headers::describe(response.headers_mut(), &answered);
    }
    Ok(response.map(Body::new))
}

/// Before a node knows what the others hold, it would have fetched again what they have.
async fn joined(state: &State) -> Result<(), Problem> {
    if state.joined.load(Ordering::Relaxed) {
        return Ok(());
    }
    let has_joined = state.client.view_when(|view| {
        view.member(view.me()).is_some_and(|me| me.state.is_alive() && me.state != MemberState::Joining)
    });
    match tokio::time::timeout(JOIN_PATIENCE, has_joined).await {
        Ok(_) => state.joined.store(true, Ordering::Relaxed),
        Err(_) => return Err(Problem::not_ready("the node is still joining the cluster")),
    }
    Ok(())
}

/// Providers see a path and a query, and the host in its field, whatever version of HTTP the client speaks.
fn to_origin_form<B>(request: &mut Request<B>) -> Result<(), Problem> {
    let uri = std::mem::take(request.uri_mut());
    let target = uri.path_and_query().filter(|target| target.path().starts_with('/')).cloned();
    let target: PathAndQuery = target.ok_or_else(|| Problem::bad_request("the request target is no path"))?;
    if let Some(authority) = uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = Uri::from(target);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_see_a_path_and_the_host_in_its_field() {
        let mut request = Request::get("http://example.com:81/a%20b?c=d").body(()).unwrap();
        to_origin_form(&mut request).unwrap();
        assert_eq!(request.uri(), "/a%20b?c=d");
        assert_eq!(request.headers()[header::HOST], "example.com:81");
    }

    #[test]
    fn a_target_that_is_no_path_is_refused() {
        for target in ["*", "example.com:443"] {
            let mut request = Request::options(target).body(()).unwrap();
            assert!(to_origin_form(&mut request).is_err(), "{target}");
        }
    }
}
