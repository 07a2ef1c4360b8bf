//! What a node serves, in a word that members compare: nodes whose keys mean different things keep none of each other's
//! (pure).
//!
//! A word is a list of lines `PREFIX=DIGEST,DIGEST`: for the keys that begin with the prefix,
//! digests of the kinds of data that the node can hold. Today a node has one provider for all keys,
//! so its word is one line with one digest. Several providers by prefix are several lines, and a
//! change that goes from node to node is a line with the digests of both kinds for as long as it
//! takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hasher,
};

use siphasher::sip::SipHasher13;

/// Digests of kinds of data, by prefix of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Serves(BTreeMap<String, BTreeSet<u64>>);

impl Serves {
    /// The same `kind` for all keys.
    pub(crate) fn everywhere(kind: &str) -> Self {
        let mut hash = SipHasher13::new_with_keys(0x7365_7276, 0);
        hash.write(kind.as_bytes());
        Self([(String::new(), [hash.finish()].into())].into())
    }

    /// Whether both can hold the same data wherever both say what they hold.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.0.iter().all(|(prefix, kinds)| other.0.get(prefix).is_none_or(|theirs| !kinds.is_disjoint(theirs)))
    }

    /// As gossip carries it.
    pub(crate) fn to_text(&self) -> String {
        let digests =
            |kinds: &BTreeSet<u64>| kinds.iter().map(|kind| format!("{kind:016x}")).collect::<Vec<_>>().join(",");
        self.0.iter().map(|(prefix, kinds)| format!("{prefix}={}", digests(kinds))).collect::<Vec<_>>().join("\n")
    }

    /// Reads it back. A line that makes no sense here is one of a later version, and says nothing.
    pub(crate) fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (prefix, digests) = line.rsplit_once('=')?;
            let kinds: Option<BTreeSet<u64>> =
                digests.split(',').map(|digest| u64::from_str_radix(digest, 16).ok()).collect();
            Some((prefix.to_owned(), kinds?))
        };
        Self(text.lines().filter_map(line).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_agree_that_serve_the_same_or_say_nothing_of_the_same_keys() {
        let (git, files) = (Serves::everywhere("git"), Serves::everywhere("files"));
        assert!(git.agrees(&git) && !git.agrees(&files) && !files.agrees(&git));
        assert!(git.agrees(&Serves::default()) && Serves::default().agrees(&git));
        assert_eq!(Serves::parse(&git.to_text()), git);
    }

    #[test]
    fn a_change_that_goes_from_node_to_node_and_several_sources_can_be_said() {
        let old = Serves::parse("=01");
        let (between, new) = (Serves::parse("=01,02"), Serves::parse("=02"));
        assert!(old.agrees(&between) && between.agrees(&new) && !old.agrees(&new));
        let several = Serves::parse("=01\nfiles/=03");
        assert!(several.agrees(&old) && !several.agrees(&Serves::parse("files/=04")));
        assert_eq!(Serves::parse("nonsense\n=zz\na=b=05"), Serves::parse("a=b=05"));
    }
}
