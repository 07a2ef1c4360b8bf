//! Keys that have fewer live replicas than was asked for, whether or not there are members that could keep more (pure).

use std::collections::BTreeMap;

use crate::{config::REPLICAS_MAX, key::Key};

/// The keys, each with how many nodes should keep it, counted by that number so that asking costs nothing.
#[derive(Debug, Default)]
pub(super) struct Shortages {
    keys: BTreeMap<Key, u8>,
    by_asked: [usize; REPLICAS_MAX + 1],
}

impl Shortages {
    /// Records how many replicas were asked for of a `key` that lacks some, at most [`REPLICAS_MAX`]; or that it lacks none.
    pub(super) fn note(&mut self, key: &Key, asked: Option<usize>) {
        let before = match asked {
            Some(asked) => {
                let asked = asked.min(REPLICAS_MAX);
                self.by_asked[asked] += 1;
                self.keys.insert(key.clone(), asked as u8)
            }
            None => self.keys.remove(key),
        };
        if let Some(before) = before {
            self.by_asked[usize::from(before)] -= 1;
        }
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// How many nodes should keep the one of them that should be on most; 0 if there is none.
    pub(super) fn most_asked(&self) -> usize {
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
            shortages.note(&key(text), asked);
            (shortages.len(), shortages.most_asked())
        };
        assert_eq!(note("a", None), (0, 0));
        assert_eq!(note("a", Some(2)), (1, 2));
        assert_eq!(note("b", Some(8)), (2, 8));
        assert_eq!(note("b", Some(3)), (2, 3), "it is counted once, as it was asked for last");
        assert_eq!(note("b", None), (1, 2));
        assert_eq!(note("a", None), (0, 0));
    }
}
