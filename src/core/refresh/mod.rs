//! Freshness (pure): when a held key is asked for at its origin, by the policy of the settings.

mod schedule;

pub(crate) use self::schedule::Schedule;
