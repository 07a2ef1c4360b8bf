//! Keys that have fewer live replicas than was asked for, whether or not there are members that could keep more (pure).

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use crate::{config::REPLICAS_MAX, key::Key};

/// The keys, each with how many nodes should keep it, counted by that number so that asking costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Shortages {
    keys: BTreeMap<Key, Short>,
    by_asked: [usize; REPLICAS_MAX + 1],
}

/// What is known of a key that lacks replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short {
    /// How many nodes should keep it.
    pub(crate) asked: u8,
    /// When this node found out, by its uptime.
    pub(crate) since: Duration,
}

impl Shortages {
    /// Records how many replicas were asked for of a `key` that lacks some, at most [`REPLICAS_MAX`]; or that it lacks none.
    pub(crate) fn note(&mut self, now: Duration, key: &Key, asked: Option<usize>) {
        let before = self.keys.get(key).copied();
        match asked {
            Some(asked) => {
                let asked = asked.min(REPLICAS_MAX);
                self.by_asked[asked] += 1;
                let since = before.map_or(now, |before| before.since);
                self.keys.insert(key.clone(), Short { asked: asked as u8, since });
            }
            None => drop(self.keys.remove(key)),
        }
        if let Some(before) = before {
            self.by_asked[usize::from(before.asked)] -= 1;
        }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The first of them that begin with `prefix`, in order.
    pub(crate) fn first(&self, prefix: &str, limit: usize) -> Vec<(Key, Short)> {
        let from = self.keys.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let matching = from.take_while(|(key, _)| key.as_str().starts_with(prefix));
        matching.take(limit).map(|(key, short)| (key.clone(), *short)).collect()
    }

    /// How many nodes should keep the one of them that should be on most; 0 if there is none.
    pub(crate) fn most_asked(&self) -> usize {
        self.by_asked.iter().rposition(|keys| *keys > 0).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_is_asked_for_follows_the_keys_that_lack_replicas_now() {
        let key = |text: &str| Key::new(text).unwrap();
        let mut shortages = Shortages::default();
        let mut note = |text: &str, asked| {
            shortages.note(Duration::ZERO, &key(text), asked);
            (shortages.len(), shortages.most_asked())
        };
        assert_eq!(note("a", None), (0, 0));
        assert_eq!(note("a", Some(2)), (1, 2));
        assert_eq!(note("b", Some(8)), (2, 8));
        assert_eq!(note("b", Some(3)), (2, 3), "it is counted once, as it was asked for last");
        assert_eq!(note("b", None), (1, 2));
        assert_eq!(note("a", None), (0, 0));
    }

    #[test]
    fn a_key_lacks_replicas_since_it_was_first_found_to() {
        let key = |text: &str| Key::new(text).unwrap();
        let mut shortages = Shortages::default();
        for (second, text, asked) in [
            (1, "a/x", Some(2)),
            (2, "a/y", Some(3)),
            (3, "b", Some(2)),
            (4, "a/x", Some(4)),
            (5, "b", None),
            (6, "b", Some(2)),
        ] {
            shortages.note(Duration::from_secs(second), &key(text), asked);
        }
        let short = |asked, second| Short { asked, since: Duration::from_secs(second) };
        assert_eq!(shortages.first("a/", 9), [(key("a/x"), short(4, 1)), (key("a/y"), short(3, 2))]);
        assert_eq!(shortages.first("", 1).len(), 1);
        assert_eq!(shortages.first("b", 9), [(key("b"), short(2, 6))]);
    }
}
