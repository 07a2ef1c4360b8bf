//! Only copies that an origin did not vouch for lately, and origins that cannot answer. Pure.
//!
//! They are not offered again for a while: otherwise the coldest of them would fill the places of every round, and no other only
//! copy would ever be offered. A single error is the matter of that key; several in a row are that of the origin.

use std::{collections::BTreeMap, time::Duration};

use crate::{key::Key, provider::UpdateError, util::timers::Timers};

/// How long a key is not asked about again that its origin did not vouch for.
const DOUBT: Duration = Duration::from_secs(3600);
/// Keys that are remembered so; beyond, those whose time ends first are forgotten first.
const KEYS_MAX: usize = 65_536;
/// Errors about different keys in a row, without an answer in between, after which the origin is left alone.
const ERRORS_IN_A_ROW: u32 = 3;
/// How long an origin is left alone that could not answer, unless it says itself for how long.
const SILENCE: Duration = Duration::from_secs(60);
const SILENCE_MAX: Duration = Duration::from_secs(3600);
/// Origins with errors that are remembered.
const ORIGINS_MAX: usize = 1024;

/// What is not asked about for now.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// Until when.
    keys: Timers,
    origins: BTreeMap<String, Errors>,
}

#[derive(Debug, Default)]
struct Errors {
    in_a_row: u32,
    silent_until: Duration,
}

impl Doubts {
    /// Takes in what `origin` said of `key`.
    pub(crate) fn answered(
        &mut self,
        now: Duration,
        origin: &str,
        key: &Key,
        answer: &Result<Option<bool>, UpdateError>,
    ) {
        match answer {
            Ok(said) => {
                self.origins.remove(origin);
                if *said != Some(true) {
                    self.doubt(now, key);
                }
            }
            // This says nothing of the key.
            Err(UpdateError::Later { after, .. }) => {
                let errors = self.errors(now, origin);
                errors.silent_until = now + (*after).clamp(SILENCE, SILENCE_MAX);
            }
            Err(_) => {
                self.doubt(now, key);
                let errors = self.errors(now, origin);
                errors.in_a_row += 1;
                if errors.in_a_row >= ERRORS_IN_A_ROW {
                    errors.silent_until = now + SILENCE;
                }
            }
        }
    }

    /// Does not ask about `key` for a while.
    fn doubt(&mut self, now: Duration, key: &Key) {
        self.keys.take_due(now, KEYS_MAX);
        self.keys.set(key, now + DOUBT);
        if self.keys.len() > KEYS_MAX {
            self.keys.take_first();
        }
    }

    /// Whether `key` is not asked about for now.
    pub(crate) fn covers(&self, now: Duration, key: &Key) -> bool {
        self.keys.get(key).is_some_and(|until| now < until)
    }

    /// Whether `origin` is left alone for now.
    pub(crate) fn is_silent(&self, now: Duration, origin: &str) -> bool {
        self.origins.get(origin).is_some_and(|errors| now < errors.silent_until)
    }

    fn errors(&mut self, now: Duration, origin: &str) -> &mut Errors {
        if self.origins.len() >= ORIGINS_MAX && !self.origins.contains_key(origin) {
            self.origins.retain(|_, errors| now < errors.silent_until);
            if self.origins.len() >= ORIGINS_MAX {
                self.origins.pop_first();
            }
        }
        self.origins.entry(origin.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        Key::new(format!("host/{number}")).unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failed() -> Result<Option<bool>, UpdateError> {
        Err(UpdateError::Failed("it answers 500".into()))
    }

    #[test]
    fn a_key_that_its_origin_does_not_vouch_for_leaves_its_place_to_others_for_an_hour() {
        for answer in [Ok(Some(false)), Ok(None), failed()] {
            let mut doubts = Doubts::default();
            doubts.answered(at(5), "host", &key(1), &answer);
            assert!(doubts.covers(at(5), &key(1)) && doubts.covers(at(3604), &key(1)), "{answer:?}");
            assert!(!doubts.covers(at(3605), &key(1)), "{answer:?}");
            assert!(!doubts.covers(at(5), &key(2)) && !doubts.is_silent(at(5), "host"), "{answer:?}");
        }
        let mut doubts = Doubts::default();
        doubts.answered(at(5), "host", &key(1), &Ok(Some(true)));
        assert!(!doubts.covers(at(5), &key(1)));
    }

    #[test]
    fn an_origin_is_left_alone_after_errors_in_a_row_or_when_it_says_so() {
        let mut doubts = Doubts::default();
        for (number, answer) in [failed(), failed(), Ok(Some(true)), failed(), failed()].iter().enumerate() {
            doubts.answered(at(1), "host", &key(number), answer);
            assert!(!doubts.is_silent(at(1), "host"), "an answer lies between the errors");
        }
        doubts.answered(at(1), "host", &key(5), &failed());
        assert!(doubts.is_silent(at(60), "host") && !doubts.is_silent(at(61), "host"));
        assert!(!doubts.is_silent(at(1), "other"));
        let later = Err(UpdateError::Later { after: at(600), reason: "its limit is reached".into() });
        doubts.answered(at(1), "other", &key(6), &later);
        assert!(doubts.is_silent(at(600), "other") && !doubts.covers(at(1), &key(6)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut doubts = Doubts::default();
        for number in 0..KEYS_MAX + 10 {
            doubts.answered(at(1), &format!("host{number}"), &key(number), &failed());
        }
        assert_eq!(doubts.keys.len(), KEYS_MAX);
        assert!((1..=ORIGINS_MAX).contains(&doubts.origins.len()), "{}", doubts.origins.len());
        assert!(doubts.covers(at(1), &key(KEYS_MAX + 9)));
    }
}
