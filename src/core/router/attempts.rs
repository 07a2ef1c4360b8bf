//! The pure core of one request: which holder to ask next, when to wait, and when to give up.
//!
//! ```text
//!   next(holders) -> Try     ask these, in this order; each answer comes back as `failed` or `not_sent`
//!                 -> Ensure  no holder is left: make a node have the key
//!                 -> Wait    the holders could not be reached; look again after this time
//!                 -> End     nothing that is left can help
//! ```
//!
//! What must hold: every step asks a node, makes a node fetch, lets time pass, or ends the request, so no sequence of
//! failures goes round without progress. A node is asked twice only if it did not answer the first time and the request
//! may be repeated. A node that refused is not asked again. What reached a node is counted and limited for the whole
//! request; what never left this one costs nothing and is tried until the deadline.

use std::time::Duration;

use crate::{
    key::NodeName,
    route_error::{Attempt, AttemptError},
};

/// How often one round may make the cluster look for a holder: once for a cold key, once more if that holder failed.
const ENSURES_MAX: u8 = 2;
/// How often one request may reach nodes that then break off, all rounds together.
const BROKEN_MAX: usize = 8;
/// Pause before holders that could not be reached are tried again: doubled with each round, from 50 ms to 250 ms. Less than
/// a second, so that a link that is back is used at once; more than a turn, so that waiting costs nothing.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// What to do next about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask one of these nodes; more of them if that one fails or is slow. Never empty.
    Try(Vec<NodeName>),
    /// Make a node have the key.
    Ensure,
    /// Let this time pass. Never zero.
    Wait(Duration),
    /// Give up.
    End,
}

/// What a request has been through.
#[derive(Debug)]
pub(crate) struct Attempts {
    /// Nodes that may fail in one round.
    limit: usize,
    /// Nodes that are not asked in this round (again).
    tried: Vec<NodeName>,
    /// The last failure of each node, in the order of their first.
    failed: Vec<Attempt>,
    /// Of these, nodes that gave no answer in this round.
    unanswered: Vec<NodeName>,
    /// Nodes whose failure counts towards `limit`: all that refused, and in this round those that gave no answer.
    spent: usize,
    /// Attempts that reached a node and broke off, in all rounds.
    broken: usize,
    ensures: u8,
    has_ensured: bool,
    rounds: u32,
}

impl Attempts {
    /// A request that was sent to no node, except `broke_off`, which is asked last or never.
    pub(crate) fn new(limit: usize, broke_off: Option<NodeName>) -> Self {
        Self {
            limit,
            tried: broke_off.into_iter().collect(),
            failed: Vec::new(),
            unanswered: Vec::new(),
            spent: 0,
            broken: 0,
            ensures: 0,
            has_ensured: false,
            rounds: 0,
        }
    }

    /// The next step, with these nodes as live holders, in any order. `can_send`: the request is there to be sent.
    pub(crate) fn next(&mut self, holders: Vec<NodeName>, can_send: bool) -> Step {
        if !can_send || self.broken >= BROKEN_MAX {
            return Step::End;
        }
        if self.spent < self.limit {
            let candidates = self.untried(holders);
            if !candidates.is_empty() {
                return Step::Try(candidates);
            }
            if self.ensures < ENSURES_MAX {
                self.ensures += 1;
                self.has_ensured = true;
                return Step::Ensure;
            }
        }
        self.next_round()
    }

    /// Those of `nodes` that were not asked in this round and have not refused.
    pub(crate) fn untried(&self, nodes: Vec<NodeName>) -> Vec<NodeName> {
        nodes.into_iter().filter(|name| !self.tried.contains(name)).collect()
    }

    /// Takes up again the nodes that gave no answer in this round. If there are none, waiting does not help: those that refused
    /// stay refused, and those that gave no answer earlier hold the key no more.
    fn next_round(&mut self) -> Step {
        let unanswered = std::mem::take(&mut self.unanswered);
        if unanswered.is_empty() {
            return Step::End;
        }
        self.tried.retain(|name| !unanswered.contains(name));
        self.spent -= unanswered.len().min(self.spent);
        self.ensures = 0;
        let pause = PAUSE_MIN.saturating_mul(1 << self.rounds.min(8)).min(PAUSE_MAX);
        self.rounds += 1;
        Step::Wait(pause)
    }

    /// Whether one more node may be asked. Those that are still silent do not count: all of them may be cut off.
    pub(crate) fn may_start(&self) -> bool {
        self.spent < self.limit
    }

