//! Which keys may be fetched: patterns chosen by the operator, checked before anything is asked of an origin.
//!
//! A pattern is matched against the whole key. `*` stands for any run of characters, slashes included, and `?` for any
//! single one, so `github.com/org/*` allows everything an organisation has, and `*/linux` any repository of that name.

use wildmatch::WildMatch;

use crate::{key::Key, provider::UpdateError};

/// The operator's patterns. Without any pattern every key is allowed, which is also the default.
#[derive(Debug, Clone, Default)]
pub struct AllowList {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    exact: WildMatch,
    /// The same without regard to case, to tell why a key does not match.
    loose: WildMatch,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Self { exact: WildMatch::new(text), loose: WildMatch::new_case_insensitive(text) }
    }
}

impl AllowList {
    /// Allows every key.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Allows the keys that match one of `patterns`; no patterns at all allow every key.
    pub fn new<P: AsRef<str>>(patterns: impl IntoIterator<Item = P>) -> Self {
        Self { patterns: patterns.into_iter().map(|pattern| Pattern::new(pattern.as_ref())).collect() }
    }

    /// For keys that begin with a host, which is in lower case: patterns may write it in any case. Only what stands before
    /// the first slash or wildcard is surely a part of the host, because a wildcard runs across slashes.
    pub(crate) fn with_hosts(self) -> Self {
        let fold = |pattern: Pattern| {
            let text = pattern.exact.pattern();
            let (host, rest) = text.split_at(text.find(['/', '*', '?']).unwrap_or(text.len()));
            Pattern::new(&format!("{}{rest}", host.to_ascii_lowercase()))
        };
        Self { patterns: self.patterns.into_iter().map(fold).collect() }
    }

    /// Whether the operator named any pattern.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether `key` may be fetched.
    #[must_use]
    pub fn allows(&self, key: &Key) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.exact.matches(key.as_str()))
    }

    /// [`AllowList::allows`] as an update wants it.
    pub(crate) fn check(&self, key: &Key) -> Result<(), UpdateError> {
        if self.allows(key) {
            return Ok(());
        }
        let hint = match self.patterns.iter().any(|pattern| pattern.loose.matches(key.as_str())) {
            true => {
                "; it would if its capital and small letters were written as in the pattern, so try its usual spelling"
            }
            false => "",
        };
        Err(UpdateError::Forbidden(format!("{key} matches none of the allowed patterns{hint}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(patterns: &[&str], key: &str) -> bool {
        AllowList::new(patterns).allows(&Key::new(key).unwrap())
    }

    #[test]
    fn no_patterns_allow_every_key() {
        assert!(allows(&[], "any/thing"));
        assert!(!AllowList::everything().is_restricted());
    }

    #[test]
    fn a_star_runs_across_slashes_but_the_whole_key_has_to_match() {
        assert!(allows(&["github.com/org/*"], "github.com/org/a/b"));
        assert!(allows(&["*/linux"], "git.kernel.org/pub/linux"));
        assert!(!allows(&["github.com/org/*"], "github.com/organic/a"));
        assert!(!allows(&["github.com/org/*"], "evil.com/github.com/org/a"));
        assert!(!allows(&["github.com/org"], "github.com/org/a"));
    }

    #[test]
    fn hosts_have_no_case_and_paths_have_one() {
        let allow = AllowList::new(["GitHub.com/Our-Org/*", "GitLab*", "*.Example/X"]).with_hosts();
        let check = |key: &str| allow.check(&Key::new(key).unwrap()).map_err(|error| error.to_string());
        for key in ["github.com/Our-Org/x", "gitlab.com/Any", "git.Example/X"] {
            assert_eq!(check(key), Ok(()));
        }
        assert!(check("github.com/our-org/x").unwrap_err().contains("as in the pattern"));
        assert!(check("git.example/x").unwrap_err().contains("as in the pattern"), "a wildcard may run into the path");
        assert!(!check("github.com/other/x").unwrap_err().contains("as in the pattern"));
        assert!(!allows(&["GitHub.com/*"], "github.com/a"), "elsewhere the first component is any name");
    }

    #[test]
    fn one_match_among_several_patterns_is_enough() {
        assert!(allows(&["a/*", "b/?"], "b/x"));
        assert!(!allows(&["a/*", "b/?"], "b/xy"));
    }

    #[test]
    fn dots_and_brackets_in_a_pattern_are_plain_text() {
        assert!(!allows(&["github.com/*"], "githubxcom/a"));
        assert!(allows(&["a[b]/*"], "a[b]/c"));
    }
}
