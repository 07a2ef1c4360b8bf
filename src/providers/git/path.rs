//! From a request path to the repository it belongs to, and to what git's smart HTTP wants there. Pure.
//!
//! Clients add their own tails to the URL that a user typed (gitprotocol-http(5)), and users write it with or without
//! `.git`; all of these name one key.

use http::{Method, StatusCode};

use super::template::Template;
use crate::key::{Key, KeyError};

/// The tails of single files and services.
const TAILS: [&str; 5] = ["/info/refs", "/git-upload-pack", "/git-receive-pack", "/git-upload-archive", "/HEAD"];

/// What Git LFS asks for stands below this.
const LARGE_FILES: &str = "/info/lfs/";

/// The key that `path`, as it stands in the request line, belongs to.
pub(crate) fn key_of(path: &str, template: &Template) -> Result<Key, KeyError> {
    let whole = Key::from_path(&without_last_slashes(path))?;
    let rooted = format!("/{whole}");
    let repository = without_tail(&rooted).trim_start_matches('/');
    let name = repository.strip_suffix(".git").unwrap_or(repository);
    let key = match name.split_once('/') {
        Some((host, rest)) if template.host_in_key() => Key::new(format!("{}/{rest}", host.to_ascii_lowercase()))?,
        _ => Key::new(name)?,
    };
    check(&key)?;
    template.remote(&key)?;
    Ok(key)
}

/// The path without slashes after the repository: users write `org/repo/`, and git puts its tail after that.
fn without_last_slashes(path: &str) -> String {
    let path = path.trim_end_matches('/');
    let (repository, tail) = path.split_at(without_tail(path).len());
    format!("{}{tail}", repository.trim_end_matches('/'))
}

/// What git's mirrors ask of a key beyond what every key obeys.
pub(crate) fn check(key: &Key) -> Result<(), KeyError> {
    let allowed = |c: char| c.is_alphanumeric() || "._~+@/- ()".contains(c);
    if !key.as_str().chars().all(allowed) {
        let allowed = "only letters, digits, spaces and ._~+@/-() are possible in the name of a repository";
        return Err(KeyError::Character(allowed));
    }
    if key.components().any(|component| component.starts_with(' ') || component.ends_with(' ')) {
        return Err(KeyError::Character("a space at the beginning or end of a component"));
    }
    let ends_in_git = |part: &str| part.len() >= 4 && part.as_bytes()[part.len() - 4..].eq_ignore_ascii_case(b".git");
    if key.components().any(ends_in_git) {
        return Err(KeyError::Refused("a component ends in `.git`".to_owned()));
    }
    Ok(())
}

/// Cuts off what a git client added.
fn without_tail(path: &str) -> &str {
    if let Some(repository) = TAILS.iter().find_map(|tail| path.strip_suffix(tail)) {
        return repository;
    }
    if let Some(at) = path.rfind(LARGE_FILES)
        && is_large_files(&path[at + LARGE_FILES.len()..])
    {
        return &path[..at];
    }
    match path.rfind("/objects/") {
        Some(at) if is_object(&path[at + "/objects/".len()..]) => &path[..at],
        _ => path,
    }
}

/// `info/packs`, `pack/pack-HASH.idx`, `3f/HASH` and the like.
fn is_object(tail: &str) -> bool {
    let hex = |text: &str, len: usize| text.len() >= len && text.bytes().all(|b| b.is_ascii_hexdigit());
    match tail.split_once('/') {
        Some(("info" | "pack", name)) => !name.contains('/'),
        Some((fan, name)) => fan.len() == 2 && hex(fan, 2) && hex(name, 38),
        None => false,
    }
}

/// `objects/batch`, `locks`, `locks/verify` and the like.
fn is_large_files(tail: &str) -> bool {
    ["objects", "locks", "verify"].contains(&tail.split('/').next().unwrap_or_default())
}

/// What a request to a repository wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The advertisement that every fetch begins with.
    Advertisement,
    /// The fetch itself.
    UploadPack,
    /// Something of Git LFS, which is not served.
    LargeFiles,
    /// Something that is refused, and how.
    Refused(StatusCode, &'static str),
}

