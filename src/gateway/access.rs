//! Who may change something.
//!
//! Without an admin token: programs on this machine. Not browsers on it, which run the scripts of any page, and not
//! requests that a proxy on this machine passed on. With one: whoever carries it, from wherever, and nobody else.

use std::net::SocketAddr;

use http::{HeaderMap, StatusCode, header};
use subtle::ConstantTimeEq;

use super::problem::Problem;

/// Where a connection comes from, as an extension of its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The operator's secret; `Debug` does not show it.
pub(super) struct AdminToken(Vec<u8>);

impl AdminToken {
    pub(super) fn new(token: &str) -> Self {
        Self(token.trim().as_bytes().to_vec())
    }

    fn is_carried_by(&self, fields: &HeaderMap) -> bool {
        let value = fields.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token =
            value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        token.is_some_and(|(_, token)| !self.0.is_empty() && token.trim().as_bytes().ct_eq(&self.0).into())
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

/// Whether a request with these `fields` from `peer` may change something.
///
/// # Errors
/// What to answer if not.
pub(super) fn may_change(token: Option<&AdminToken>, peer: SocketAddr, fields: &HeaderMap) -> Result<(), Problem> {
    let forbidden =
        |why: &str| Err(Problem::new(StatusCode::FORBIDDEN, "not-allowed", "Not allowed to change anything", why));
    if let Some(token) = token {
        if token.is_carried_by(fields) {
            return Ok(());
        }
        let detail = "send the admin token as `Authorization: Bearer TOKEN`";
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "no-token", "The admin token is needed", detail);
        return Err(problem.with_field(header::WWW_AUTHENTICATE, "Bearer"));
    }
    if !peer.ip().to_canonical().is_loopback() {
        return forbidden("changes are accepted from this machine only, unless an admin token is configured");
    }
    if fields.contains_key(header::ORIGIN) || is_cross_site(fields) {
        return forbidden("changes are not accepted from browsers, unless an admin token is configured");
    }
    if fields.contains_key(header::FORWARDED) || fields.contains_key("x-forwarded-for") {
        return forbidden("changes are not accepted through a proxy, unless an admin token is configured");
    }
    Ok(())
}

fn is_cross_site(fields: &HeaderMap) -> bool {
    fields.get("sec-fetch-site").is_some_and(|site| site != "none" && site != "same-origin")
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    const HERE: &str = "127.0.0.1:5";
    const THERE: &str = "192.0.2.1:5";

    fn verdict(token: Option<&str>, peer: &str, fields: &[(&'static str, &'static str)]) -> u16 {
        let token = token.map(AdminToken::new);
        let fields = fields
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect();
        match may_change(token.as_ref(), peer.parse().unwrap(), &fields) {
            Ok(()) => 200,
            Err(problem) => problem.into_response().status().as_u16(),
        }
    }

    #[test]
    fn without_a_token_programs_on_this_machine_may_and_nobody_else() {
        assert_eq!(verdict(None, HERE, &[]), 200);
        assert_eq!(verdict(None, "[::1]:5", &[]), 200);
        assert_eq!(verdict(None, "[::ffff:127.0.0.1]:5", &[]), 200);
        assert_eq!(verdict(None, THERE, &[]), 403);
        assert_eq!(verdict(None, THERE, &[("authorization", "Bearer ")]), 403);
        assert_eq!(verdict(None, HERE, &[("origin", "http://evil.example")]), 403);
        assert_eq!(verdict(None, HERE, &[("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(verdict(None, HERE, &[("x-forwarded-for", "192.0.2.1")]), 403);
    }

    #[test]
    fn with_a_token_whoever_carries_it_may_and_nobody_else() {
        let carried = [("authorization", "bearer  secret"), ("origin", "http://dashboard.example")];
        assert_eq!(verdict(Some("secret\n"), THERE, &carried), 200);
        assert_eq!(verdict(Some("secret"), HERE, &[]), 401);
        assert_eq!(verdict(Some("secret"), HERE, &[("authorization", "Bearer secre")]), 401);
        assert_eq!(verdict(Some("secret"), HERE, &[("authorization", "Basic secret")]), 401);
        assert_eq!(verdict(Some(""), HERE, &[("authorization", "Bearer ")]), 401);
    }
}
