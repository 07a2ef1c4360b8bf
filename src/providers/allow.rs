//! Which keys may be fetched: patterns chosen by the operator, checked before anything is asked of an origin.
//!
//! A pattern is matched against the whole key. `*` stands for any run of characters, slashes included, and `?` for any
//! single one, so `github.com/org/*` allows everything an organisation has, and `*/linux` any repository of that name.

use wildmatch::WildMatch;

use crate::{key::Key, provider::UpdateError};

/// The operator's patterns. Without any pattern every key is allowed, which is also the default.
///
/// ```
/// use datad_gossip::{key::Key, providers::AllowList};
///
/// let allow = AllowList::new(["github.com/my-org/*"]);
/// assert!(allow.allows(&Key::new("github.com/my-org/tools")?));
/// assert!(!allow.allows(&Key::new("github.com/other/tools")?));
/// # Ok::<(), datad_gossip::key::KeyError>(())
/// ```
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

    /// Whether some key that matches `pattern`, written as these are, may be fetched.
    #[must_use]
    pub fn allows_any_of(&self, pattern: &str) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|allowed| have_common(&allowed.exact.pattern(), pattern))
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

    /// [`AllowList::allows_any_of`] as a pin wants it.
    pub(crate) fn check_pattern(&self, pattern: &Key) -> Result<(), String> {
        if self.allows_any_of(pattern.as_str()) {
            return Ok(());
        }
        Err(format!("no key that matches {pattern} matches one of the allowed patterns"))
    }
}

/// Whether a text exists that matches both patterns. Each cell of the table says that of what is left of both, so this takes as
/// many steps as their lengths multiplied.
fn have_common(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // Of what is left of `one` from the row on, and each rest of `other`.
    let mut below = vec![false; other.len() + 1];
    for row in (0..=one.len()).rev() {
        let mut here = vec![false; other.len() + 1];
        for column in (0..=other.len()).rev() {
            here[column] = match (one.get(row), other.get(column)) {
                (None, None) => true,
                // A star is nothing, or takes what the other pattern has next.
                (Some('*'), Some('*')) => below[column] || here[column + 1],
                (Some('*'), next) => below[column] || (next.is_some() && here[column + 1]),
                (next, Some('*')) => here[column + 1] || (next.is_some() && below[column]),
                (Some(a), Some(b)) => (a == b || *a == '?' || *b == '?') && below[column + 1],
                (None, Some(_)) | (Some(_), None) => false,
            };
        }
        below = here;
    }
    below[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_is_allowed_if_some_key_matches_it_and_a_rule() {
        let allow = AllowList::new(["github.com/org/*", "b.example/?"]);
        for possible in ["github.com/*", "*/org/x", "github.com/org/a?c*", "*", "b.*/x", "git?ub.com/org/*"] {
            assert!(allow.allows_any_of(possible), "{possible}");
        }
        for impossible in ["gitlab.com/*", "github.com/organic/*", "GitHub.com/*", "c.example/?/x*y", "b.example/xy*z"]
        {
            assert!(!allow.allows_any_of(impossible), "{impossible}");
        }
        assert!(AllowList::everything().allows_any_of("any/*"));
    }

    proptest! {
        /// Two patterns that a text matches have a text in common; and of short ones that have one, one is found by trying.
        #[test]
        fn two_patterns_have_a_text_in_common_if_there_is_one(one in "[ab*?]{0,5}", other in "[ab*?]{0,5}") {
            let mut texts = vec![String::new()];
            let mut last = texts.clone();
            for _ in 0..8 {
                last = last.iter().flat_map(|text| [format!("{text}a"), format!("{text}b")]).collect();
                texts.extend(last.clone());
            }
            let (first, second) = (WildMatch::new(&one), WildMatch::new(&other));
            let found = texts.iter().any(|text| first.matches(text) && second.matches(text));
            prop_assert_eq!(have_common(&one, &other), found);
        }
    }

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
