//! The pure core: in which order to try the holders of a key.
//!
//! The first is the better of two drawn at random (Mitzenmacher, "The power of two choices in
//! randomized load balancing", 2001): nearly as even as with all loads known, and requests do not
//! all go to the same best node. The others follow by score. Suspects come last, whatever their
//! score, but they do come: a suspicion may be wrong.

use crate::key::NodeName;

/// What is known of one candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: NodeName,
    /// Whether its last attempts failed.
    pub(crate) suspect: bool,
    /// Usual time to the head of a response, in microseconds; 0 if unknown, which makes it worth a try.
    pub(crate) latency_us: u32,
    /// Requests of ours that it has not answered yet.
    pub(crate) in_flight: u32,
}

impl Candidate {
    /// Lower is better: expected wait if each outstanding request takes the usual time.
    fn score(&self) -> (bool, u64) {
        (self.suspect, u64::from(self.latency_us) * (u64::from(self.in_flight) + 1))
    }
}

/// Orders `candidates` by `draw`, a random number.
pub(crate) fn order(mut candidates: Vec<Candidate>, draw: u64) -> Vec<NodeName> {
    candidates.sort_by(|a, b| (a.score(), &a.name).cmp(&(b.score(), &b.name)));
    let healthy = candidates.iter().filter(|candidate| !candidate.suspect).count();
    if healthy > 1 {
        let count = healthy as u64;
        let one = (draw % count) as usize;
        let other = ((draw / count) % (count - 1)) as usize;
        let other = if other >= one { other + 1 } else { other };
        let first = candidates.remove(one.min(other));
        candidates.insert(0, first);
    }
    candidates.into_iter().map(|candidate| candidate.name).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(name: &str, suspect: bool, latency_us: u32, in_flight: u32) -> Candidate {
        Candidate { name: NodeName::new(name).unwrap(), suspect, latency_us, in_flight }
    }

    #[test]
    fn suspects_are_tried_last_but_tried() {
        let candidates = vec![candidate("a", true, 1, 0), candidate("b", false, 900, 9)];
        let names: Vec<String> = order(candidates, 0).into_iter().map(String::from).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn the_worst_of_three_is_never_first() {
        for draw in 0..100 {
            let candidates =
                vec![candidate("a", false, 10, 0), candidate("b", false, 20, 0), candidate("c", false, 10, 50)];
            assert_ne!(order(candidates, draw)[0].as_str(), "c");
        }
    }

    #[test]
    fn equal_nodes_share_the_load() {
        let firsts = (0..600u64).map(|draw| {
            let candidates = (0..3).map(|n| candidate(&format!("n{n}"), false, 10, 0)).collect();
            order(candidates, draw)[0].clone()
        });
        let ties_go_to_the_earlier_name = firsts.filter(|name| name.as_str() == "n0").count();
        assert!(ties_go_to_the_earlier_name < 500);
    }

    proptest! {
        #[test]
        fn everybody_is_tried_exactly_once(
            loads in proptest::collection::vec((any::<bool>(), any::<u32>(), any::<u32>()), 0..8), draw: u64,
        ) {
            let candidates: Vec<_> = loads.iter().enumerate()
                .map(|(n, (suspect, latency, load))| candidate(&format!("n{n}"), *suspect, *latency, *load)).collect();
            let mut names: Vec<_> = candidates.iter().map(|candidate| candidate.name.clone()).collect();
            let mut ordered = order(candidates, draw);
            names.sort();
            ordered.sort();
            prop_assert_eq!(names, ordered);
        }
    }
}
