//! From a key to the URL that it is fetched from, and nothing else than that URL.
//!
//! The operator writes a template such as `https://{key}.git` (the key starts with a host) or
//! `file:///srv/git/{key}` (it does not). Keys come from strangers, so the URL that results is parsed again, and is
//! used only if scheme, user, host, port and path are letter for letter what the template promises. Pure.

use std::net::SocketAddr;

use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, PercentEncode, utf8_percent_encode};
use url::{Position, Url};

use super::config::GitError;
use crate::{
    key::{Key, KeyError},
    providers::{
        credentials::take_user,
        reach::{REFUSED, is_private_host},
    },
};

const PLACE: &str = "{key}";

/// A checked template.
#[derive(Clone)]
pub(crate) struct Template {
    scheme: Scheme,
    /// Scheme, host and port without user information, such as `https://host:81`; empty after `://` if the key starts
    /// with the host.
    origin: String,
    /// What stands between the origin and the key, and after the key.
    before: String,
    after: String,
    /// Whether the first component of a key is the host.
    host_in_key: bool,
    /// Whether a key may name a host in a private network.
    private: bool,
    authorization: Option<HeaderValue>,
}

/// How the origin is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
    File,
}

/// A place to fetch one repository from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    /// Without user information.
    pub(crate) url: String,
    /// The part of the URL that the authorization belongs to.
    pub(crate) origin: String,
    /// A value for the `Authorization` header.
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) scheme: Scheme,
    /// The addresses to connect to, where the host may not be resolved again.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whether the environment's proxies apply.
    pub(crate) proxied: bool,
}

impl Template {
    /// Checks what the operator wrote.
    ///
    /// # Errors
    /// [`GitError::Template`] with the rule that is broken.
    pub(crate) fn parse(text: &str) -> Result<Self, GitError> {
        let wrong = |reason: &str| GitError::Template(reason.to_owned());
        let (name, rest) =
            text.split_once("://").ok_or_else(|| wrong("it has to be a URL such as https://{key}.git"))?;
        let scheme = match name {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "file" => Scheme::File,
            _ => return Err(wrong("only http, https and file URLs can be mirrored")),
        };
        let Some((before, after)) = rest.split_once(PLACE) else {
            return Err(wrong("{key} has to stand where the key belongs"));
        };
        if after.contains(PLACE) {
            return Err(wrong("{key} may stand there only once"));
        }
        if rest.contains(['?', '#']) {
            return Err(wrong("a query or fragment is not possible"));
        }
        let host_in_key = before.is_empty();
        if host_in_key && scheme == Scheme::File {
            return Err(wrong("a file URL has no host: write file:///directory/{key}"));
        }
        if host_in_key && after.starts_with(':') {
            return Err(wrong("a key that starts with the host leaves no room for a port"));
        }
        let mut template = Self {
            scheme,
            origin: format!("{name}://"),
            before: String::new(),
            after: after.to_owned(),
            host_in_key,
            private: false,
            authorization: None,
        };
        if !host_in_key {
            template.take_authority(name, before).map_err(wrong)?;
        }
        template.check_sample()?;
        Ok(template)
    }

    /// Lets keys name hosts in private networks, or not.
    pub(crate) fn with_private(mut self, private: bool) -> Self {
        self.private = private;
        self
    }

