//! What a node shows to its origins, by host; and how it keeps that to itself.
//!
//! A secret goes to the host it was given for and nowhere else. It is in no URL, for URLs end up in arguments, errors and
//! logs, and what others say about URLs is [`scrub`]bed before it is passed on.

use std::{fmt, sync::Arc};

use headers::{Authorization, HeaderMap, HeaderMapExt};
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use url::Url;

/// Users and passwords of origins, by host. None by default.
///
/// ```
/// let text = "# of the operator\ngit.example:8443 reader the password\ngithub.com helper store --file=/etc/git-credentials";
/// datad_gossip::providers::OriginCredentials::parse(text).unwrap();
/// datad_gossip::providers::OriginCredentials::parse("machine git.example login reader password secret").unwrap();
/// ```
#[derive(Clone, Default)]
pub struct OriginCredentials {
    entries: Arc<[Entry]>,
}

#[derive(Clone)]
struct Entry {
    host: String,
    /// Any, if not said.
    port: Option<u16>,
    secret: Secret,
}

/// What is shown to a host.
#[derive(Clone)]
pub(crate) enum Secret {
    /// A value for `Authorization`.
    Header(HeaderValue),
    /// A credential helper that git asks.
    Helper(String),
}

/// Credentials that cannot be read. It names a line and never what stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the credentials cannot be read: {0}")]
pub struct CredentialsError(String);

impl OriginCredentials {
    /// Reads lines of `HOST USER PASSWORD` or `HOST helper COMMAND`, or a netrc file (`machine HOST login USER password
    /// PASSWORD`). A host may have a port; without one, it is meant with every port. `COMMAND` is what git's
    /// `credential.helper` may be, and counts for git only. Lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// A line is none of these.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let lines: Vec<(usize, &str)> = text
            .lines()
            .enumerate()
            .map(|(number, line)| (number + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .collect();
        let is_netrc = lines.first().is_some_and(|(_, line)| line.split_whitespace().next() == Some("machine"));
        let entries = if is_netrc { netrc(&lines)? } else { lines.iter().map(line).collect::<Result<_, _>>()? };
        Ok(Self { entries: entries.into() })
    }

    /// What is shown to the host of `url`. The port that is named counts before none.
    pub(crate) fn of(&self, url: &Url) -> Option<&Secret> {
        let (host, port) = (url.host_str()?, url.port_or_known_default());
        let matching = self.entries.iter().filter(|entry| entry.host == host);
        let matching = matching.filter(|entry| entry.port.is_none() || entry.port == port);
        matching.max_by_key(|entry| entry.port.is_some()).map(|entry| &entry.secret)
    }
}

impl fmt::Debug for OriginCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| &entry.host)).finish()
    }
}

fn line((number, line): &(usize, &str)) -> Result<Entry, CredentialsError> {
    let wrong = |reason: &str| CredentialsError(format!("line {number}: {reason}"));
    let mut parts = line.splitn(3, char::is_whitespace).map(str::trim);
    let (Some(host), Some(user), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong("it looks like HOST USER PASSWORD, or HOST helper COMMAND"));
    };
    let secret = match user {
        "helper" => Secret::Helper(rest.to_owned()),
        _ => Secret::Header(basic(user, rest).map_err(wrong)?),
    };
    entry(host, secret).map_err(wrong)
}

fn netrc(lines: &[(usize, &str)]) -> Result<Vec<Entry>, CredentialsError> {
    let words = lines.iter().flat_map(|(number, line)| line.split_whitespace().map(move |word| (*number, word)));
    let mut machines: Vec<(usize, &str, Option<&str>, Option<&str>)> = Vec::new();
    let mut words = words;
    while let Some((number, word)) = words.next() {
        let wrong = |reason: &str| CredentialsError(format!("line {number}: {reason}"));
        let (_, value) = words.next().ok_or_else(|| wrong("a value is missing at the end"))?;
        match (word, machines.last_mut()) {
            ("machine", _) => machines.push((number, value, None, None)),
            ("login", Some(machine)) => machine.2 = Some(value),
            ("password", Some(machine)) => machine.3 = Some(value),
            ("account", Some(_)) => {}
            _ => return Err(wrong("only machine, login, password and account are possible")),
        }
    }
    let entry = |(number, host, user, password): (usize, &str, Option<&str>, Option<&str>)| {
        let wrong = |reason: &str| CredentialsError(format!("line {number}: {reason}"));
        let password = password.ok_or_else(|| wrong("this machine has no password"))?;
        let secret = Secret::Header(basic(user.unwrap_or_default(), password).map_err(wrong)?);
        entry(host, secret).map_err(wrong)
    };
    machines.into_iter().map(entry).collect()
}

fn entry(host: &str, secret: Secret) -> Result<Entry, &'static str> {
    // Both schemes have a default port, which a URL leaves out; so the port is read from the text.
    let url = Url::parse(&format!("http://{host}/")).map_err(|_| "the host is not valid")?;
    let plain = url.username().is_empty() && url.password().is_none() && url.path() == "/" && url.query().is_none();
    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    match url.host_str() {
        Some(host) if plain => Ok(Entry { host: host.to_owned(), port, secret }),
        _ => Err("the host is not valid; it looks like git.example or git.example:8443"),
    }
}

