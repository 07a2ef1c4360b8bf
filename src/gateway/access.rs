//! Who may change something, and by which names this node may be asked.
//!
//! Changes are for the operator: a request carries the admin token, or comes over the node's Unix
//! socket, which only the user that the node runs as can open. That a request comes from this
//! machine proves nothing, because a proxy may run here and pass on requests of any client.
//!
//! A browser can be made to send requests to this node by any page, under a name that the page's owner makes resolve to
//! it (DNS rebinding). So changes, and everything that only this machine can reach, are answered only under a name that
//! the node is known to have. A request without a name comes from no browser.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use headers::{
    Authorization, HeaderMapExt,
    authorization::{Basic, Bearer},
};
use http::{HeaderMap, StatusCode, header, request::Parts, uri::Authority};
use subtle::ConstantTimeEq;

use super::problem::Problem;

/// Longest part of a wrong name that is repeated in the answer.
const NAME_CHARS_SHOWN: usize = 100;

/// Where a connection comes from, as an extension of its requests.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peer {
    /// From another address.
    Tcp {
        from: SocketAddr,
        /// The address of this node that was connected to.
        to: Option<IpAddr>,
        /// Whether the node listens on the loopback interface only.
        is_local: bool,
    },
    /// Over the node's Unix socket.
    Unix,
}

impl Peer {
    /// What tells callers apart when room is shared out: an address, of IPv6 the network that one subscriber has.
    pub(super) fn caller(&self) -> Option<IpAddr> {
        const SUBSCRIBER: u128 = !0 << 64;
        match self {
            Self::Tcp { from, .. } => Some(match from.ip().to_canonical() {
                IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & SUBSCRIBER).into(),
                address => address,
            }),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { from, .. } => from.fmt(f),
            Self::Unix => f.write_str("unix socket"),
        }
    }
}

/// Who may change something, and the names of this node.
#[derive(Debug, Default)]
pub(super) struct Access {
    pub(super) token: Option<AdminToken>,
    pub(super) names: BTreeSet<String>,
}

/// The operator's secret; `Debug` does not show it.
pub(super) struct AdminToken(Vec<u8>);

impl AdminToken {
    pub(super) fn new(token: &str) -> Self {
        Self(token.trim().as_bytes().to_vec())
    }