    /// Splits off host, port and user information, which must end before the key begins.
    fn take_authority(&mut self, scheme: &str, before: &str) -> Result<(), &'static str> {
        let slash = before.find('/').ok_or("{key} may be the start of the host or stand in the path, nowhere else")?;
        let mut url = Url::parse(&format!("{scheme}://{}/", &before[..slash])).map_err(|_| "the host is not valid")?;
        if self.scheme == Scheme::File && slash != 0 {
            return Err("a file URL has no host: write file:///directory/{key}");
        }
        self.authorization = take_user(&mut url)?;
        self.origin = url.as_str().trim_end_matches('/').to_owned();
        if self.scheme == Scheme::File {
            self.origin = "file://".to_owned();
        }
        self.before = before[slash..].to_owned();
        Ok(())
    }

    /// A key without any oddity must come out unchanged; if not, the template itself has one (`..`, a space, ...).
    fn check_sample(&self) -> Result<(), GitError> {
        let sample = Key::new("sample.example/repository").expect("this is a key");
        let oddity =
            |_| GitError::Template("write the URL in its plain form, without `..` and with escapes".to_owned());
        self.remote(&sample).map(drop).map_err(oddity)
    }

    /// Whether the first component of a key is a host; hosts are written in lower case.
    pub(crate) fn host_in_key(&self) -> bool {
        self.host_in_key
    }

    /// What stands in `url` where a key belongs, whatever its scheme and user, and with or without `.git` at its end. `None` if
    /// it leads elsewhere.
    pub(crate) fn name_in(&self, url: &Url) -> Option<String> {
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix(self.after.trim_end_matches('/')).unwrap_or(path);
        if self.host_in_key {
            return Some(format!("{}{path}", url.host_str().filter(|_| url.port().is_none())?));
        }
        let own = Url::parse(&self.origin).ok()?;
        let is_own = own.host_str().is_some() && own.host_str() == url.host_str() && own.port() == url.port();
        path.strip_prefix(&self.before).filter(|_| is_own).map(str::to_owned)
    }

    /// Whether it is fetched by HTTP.
    pub(crate) fn is_http(&self) -> bool {
        self.scheme != Scheme::File
    }

    /// Where `key` is fetched from.
    ///
    /// # Errors
    /// The key would lead somewhere else than the template says.
    pub(crate) fn remote(&self, key: &Key) -> Result<Remote, KeyError> {
        let refused = |reason: &str| KeyError::Refused(reason.to_owned());
        if key.as_str().contains('%') {
            return Err(refused("it has an escape, which somebody further on might decode"));
        }
        let text = format!("{}{}{}{}", self.origin, self.before, in_url(key), self.after);
        let url = Url::parse(&text).map_err(|_| refused("it makes no valid URL"))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(refused("it would add a user, a query or a fragment to the URL"));
        }
        // A URL in its plain form reads the same before and after parsing: nothing was resolved, folded or escaped.
        if url.as_str() != text {
            return Err(refused("it makes a URL that is not in its plain form"));
        }
        if self.host_in_key {
            check_host(&url, key, self.private).map_err(refused)?;
        } else if !url.path().starts_with(&self.before) || !url.as_str().starts_with(&format!("{}/", self.origin)) {
            return Err(refused("it leads out of the template"));
        }
        Ok(Remote {
            origin: format!("{}/", &url[..Position::BeforePath]),
            url: text,
            authorization: self.authorization.clone(),
            addresses: Vec::new(),
            scheme: self.scheme,
            proxied: true,
        })
    }
}

/// The key as it stands in a URL: with escapes for what no URL carries and repositories are named with, and for nothing else.
pub(super) fn in_url(key: &Key) -> PercentEncode<'_> {
    const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'(').add(b')');
    utf8_percent_encode(key.as_str(), ESCAPED)
}