/// Takes user and password out of `url`, as a value for `Authorization`.
///
/// # Errors
/// They are not UTF-8.
pub(crate) fn take_user(url: &mut Url) -> Result<Option<HeaderValue>, &'static str> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decode = |text| percent_decode_str(text).decode_utf8().map_err(|_| "the user information is not UTF-8");
    let value = basic(&decode(url.username())?, &decode(url.password().unwrap_or(""))?)?;
    let _ = (url.set_username(""), url.set_password(None));
    Ok(Some(value))
}

/// The value that is sent for a user and password.
pub(crate) fn basic(user: &str, password: &str) -> Result<HeaderValue, &'static str> {
    if user.contains(':') {
        return Err("a user has no colon in its name");
    }
    let mut headers = HeaderMap::new();
    headers.typed_insert(Authorization::basic(user, password));
    let mut value = headers.remove(http::header::AUTHORIZATION).ok_or("the user information is not valid")?;
    value.set_sensitive(true);
    Ok(value)
}

/// `text` without what may be secret in the URLs that it names: users and passwords before the host, and queries, which
/// may be signatures that open what they name.
pub(crate) fn scrub(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`');
    let (mut clean, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let (url, tail) = after.split_at(after.find(ends).unwrap_or(after.len()));
        let (authority, path) = url.split_at(url.find(['/', '?', '#']).unwrap_or(url.len()));
        clean.push_str(authority.rsplit_once('@').map_or(authority, |(_, host)| host));
        match path.split_once('?') {
            Some((path, query)) => {
                // The punctuation that closes the sentence around the URL is not a part of it.
                let closing = query.len() - query.trim_end_matches([')', ',', ';', ':', '.']).len();
                clean.extend([path, "?...", &query[query.len() - closing..]]);
            }
            None => clean.push_str(path),
        }
        rest = tail;
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'c>(credentials: &'c OriginCredentials, url: &str) -> Option<&'c str> {
        match credentials.of(&Url::parse(url).unwrap())? {
            Secret::Header(value) => Some(value.to_str().unwrap()),
            Secret::Helper(command) => Some(command),
        }
    }

    #[test]
    fn a_secret_goes_to_its_own_host_and_port() {
        let text =
            "# comment\n\nGit.example me s e c\ngit.example:81 me other\ngithub.com helper !f() { x; }; f\n[::1]:5 u p";
        let credentials = OriginCredentials::parse(text).unwrap();
        let me = "Basic bWU6cyBlIGM=";
        for (url, expected) in [
            ("https://git.example/a", Some(me)),
            ("http://git.example:82/a", Some(me)),
            ("http://git.example:81/a", Some("Basic bWU6b3RoZXI=")),
            ("https://github.com/a", Some("!f() { x; }; f")),
            ("http://[::1]:5/", Some("Basic dTpw")),
            ("http://[::1]/", None),
            ("https://git.example.evil/a", None),
            ("https://a.git.example/a", None),
        ] {
            assert_eq!(header(&credentials, url), expected, "{url}");
        }
        assert!(!format!("{credentials:?}").contains("bWU6"));
    }

    #[test]
    fn a_netrc_file_says_the_same() {
        let text = "machine git.example login me password secret\nmachine other.example\n  login you\n  password x\n";
        let credentials = OriginCredentials::parse(text).unwrap();
        assert_eq!(header(&credentials, "https://git.example/"), Some("Basic bWU6c2VjcmV0"));
        assert_eq!(header(&credentials, "https://other.example/"), Some("Basic eW91Ong="));
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_line_and_not_repeated() {
        for text in [
            "\ngit.example canary",
            "\nhttp://git.example/ me canary",
            "\ngit.example/path me canary",
            "\nme@git.example me canary",
            "\nmachine git.example login canary",
            "\nmachine git.example login me password canary canary",
            "\nmachine a login b password c\ndefault login me password canary",
            "\ngit.example me:you canary",
        ] {
            let error =
                OriginCredentials::parse(text).err().unwrap_or_else(|| panic!("{text:?} was taken")).to_string();
            assert!(error.contains("line ") && !error.contains("canary"), "{error}");
        }
        assert!(OriginCredentials::parse("").unwrap().entries.is_empty());
    }

    #[test]
    fn what_is_said_about_urls_is_passed_on_without_secrets() {
        for (text, expected) in [
            ("get https://me:pw@host:81/a?sig=x&y=z: refused", "get https://host:81/a?...: refused"),
            ("error for url (https://host/a?sig=x)", "error for url (https://host/a?...)"),
            ("'http://tok@en@host/x' and http://b", "'http://host/x' and http://b"),
            ("no url at all? user@host", "no url at all? user@host"),
            ("\"https://host?q\"", "\"https://host?...\""),
        ] {
            assert_eq!(scrub(text), expected);
        }
    }

    #[test]
    fn user_and_password_leave_a_url_decoded() {
        let mut url = Url::parse("https://me:s%20t@host:81/x").unwrap();
        assert_eq!(take_user(&mut url).unwrap().unwrap(), "Basic bWU6cyB0");
        assert_eq!(url.as_str(), "https://host:81/x");
        assert_eq!(take_user(&mut url), Ok(None));
    }
}
