//! Which hosts a node connects to on behalf of others.
//!
//! A host that the operator wrote may be anywhere. One that a key or a redirect names comes from strangers, and may not
//! be this machine or in a private network, where services trust all who reach them: metadata of clouds, databases,
//! this node itself. A name is judged by the addresses that it resolves to, and those are the ones that are connected
//! to, so that it cannot change its mind in between. Behind a proxy, the proxy resolves names, and judges.

use std::{
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// What is said of a host that may not be reached, and no more: what is there is not for strangers to know.
pub(crate) const REFUSED: &str = "its host is in a private network";

/// Redirects of one request.
pub(crate) const REDIRECTS_MAX: usize = 5;

/// Words that are a component of the paths of sign-in pages, or the first label of hosts for nothing else.
const SIGN_IN: &[&str] =
    &["login", "log_in", "log-in", "signin", "sign_in", "sign-in", "logon", "sso", "saml", "saml2", "oauth", "oauth2"];

/// Whether a redirect to `url` asks to sign in, by what such pages are called.
pub(crate) fn is_sign_in(url: &Url) -> bool {
    let is_word = |part: &str| {
        let part = part.split('.').next().unwrap_or_default();
        SIGN_IN.iter().any(|word| part.eq_ignore_ascii_case(word))
    };
    let host = url.domain().is_some_and(|name| is_word(name) || name.starts_with("accounts."));
    host || url.path_segments().is_some_and(|mut parts| parts.any(is_word))
}

/// Whether `ip` is no address of the public internet.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => is_private_v6(ip),
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let special = a == 0 || a >= 224 || (a, b, c) == (192, 0, 0) || (a == 198 && (18..20).contains(&b));
    ip.is_loopback() || ip.is_private() || ip.is_link_local() || shared || special
}

fn is_private_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    let local = (a & 0xfe00) == 0xfc00 || (a & 0xff80) == 0xfe80 || (a & 0xff00) == 0xff00;
    let translated = match (a, b) {
        // NAT64 and 6to4 lead to the address within.
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => embedded(g, h),
        (0x64, 0xff9b) => true,
        (0x2002, _) => embedded(b, c),
        // `::`, `::1`, and what was once compatible with version 4.
        (0, 0) => [c, d, e, f] == [0; 4],
        _ => false,
    };
    local || translated
}

/// Whether a host as it is written is this machine or a private address. Other names have to be resolved.
pub(crate) fn is_private_host(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(ip) => is_private((*ip).into()),
        Host::Ipv6(ip) => is_private((*ip).into()),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// The addresses of `host`, all of which are public.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] if one is not; else it cannot be resolved.
pub(crate) async fn public_addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    if found.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    // A name that leads to both is made for this.
    if found.iter().any(|address| is_private(address.ip())) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, REFUSED));
    }
    Ok(found)
}

/// Whether a request to `url` goes through a proxy of the environment, which resolves the name itself.
pub(crate) fn is_proxied(url: &Url) -> bool {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let own = if url.scheme() == "https" { &["https_proxy", "HTTPS_PROXY"][..] } else { &["http_proxy"] };
    let proxied = own.iter().chain(&["all_proxy", "ALL_PROXY"]).any(|name| variable(name).is_some());
    let excepted = variable("no_proxy").or_else(|| variable("NO_PROXY")).unwrap_or_default();
    proxied && !url.host_str().is_some_and(|host| is_excepted(host, &excepted))
}

fn is_excepted(host: &str, list: &str) -> bool {
    list.split([',', ' ']).map(|entry| entry.trim().trim_start_matches("*.").trim_start_matches('.')).any(|entry| {
        let below = || host.strip_suffix(entry).is_some_and(|rest| rest.ends_with('.'));
        !entry.is_empty() && (entry == "*" || entry == host || below())
    })
}

/// Whether a redirect `from` one URL leads `to` the same host: its name, and its port or, from HTTP to HTTPS, that of
/// HTTPS. What the host is shown may go there.
pub(crate) fn is_same_host(from: &Url, to: &Url) -> bool {
    let port = |url: &Url| url.port_or_known_default();
    let upgraded = from.scheme() == "http" && to.scheme() == "https" && to.port().is_none();
    from.host() == to.host() && ((from.scheme() == to.scheme() && port(from) == port(to)) || upgraded)
}

/// Resolves hosts that the operator wrote to whatever they are, and others to public addresses only.
pub(crate) struct GuardedBody {
    trusted: Vec<String>,
}

impl GuardedBody {
    /// Trusts `host`, and the proxies of the environment.
    pub(crate) fn new(host: &str) -> Self {
        let proxies = ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
        let proxies = proxies.iter().filter_map(|name| {
            let text = std::env::var(name).ok()?;
            let url =
                Url::parse(&text).ok().filter(Url::has_host).or_else(|| Url::parse(&format!("http://{text}")).ok())?;
            url.host_str().map(str::to_owned)
        });
        Self { trusted: proxies.chain([host.to_owned()]).collect() }
    }
}

impl Resolve for GuardedBody {
    fn resolve(&self, name: Name) -> Resolving {
        let trusted = self.trusted.iter().any(|host| host.eq_ignore_ascii_case(name.as_str()));
        Box::pin(async move {
            let found: Vec<SocketAddr> = match trusted {
                true => tokio::net::lookup_host((name.as_str(), 0)).await?.collect(),
                false => public_addresses(name.as_str(), 0).await?,
            };
            Ok::<Addrs, Box<dyn Error + Send + Sync>>(Box::new(found.into_iter()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_the_public_internet_is_private() {
        for private in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in [
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.169.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        let refused = public_addresses("localhost", 80).await.unwrap_err();
        assert_eq!((refused.kind(), refused.to_string().as_str()), (io::ErrorKind::PermissionDenied, REFUSED));
        let guarded = GuardedBody::new("localhost");
        assert!(guarded.resolve("LocalHost".parse().unwrap()).await.is_ok());
        let guarded = GuardedBody::new("other.example");
        assert!(guarded.resolve("localhost".parse().unwrap()).await.is_err());
    }

    #[test]
    fn a_redirect_stays_with_its_host_and_never_goes_from_https_to_http() {
        let same = |from: &str, to: &str| is_same_host(&Url::parse(from).unwrap(), &Url::parse(to).unwrap());
        for to in ["https://h.example/b", "https://h.example:443/b", "https://H.example/a?b"] {
            assert!(same("https://h.example/a", to), "{to}");
        }
        assert!(
            same("http://h.example/a", "https://h.example/a") && same("http://h.example:81/", "http://h.example:81/b")
        );
        for to in ["http://h.example/a", "https://h.example:444/a", "https://other.example/a", "https://a.h.example/"] {
            assert!(!same("https://h.example/a", to), "{to}");
        }
        assert!(!same("http://127.0.0.1:81/", "http://127.0.0.1:82/"));
    }

    #[test]
    fn exceptions_from_proxies_are_names_and_what_is_below_them() {
        for (host, list) in
            [("a.example", "b,a.example"), ("x.a.example", ".a.example"), ("x.a.example", "*.a.example"), ("h", "*")]
        {
            assert!(is_excepted(host, list), "{host} {list}");
        }
        assert!(!is_excepted("xa.example", "a.example") && !is_excepted("h", ""));
    }
}
