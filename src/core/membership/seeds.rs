//! Which of the configured seeds answer, and what a node waits for before it has joined (pure).
//!
//! A node that reaches none of its seeds cannot tell whether the cluster is down or whether it was given the wrong key,
//! address or certificate. It serves what it has, but does not call itself ready, and says what it tried.

use serde::Serialize;

/// Seeds that are named one by one in what a node waits for; a longer list is cut there, not in `status`.
const NAMED_MAX: usize = 4;

/// A configured seed, and how it was found when it was last tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SeedStatus {
    /// `host:port`, as it was configured.
    pub address: String,
    /// Whether it answered and let this node in.
    pub answers: bool,
    /// Why it does not count, in words; nothing if it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why one address of a seed does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// It leads back to the node that asks.
    Itself,
    /// In words.
    Because(String),
}

impl SeedStatus {
    /// A seed of which nothing is known yet.
    pub(crate) fn untried(address: &str) -> Self {
        Self { address: address.to_owned(), answers: false, reason: Some("not tried yet".to_owned()) }
    }

    /// A seed whose name leads nowhere.
    pub(crate) fn unresolved(address: &str, error: &str) -> Self {
        Self { address: address.to_owned(), answers: false, reason: Some(format!("cannot be resolved: {error}")) }
    }

    /// A seed all of whose addresses were tried: one that answers is enough.
    pub(crate) fn tried(address: &str, outcomes: &[Result<(), Unanswered>]) -> Self {
        let reason = if outcomes.iter().any(Result::is_ok) {
            None
        } else if outcomes.contains(&Err(Unanswered::Itself)) {
            Some("it is this node itself".to_owned())
        } else {
            let first = outcomes.iter().find_map(|outcome| match outcome {
                Err(Unanswered::Because(reason)) => Some(reason.clone()),
                _ => None,
            });
            Some(first.unwrap_or_else(|| "cannot be resolved: the name has no address".to_owned()))
        };
        Self { address: address.to_owned(), answers: reason.is_none(), reason }
    }
}

/// What decides whether a node is part of its cluster.
#[derive(Debug)]
pub(crate) struct Joining<'a> {
    /// The seeds that it names.
    pub(crate) seeds: &'a [SeedStatus],
    /// Live members that it sees, itself included.
    pub(crate) alive: usize,
    /// Live members that it waits for.
    pub(crate) expected: usize,
    /// Why others reject its certificate, if they do.
    pub(crate) rejection: Option<String>,
}

impl Joining<'_> {
    /// What the node lacks, in words; nothing if it is part of its cluster.
    pub(crate) fn lacking(&self) -> Vec<String> {
        let Self { seeds, alive, expected, .. } = *self;
        let mut lacking = Vec::new();
        if let Some(rejection) = &self.rejection {
            lacking.push(format!("a certificate that other nodes accept; they reject this node's: {rejection}"));
        }
        if !seeds.is_empty() && alive <= 1 {
            lacking.push(match seeds.iter().any(|seed| seed.answers) {
                true => "a word of the cluster from the seeds that answer".to_owned(),
                false => format!("an answer of a seed; {}", unanswered(seeds)),
            });
        }
        if alive < expected {
            lacking.push(format!("members: {alive} of the {expected} that are expected are alive"));
        }
        lacking
    }
}

fn unanswered(seeds: &[SeedStatus]) -> String {
    let word = |seed: &SeedStatus| format!("{}: {}", seed.address, seed.reason.as_deref().unwrap_or("it answers"));
    let mut words: Vec<String> = seeds.iter().take(NAMED_MAX).map(word).collect();
    let more = seeds.len().saturating_sub(NAMED_MAX);
    words.extend((more > 0).then(|| format!("and {more} more")));
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(seeds: &[SeedStatus], alive: usize, expected: usize) -> String {
        Joining { seeds, alive, expected, rejection: None }.lacking().join("\n")
    }

    fn because(reason: &str) -> Result<(), Unanswered> {
        Err(Unanswered::Because(reason.to_owned()))
    }

    #[test]
    fn one_address_that_answers_is_enough_and_itself_does_not_count() {
        let reason = |outcomes: &[_]| SeedStatus::tried("a:1", outcomes).reason;
        assert_eq!(reason(&[because("no answer"), Ok(())]), None);
        assert_eq!(reason(&[because("no answer"), because("refused")]).unwrap(), "no answer");
        assert_eq!(reason(&[because("no answer"), Err(Unanswered::Itself)]).unwrap(), "it is this node itself");
        assert!(reason(&[]).unwrap().contains("cannot be resolved"));
        assert!(SeedStatus::tried("a:1", &[Ok(())]).answers && !SeedStatus::untried("a:1").answers);
    }

    #[test]
    fn a_node_lacks_something_exactly_until_it_has_joined() {
        for named in 0..3 {
            let seeds: Vec<SeedStatus> = (0..named).map(|port| SeedStatus::untried(&format!("a:{port}"))).collect();
            for (alive, expected) in (0..4).flat_map(|alive| (0..4).map(move |expected| (alive, expected))) {
                let joining = Joining { seeds: &seeds, alive, expected, rejection: None };
                let is_done = (named == 0 || alive > 1) && alive >= expected;
                assert_eq!(joining.lacking().is_empty(), is_done, "{named} {alive} {expected}");
                let rejected = Joining { rejection: Some("it has expired".to_owned()), ..joining };
                assert!(rejected.lacking()[0].contains("it has expired"), "{named} {alive} {expected}");
            }
        }
    }

    #[test]
    fn what_is_lacking_is_said_with_the_reasons_but_not_without_end() {
        let seeds: Vec<SeedStatus> =
            (0..9).map(|port| SeedStatus::tried(&format!("a:{port}"), &[because("no answer")])).collect();
        let said = lacking(&seeds, 1, 3);
        assert!(said.contains("a:0: no answer") && said.contains("and 5 more"), "{said}");
        assert!(said.contains("1 of the 3 that are expected"), "{said}");
        let found = lacking(&[SeedStatus::tried("a:1", &[Ok(())])], 1, 0);
        assert!(!found.contains("a:1"), "a seed that answers is not complained of: {found}");
    }
}