    fn is(&self, said: &str) -> bool {
        !self.0.is_empty() && said.trim().as_bytes().ct_eq(&self.0).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

impl Access {
    /// Whether a request with these `fields` from `peer` may change something.
    ///
    /// # Errors
    /// What to answer if not.
    pub(super) fn may_change(&self, peer: Peer, fields: &HeaderMap) -> Result<(), Problem> {
        let forbidden =
            |why: &str| Err(Problem::new(StatusCode::FORBIDDEN, "not-allowed", "Not allowed to change anything", why));
        let token = match (peer, &self.token) {
            (Peer::Unix, _) => return Ok(()),
            (Peer::Tcp { .. }, None) => {
                return forbidden("no admin token is configured, so changes are accepted over a Unix socket only");
            }
            (Peer::Tcp { .. }, Some(token)) => token,
        };
        let bearer = fields.typed_get::<Authorization<Bearer>>();
        if bearer.is_some_and(|said| token.is(said.token())) {
            return Ok(());
        }
        let basic = fields.typed_get::<Authorization<Basic>>();
        if !basic.is_some_and(|said| token.is(said.password())) {
            let detail = "send the admin token as `Authorization: Bearer TOKEN`, or as the password of Basic \
                          authentication; or ask over the node's Unix socket";
            let problem = Problem::new(StatusCode::UNAUTHORIZED, "no-token", "The admin token is needed", detail);
            return Err(problem.with_field(header::WWW_AUTHENTICATE, "Bearer, Basic realm=\"datad-gossip\""));
        }
        // A browser adds a password that it once asked for to whatever a page has it send.
        if is_cross_site(fields) {
            return forbidden("a page of another site may not use the password that this browser remembers");
        }
        Ok(())
    }

    /// Whether a request from `peer` asks for this node by a name that it has.
    ///
    /// # Errors
    /// What to answer if not.
    pub(super) fn check_name(&self, peer: Peer, request: &Parts) -> Result<(), Problem> {
        let Peer::Tcp { to, .. } = peer else { return Ok(()) };
        let fields = request.headers.get_all(header::HOST).iter();
        let fields = fields.map(|value| value.to_str().ok().and_then(|text| text.parse::<Authority>().ok()));
        for said in request.uri.authority().cloned().map(Some).into_iter().chain(fields) {
            let said = said.as_ref().map_or("", Authority::host);
            if !self.is_name(said, to) {
                let said: String = said.chars().take(NAME_CHARS_SHOWN).collect();
                let detail = format!(
                    "this node is not known as {said:?}: ask it by its address, or start it with --host-name {said}"
                );
                return Err(Problem::new(
                    StatusCode::MISDIRECTED_REQUEST,
                    "wrong-host",
                    "The request is for another host",
                    detail,
                ));
            }
        }
        Ok(())
    }

    fn is_name(&self, said: &str, to: Option<IpAddr>) -> bool {
        let said = plain_name(said);
        match said.parse::<IpAddr>() {
            Ok(ip) => {
                let ip = ip.to_canonical();
                ip.is_loopback() || to.is_some_and(|to| to.to_canonical() == ip) || self.names.contains(&said)
            }
            Err(_) => said == "localhost" || self.names.contains(&said),
        }
    }
}

/// A host name as names are compared: in lower case, without the brackets of an IPv6 address and the root's dot.
pub(super) fn plain_name(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    let name = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.to_ascii_lowercase()
}

/// Whether a browser says that a page of another site, or one that it cannot tell, is behind the request.
fn is_cross_site(fields: &HeaderMap) -> bool {
    match fields.get("sec-fetch-site") {
        Some(site) => site != "none" && site != "same-origin",
        None => fields.contains_key(header::ORIGIN),
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http::Request;

    use super::*;

    const HERE: &str = "127.0.0.1:5";
    const THERE: &str = "192.0.2.1:5";

    fn tcp(from: &str) -> Peer {
        Peer::Tcp { from: from.parse().unwrap(), to: Some("192.0.2.7".parse().unwrap()), is_local: false }
    }

    fn status(verdict: Result<(), Problem>) -> u16 {
        verdict.map_or_else(|problem| problem.into_response().status().as_u16(), |()| 200)
    }

    fn verdict(token: Option<&str>, peer: Peer, fields: &[(&'static str, &'static str)]) -> u16 {
        let access = Access { token: token.map(AdminToken::new), ..Access::default() };
        let fields = fields
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect();
        status(access.may_change(peer, &fields))
    }

    #[test]
    fn without_a_token_only_the_unix_socket_changes_anything_not_even_this_machine() {
        assert_eq!(verdict(None, Peer::Unix, &[]), 200);
        assert_eq!(verdict(Some("secret"), Peer::Unix, &[]), 200);
        for from in [HERE, "[::1]:5", "[::ffff:127.0.0.1]:5", THERE] {
            assert_eq!(verdict(None, tcp(from), &[]), 403, "{from}");
            assert_eq!(verdict(None, tcp(from), &[("authorization", "Bearer ")]), 403, "{from}");
        }
    }

    #[test]
    fn with_a_token_a_request_that_carries_it_changes_something_and_no_other() {
        let carried = [("authorization", "bearer  secret"), ("origin", "http://dashboard.example")];
        assert_eq!(verdict(Some("secret\n"), tcp(THERE), &carried), 200);
        assert_eq!(verdict(Some("secret"), tcp(HERE), &[]), 401);
        // `anybody:secret`, `secret:other`
        assert_eq!(verdict(Some("secret"), tcp(THERE), &[("authorization", "Basic YW55Ym9keTpzZWNyZXQ=")]), 200);
        assert_eq!(verdict(Some("secret"), tcp(THERE), &[("authorization", "Basic c2VjcmV0Om90aGVy")]), 401);
        for wrong in ["Bearer secre", "Bearer secrets", "Basic secret", "secret", "Bearer"] {
            assert_eq!(verdict(Some("secret"), tcp(HERE), &[("authorization", wrong)]), 401, "{wrong}");
        }
        assert_eq!(verdict(Some(""), tcp(HERE), &[("authorization", "Bearer ")]), 401);
    }

    #[test]
    fn a_password_that_a_browser_remembers_is_of_no_use_to_other_sites() {
        let basic = ("authorization", "Basic YW55Ym9keTpzZWNyZXQ=");
        for (name, value, expected) in [
            ("sec-fetch-site", "cross-site", 403),
            ("sec-fetch-site", "same-site", 403),
            ("sec-fetch-site", "same-origin", 200),
            ("origin", "http://evil.example", 403),
        ] {
            assert_eq!(verdict(Some("secret"), tcp(HERE), &[basic, (name, value)]), expected, "{name} {value}");
        }
    }

    #[test]
    fn a_node_is_asked_by_its_own_names_only() {
        let access = Access { names: ["node.example", "2001:db8::1"].map(str::to_owned).into(), ..Access::default() };
        let asked = |peer, uri: &str, host: Option<&str>| {
            let mut request = Request::get(uri);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            status(access.check_name(peer, &request.body(()).unwrap().into_parts().0))
        };
        for good in [
            "localhost",
            "LocalHost.:8400",
            "127.0.0.1:8400",
            "127.9.9.9",
            "[::1]:8400",
            "192.0.2.7:1",
            "node.example",
            "[2001:db8::1]",
        ] {
            assert_eq!(asked(tcp(HERE), "/", Some(good)), 200, "{good}");
            assert_eq!(asked(tcp(HERE), &format!("http://{good}/"), None), 200, "{good}");
        }
        for bad in
            ["evil.example", "evil.example:8400", "127.0.0.1.evil.example", "192.0.2.8", "a b", "", "localhost@x"]
        {
            assert_eq!(asked(tcp(HERE), "/", Some(bad)), 421, "{bad}");
            assert_eq!(asked(Peer::Unix, "/", Some(bad)), 200, "{bad}");
        }
        assert_eq!(asked(tcp(HERE), "http://evil.example/", Some("localhost")), 421);
        assert_eq!(asked(tcp(HERE), "http://localhost/", Some("evil.example")), 421);
        assert_eq!(asked(tcp(HERE), "/", None), 200);
    }
}
