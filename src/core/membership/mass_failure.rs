//! The mass-failure brake, pure: when a large share of the members is lost at once, copying their
//! keys onto the few remaining members would do more harm than good. The cause is likelier a
//! switch, a power feed or a bad release than that many broken machines, and a lost member comes
//! back with its disk. So lost members keep their place on the ring, which leaves nothing to
//! repair, until enough of them have returned or their loss no longer counts.
//!
//! It acts on what this node sees, so the smaller side of a partition holds back too.

use std::time::Duration;

/// When to hold back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MassFailurePolicy {
    /// More than this share of the members has to be lost.
    pub(crate) share: f64,
    /// For how long a loss counts.
    pub(crate) pause: Duration,
}

/// A mass failure, during which lost members keep their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MassFailure {
    /// Members that were lost.
    pub(crate) lost: usize,
    /// The lost members and the live ones.
    pub(crate) members: usize,
    /// When the mass failure is over even if no member has returned, on the node's monotonic clock.
    pub(crate) until: Duration,
}

impl MassFailurePolicy {
    /// Whether to hold back at `now`, with this number of live members, and others lost at these
    /// times, in any order.
    pub(crate) fn judge(
        self,
        now: Duration,
        alive: usize,
        losses: impl Iterator<Item = Duration>,
    ) -> Option<MassFailure> {
        let mut losses: Vec<Duration> = losses.filter(|lost| self.is_news(now, *lost)).collect();
        losses.sort();
        let is_mass = |lost: usize| lost as f64 > self.share * (alive + lost) as f64;
        // As the oldest losses become old news one by one: after which of them is the rest no mass failure any more?
        let (_, last) = losses.iter().enumerate().take_while(|(older, _)| is_mass(losses.len() - older)).last()?;
        Some(MassFailure { lost: losses.len(), members: alive + losses.len(), until: *last + self.pause })
    }

    /// Whether a loss at that time still counts.
    pub(crate) fn is_news(self, now: Duration, lost: Duration) -> bool {
        now < lost + self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn judge(now: u64, alive: usize, losses: &[u64]) -> Option<(usize, usize, u64)> {
        let policy = MassFailurePolicy { share: 0.5, pause: at(100) };
        let judged = policy.judge(at(now), alive, losses.iter().map(|lost| at(*lost)));
        judged.map(|brake| (brake.lost, brake.members, brake.until.as_secs()))
    }

    #[test]
    fn more_than_the_share_lost_at_once_is_a_mass_failure() {
        assert_eq!(judge(20, 1, &[12, 10]), Some((2, 3, 110)), "two of three, until the first of them is old news");
        assert_eq!(judge(20, 2, &[10]), None, "one of three is an ordinary failure");
        assert_eq!(judge(20, 1, &[10]), None, "one of two is not more than half");
        assert_eq!(judge(20, 3, &[5, 6, 7, 8]), Some((4, 7, 105)));
    }

    #[test]
    fn members_that_go_one_by_one_are_not_lost_at_once() {
        assert_eq!(judge(300, 1, &[10, 290]), None);
        assert_eq!(judge(110, 1, &[10, 100]), None, "the first is old news by now");
        assert_eq!(judge(109, 1, &[10, 100]), Some((2, 3, 110)));
    }

    #[test]
    fn when_enough_return_it_is_over_at_once() {
        assert_eq!(judge(20, 2, &[12]), None);
        assert_eq!(judge(20, 3, &[]), None);
    }

    #[test]
    fn a_share_of_one_never_holds_back() {
        let policy = MassFailurePolicy { share: 1.0, pause: at(100) };
        assert_eq!(policy.judge(at(20), 1, [at(10); 50].into_iter()), None);
    }
}