/// The host must be exactly the key's first component, be followed by a path, and not be this machine or an address in a
/// private network, unless that is allowed.
fn check_host(url: &Url, key: &Key, private: bool) -> Result<(), &'static str> {
    let first = key.components().next();
    if first != url.host_str() || key.components().count() < 2 || url.port().is_some() {
        return Err("its first component has to be a host name in lower case, followed by a path");
    }
    match url.host() {
        Some(host) if private || !is_private_host(&host) => Ok(()),
        _ => Err(REFUSED),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(template: &str, key: &str) -> Result<String, String> {
        let template = Template::parse(template).map_err(|error| error.to_string())?;
        template.remote(&Key::new(key).unwrap()).map(|remote| remote.url).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_lands_where_the_template_says() {
        for (template, key, expected) in [
            ("https://{key}.git", "github.com/org/repo", "https://github.com/org/repo.git"),
            ("https://github.com/{key}.git", "org/repo", "https://github.com/org/repo.git"),
            ("http://127.0.0.1:1234/{key}.git", "a", "http://127.0.0.1:1234/a.git"),
            ("http://[::1]:81/x-{key}", "a~b/c@d", "http://[::1]:81/x-a~b/c@d"),
            ("file:///srv/git/{key}", "a/b", "file:///srv/git/a/b"),
            ("http://{key}", "git.example/a", "http://git.example/a"),
            ("https://{key}", "git.example/a b/(ü)", "https://git.example/a%20b/%28%C3%BC%29"),
        ] {
            assert_eq!(url(template, key).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn templates_that_could_lead_astray_are_refused_at_once() {
        for template in [
            "{key}",
            "ssh://host/{key}",
            "ext::sh -c {key}",
            "https://host/",
            "https://{key}/{key}",
            "https://host/?x={key}",
            "https://host/{key}#f",
            "https://user@{key}.git",
            "https://git.{key}",
            "https://host:{key}/",
            "https://{key}:81/",
            "file://{key}",
            "file://host/{key}",
            "https://host/a/../{key}",
            "https://host/a b/{key}",
            "HTTPS://host/{key}",
        ] {
            assert!(Template::parse(template).is_err(), "{template}");
        }
    }

    #[test]
    fn a_key_cannot_choose_another_host_port_or_user() {
        for key in [
            "github.com",
            "github.com:81/a",
            "user@github.com/a",
            "GitHub.com/a",
            "127.1/a",
            "0x7f.1/a",
            "a b/c",
            "\u{fc}.example/a",
        ] {
            assert!(url("https://{key}.git", key).is_err(), "{key}");
        }
        for key in [
            "localhost/a",
            "127.0.0.1/a",
            "169.254.169.254/latest",
            "0.0.0.0/a",
            "10.0.0.1/a",
            "100.64.0.1/a",
            "localhost./a",
        ] {
            assert!(url("https://{key}.git", key).is_err(), "{key}");
        }
        let open = Template::parse("https://{key}.git").unwrap().with_private(true);
        assert!(open.remote(&Key::new("10.0.0.1/a").unwrap()).is_ok());
        for key in ["a?x=1", "a#b", "a%2e%2e/b", "a\"b", "a<b"] {
            assert!(url("https://host/{key}.git", key).is_err(), "{key}");
        }
    }

    #[test]
    fn credentials_leave_the_url_for_a_header() {
        let template = Template::parse("https://me:s%20t@host:81/{key}.git").unwrap();
        let remote = template.remote(&Key::new("a").unwrap()).unwrap();
        assert_eq!(remote.url, "https://host:81/a.git");
        assert_eq!(remote.origin, "https://host:81/");
        assert_eq!(remote.authorization.unwrap(), "Basic bWU6cyB0");
    }

    #[test]
    fn a_url_of_a_forge_names_the_key_that_it_would_be_fetched_as() {
        let name = |template: &str, url: &str| Template::parse(template).unwrap().name_in(&Url::parse(url).unwrap());
        for url in ["https://h.example/Org/r.git", "http://u:p@h.example/Org/r.git/", "https://h.example/Org/r"] {
            assert_eq!(name("https://{key}.git", url).as_deref(), Some("h.example/Org/r"), "{url}");
            assert_eq!(name("https://h.example/{key}.git", url).as_deref(), Some("Org/r"), "{url}");
        }
        assert_eq!(name("https://h.example:8443/git/{key}", "https://h.example:8443/git/a/b").as_deref(), Some("a/b"));
        for url in ["https://other.example/a", "https://h.example:81/a", "https://h.example/elsewhere/a"] {
            assert_eq!(name("https://h.example/git/{key}.git", url), None, "{url}");
        }
        assert_eq!(name("file:///srv/{key}.git", "https://h.example/a"), None);
    }

    proptest! {
        #[test]
        fn no_key_leaves_the_template(text in "[A-Za-z0-9._~+@/:%?#&= ()ü-]{1,30}") {
            let Ok(key) = Key::new(&text) else { return Ok(()) };
            if let Ok(url) = Template::parse("http://h.example:81/fixed/{key}.git").unwrap().remote(&key) {
                let url = Url::parse(&url.url).unwrap();
                prop_assert_eq!((url.host_str(), url.port()), (Some("h.example"), Some(81)));
                prop_assert!(url.path().starts_with("/fixed/"));
            }
            if let Ok(url) = Template::parse("https://{key}.git").unwrap().remote(&key) {
                let url = Url::parse(&url.url).unwrap();
                prop_assert_eq!(url.host_str(), text.split('/').next());
                prop_assert!(url.username().is_empty() && url.port().is_none());
            }
        }
    }
}