/// Reads a request. Only fetching by smart HTTP is served: mirrors take no pushes, and the dumb protocol, which would
/// hand out single files of a mirror that is being repacked, is of no use to any git since 1.6.6.
pub(crate) fn wish(method: &Method, path: &str, query: Option<&str>) -> Wish {
    let service = query.unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("service="));
    if path.ends_with("/git-receive-pack") || service == Some("git-receive-pack") {
        return Wish::Refused(StatusCode::FORBIDDEN, "this is a mirror: pushing is not possible here\n");
    }
    let read = *method == Method::GET || *method == Method::HEAD;
    match service {
        Some("git-upload-pack") if path.ends_with("/info/refs") && read => Wish::Advertisement,
        _ if path.ends_with("/git-upload-pack") && *method == Method::POST => Wish::UploadPack,
        _ if path.rfind(LARGE_FILES).is_some_and(|at| is_large_files(&path[at + LARGE_FILES.len()..])) => {
            Wish::LargeFiles
        }
        _ if path.ends_with("/git-upload-pack") => Wish::Refused(StatusCode::METHOD_NOT_ALLOWED, "POST only\n"),
        Some(_) => Wish::Refused(StatusCode::FORBIDDEN, "only git-upload-pack is served here\n"),
        None if without_tail(path).len() < path.len() => {
            Wish::Refused(StatusCode::FORBIDDEN, "git's dumb HTTP protocol is not served here\n")
        }
        None => Wish::Refused(StatusCode::NOT_FOUND, "this is a git repository: use git clone\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Result<String, KeyError> {
        key_of(path, &Template::parse("https://host/{key}.git").unwrap()).map(|key| key.as_str().to_owned())
    }

    #[test]
    fn every_way_to_write_a_repository_is_one_key() {
        for tail in [
            "",
            "/info/refs",
            "/git-upload-pack",
            "/git-receive-pack",
            "/HEAD",
            "/objects/info/packs",
            "/objects/info/alternates",
            "/objects/pack/pack-0123456789012345678901234567890123456789.idx",
            "/objects/3f/01234567890123456789012345678901234567",
            "/info/lfs/objects/batch",
            "/info/lfs/locks",
            "/info/lfs/locks/verify",
            "/info/lfs/locks/7/unlock",
        ] {
            assert_eq!(key(&format!("/org/repo.git{tail}")).as_deref(), Ok("org/repo"), "{tail}");
            assert_eq!(key(&format!("/org/repo{tail}")).as_deref(), Ok("org/repo"), "{tail}");
        }
        for path in [
            "/org%2Frepo",
            "/org/repo/",
            "/org/repo//info/refs",
            "/org/repo.git//info/refs",
            "/org/repo.git//",
            "/org/repo.git//info/lfs/locks",
        ] {
            assert_eq!(key(path).as_deref(), Ok("org/repo"), "{path}");
        }
        assert_eq!(
            key("/org/My%20Project%20%28new%29/_git/repo/info/refs").as_deref(),
            Ok("org/My Project (new)/_git/repo")
        );
        assert_eq!(key("/org/Pr%C3%BCfung").as_deref(), Ok("org/Prüfung"));
    }

    #[test]
    fn a_repository_may_be_called_like_a_part_of_a_tail() {
        for path in [
            "/info/lfs",
            "/org/info/lfs/x",
            "/org/objects/readme",
            "/objects/ab",
            "/org/info",
            "/org/refs",
            "/a.b/c~d+e@f",
        ] {
            assert_eq!(key(path).as_deref(), Ok(&path[1..]));
        }
    }

    #[test]
    fn hostile_paths_are_refused() {
        for path in [
            "/",
            "/.git",
            "/.git/info/refs",
            "/info/refs",
            "/../x",
            "/a/%2e%2e/b",
            "/a%00",
            "/-upload-pack=x",
            "/a/--exec=x",
            "/ext::sh",
            "/a%20/b",
            "/%20a",
            "/a%C2%A0b",
            "/a%0Ab",
            "/a;id",
            "/$(id)",
            "/a.git/b",
            "/a.git/.git",
            "/a.git.git",
            "/a.GIT",
            "/a?b",
            "/a:b",
            "/a\\b",
            "//host/x",
            "/a//b",
            "//",
            "//info/refs",
        ] {
            // A URI never carries `?` in its path, but nothing here relies on it.
            assert!(key(path).is_err(), "{path}: {:?}", key(path));
        }
    }

    #[test]
    fn hosts_are_folded_to_lower_case_and_nothing_else_is() {
        let template = Template::parse("https://{key}.git").unwrap();
        assert_eq!(key_of("/GitHub.com/Org/Repo.git/info/refs", &template).unwrap().as_str(), "github.com/Org/Repo");
        for path in ["/me@github.com/a", "/github.com:81/a", "/github.com", "/localhost/a", "/127.0.0.1/a"] {
            assert!(key_of(path, &template).is_err(), "{path}");
        }
    }

    #[test]
    fn only_fetching_by_smart_http_is_served() {
        let wish = |method: &Method, path, query| wish(method, path, query);
        let (get, post) = (&Method::GET, &Method::POST);
        assert_eq!(wish(get, "/a/info/refs", Some("service=git-upload-pack")), Wish::Advertisement);
        assert_eq!(wish(post, "/a/git-upload-pack", None), Wish::UploadPack);
        assert_eq!(wish(get, "/host/info/lfs/info/refs", Some("service=git-upload-pack")), Wish::Advertisement);
        for path in ["/a.git/info/lfs/objects/batch", "/a/info/lfs/locks/verify", "/a/info/lfs/locks"] {
            assert_eq!(wish(post, path, None), Wish::LargeFiles, "{path}");
        }
        for (method, path, query, status) in [
            (get, "/a/info/refs", Some("service=git-receive-pack"), 403),
            (post, "/a/git-receive-pack", None, 403),
            (get, "/a/info/refs", None, 403),
            (get, "/a/HEAD", None, 403),
            (get, "/a/git-upload-pack", None, 405),
            (get, "/a", None, 404),
            (get, "/a/info/refs", Some("service=sh"), 403),
        ] {
            let Wish::Refused(found, _) = wish(method, path, query) else { panic!("{path} is served") };
            assert_eq!(found.as_u16(), status, "{path}");
        }
    }
}