    /// Whether asking one more node is a second attempt, which the retry budget has to pay for.
    pub(crate) fn is_second(&self, running: usize) -> bool {
        running > 0
            || self.failed.iter().any(|attempt| !matches!(attempt.error, AttemptError::Unreachable(_)))
            || self.broken > 0
    }

    /// `node` is being asked.
    pub(crate) fn started(&mut self, node: NodeName) {
        self.tried.push(node);
    }

    /// `node` was not reached: it cannot have acted on the request.
    pub(crate) fn not_sent(&mut self, node: NodeName, reason: String) {
        self.spent += 1;
        self.unanswered.push(node.clone());
        self.record(node, AttemptError::Unreachable(reason));
    }

    /// `node` gave no response.
    pub(crate) fn failed(&mut self, node: NodeName, error: AttemptError) {
        // A holder that has let the key go says so at once, and more than one may have: a key that is forgotten while a
        // client asks for it is fetched anew.
        self.spent += usize::from(!matches!(error, AttemptError::NotHeld));
        if matches!(error, AttemptError::Unreachable(_)) {
            self.broken += 1;
            self.unanswered.push(node.clone());
        }
        self.record(node, error);
    }

    fn record(&mut self, node: NodeName, error: AttemptError) {
        match self.failed.iter_mut().find(|attempt| attempt.node == node) {
            Some(attempt) => attempt.error = error,
            None => self.failed.push(Attempt { node, error }),
        }
    }

    /// `nodes` have just said that they have the key, whatever they said before. Those that could not be reached in this
    /// round are left out of what is returned.
    pub(crate) fn ensured(&mut self, nodes: Vec<NodeName>) -> Vec<NodeName> {
        let usable: Vec<NodeName> = nodes.into_iter().filter(|node| !self.unanswered.contains(node)).collect();
        self.tried.retain(|node| !usable.contains(node));
        usable
    }

    /// Nodes that gave no answer in this round.
    pub(crate) fn unanswered(&self) -> &[NodeName] {
        &self.unanswered
    }

    /// `nodes`, which gave no answer in this round, can be reached again: the round goes on with them.
    pub(crate) fn reachable_again(&mut self, nodes: &[NodeName]) {
        let before = self.unanswered.len();
        self.unanswered.retain(|node| !nodes.contains(node));
        self.spent = self.spent.saturating_sub(before - self.unanswered.len());
        self.tried.retain(|node| !nodes.contains(node));
    }

    /// Nodes that the node which ensures the key must not take for holders.
    pub(crate) fn tried(&self) -> &[NodeName] {
        &self.tried
    }

    /// Whether a node had to be made to have the key.
    pub(crate) fn has_ensured(&self) -> bool {
        self.has_ensured
    }

    /// What each node answered; with `timed_out`, also those that have not.
    pub(crate) fn into_failures(mut self, timed_out: bool) -> Vec<Attempt> {
        if timed_out {
            for node in std::mem::take(&mut self.tried) {
                if !self.failed.iter().any(|attempt| attempt.node == node) {
                    self.failed.push(Attempt { node, error: AttemptError::Timeout });
                }
            }
        }
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: usize) -> NodeName {
        NodeName::new(format!("n{number}")).unwrap()
    }

    fn unreachable() -> AttemptError {
        AttemptError::Unreachable("gone".into())
    }

    #[test]
    fn a_holder_that_could_not_be_reached_is_tried_again_after_a_pause() {
        let mut attempts = Attempts::new(3, None);
        for round in 0..50 {
            assert_eq!(attempts.next(vec![name(1)], true), Step::Try(vec![name(1)]), "round {round}");
            attempts.started(name(1));
            attempts.not_sent(name(1), "no route".into());
            assert_eq!(attempts.next(vec![name(1)], true), Step::Ensure);
            assert_eq!(attempts.next(vec![name(1)], true), Step::Ensure);
            assert!(matches!(attempts.next(vec![name(1)], true), Step::Wait(pause) if pause <= PAUSE_MAX));
        }
        assert!(!attempts.is_second(0), "nothing was sent, so nothing is sent twice");
    }

