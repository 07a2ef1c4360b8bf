//! How far the others' wall clocks are from this node's (pure).
//!
//! Every member gossips what its clock says, rarely. What arrives is as old as that is rare, plus some rounds of gossip, so a
//! difference is known to about [`TOLD_EVERY`]; only one of more than [`FAR`] is told. Clocks decide nothing but what comes
//! later of two intents, and the age of certificates; but an operator wants to know.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::key::NodeName;

/// How often a node tells its clock.
pub(crate) const TOLD_EVERY: Duration = Duration::from_secs(15);
/// A difference beyond this is told.
pub(crate) const FAR: Duration = Duration::from_secs(60);

/// A member whose wall clock is far from that of the node that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClockDifference {
    /// The member.
    pub node: NodeName,
    /// How far its clock is ahead, in seconds, to about a quarter of a minute; negative if it is behind.
    pub ahead_seconds: i64,
}

/// What each member said last of its clock, and how far that was from this node's when it came.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    told: BTreeMap<NodeName, (u64, i64)>,
}

impl Clocks {
    /// Takes in what live members say, all of them, at `now_ms` of this node's clock. A word that was there before is not
    /// compared again, for it has only become older.
    pub(crate) fn observe(&mut self, now_ms: u64, live: &[(&NodeName, u64)]) {
        self.told.retain(|name, _| live.iter().any(|(other, _)| *other == name));
        for (name, clock) in live {
            if self.told.get(*name).is_none_or(|(before, _)| before != clock) {
                let ahead = i128::from(*clock) - i128::from(now_ms);
                let ahead = ahead.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
                self.told.insert((*name).clone(), (*clock, ahead));
            }
        }
    }

    /// Those that are far away, by name.
    pub(crate) fn far(&self) -> Vec<ClockDifference> {
        let far = |ahead_ms: i64| u128::from(ahead_ms.unsigned_abs()) > FAR.as_millis();
        let members = self.told.iter().filter(|(_, (_, ahead))| far(*ahead));
        members.map(|(node, (_, ahead))| ClockDifference { node: node.clone(), ahead_seconds: ahead / 1000 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn far(clocks: &Clocks) -> Vec<(String, i64)> {
        clocks.far().into_iter().map(|found| (found.node.to_string(), found.ahead_seconds)).collect()
    }

    #[test]
    fn a_clock_is_far_when_it_is_more_than_a_minute_away_either_way() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|text| NodeName::new(text).unwrap());
        let mut clocks = Clocks::default();
        clocks.observe(NOW, &[(&a, NOW + 61_000), (&b, NOW - 3_600_000), (&c, NOW + 59_000), (&d, 0)]);
        assert_eq!(far(&clocks), [("a".into(), 61), ("b".into(), -3_600), ("d".into(), -1_800_000_000)]);
        clocks.observe(NOW, &[(&a, u64::MAX)]);
        assert_eq!(far(&clocks), [("a".into(), i64::MAX / 1000)], "those that are gone are not told of");
    }

    #[test]
    fn what_was_said_long_ago_makes_no_clock_late() {
        let a = NodeName::new("a").unwrap();
        let mut clocks = Clocks::default();
        for later in [0, 30_000, 600_000] {
            clocks.observe(NOW + later, &[(&a, NOW)]);
            assert_eq!(far(&clocks), [], "after {later} ms");
        }
        clocks.observe(NOW + 600_000, &[(&a, NOW + 1)]);
        assert_eq!(far(&clocks), [("a".into(), -599)], "a new word that is late is");
        clocks.observe(NOW + 615_000, &[(&a, NOW + 614_000)]);
        assert_eq!(far(&clocks), [], "and it is good again when the clock was set");
    }
}