    #[test]
    fn a_holder_that_can_be_reached_again_is_tried_before_the_round_ends() {
        let mut attempts = Attempts::new(2, None);
        for number in 1..=2 {
            attempts.started(name(number));
            attempts.not_sent(name(number), "no route".into());
        }
        assert_eq!(attempts.next(vec![name(1), name(2)], true), Step::Wait(PAUSE_MIN));
        for _ in 0..50 {
            attempts.started(name(1));
            attempts.not_sent(name(1), "no route".into());
            assert_eq!(attempts.next(vec![name(1)], true), Step::Ensure);
            attempts.reachable_again(&[name(1)]);
            assert_eq!(attempts.next(vec![name(1)], true), Step::Try(vec![name(1)]));
            attempts.ensures = 0;
        }
        assert!(attempts.may_start());
    }

    #[test]
    fn a_holder_that_refused_is_not_asked_again() {
        let mut attempts = Attempts::new(3, None);
        attempts.started(name(1));
        attempts.failed(name(1), AttemptError::Refused("no".into()));
        for _ in 0..ENSURES_MAX {
            assert_eq!(attempts.next(vec![name(1)], true), Step::Ensure);
        }
        assert_eq!(attempts.next(vec![name(1)], true), Step::End);
    }

    #[test]
    fn a_request_does_not_wait_for_a_node_that_holds_the_key_no_more() {
        let mut attempts = Attempts::new(3, None);
        attempts.started(name(1));
        attempts.not_sent(name(1), "no route".into());
        let mut wait = || loop {
            match attempts.next(vec![name(2)], true) {
                Step::Try(candidates) => {
                    attempts.started(candidates[0].clone());
                    attempts.failed(candidates[0].clone(), AttemptError::Refused("no".into()));
                }
                Step::Ensure => {}
                step => return step,
            }
        };
        assert!(matches!(wait(), Step::Wait(_)), "it may be back in a moment");
        assert_eq!(wait(), Step::End, "node 2 refuses, and node 1 is no holder now");
    }

    #[test]
    fn a_request_whose_body_is_gone_ends() {
        let mut attempts = Attempts::new(3, None);
        attempts.started(name(1));
        attempts.failed(name(1), unreachable());
        assert_eq!(attempts.next(vec![name(2), name(3)], false), Step::End);
    }

    #[test]
    fn holders_that_always_break_off_do_not_keep_a_request_for_ever() {
        let mut attempts = Attempts::new(3, None);
        let mut asked = 0;
        loop {
            match attempts.next(vec![name(1), name(2)], true) {
                Step::Try(candidates) => {
                    asked += 1;
                    attempts.started(candidates[0].clone());
                    attempts.failed(candidates[0].clone(), unreachable());
                }
                Step::End => break,
                Step::Wait(_) | Step::Ensure => {}
            }
        }
        assert_eq!(asked, BROKEN_MAX);
    }

    proptest! {
        /// Whatever happens: no step repeats without progress, and no node is asked again that answered.
        #[test]
        fn every_step_asks_a_node_or_waits_or_ends(
            limit in 1..8usize,
            script in proptest::collection::vec((0..5u8, proptest::collection::vec(0..6usize, 0..6), 0..10u8), 1..200),
        ) {
            let mut attempts = Attempts::new(limit, None);
            let (mut refused, mut steps_without_progress) = (Vec::new(), 0);
            for (outcome, holders, body) in script {
                let mut holders: Vec<NodeName> = holders.into_iter().map(name).collect();
                holders.dedup();
                match attempts.next(holders, body > 0) {
                    Step::Try(candidates) => {
                        steps_without_progress = 0;
                        prop_assert!(!candidates.is_empty());
                        prop_assert!(attempts.may_start(), "a step must be able to start an attempt");
                        let node = candidates[0].clone();
                        prop_assert!(!refused.contains(&node));
                        attempts.started(node.clone());
                        match outcome {
                            0 => attempts.not_sent(node, "no route".into()),
                            1 => attempts.failed(node, unreachable()),
                            2 => attempts.failed(node, AttemptError::NotHeld),
                            _ => {
                                refused.push(node.clone());
                                attempts.failed(node, AttemptError::Refused("no".into()));
                            }
                        }
                    }
                    Step::Wait(pause) => {
                        steps_without_progress = 0;
                        prop_assert!(pause >= PAUSE_MIN && pause <= PAUSE_MAX);
                    }
                    Step::Ensure => {
                        steps_without_progress += 1;
                        prop_assert!(steps_without_progress <= ENSURES_MAX);
                    }
                    Step::End => break,
                }
            }
            prop_assert!(attempts.broken <= BROKEN_MAX);
        }
    }
}
